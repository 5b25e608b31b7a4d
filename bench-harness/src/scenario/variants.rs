//! One publication to many in each encoding: processor time a delivery, in the same run.
//!
//! Owns the rows of `variants`. Never mixes encodings in a channel. Invariant: the subscribers of
//! each encoding are as many, on the same server, and take turns.

use anyhow::Result;
use drumline::protocol::Wire;

use super::{Bench, Burst, Common, median};
use crate::dense::{Channels, Dense, Mode};
use crate::dialect::Identified;
use crate::rows::Row;
use crate::server::Server;

/// Bytes of data in a publication.
const BYTES: usize = 128;
/// Times that the encodings take turns, and publications of each turn.
const PAIRS: usize = 10;
const ROUNDS: u64 = 4;
/// Time for a delivery in the schedule, in ns: so that a publication is through before the next.
const ROOM_NS: u64 = 30_000;
/// Protobuf may cost so many times as much as JSON.
const RATIO: f64 = 1.10;

const JSON: &Identified = &Identified { wire: Wire::Json };
const PROTOBUF: &Identified = &Identified { wire: Wire::Protobuf };

struct Side {
    dense: Dense,
    channel: &'static str,
}

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let title = "One publication to many, by encoding";
    let mut bench = Bench::new(common, "variants", title, (15_000, 1))?;
    let server = bench.server_with(false, &[Identified::server_argument()])?;
    let json = side(&mut bench, &server, JSON, "json")?;
    let protobuf = side(&mut bench, &server, PROTOBUF, "protobuf")?;
    // Both once beforehand: first sends grow buffers.
    for side in [&json, &protobuf] {
        cost(&mut bench, &server, side)?;
    }
    let (mut costs, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..PAIRS {
        let pair = [cost(&mut bench, &server, &json)?, cost(&mut bench, &server, &protobuf)?];
        ratios.push(pair[1] / pair[0]);
        costs.iter_mut().zip(pair).for_each(|(costs, one)| costs.push(one));
    }
    for (name, costs) in ["JSON", "protobuf"].into_iter().zip(costs) {
        bench.row(Row::new(format!("CPU a delivery, {name}"), median(costs)?, "ns"));
    }
    let spread = format!("median of {PAIRS} pairs: {ratios:.3?}");
    let row = Row::new("protobuf against JSON", median(ratios)?, "ratio");
    bench.row(row.at_most(RATIO).note(spread));
    for side in [json, protobuf] {
        bench.check_standing(&side.dense, "during the fan-outs");
        side.dense.stop()?;
    }
    server.stop()?;
    bench.finish()
}

fn side(
    bench: &mut Bench,
    server: &Server,
    dialect: &'static Identified,
    channel: &'static str,
) -> Result<Side> {
    let mode = Mode::Subscribe(Channels::Shared(channel.to_owned()));
    let port = server.address().port();
    let (dense, _) = bench.connect_as(dialect, bench.connections, port, mode)?;
    Ok(Side { dense, channel })
}

fn cost(bench: &mut Bench, server: &Server, side: &Side) -> Result<f64> {
    let burst = Burst {
        channels: Channels::Shared(side.channel.to_owned()),
        ..Burst::to_all(ROUNDS, BYTES, bench.connections * ROOM_NS)
    };
    let before = server.sample()?;
    let delivered = bench.deliver(server, &side.dense, burst)?;
    let used = server.sample()?.since(&before)?;
    used.cpu_ns_per(delivered.recorder.deliveries.delivered)
}
