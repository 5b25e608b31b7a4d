//! One publication to one subscriber: latency at a steady rate among idle connections, or at rising
//! rates until it exceeds a limit.
//!
//! Owns the rows of `latency` and of its sweep. Publishes by HTTP only. Invariant: latency counts
//! from the scheduled time, so a slow answer of the API is part of it.

use anyhow::{Result, ensure};

use super::{Bench, Burst, Common, SECOND_NS};
use crate::dense::{Channels, Dense, Mode};
use crate::publish::{Api, Post};
use crate::rows::Row;
use crate::server::{API_KEY, Server};
use crate::wire::Data;

/// Publications per second.
const RATE: u64 = 2_000;
/// Kept-alive connections that publish.
const PUBLISHERS: u64 = 8;
const BYTES: usize = 128;
/// Factor between two rates of a sweep.
const RISE: f64 = 1.5;
/// Highest share of the publishers' lateness in the latency. Above it the rate measures the
/// publishers and not the server.
const LATE: f64 = 0.5;

/// Flags of `latency`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Find the knee: raise the rate until the 99th percentile exceeds --limit-ms.
    #[arg(long)]
    sweep: bool,
    /// First rate of the sweep, in publications per second.
    #[arg(long, default_value_t = 500)]
    from: u64,
    /// 99th percentile that ends the sweep, in ms.
    #[arg(long, default_value_t = 20)]
    limit_ms: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    if options.sweep { sweep(options) } else { steady(&options.common) }
}

fn steady(common: &Common) -> Result<()> {
    let title = "One publication to one subscriber";
    let mut bench = Bench::new(common, "latency", title, (15_000, 30))?;
    let (server, dense) = start(&mut bench)?;
    let delivered = bench.deliver(&server, &dense, burst(RATE, bench.seconds))?;
    bench.percentiles("delivery", &delivered.recorder, [150e3, 2e6, 0.0])?;
    bench.lateness("delivery", &delivered.published)?;
    bench.series("drumline", delivered.recorder);
    bench.check_standing(&dense, "at the rate");
    server.stop()?;
    dense.stop()?;
    bench.finish()
}

/// Measures rising rates, one histogram each. The last one within the limit is the knee.
fn sweep(options: &Options) -> Result<()> {
    let limit_ns = options.limit_ms * 1_000_000;
    ensure!(options.from > 0 && limit_ns > 0, "--from and --limit-ms must be above 0");
    let title = "One publication to one subscriber, up to the knee";
    let mut bench = Bench::new(&options.common, "latency-sweep", title, (15_000, 10))?;
    let (server, dense) = start(&mut bench)?;
    let (mut rate, mut knee) = (options.from, 0);
    loop {
        let delivered = bench.deliver(&server, &dense, burst(rate, bench.seconds))?;
        let latency = delivered.recorder.percentiles()?;
        let late = delivered.published.lateness.percentiles()?;
        let name = format!("{rate} per second");
        let own = late.p99 as f64 > LATE * latency.p99 as f64;
        let mark = if own { "the latency includes the lateness of the publishers: " } else { "" };
        let told = format!("{mark}publishers' lateness at p99 {} us", late.p99 / 1000);
        bench.row(Row::new(format!("{name}: p50"), latency.p50 as f64, "ns"));
        bench.row(Row::new(format!("{name}: p99"), latency.p99 as f64, "ns").note(told));
        bench.series(&name, delivered.recorder);
        if latency.p99 > limit_ns {
            break;
        }
        knee = rate;
        rate = (rate as f64 * RISE) as u64;
    }
    let row = Row::new("knee", knee as f64, "count");
    bench.row(row.note(format!("publications per second with p99 within {} ms", options.limit_ms)));
    bench.check_standing(&dense, "during the sweep");
    server.stop()?;
    dense.stop()?;
    bench.finish()
}

/// Starts a server with a channel for each connection and warms it up.
fn start(bench: &mut Bench) -> Result<(Server, Dense)> {
    let server = bench.server(false)?;
    let mode = Mode::Subscribe(Channels::Distinct);
    let (dense, _) = bench.connect(bench.connections, server.address().port(), mode)?;
    let warm = bench.deliver(&server, &dense, burst(RATE, 1))?;
    bench.account("warm-up", &warm.recorder);
    Ok((server, dense))
}

fn burst(rate: u64, seconds: u64) -> Burst {
    Burst {
        api: Api::Http(Post::drumline(API_KEY)),
        publishers: PUBLISHERS,
        channels: Channels::Distinct,
        data: Data::Filled(BYTES),
        messages: rate * seconds,
        interval_ns: SECOND_NS / rate,
        per_frame: 1,
    }
}
