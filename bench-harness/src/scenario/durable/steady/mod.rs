//! Durable publications at half the maximum for ten minutes: the longest time without one.
//!
//! Owns the rows of `durable-steady`. Never changes the rate. Invariant: a time without an
//! acknowledgement is reported with what the store did then.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drumline::wire::protocol::Wire;

use self::paced::Paced;
use self::watch::{Watch, describe};
use super::bare_log;
use super::closed_loop::{Side, turn};
use super::node::StoreFlags;
use super::talk::{Interface, Talk};
use crate::namespace;
use crate::progress::Progress;
use crate::rows::{Row, value};
use crate::scenario::{Bench, SECOND_NS};
use crate::server::Server;

mod paced;
mod watch;

/// Publications that a channel keeps: few, so that every publication removes one.
const KEPT: u64 = 100;
/// Channels, and connections that publish.
const CHANNELS: u64 = 1_000;
const CONNECTIONS: usize = 256;
/// Publishers and time of each measurement of the maximum.
const PUBLISHERS: u64 = 64;
const MAXIMUM: Duration = Duration::from_secs(5);
/// Time of the measurement of the bare disk.
const PROBE: Duration = Duration::from_secs(10);
/// Share of the maximum.
const SHARE: f64 = 0.5;
/// Longest wait for the last acknowledgements.
const PATIENCE_NS: u64 = 30 * SECOND_NS;
/// The interfaces whose maximum is measured.
const INTERFACES: [Interface; 3] =
    [Interface::WebSocket(Wire::Protobuf), Interface::WebSocket(Wire::Json), Interface::Http];

/// Flags of `durable-steady`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    store: StoreFlags,
    /// Publications per second. By default half of the maximum, which is measured first.
    #[arg(long)]
    rate: Option<f64>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let title = "Durable publications at half the maximum";
    let mut bench = Bench::new(&options.store.common, "durable-steady", title, (1, 600))?;
    bench.parameter("in_memory", options.store.in_memory);
    bench.note(namespace::enter_if_permitted());
    let folder = options.store.folder()?;
    let store = folder.sub("store")?;
    let bare = bare_log::append(&folder.path().join("bare"), 1.0, PROBE, bench.clock)?;
    let bare = bare.recorder.percentiles()?;
    bench.row(Row::new("fdatasync of 128 bytes: p99", bare.p99 as f64, "ns"));
    bench.row(Row::new("fdatasync of 128 bytes: longest in 10 s", bare.max as f64, "ns"));
    let server = bench.server_with(false, &options.store.arguments(&store, KEPT))?;
    let (interface, maximum) = maximum(&bench, &server)?;
    bench.row(Row::new("maximum: acknowledged per second", maximum, "count"));
    let rate = options.rate.unwrap_or(maximum * SHARE);
    ensure!(rate >= 1.0, "--rate must be 1 or more");
    let watch = Watch::start(server.pid(), server.control(), &store, bench.clock)?;
    let paced = publish(&bench, &server, interface, rate)?;
    let looks = watch.stop()?;
    let percentiles = paced.recorder.percentiles()?;
    bench.row(Row::new("publications per second", rate, "count"));
    bench.percentiles("acknowledgement", &paced.recorder, [0.0; 3])?;
    bench.row(Row::new("acknowledgement: longest", percentiles.max as f64, "ns"));
    let mut longest = paced.silences.longest().iter();
    let first = longest.next().context("no publication was acknowledged")?;
    let cause = describe(&looks, first.from_ns, first.to_ns)?;
    let what = "longest time without an acknowledgement";
    bench.row(Row::new(what, first.length() as f64, "ns").note(cause));
    for silence in longest {
        let cause = describe(&looks, silence.from_ns, silence.to_ns)?;
        let at = silence.from_ns.saturating_sub(looks.first().map_or(0, |look| look.at_ns));
        let (length, at) = (value(silence.length() as f64, "ns"), value(at as f64, "ns"));
        bench.note(format!("{length} without an acknowledgement after {at}: {cause}"));
    }
    bench.series("time from when a publication is due to its acknowledgement", paced.recorder);
    server.stop()?;
    bench.finish()
}

/// The fastest interface and its acknowledgements per second in a closed loop.
fn maximum(bench: &Bench, server: &Server) -> Result<(Interface, f64)> {
    let mut best = None;
    for interface in INTERFACES {
        let turned = turn(Side::Drumline(server), interface, PUBLISHERS, MAXIMUM, bench.clock)?;
        if best.is_none_or(|(_, rate)| turned.rate() > rate) {
            best = Some((interface, turned.rate()));
        }
    }
    best.context("no interface was measured")
}

/// Publishes at a steady rate and waits for all acknowledgements.
fn publish(bench: &Bench, server: &Server, interface: Interface, rate: f64) -> Result<Paced> {
    let first_ns = bench.clock.now_ns() + SECOND_NS;
    let sizes = (CONNECTIONS, CHANNELS);
    let paced = Paced::new(interface, sizes, (rate, bench.seconds), first_ns, bench.clock)?;
    let interfaces = [interface; CONNECTIONS];
    let mut talk = Talk::open(server.address(), &interfaces, paced, bench.clock)?;
    let progress = Progress::new("publications", (rate * bench.seconds as f64) as u64);
    while let Some(due_ns) = talk.load.next_due_ns() {
        talk.turn(bench.clock.until(due_ns))?;
        talk.send_idle()?;
        progress.set(talk.load.sent());
    }
    let end_ns = bench.clock.now_ns() + PATIENCE_NS;
    while talk.outstanding() > 0 && bench.clock.now_ns() < end_ns {
        talk.turn(Duration::from_millis(10))?;
    }
    progress.finish(talk.load.sent());
    Ok(talk.load)
}
