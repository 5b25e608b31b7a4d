//! Stalled readers: their cost, and their effect on the other connections.
//!
//! Owns the rows of `slow`. Never lets a stalled connection read, except a few on a channel of
//! their own. Invariant: the latency of probes beside stalled readers is compared with that of the
//! same probes beside as many connections that read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Bench, Burst, Common, SECOND_NS, all};
use crate::account::KernelSample;
use crate::clock::RunClock;
use crate::dense::{Channels, Dense, Mode};
use crate::publish::{Api, Load, ProbePlan, Probed, Running, probe};
use crate::rows::Row;
use crate::server::Server;
use crate::wire::Data;

/// Connections that stall, and read again when the first of them is closed. They are alike, so the
/// server closes all of them within the seconds that a close frame waits for its reader.
const WAKERS: u64 = 10;
/// Messages per second to them, and the maximum number of seconds.
const WAKERS_RATE: u64 = 1_000;
const WAKERS_SECONDS: u64 = 30;
/// Phase number of their messages, which are not counted.
const WAKERS_PHASE: u16 = 901;
const BYTES: usize = 128;
/// Pairs of probes, and their messages per second.
const PAIRS: u64 = 16;
const PROBES_PER_SECOND: u64 = 400;
/// Metrics of connections that the server closed as slow consumers, and of connections that the
/// kernel ended, for example because a peer took no data for TCP_USER_TIMEOUT.
const SLOW: &str = "drumline_slow_total";
const LOST: &str = "drumline_lost_total";
/// Close code of a slow consumer.
const SLOW_CODE: u16 = 3008;
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// Growth of memory since before the load, in bytes.
#[derive(Default)]
struct Peaks {
    user: i64,
    kernel: i64,
    timeline: Vec<String>,
}

/// Flags of `slow`. `--connections` is the number of connections that read.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Number of connections that stall.
    #[arg(long, default_value_t = 1_000)]
    stalled: u64,
    /// Messages per second to all connections.
    #[arg(long, default_value_t = 100)]
    rate: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let &Options { stalled: count, rate, .. } = options;
    ensure!(count > 0 && rate > 0, "--stalled and --rate must be 1 or more");
    let mut bench = Bench::new(&options.common, "slow", "Stalled readers", (500, 120))?;
    bench.parameter("stalled", count);
    bench.parameter("rate", rate);
    let server = bench.server(false)?;
    let port = server.address().port();
    let (reading, _) = bench.connect(bench.connections, port, Mode::Subscribe(all()))?;
    let (alike, _) = bench.connect(count, port, Mode::Subscribe(all()))?;
    let (without, _) = phase(&mut bench, &server, &reading, (rate, false))?;
    alike.stop()?;
    bench.percentiles("probes without stalled readers", &without.recorder, [0.0; 3])?;
    let (stalled, _) = bench.connect(count, port, Mode::Stall(all()))?;
    let lost_before = counter(&server, LOST)?;
    let (with, peaks) = phase(&mut bench, &server, &reading, (rate, true))?;
    bench.percentiles("probes beside stalled readers", &with.recorder, [0.0; 3])?;
    let ratio =
        with.recorder.percentiles()?.p99 as f64 / without.recorder.percentiles()?.p99 as f64;
    bench.row(Row::new("probes' p99 with stalled readers against without", ratio, "ratio"));
    bench.series("probes without stalled readers", without.recorder);
    bench.series("probes beside stalled readers", with.recorder);
    bench.row(Row::new("peak growth of user memory", peaks.user as f64, "bytes"));
    bench.row(Row::new("peak growth of TCP memory", peaks.kernel as f64, "bytes"));
    bench.note(format!("Over time: {}", peaks.timeline.join("; ")));
    let slow = counter(&server, SLOW)?;
    let lost = (counter(&server, LOST)? - lost_before).min(count as f64 - slow);
    let told = format!("{slow} by 3008 ({SLOW}), {lost} by TCP_USER_TIMEOUT ({LOST})");
    let row = Row::new("stalled connections closed", slow + lost, "count");
    bench.row(row.at_least(count as f64).note(told));
    bench.check_standing(&reading, "beside the stalled");
    reading.stop()?;
    stalled.stop()?;
    wake(&mut bench, &server)?;
    server.stop()?;
    bench.finish()
}

