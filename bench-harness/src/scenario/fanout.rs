//! One publication to many: processor time per delivery, against the kernel baseline of the same
//! run.
//!
//! Owns the rows of `fanout`. Never compares across runs. Invariant: kernel baseline and server
//! take turns, each with as many sockets of its own, and the same bytes go to each.

use anyhow::Result;

use super::{Bench, Burst, Common, all, frame_bytes, median};
use crate::baseline::Exchange;
use crate::dense::{Dense, Mode};
use crate::latency::Recorder;
use crate::publish::Api;
use crate::rows::Row;
use crate::server::Server;
use crate::wire::Data;

/// Bytes of data in a publication.
const BYTES: usize = 128;
/// Turns of the kernel baseline and of the server.
const PAIRS: usize = 10;
/// Publications of each turn.
const ROUNDS: u64 = 4;
/// Publications per frame, and number of frames.
const BUNCH: u64 = 10;
const BUNCHES: u64 = 4;
/// Time per delivery in the schedule, in ns: each publication is delivered before the next is due.
const ROOM_NS: u64 = 30_000;

struct FanoutRun {
    baseline: Exchange,
    server: Server,
    dense: Dense,
}

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let mut bench = Bench::new(common, "fanout", "One publication to many", (15_000, 1))?;
    let connections = bench.connections;
    let (baseline, _) = bench.baseline()?;
    let server = bench.server(false)?;
    let port = server.address().port();
    let (dense, _) = bench.connect(connections, port, Mode::Subscribe(all()))?;
    let mut sides = FanoutRun { baseline, server, dense };
    compare(&mut bench, &mut sides)?;
    bunches(&mut bench, &sides)?;
    bench.check_standing(&sides.dense, "during the fan-outs");
    sides.server.stop()?;
    sides.dense.stop()?;
    sides.baseline.stop()?;
    bench.finish()
}

/// Runs the pairs: baseline, server, baseline, server, ...
fn compare(bench: &mut Bench, sides: &mut FanoutRun) -> Result<()> {
    // Warms both sides up: first sends grow buffers.
    by_baseline(bench, sides)?;
    by_server(bench, sides)?;
    let (mut floors, mut costs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut sum: Option<Recorder> = None;
    for _ in 0..PAIRS {
        let floor = by_baseline(bench, sides)?;
        let (cost, recorder) = by_server(bench, sides)?;
        floors.push(floor);
        costs.push(cost);
        ratios.push(cost / floor);
        match &mut sum {
            Some(sum) => sum.merge(recorder)?,
            None => sum = Some(recorder),
        }
    }
    bench.row(Row::new("CPU per send, kernel baseline", median(floors)?, "ns"));
    bench.row(Row::new("CPU per delivery", median(costs)?, "ns"));
    let spread = format!("{ratios:.3?}");
    let row = Row::new("CPU per delivery against the kernel baseline", median(ratios)?, "ratio");
    bench.row(row.at_most(1.05).note(format!("median of {PAIRS} pairs: {spread}")));
    if let Some(sum) = sum {
        bench.series("fan-out", sum);
    }
    Ok(())
}

fn by_baseline(bench: &mut Bench, sides: &mut FanoutRun) -> Result<f64> {
    let before = sides.baseline.sample()?;
    let sent = bench.check(sides.baseline.send(frame_bytes(BYTES), ROUNDS as u32)?);
    sides.baseline.sample()?.since(&before)?.cpu_ns_per(sent.sends)
}

fn by_server(bench: &mut Bench, sides: &FanoutRun) -> Result<(f64, Recorder)> {
    let burst = Burst::to_all(ROUNDS, Data::Filled(BYTES), bench.connections * ROOM_NS);
    let before = sides.server.sample()?;
    let delivered = bench.deliver(&sides.server, &sides.dense, burst)?;
    let used = sides.server.sample()?.since(&before)?;
    let deliveries = delivered.recorder.deliveries.delivered;
    Ok((used.cpu_ns_per(deliveries)?, delivered.recorder))
}

/// Compares ten publications in one frame with ten in a frame each.
fn bunches(bench: &mut Bench, sides: &FanoutRun) -> Result<()> {
    let mut costs = Vec::new();
    for (name, per_frame) in [("single", 1), ("in one frame", BUNCH)] {
        let burst = Burst {
            api: Api::WebSocket,
            publishers: 1,
            channels: all(),
            data: Data::Filled(BYTES),
            messages: BUNCH * BUNCHES,
            interval_ns: bench.connections * ROOM_NS,
            per_frame,
        };
        let before = sides.server.sample()?;
        let delivered = bench.deliver(&sides.server, &sides.dense, burst)?;
        let used = sides.server.sample()?.since(&before)?;
        bench.account(&format!("ten {name}"), &delivered.recorder);
        let cost = used.cpu_ns_per(delivered.recorder.deliveries.delivered)?;
        bench.row(Row::new(format!("CPU per delivery, ten {name}"), cost, "ns"));
        costs.push(cost);
    }
    let row = Row::new("ten in one frame against ten single", costs[1] / costs[0], "ratio");
    bench.row(row.at_most(0.25));
    Ok(())
}
