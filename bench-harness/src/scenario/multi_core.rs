//! More processors: one and two shards are measured, 16 and 64 processors calculated by a model.
//!
//! Owns the rows of `multi-core` and the model. Never presents a calculated number as measured.
//! Invariant: the model uses only the measured rows of the same run.

use anyhow::Result;

use super::{Bench, Burst, Common, SECOND_NS, all, used};
use crate::dense::{Channels, Mode};
use crate::publish::{Api, Post};
use crate::rows::Row;
use crate::server::API_KEY;
use crate::wire::Data;

const BYTES: usize = 128;
/// Publications to all, and of one to one, in a measured phase.
const BROADCASTS: u64 = 40;
const BROADCAST_INTERVAL: u64 = SECOND_NS / 4;
const SINGLES_PER_SECOND: u64 = 2_000;
/// Numbers of processors for the model.
const MODELLED: [u64; 2] = [16, 64];

/// Processor time on the server, in ns.
struct Cost {
    /// Of one delivery of a publication to all.
    delivery: f64,
    /// Of one publication to one, its delivery included.
    single: f64,
}

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let title = "One shard, two shards, and a model of more";
    let mut bench = Bench::new(common, "multi-core", title, (15_000, 10))?;
    let one = measure(&mut bench, 1)?;
    let two = measure(&mut bench, 2)?;
    // With two shards half of the publications have their home on the other shard, and so have
    // half of the subscribers: on average one hop more.
    let hop = (two.single - one.single).max(0.0);
    bench.row(Row::new("CPU of a hop between shards", hop, "ns").note(
        "what a publication to one costs more on two shards than on one; 0 where it costs less",
    ));
    for processors in MODELLED {
        model(&mut bench, processors, &two, hop);
    }
    bench.note(
        "The rows named model are reckoned from the measured ones of this run: every processor \
         delivers by itself, a publication to all costs one hop a shard, and one to one costs \
         two hops. They leave out what the machine's memory and network would take.",
    );
    bench.finish()
}

fn measure(bench: &mut Bench, shards: u32) -> Result<Cost> {
    bench.shards = shards;
    let name = if shards == 1 { "1 shard" } else { "2 shards" };
    let server = bench.server(false)?;
    let port = server.address().port();
    let (dense, _) = bench.connect(bench.connections, port, Mode::Subscribe(all()))?;
    let burst = Burst::to_all(BROADCASTS, Data::Filled(BYTES), BROADCAST_INTERVAL);
    let before = server.sample()?;
    let delivered = bench.deliver(&server, &dense, burst)?;
    let cpu = server.sample()?.since(&before)?;
    let delivery = cpu.cpu_ns_per(delivered.recorder.deliveries.delivered)?;
    bench.row(Row::new(format!("{name}: CPU per delivery to all"), delivery, "ns"));
    bench.account(&format!("{name}, to all"), &delivered.recorder);
    dense.stop()?;
    server.stop()?;
    let single = singles(bench, name)?;
    Ok(Cost { delivery, single })
}

/// Publications of one to one among as many connections, a channel each.
fn singles(bench: &mut Bench, name: &str) -> Result<f64> {
    let server = bench.server(false)?;
    let port = server.address().port();
    let mode = Mode::Subscribe(Channels::Distinct);
    let (dense, _) = bench.connect(bench.connections, port, mode)?;
    let burst = Burst {
        api: Api::Http(Post::drumline(API_KEY)),
        publishers: 8,
        channels: Channels::Distinct,
        data: Data::Filled(BYTES),
        messages: SINGLES_PER_SECOND * bench.seconds,
        interval_ns: SECOND_NS / SINGLES_PER_SECOND,
        per_frame: 1,
    };
    let mut delivered = None;
    let cpu = used(
        || server.sample(),
        || {
            delivered = Some(bench.deliver(&server, &dense, burst)?);
            Ok(())
        },
    )?;
    let messages = SINGLES_PER_SECOND * bench.seconds;
    let single = cpu.cpu_ns_per(messages)?;
    bench.row(Row::new(format!("{name}: CPU per publication to one"), single, "ns"));
    if let Some(delivered) = delivered {
        bench.series(&format!("{name}, to one"), delivered.recorder);
    }
    dense.stop()?;
    server.stop()?;
    Ok(single)
}

/// Adds the calculated rows for machines with one shard per processor.
fn model(bench: &mut Bench, processors: u64, cost: &Cost, hop: f64) {
    let cores = processors as f64;
    let members = bench.connections as f64 * cores;
    let publication = members * cost.delivery + cores * hop;
    let deliveries = cores * 1e9 * members / publication;
    let name = format!("model, {processors} processors");
    bench.row(
        Row::new(format!("{name}: deliveries per second to all"), deliveries, "count")
            .note("a model, not a measurement"),
    );
    let singles = cores * 1e9 / (cost.single + hop);
    bench.row(
        Row::new(format!("{name}: publications per second to one"), singles, "count")
            .note("a model, not a measurement"),
    );
}
