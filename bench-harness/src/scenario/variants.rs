//! One publication to many in each format on the wire: processor time per delivery in one run.
//!
//! Owns the rows of `variants`. Never mixes variants in a channel. Invariant: each variant has as
//! many subscribers on the same server, gets the same documents, and is measured in turn.

use anyhow::{Result, ensure};
use drumline::wire::protocol::Wire;

use super::{Bench, Burst, Common, median};
use crate::dense::{Channels, Dense, Mode};
use crate::dialect::{Dialect, Identified, Packed, Packing};
use crate::rows::Row;
use crate::server::Server;
use crate::wire::Data;

/// Rounds of all variants, and publications per turn.
const TURNS: usize = 10;
const ROUNDS: u64 = 4;
/// Time per delivery in the schedule, in ns: each publication is delivered before the next is due.
const ROOM_NS: u64 = 30_000;
/// Highest ratio of a variant's cost to that of the first.
const RATIO: f64 = 1.10;
/// Server arguments that enable all variants, and deltas of every publication.
const ARGUMENTS: [&str; 5] = [
    "--websocket.compression",
    "--channel.without_namespace.history_size=10",
    "--channel.without_namespace.history_ttl=600s",
    "--channel.without_namespace.allowed_delta_types=fossil",
    "--channel.without_namespace.delta_publish",
];

struct Variant {
    name: &'static str,
    dialect: &'static dyn Dialect,
}

/// The variants. Plain JSON is first: the others are compared with it.
const VARIANTS: [Variant; 4] = [
    Variant { name: "JSON", dialect: &Identified { wire: Wire::Json } },
    Variant { name: "protobuf", dialect: &Identified { wire: Wire::Protobuf } },
    Variant { name: "delta", dialect: &Packed { packing: Packing::Delta } },
    Variant { name: "deflate", dialect: &Packed { packing: Packing::Deflate } },
];

struct VariantRun {
    variant: &'static Variant,
    dense: Dense,
    costs: Vec<f64>,
}

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let title = "One publication to many, by variant";
    let mut bench = Bench::new(common, "variants", title, (7_500, 1))?;
    bench.note(
        "connections: this many per variant, on one channel per variant; the data are quotes \
             of a share",
    );
    let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
    arguments.push(Identified::server_argument());
    let server = bench.server_with(false, &arguments)?;
    let mut sides = Vec::new();
    for variant in &VARIANTS {
        sides.push(side(&mut bench, &server, variant)?);
    }
    // Warms all variants up: first sends grow buffers, and a first publication is never a delta.
    for side in &sides {
        cost(&mut bench, &server, side)?;
    }
    let before: Vec<u64> = sides.iter().map(|side| side.dense.counters().packed()).collect();
    for _ in 0..TURNS {
        for side in &mut sides {
            let cost = cost(&mut bench, &server, side)?;
            side.costs.push(cost);
        }
    }
    for (side, before) in sides.iter().zip(before) {
        check_packed(&mut bench, side, before);
        let name = side.variant.name;
        bench.row(Row::new(format!("CPU per delivery, {name}"), median(side.costs.clone())?, "ns"));
    }
    for side in &sides[1..] {
        bench.row(ratio(&sides[0], side)?);
    }
    for side in sides {
        bench.check_standing(&side.dense, "during the fan-outs");
        side.dense.stop()?;
    }
    server.stop()?;
    bench.finish()
}

fn side(bench: &mut Bench, server: &Server, variant: &'static Variant) -> Result<VariantRun> {
    let mode = Mode::Subscribe(channel(variant));
    let port = server.address().port();
    let (dense, ramp) = bench.connect_as(variant.dialect, bench.connections, port, mode)?;
    let causes = || dense.counters().causes();
    ensure!(ramp.up > 0, "no client subscribed with {}: {:?}", variant.name, causes());
    Ok(VariantRun { variant, dense, costs: Vec::new() })
}

fn channel(variant: &Variant) -> Channels {
    Channels::Shared(variant.name.to_lowercase())
}

fn cost(bench: &mut Bench, server: &Server, side: &VariantRun) -> Result<f64> {
    let burst = Burst {
        channels: channel(side.variant),
        ..Burst::to_all(ROUNDS, Data::Quote, bench.connections * ROOM_NS)
    };
    let before = server.sample()?;
    let delivered = bench.deliver(server, &side.dense, burst)?;
    let used = server.sample()?.since(&before)?;
    used.cpu_ns_per(delivered.recorder.deliveries.delivered)
}

/// Records a fault if a variant's deliveries came uncompressed and without delta.
fn check_packed(bench: &mut Bench, side: &VariantRun, before: u64) {
    let wanted = match side.variant.dialect.packing() {
        Some(_) => side.dense.connections() * ROUNDS * TURNS as u64,
        None => 0,
    };
    let packed = side.dense.counters().packed() - before;
    if packed != wanted {
        let name = side.variant.name;
        bench.fault(format!("{name}: {packed} publications came packed instead of {wanted}"));
    }
}

/// The median of a variant's ratios to plain JSON, turn by turn.
fn ratio(plain: &VariantRun, side: &VariantRun) -> Result<Row> {
    let ratios: Vec<f64> =
        side.costs.iter().zip(&plain.costs).map(|(cost, plain)| cost / plain).collect();
    let what = format!("{} against {}", side.variant.name, plain.variant.name);
    let spread = format!("median of {} pairs: {ratios:.3?}", ratios.len());
    Ok(Row::new(what, median(ratios)?, "ratio").at_most(RATIO).note(spread))
}
