//! Memory of a connection: with one channel for all, and with a channel each.
//!
//! Owns the rows of `memory`. Never publishes. Invariant: the fixed part at no connections and the
//! slope are told apart.

use anyhow::Result;
use drumline::protocol::Wire;

use super::{Bench, Common, all, slab_growth};
use crate::account::{KernelSample, ProcessSample, per_connection};
use crate::dense::{Channels, Dense, Mode, Ramp};
use crate::dialect::Identified;
use crate::rows::Row;
use crate::server::Server;

/// Bytes that a process may take at no connections: so much, and so much a shard.
const FIXED_BYTES: f64 = 64.0 * 1_048_576.0;
const FIXED_BYTES_A_SHARD: f64 = 2.0 * 1_048_576.0;
/// Bytes a connection: on a shared channel, and on one of its own.
const SHARED_BYTES: f64 = 200.0;
const DISTINCT_BYTES: f64 = 450.0;
/// With a user of its own, on a shared channel with recovery.
const IDENTIFIED_BYTES: f64 = 300.0;
/// A member of a channel that knows who is there.
const MEMBER_BYTES: f64 = 120.0;
const RECOVERY: [&str; 3] = ["history_size=100", "history_ttl=600s", "force_recovery=true"];
const IDENTIFIED: [(&str, &Identified); 2] = [
    ("token, JSON", &Identified { wire: Wire::Json }),
    ("token, protobuf", &Identified { wire: Wire::Protobuf }),
];

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let mut bench = Bench::new(common, "memory", "Memory a connection", (100_000, 1))?;
    let quiet = KernelSample::now()?;
    for (name, channels) in [("shared", all()), ("distinct", Channels::Distinct)] {
        let server = bench.server(false)?;
        let (dense, _, _) = measure(&mut bench, &server, name, channels, &quiet)?;
        bench.check_standing(&dense, "while idle");
        server.stop()?;
        dense.stop()?;
        bench.settle(&quiet)?;
    }
    let mut plain = 0.0;
    for (name, dialect) in IDENTIFIED {
        let bytes = identified(&mut bench, dialect, false, &quiet)?;
        let row = Row::new(format!("{name}: user memory a connection"), bytes, "bytes");
        bench.row(row.at_most(IDENTIFIED_BYTES).note("users all different, recovery on"));
        if dialect.wire == Wire::Json {
            plain = bytes;
        }
    }
    let (_, dialect) = IDENTIFIED[0];
    let present = identified(&mut bench, dialect, true, &quiet)?;
    let row = Row::new("presence: user memory a member", present - plain, "bytes");
    bench.row(row.at_most(MEMBER_BYTES).note("one channel; beyond the same without presence"));
    bench.finish()
}

/// Everybody a user of its own, on a shared channel that may be recovered; user memory of each.
fn identified(
    bench: &mut Bench,
    dialect: &'static Identified,
    presence: bool,
    quiet: &KernelSample,
) -> Result<f64> {
    let mut arguments: Vec<String> =
        RECOVERY.iter().map(|one| format!("--channel.without_namespace.{one}")).collect();
    arguments.push(format!("--channel.without_namespace.presence={presence}"));
    arguments.push(Identified::server_argument());
    let server = bench.server_with(false, &arguments)?;
    let empty = server.sample()?;
    let (port, mode) = (server.address().port(), Mode::Subscribe(all()));
    let (dense, ramp) = bench.connect_as(dialect, bench.connections, port, mode)?;
    let slope = per_connection(server.sample()?.since(&empty)?.rss_anon, ramp.up)?;
    bench.check_standing(&dense, "while idle");
    server.stop()?;
    dense.stop()?;
    bench.settle(quiet)?;
    Ok(slope)
}

/// Connects all and adds the rows of user memory. Answers slab a connection too.
pub fn measure(
    bench: &mut Bench,
    server: &Server,
    name: &str,
    channels: Channels,
    quiet: &KernelSample,
) -> Result<(Dense, Ramp, f64)> {
    let target = if channels == Channels::Distinct { DISTINCT_BYTES } else { SHARED_BYTES };
    let empty = server.sample()?;
    let fixed_target = FIXED_BYTES + FIXED_BYTES_A_SHARD * f64::from(bench.shards);
    let fixed = Row::new(format!("{name}: fixed memory"), empty.rss_anon as f64, "bytes");
    bench.row(fixed.at_most(fixed_target).note("RssAnon at no connections"));
    let port = server.address().port();
    let (dense, ramp) = bench.connect(bench.connections, port, Mode::Subscribe(channels))?;
    let full: ProcessSample = server.sample()?;
    let slope = per_connection(full.since(&empty)?.rss_anon, ramp.up)?;
    let row = Row::new(format!("{name}: user memory a connection"), slope, "bytes");
    bench.row(row.at_most(target).note("growth of RssAnon divided by connections"));
    let slab = per_connection(slab_growth(quiet)?, ramp.up)?;
    let row = Row::new(format!("{name}: slab a connection, both ends"), slab, "bytes");
    bench.row(row);
    Ok((dense, ramp, slab))
}