fn counter(server: &Server, name: &str) -> Result<f64> {
    server.metric(name, "")?.with_context(|| format!("the server has no metric {name}"))
}

/// Lets a few connections fall behind, and lets them read when the first was closed. Records the
/// close codes that they receive.
fn wake(bench: &mut Bench, server: &Server) -> Result<()> {
    let channels = Channels::Shared("wake".to_owned());
    let mode = Mode::Stall(channels.clone());
    let (wakers, _) = bench.connect(WAKERS, server.address().port(), mode)?;
    let before = counter(server, SLOW)?;
    let load = Load {
        server: server.address(),
        api: Api::WebSocket,
        publishers: 1,
        channels,
        channel_count: 1,
        phase: WAKERS_PHASE,
        data: Data::Filled(BYTES),
        first_ns: bench.clock.now_ns() + super::LEAD_NS,
        interval_ns: SECOND_NS / WAKERS_RATE,
        messages: WAKERS_RATE * WAKERS_SECONDS,
        per_frame: 1,
    };
    let running = load.start(bench.clock)?;
    let begun = std::time::Instant::now();
    while counter(server, SLOW)? == before && begun.elapsed().as_secs() < WAKERS_SECONDS {
        std::thread::sleep(SAMPLE_EVERY);
    }
    wakers.resume()?;
    running.join()?;
    let codes = wakers.counters().codes();
    let seen = codes.get(&SLOW_CODE).copied().unwrap_or(0);
    let row = Row::new("stalled clients that read close code 3008", seen as f64, "count");
    bench.row(row.at_least(1.0).note(format!("by code: {codes:?}, of {WAKERS}")));
    wakers.stop()
}

/// Runs the load of a phase with probes beside it, and samples memory.
fn phase(
    bench: &mut Bench,
    server: &Server,
    reading: &Dense,
    (rate, stalled): (u64, bool),
) -> Result<(Probed, Peaks)> {
    let seconds = if stalled { bench.seconds } else { bench.seconds.div_ceil(4) };
    let probes = start_probes(bench.clock, server, seconds)?;
    let burst = Burst {
        api: Api::WebSocket,
        publishers: 1,
        channels: all(),
        data: Data::Filled(BYTES),
        messages: rate * seconds,
        interval_ns: SECOND_NS / rate,
        per_frame: 1,
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (delivered, peaks) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(server, &stop));
        let delivered = bench.deliver(server, reading, burst);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (delivered, watcher.join())
    });
    let peaks = peaks.map_err(|_| anyhow::anyhow!("the memory's watcher panicked"))??;
    let name = if stalled { "readers beside stalled readers" } else { "readers" };
    bench.series(name, delivered?.recorder);
    Ok((probes.join()?, peaks))
}

fn start_probes(clock: RunClock, server: &Server, seconds: u64) -> Result<Running<Probed>> {
    let probes = ProbePlan {
        server: server.address(),
        pairs: PAIRS,
        first_ns: clock.now_ns() + super::LEAD_NS,
        per_second: PROBES_PER_SECOND,
        for_ns: seconds * SECOND_NS,
        bytes: BYTES,
    };
    probe(probes, clock)
}

/// Samples memory until the phase ends.
fn watch(server: &Server, stop: &std::sync::atomic::AtomicBool) -> Result<Peaks> {
    let (user, kernel) = (server.sample()?, KernelSample::now()?);
    let mut peaks = Peaks::default();
    let mut samples = 0u64;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        std::thread::sleep(SAMPLE_EVERY);
        let grown = server.sample()?.since(&user)?.rss_anon;
        let tcp = KernelSample::now()?.since(&kernel).tcp_mem;
        peaks.user = peaks.user.max(grown);
        peaks.kernel = peaks.kernel.max(tcp);
        samples += 1;
        if samples.is_multiple_of(50) {
            let second = samples * SAMPLE_EVERY.as_millis() as u64 / 1000;
            let line = format!("{second} s: user {} KiB, TCP {} KiB", grown / 1024, tcp / 1024);
            peaks.timeline.push(line);
        }
    }
    Ok(peaks)
}
