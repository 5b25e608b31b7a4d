//! One publication to one: latency at a steady rate among idle connections.
//!
//! Owns the rows of `latency`. Never publishes by anything but HTTP. Invariant: latency counts
//! from the scheduled time, so a slow answer of the API is part of it.

use anyhow::Result;

use super::{Bench, Burst, Common, SECOND_NS};
use crate::dense::{Channels, Mode};
use crate::publish::Api;
use crate::server::API_KEY;

/// Publications a second.
const RATE: u64 = 2_000;
/// Kept-alive connections that publish.
const PUBLISHERS: u64 = 8;
const BYTES: usize = 128;

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let title = "One publication to one subscriber";
    let mut bench = Bench::new(common, "latency", title, (15_000, 30))?;
    let server = bench.server(false)?;
    let mode = Mode::Subscribe(Channels::Distinct);
    let (dense, _) = bench.connect(bench.connections, server.address().port(), mode)?;
    let burst = |seconds: u64| Burst {
        api: Api::Http(API_KEY.to_owned()),
        publishers: PUBLISHERS,
        channels: Channels::Distinct,
        bytes: BYTES,
        messages: RATE * seconds,
        interval_ns: SECOND_NS / RATE,
        per_frame: 1,
    };
    let warm = bench.deliver(&server, &dense, burst(1))?;
    bench.account("warm-up", &warm.recorder);
    let delivered = bench.deliver(&server, &dense, burst(bench.seconds))?;
    bench.percentiles("delivery", &delivered.recorder, [150e3, 2e6, 0.0])?;
    bench.lateness("delivery", &delivered.published)?;
    bench.series("drumline", delivered.recorder);
    bench.check_standing(&dense, "at the rate");
    server.stop()?;
    dense.stop()?;
    bench.finish()
}
