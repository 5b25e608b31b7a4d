//! One publication to very many subscribers, while probes publish to one subscriber each.
//!
//! Owns the rows of `isolation`. Never mixes the channels of the probes with that of the fan-out.
//! Invariant: probes are due only during a fan-out.

use anyhow::Result;

use super::{Bench, Burst, Common, all};
use crate::dense::Mode;
use crate::publish::{ProbePlan, probe};
use crate::rows::Row;
use crate::wire::Data;

const BYTES: usize = 128;
/// Number of publications to all, one after the other.
const MESSAGES: u64 = 5;
/// Time per delivery in the schedule, in ns: the next publication is due when one is delivered.
const ROOM_NS: u64 = 12_000;
/// Pairs of probes, and their messages per second.
const PAIRS: u64 = 16;
const PROBES_PER_SECOND: u64 = 400;

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let title = "Probes one to one during a fan-out";
    let mut bench = Bench::new(common, "isolation", title, (100_000, 5))?;
    let server = bench.server(false)?;
    let port = server.address().port();
    let (dense, _) = bench.connect(bench.connections, port, Mode::Subscribe(all()))?;
    let probes = |first_ns: u64, for_ns: u64| ProbePlan {
        server: server.address(),
        pairs: PAIRS,
        first_ns,
        per_second: PROBES_PER_SECOND,
        for_ns,
        bytes: BYTES,
    };
    let first_ns = bench.clock.now_ns() + super::LEAD_NS;
    let alone = probe(probes(first_ns, bench.seconds * super::SECOND_NS), bench.clock)?.join()?;
    bench.percentiles("probes alone", &alone.recorder, [0.0; 3])?;
    bench.series("probes alone", alone.recorder);

    let burst = Burst::to_all(MESSAGES, Data::Filled(BYTES), bench.connections * ROOM_NS);
    let lasts_ns = MESSAGES * burst.interval_ns;
    let first_ns = bench.clock.now_ns() + super::LEAD_NS;
    let running = probe(probes(first_ns, lasts_ns), bench.clock)?;
    let delivered = bench.deliver(&server, &dense, burst)?;
    let during = running.join()?;
    bench.percentiles("probes during the fan-out", &during.recorder, [0.0, 20e6, 0.0])?;
    bench.lateness("probes during the fan-out", &during.published)?;
    bench.series("probes during the fan-out", during.recorder);
    let took = delivered.took.as_nanos() as f64;
    bench.row(Row::new(format!("{MESSAGES} publications to all"), took, "ns"));
    bench.series("fan-out", delivered.recorder);
    bench.check_standing(&dense, "during the fan-out");
    server.stop()?;
    dense.stop()?;
    bench.finish()
}
