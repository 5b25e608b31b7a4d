//! The kernel baseline by itself: memory of an accepted socket, processor time of a send.
//!
//! Owns the rows of `kernel-baseline`. Never starts a server. Invariant: the client receives every
//! byte that the kernel took, or the run has a fault.

use anyhow::Result;

use super::{Bench, Common, frame_bytes, slab_growth};
use crate::account::{KernelSample, per_connection};
use crate::rows::Row;
use crate::server::PING_SECONDS;

/// Bytes of a ping frame.
pub const PING_BYTES: usize = 4;
/// Sends to each socket for one row.
const ROUNDS: u32 = 10;

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let mut bench = Bench::new(common, "kernel-baseline", "The kernel baseline", (15_000, 10))?;
    let connections = bench.connections;
    let before = KernelSample::now()?;
    let (mut exchange, ramp) = bench.baseline()?;
    let slab = slab_growth(&before)?;
    bench.row(Row::new("time to all connected", ramp.took.as_nanos() as f64, "ns"));
    bench.row(
        Row::new("slab per connection, both ends", per_connection(slab, ramp.up)?, "bytes")
            .note("a bare accepted socket, and the client's with its poll"),
    );
    for bytes in [frame_bytes(128), frame_bytes(512)] {
        let before = exchange.sample()?;
        let sent = bench.check(exchange.send(bytes, ROUNDS)?);
        let used = exchange.sample()?.since(&before)?;
        let what = format!("CPU per send of {bytes} bytes");
        bench.row(Row::new(what, used.cpu_ns_per(sent.sends)?, "ns"));
    }
    let rate = connections.div_ceil(PING_SECONDS);
    let before = exchange.sample()?;
    let sent = bench.check(exchange.rate(rate, bench.seconds, PING_BYTES)?);
    let used = exchange.sample()?.since(&before)?;
    let what = format!("cores for {rate} pings per second");
    bench.row(Row::new(what, used.cores(sent.wall_ns)?, "cores"));
    bench.check_standing(exchange.client(), "by the kernel baseline");
    exchange.stop()?;
    bench.finish()
}
