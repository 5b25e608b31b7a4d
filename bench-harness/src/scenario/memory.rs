//! Memory per connection: with one shared channel, with a channel each, by each transport, and in a
//! channel with presence.
//!
//! Owns the rows of `memory`. Never publishes. Invariant: the fixed memory without connections and
//! the memory per connection are separate rows.

use anyhow::Result;
use drumline::wire::protocol::Wire;

use super::{Bench, Common, all, median, slab_growth};
use crate::account::{KernelSample, ProcessSample, per_connection};
use crate::dense::{Channels, Dense, Mode, Ramp};
use crate::dialect::{Dialect, Identified, Streamed};
use crate::publish::Churn;
use crate::rows::{Row, number};
use crate::server::Server;

/// Bytes that a process may take without connections, whatever its number of shards.
const FIXED_BYTES: f64 = 16.0 * 1_048_576.0;
/// Bytes per connection on a shared channel, and on a channel of its own.
const SHARED_BYTES: f64 = 200.0;
const DISTINCT_BYTES: f64 = 450.0;
/// Bytes per connection with a user of its own, on a shared channel with recovery.
const IDENTIFIED_BYTES: f64 = 300.0;
/// Bytes per member of a channel with presence.
const MEMBER_BYTES: f64 = 120.0;
/// Bytes per connection of an HTTP emulation (SSE, http_stream).
const STREAMED_BYTES: f64 = 400.0;
const RECOVERY: [&str; 3] = ["history_size=100", "history_ttl=600s", "force_recovery=true"];
const JSON: &Identified = &Identified { wire: Wire::Json };
const PROTOBUF: &Identified = &Identified { wire: Wire::Protobuf };
const STREAMED: [(&str, &Streamed); 2] =
    [("http_stream", &Streamed::HttpStream), ("sse", &Streamed::Sse)];
/// A join and a leave are measured among all members, and among one of this many.
const FEWER: u64 = 100;
/// Highest ratio of the cost of a join and a leave among all members to that among the few. If the
/// cost were a + b n for n members, b would be at most a / 98,000 with 100,000 members: 0.2 ns per
/// member with 20 us for a, too little to look at each member. The rest of the ratio allows for
/// caches that the few fit into and all do not.
const CHURN_RATIO: f64 = 2.0;
/// Clients that join and leave, frames of each in a round, and rounds.
const CHURNERS: u64 = 8;
const CHURN_FRAMES: u64 = 25;
const CHURN_ROUNDS: usize = 7;

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let mut bench = Bench::new(common, "memory", "Memory per connection", (100_000, 1))?;
    let quiet = KernelSample::now()?;
    for (name, channels) in [("shared", all()), ("distinct", Channels::Distinct)] {
        let server = bench.server(false)?;
        let (dense, _, _) = measure(&mut bench, &server, name, channels, &quiet)?;
        bench.check_standing(&dense, "while idle");
        server.stop()?;
        dense.stop()?;
        bench.settle(&quiet)?;
    }
    let plain = identified(&mut bench, ("token, JSON", JSON, IDENTIFIED_BYTES), &[], &quiet)?;
    identified(&mut bench, ("token, protobuf", PROTOBUF, IDENTIFIED_BYTES), &[], &quiet)?;
    for (name, dialect) in STREAMED {
        let arguments = [dialect.server_argument()];
        identified(&mut bench, (name, dialect, STREAMED_BYTES), &arguments, &quiet)?;
    }
    presence(&mut bench, plain, &quiet)?;
    bench.finish()
}

