//! Reconnect storm: all connections are cut and reconnect at once, without and with missed
//! publications to recover.
//!
//! Owns the rows of `storm`. Never restarts the server. Invariant: every connection must receive
//! every publication that was published while all were cut.

use anyhow::Result;

use super::{Bench, Burst, Common, SECOND_NS, all};
use crate::dense::{Dense, Mode};
use crate::publish::{Api, Post};
use crate::rows::Row;
use crate::server::{API_KEY, Server};
use crate::wire::Data;

/// Publications that all connections miss, and bytes of each.
const MISSED: u64 = 10;
const BYTES: usize = 128;
/// Connections that each client ring opens at the same time.
const IN_FLIGHT: u32 = 1024;
/// Highest ratio of the time with missed publications to the time without.
const RATIO: f64 = 1.5;

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let mut common = common.clone();
    common.in_flight = common.in_flight.max(IN_FLIGHT);
    for argument in ["history_size=100", "history_ttl=600s", "force_recovery=true"] {
        common.server_arguments.push(format!("--channel.without_namespace.{argument}"));
    }
    let title = "All connections cut, all back at once";
    let mut bench = Bench::new(&common, "storm", title, (100_000, 1))?;
    let server = bench.server(false)?;
    let port = server.address().port();
    let (mut dense, first) = bench.connect_tracked(port, Mode::Subscribe(all()))?;
    bench.row(Row::new("first connect of all clients", first.took.as_nanos() as f64, "ns"));
    let plain = back(&mut bench, &mut dense, false)?;
    bench.row(Row::new("time to reconnect, nothing missed", plain, "ns"));
    let whole = missed(&mut bench, &server, &mut dense)?;
    bench.row(Row::new(
        format!("time to reconnect and recover {MISSED} publications"),
        whole,
        "ns",
    ));
    let row = Row::new("reconnect with recovery against reconnect without", whole / plain, "ratio");
    bench.row(row.at_most(RATIO));
    bench.check_standing(&dense, "in the storm");
    dense.stop()?;
    server.stop()?;
    bench.finish()
}

/// Cuts all connections and lets them reconnect. Returns the time until the last is subscribed
/// again, in ns.
fn back(bench: &mut Bench, dense: &mut Dense, recovers: bool) -> Result<f64> {
    dense.cut()?;
    let ramp = dense.come_back(recovers)?;
    if ramp.refused > 0 {
        let causes = dense.counters().causes();
        bench.fault(format!("{} connections did not come back: {causes:?}", ramp.refused));
    }
    Ok(ramp.took.as_nanos() as f64)
}

/// Every connection receives one publication, is cut, and misses some.
fn missed(bench: &mut Bench, server: &Server, dense: &mut Dense) -> Result<f64> {
    let seen = bench.deliver(server, dense, Burst::to_all(1, Data::Filled(BYTES), SECOND_NS))?;
    bench.account("before the cut", &seen.recorder);
    dense.cut()?;
    let burst = Burst {
        api: Api::Http(Post::drumline(API_KEY)),
        ..Burst::to_all(MISSED, Data::Filled(BYTES), 1)
    };
    let expected = bench.publish(server, dense, burst)?;
    let ramp = dense.come_back(true)?;
    if ramp.refused > 0 {
        let causes = dense.counters().causes();
        bench.fault(format!("{} connections did not come back: {causes:?}", ramp.refused));
    }
    dense.await_delivered(expected, super::PATIENCE);
    let recorder = dense.finish(expected)?;
    let lost = recorder.deliveries.lost() as f64;
    bench.row(Row::new("missed publications lost", lost, "count").at_most(0.0));
    bench.series("missed publications", recorder);
    Ok(ramp.took.as_nanos() as f64)
}
