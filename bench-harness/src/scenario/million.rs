//! A million connections on one machine, or as many as `--connections` says.
//!
//! Owns the rows of `million` and the order of its stages. Never reuses a server between stages: a
//! connection is on one channel, so each kind of channel has its own ramp. Invariant: before the
//! server, the kernel baseline holds as many sockets of the same client.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::kernel_baseline::PING_BYTES;
use super::{Bench, Burst, Common, SECOND_NS, all, frame_bytes, memory, slab_growth, used};
use crate::account::{KernelSample, per_connection};
use crate::dense::{Channels, Dense, Mode};
use crate::namespace;
use crate::publish::Api;
use crate::rows::Row;
use crate::server::{PING_SECONDS, Server};
use crate::wire::Data;

/// Bytes of data in the broadcast and in the messages at a rate.
const BROADCAST_BYTES: usize = 128;
const BYTES: usize = 512;
/// Deliveries per second at a million connections.
const DELIVERIES: f64 = 16_667.0;
const MILLION: f64 = 1e6;
/// Members of a room, and publishers.
const ROOM: u64 = 100;
const PUBLISHERS: u64 = 16;
/// Target of the time until a million connections are up, in ns.
const UP_NS: f64 = 100e9;
/// Target of the kernel memory per connection above the bare accepted socket, in bytes.
const KERNEL_BYTES: f64 = 350.0;

/// Parts of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// One channel for all: memory, idle without pongs, a broadcast.
    Shared,
    /// Idle with pongs.
    Pong,
    /// Rooms of a hundred.
    Rooms,
    /// A channel each.
    Unicast,
}

/// Flags of `million`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Stages to run after the kernel baseline.
    #[arg(long, value_enum, value_delimiter = ',')]
    #[arg(default_values_t = Stage::value_variants().to_vec())]
    stages: Vec<Stage>,
    /// Stay in the present network namespace. By default the run makes one with a larger table of
    /// TCP connections, if it may.
    #[arg(long)]
    no_namespace: bool,
    /// Seconds between two pings of a connection.
    #[arg(long, default_value_t = PING_SECONDS, value_parser = clap::value_parser!(u64).range(2..))]
    ping_seconds: u64,
}

/// The cost of the bare kernel.
struct Floor {
    slab: f64,
    broadcast_ns: f64,
    /// Processor time of one ping, in ns.
    ping_cpu_ns: f64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let title = "A million connections on one box";
    let mut bench = Bench::new(&options.common, "million", title, (1_000_000, 60))?;
    bench.ping_seconds = options.ping_seconds;
    let pings = [Stage::Shared, Stage::Pong].iter().any(|stage| options.stages.contains(stage));
    ensure!(
        !pings || bench.seconds >= options.ping_seconds,
        "--seconds is less than --ping-seconds, so not every connection would get a ping"
    );
    if !options.no_namespace {
        bench.note(namespace::enter_if_permitted());
    }
    let quiet = KernelSample::now()?;
    let floor = baseline(&mut bench, &quiet)?;
    for stage in &options.stages {
        bench.settle(&quiet)?;
        eprintln!("stage {stage:?}");
        match stage {
            Stage::Shared => shared(&mut bench, &floor, &quiet)?,
            Stage::Pong => pong(&mut bench, &floor)?,
            Stage::Rooms => rooms(&mut bench)?,
            Stage::Unicast => unicast(&mut bench)?,
        }
    }
    bench.finish()
}

/// The bare kernel with the same client: memory, a broadcast, pings.
fn baseline(bench: &mut Bench, quiet: &KernelSample) -> Result<Floor> {
    let (mut baseline, ramp) = bench.baseline()?;
    bench.row(Row::new(
        "kernel baseline: time to all connected",
        ramp.took.as_nanos() as f64,
        "ns",
    ));
    let slab = per_connection(slab_growth(quiet)?, ramp.up)?;
    bench.row(Row::new("kernel baseline: slab per connection, both ends", slab, "bytes"));
    let bytes = frame_bytes(BROADCAST_BYTES);
    let begun = bench.clock.now_ns();
    let outcome = baseline.send(bytes, 1)?;
    let broadcast_ns = (bench.clock.now_ns() - begun) as f64;
    bench.check(outcome);
    bench.row(Row::new("kernel baseline: one broadcast", broadcast_ns, "ns"));
    let rate = bench.connections.div_ceil(bench.ping_seconds);
    let before = baseline.sample()?;
    let sent = bench.check(baseline.rate(rate, bench.seconds, PING_BYTES)?);
    let cpu = baseline.sample()?.since(&before)?;
    let ping_cpu_ns = cpu.cpu_ns_per(sent.sends)?;
    let cores = cpu.cores(bench.seconds * SECOND_NS)?;
    bench.row(Row::new(
        format!("kernel baseline: cores for {rate} pings per second"),
        cores,
        "cores",
    ));
    baseline.stop()?;
    Ok(Floor { slab, broadcast_ns, ping_cpu_ns })
}

