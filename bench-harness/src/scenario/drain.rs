//! Graceful shutdown under load: SIGTERM while publications flow.
//!
//! Owns the rows of `drain`. Never ends a connection itself. Invariant: every connection that was
//! up is counted by the close code that it received.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Bench, Common, SECOND_NS, all};
use crate::dense::Mode;
use crate::publish::{Api, Load};
use crate::rows::Row;
use crate::wire::Data;

/// Time over which the closes are spread, in seconds.
const SPREAD: u64 = 5;
/// The server may take this much longer: the 5 s that it gives a peer to close, since these clients
/// wait for the server to close, and one second more.
const SLACK_NS: f64 = 6e9;
/// Publications per second to all connections, and bytes of each.
const RATE: u64 = 10;
const BYTES: usize = 128;
/// The close code of a server that shuts down.
const SHUTDOWN: u16 = 3001;

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let mut bench = Bench::new(common, "drain", "Graceful shutdown under load", (10_000, 3))?;
    bench.spread_seconds = SPREAD;
    let server = bench.server(false)?;
    let mode = Mode::Subscribe(all());
    let (dense, ramp) = bench.connect(bench.connections, server.address().port(), mode)?;
    dense.begin(1)?;
    let load = Load {
        server: server.address(),
        api: Api::WebSocket,
        publishers: 1,
        channels: all(),
        channel_count: 1,
        phase: 1,
        data: Data::Filled(BYTES),
        first_ns: bench.clock.now_ns() + super::LEAD_NS,
        interval_ns: SECOND_NS / RATE,
        messages: RATE * (bench.seconds + 2 * SPREAD),
        per_frame: 1,
    };
    let publishers = load.start(bench.clock)?;
    std::thread::sleep(Duration::from_secs(bench.seconds));
    let begun = Instant::now();
    server.stop()?;
    let took = begun.elapsed().as_nanos() as f64;
    let row = Row::new("from SIGTERM to exit 0", took, "ns");
    bench.row(row.at_most((SPREAD * SECOND_NS) as f64 + SLACK_NS));
    // The server closes the publisher too, so the publisher's error is expected.
    let _ = publishers.join();
    std::thread::sleep(Duration::from_millis(500));
    let codes = dense.counters().codes();
    let closed = codes.get(&SHUTDOWN).copied().unwrap_or(0);
    let row = Row::new(format!("connections that saw {SHUTDOWN}"), closed as f64, "count");
    bench.row(row.at_least(ramp.up as f64).note(format!("by code: {codes:?}")));
    let delivered = dense.finish(0)?.deliveries.delivered;
    bench.row(Row::new("deliveries until the end", delivered as f64, "count"));
    dense.stop()?;
    bench.finish()
}