/// Connects clients with a user each to a shared channel with recovery. Adds the row of user memory
/// and returns its value.
fn identified(
    bench: &mut Bench,
    (name, dialect, target): (&str, &'static dyn Dialect, f64),
    arguments: &[String],
    quiet: &KernelSample,
) -> Result<f64> {
    let standing = Standing::start(bench, dialect, bench.connections, arguments)?;
    let bytes = standing.bytes;
    let row = Row::new(format!("{name}: user memory per connection"), bytes, "bytes");
    bench.row(row.at_most(target).note("every user is different, recovery is on"));
    standing.stop(bench)?;
    bench.settle(quiet)?;
    Ok(bytes)
}

/// A channel with presence: memory per member beyond `plain`, and the cost of a join and a leave
/// among few and among all members.
fn presence(bench: &mut Bench, plain: f64, quiet: &KernelSample) -> Result<()> {
    let arguments = ["--channel.without_namespace.presence".to_owned()];
    let mut costs = Vec::new();
    for members in [(bench.connections / FEWER).max(1), bench.connections] {
        let standing = Standing::start(bench, JSON, members, &arguments)?;
        if members == bench.connections {
            let bytes = standing.bytes - plain;
            let row = Row::new("presence: user memory per member", bytes, "bytes");
            bench.row(
                row.at_most(MEMBER_BYTES).note("growth beyond the same load without presence"),
            );
        }
        let cost = standing.churn()?;
        let among = number(members as f64);
        bench.row(Row::new(format!("presence: CPU of a join and leave among {among}"), cost, "ns"));
        costs.push(cost);
        standing.stop(bench)?;
        bench.settle(quiet)?;
    }
    let row = Row::new(
        "presence: CPU of a join and leave, among all members against a hundredth of them",
        costs[1] / costs[0],
        "ratio",
    );
    bench.row(row.at_most(CHURN_RATIO));
    Ok(())
}

/// A server and its idle subscribers, with a user each, on a shared channel.
struct Standing {
    server: Server,
    dense: Dense,
    /// User memory of each.
    bytes: f64,
}

impl Standing {
    fn start(
        bench: &mut Bench,
        dialect: &'static dyn Dialect,
        connections: u64,
        more: &[String],
    ) -> Result<Self> {
        let mut arguments: Vec<String> =
            RECOVERY.iter().map(|one| format!("--channel.without_namespace.{one}")).collect();
        arguments.push(Identified::server_argument());
        arguments.extend_from_slice(more);
        let server = bench.server_with(false, &arguments)?;
        let empty = server.sample()?;
        let (port, mode) = (server.address().port(), Mode::Subscribe(all()));
        let (dense, ramp) = bench.connect_as(dialect, connections, port, mode)?;
        let bytes = per_connection(server.sample()?.since(&empty)?.rss_anon, ramp.up)?;
        Ok(Standing { server, dense, bytes })
    }

    /// The server's processor time for a join and a leave, in ns: the median of the rounds.
    fn churn(&self) -> Result<f64> {
        let churn = Churn {
            server: self.server.address(),
            channel: all().nth(0),
            clients: CHURNERS,
            frames: CHURN_FRAMES,
        };
        let mut costs = Vec::new();
        for _ in 0..CHURN_ROUNDS {
            let before = self.server.sample()?;
            churn.clone().start()?.join()?;
            costs.push(self.server.sample()?.since(&before)?.cpu_ns_per(churn.joins())?);
        }
        median(costs)
    }

    fn stop(self, bench: &mut Bench) -> Result<()> {
        bench.check_standing(&self.dense, "while idle");
        self.server.stop()?;
        self.dense.stop()
    }
}

/// Connects all clients and adds the rows of user memory. Returns the slab per connection too.
pub fn measure(
    bench: &mut Bench,
    server: &Server,
    name: &str,
    channels: Channels,
    quiet: &KernelSample,
) -> Result<(Dense, Ramp, f64)> {
    let target = if channels == Channels::Distinct { DISTINCT_BYTES } else { SHARED_BYTES };
    let empty = server.sample()?;
    let fixed = Row::new(format!("{name}: fixed memory"), empty.rss_anon as f64, "bytes");
    bench.row(fixed.at_most(FIXED_BYTES).note("RssAnon without connections"));
    let port = server.address().port();
    let (dense, ramp) = bench.connect(bench.connections, port, Mode::Subscribe(channels))?;
    let full: ProcessSample = server.sample()?;
    let slope = per_connection(full.since(&empty)?.rss_anon, ramp.up)?;
    let row = Row::new(format!("{name}: user memory per connection"), slope, "bytes");
    bench.row(row.at_most(target).note("growth of RssAnon divided by connections"));
    let slab = per_connection(slab_growth(quiet)?, ramp.up)?;
    let row = Row::new(format!("{name}: slab per connection, both ends"), slab, "bytes");
    bench.row(row);
    Ok((dense, ramp, slab))
}
