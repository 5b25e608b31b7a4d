//! The bare kernel by itself: memory of an accepted socket, processor time of a send.
//!
//! Owns the rows of `kernel-baseline`. Never starts a server. Invariant: what is sent is received to the
//! byte, or it is a fault.

use anyhow::Result;

use super::{Bench, Common, PATIENCE, frame_bytes, slab_growth};
use crate::account::{KernelSample, per_connection};
use crate::dense::Mode;
use crate::rows::Row;

/// Bytes of a ping frame.
pub const PING_BYTES: usize = 4;
/// Pings come every so many seconds.
pub const PING_SECONDS: u64 = 25;

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let mut bench = Bench::new(common, "kernel-baseline", "The kernel baseline", (15_000, 10))?;
    let connections = bench.connections;
    let before = KernelSample::now()?;
    let (mut baseline, port) = bench.baseline()?;
    let (dense, ramp) = bench.connect(connections, port, Mode::Raw)?;
    let slab = slab_growth(&before)?;
    bench.row(Row::new("time to all connected", ramp.took.as_nanos() as f64, "ns"));
    bench.row(
        Row::new("slab per connection, both ends", per_connection(slab, ramp.up)?, "bytes")
            .note("a bare accepted socket, and the client's with its poll"),
    );
    let mut received = 0;
    for bytes in [frame_bytes(128), frame_bytes(512)] {
        let before = baseline.sample()?;
        let sent = baseline.send(bytes, 10)?;
        let used = baseline.sample()?.since(&before)?;
        received += sent.sends * bytes as u64;
        check(&mut bench, &dense, received, sent.short);
        let what = format!("CPU per send of {bytes} bytes");
        bench.row(Row::new(what, used.cpu_ns_per(sent.sends)?, "ns"));
    }
    let rate = connections.div_ceil(PING_SECONDS);
    let before = baseline.sample()?;
    let sent = baseline.rate(rate, bench.seconds, PING_BYTES)?;
    let used = baseline.sample()?.since(&before)?;
    received += sent.sends * PING_BYTES as u64;
    check(&mut bench, &dense, received, sent.short);
    let what = format!("cores for {rate} pings per second");
    bench.row(Row::new(what, used.cores(sent.wall_ns)?, "cores"));
    dense.stop()?;
    baseline.stop()?;
    bench.finish()
}

fn check(bench: &mut Bench, dense: &crate::dense::Dense, bytes: u64, short: u64) {
    let received = dense.await_bytes(bytes, PATIENCE);
    if received != bytes || short > 0 {
        bench.fault(format!("{bytes} bytes sent, {received} received, {short} sends short"));
    }
}