fn shared(bench: &mut Bench, floor: &Floor, quiet: &KernelSample) -> Result<()> {
    let server = bench.server(false)?;
    let (dense, ramp, slab) = memory::measure(bench, &server, "shared", all(), quiet)?;
    // Smaller runs have less time in proportion.
    let target = UP_NS * bench.connections as f64 / MILLION;
    let up = Row::new("time to all up", ramp.took.as_nanos() as f64, "ns");
    bench.row(up.at_most(target));
    bench.row(Row::new("connections refused", ramp.refused as f64, "count").at_most(0.0));
    let above =
        Row::new("slab per connection above the kernel baseline", slab - floor.slab, "bytes");
    bench.row(above.at_most(KERNEL_BYTES));
    idle(bench, &server, &dense, floor, ("pong off", 1.15))?;
    let burst = Burst::to_all(1, Data::Filled(BROADCAST_BYTES), SECOND_NS);
    let delivered = bench.deliver(&server, &dense, burst)?;
    let took = delivered.took.as_nanos() as f64;
    bench.row(Row::new("one broadcast", took, "ns"));
    bench.row(Row::new(
        "one broadcast against the kernel baseline",
        took / floor.broadcast_ns,
        "ratio",
    ));
    bench.series("broadcast", delivered.recorder);
    end(bench, server, dense, "shared")
}

fn pong(bench: &mut Bench, floor: &Floor) -> Result<()> {
    let server = bench.server(true)?;
    let mode = Mode::Subscribe(all());
    let (dense, _) = bench.connect(bench.connections, server.address().port(), mode)?;
    idle(bench, &server, &dense, floor, ("pong on", 2.5))?;
    end(bench, server, dense, "pong")
}

/// Measures pings alone.
fn idle(
    bench: &mut Bench,
    server: &Server,
    dense: &Dense,
    floor: &Floor,
    (name, target): (&str, f64),
) -> Result<()> {
    let pings = || dense.counters().pings();
    // Every connection's first ping comes within one interval.
    std::thread::sleep(Duration::from_secs(bench.ping_seconds + 1));
    let (lost, before) = (dense.counters().lost(), pings());
    let time = Duration::from_secs(bench.seconds);
    let cpu = used(
        || server.sample(),
        || {
            std::thread::sleep(time);
            Ok(())
        },
    )?;
    let (came, lost) = (pings() - before, dense.counters().lost() - lost);
    let cores = cpu.cores(bench.seconds * SECOND_NS)?;
    bench.row(Row::new(format!("idle, {name}: cores"), cores, "cores"));
    let due = bench.connections * bench.seconds / bench.ping_seconds;
    if came < due / 2 {
        bench.fault(format!("idle, {name}: {came} pings came, and about {due} were due"));
    }
    let ratio = cpu.cpu_ns as f64 / came.max(1) as f64 / floor.ping_cpu_ns;
    let note = format!("{came} pings received in {} s, about {due} expected", bench.seconds);
    let row =
        Row::new(format!("idle, {name}: CPU per ping against the kernel baseline"), ratio, "ratio");
    bench.row(row.at_most(target).note(note));
    bench.row(Row::new(format!("idle, {name}: lost"), lost as f64, "count").at_most(0.0));
    Ok(())
}

/// Deliveries per second for this many connections.
fn rate(bench: &Bench) -> f64 {
    DELIVERIES * bench.connections as f64 / MILLION
}

fn rooms(bench: &mut Bench) -> Result<()> {
    let channels = Channels::Rooms((bench.connections / ROOM).max(1));
    let per_second = rate(bench) / ROOM as f64;
    at_rate(bench, "rooms", channels, per_second, [3e6, 20e6, 0.0])
}

fn unicast(bench: &mut Bench) -> Result<()> {
    let per_second = rate(bench);
    at_rate(bench, "unicast", Channels::Distinct, per_second, [300e3, 8e6, 60e6])
}

fn at_rate(
    bench: &mut Bench,
    name: &str,
    channels: Channels,
    per_second: f64,
    targets: [f64; 3],
) -> Result<()> {
    let server = bench.server(false)?;
    let mode = Mode::Subscribe(channels.clone());
    let (dense, _) = bench.connect(bench.connections, server.address().port(), mode)?;
    let interval_ns = (SECOND_NS as f64 / per_second) as u64;
    let burst = |seconds: u64| Burst {
        api: Api::WebSocket,
        publishers: PUBLISHERS,
        channels: channels.clone(),
        data: Data::Filled(BYTES),
        messages: (seconds * SECOND_NS / interval_ns).max(1),
        interval_ns,
        per_frame: 1,
    };
    let warm = bench.deliver(&server, &dense, burst(2))?;
    bench.account(&format!("{name}, warm-up"), &warm.recorder);
    let before = server.sample()?;
    let delivered = bench.deliver(&server, &dense, burst(bench.seconds))?;
    let cpu = server.sample()?.since(&before)?;
    bench.percentiles(name, &delivered.recorder, targets)?;
    let cost = cpu.cpu_ns_per(delivered.recorder.deliveries.delivered)?;
    bench.row(Row::new(format!("{name}: CPU per delivery"), cost, "ns"));
    bench.lateness(name, &delivered.published)?;
    bench.series(name, delivered.recorder);
    end(bench, server, dense, name)
}

fn end(bench: &mut Bench, server: Server, dense: Dense, stage: &str) -> Result<()> {
    bench.check_standing(&dense, &format!("in stage {stage}"));
    let stray = dense.counters().stray.load(std::sync::atomic::Ordering::Relaxed);
    if stray > 0 {
        bench.fault(format!("{stage}: {stray} deliveries that were not expected"));
    }
    dense.stop()?;
    server.stop()
}
