//! Idle connections: their memory, and the cost of keeping them alive.
//!
//! Owns the numbers of `idle`, `idle-distinct` and `pings`. Never publishes. Invariant: only
//! pings that the client has received count, whatever interval the target was configured with.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::quantities::{CONNECTS, CPU_PINGS, FIXED, KERNEL, PINGS, SLOPE, USER};
use super::scenarios::{PING_WINDOW, Scenario};
use super::turn::{Empty, SETTLE, Turn, slab};
use crate::account::{ProcessSample, per_connection};
use crate::dense::Ramp;

/// The slope is measured from this fraction of the connections to all of them.
pub(super) const PART: u32 = 3;
/// Error when memory cannot be measured.
const NO_PSS: &str = "/proc/PID/smaps_rollup may not be read: run as root";

/// Memory when the first connections were up.
pub(super) struct Early {
    ramp: Ramp,
    user: ProcessSample,
}

impl Turn<'_> {
    /// Connects the first connections, samples memory, and lets the others follow.
    pub(super) fn early(&mut self) -> Result<Early> {
        let ramp = self.dense.ramp()?;
        self.up(ramp)?;
        std::thread::sleep(SETTLE);
        let user = self.peer.sample()?;
        self.dense.open_rest()?;
        Ok(Early { ramp, user })
    }

    /// Memory, and connects per second; the slope only with an earlier sample.
    pub(super) fn idle(
        &mut self,
        scenario: Scenario,
        ramp: Ramp,
        early: Option<&Early>,
        empty: &Empty,
    ) -> Result<()> {
        std::thread::sleep(SETTLE);
        let now = self.peer.sample()?;
        let user = now.since(&empty.user)?.pss.context(NO_PSS)?;
        let before = early.map_or(Duration::ZERO, |early| early.ramp.took);
        let fixed = empty.user.pss.unwrap_or(empty.user.rss_anon) as f64;
        let values = [
            (USER, per_connection(user, ramp.up)?),
            (KERNEL, per_connection(slab()? - empty.kernel, ramp.up)?),
            (CONNECTS, ramp.up as f64 / (before + ramp.took).as_secs_f64().max(1e-9)),
            (FIXED, fixed),
        ];
        values.into_iter().for_each(|(column, v)| self.set(scenario, column, v));
        // A few connections may all be among the first.
        if let Some(early) = early.filter(|early| ramp.up > early.ramp.up) {
            let rise = now.since(&early.user)?.pss.context(NO_PSS)?;
            let slope = per_connection(rise, ramp.up - early.ramp.up)?;
            self.set(scenario, SLOPE, slope);
        }
        Ok(())
    }

    /// Measures the cost of pings and their answers.
    pub(super) fn pings(&mut self) -> Result<()> {
        std::thread::sleep(SETTLE);
        let (server, seen) = (self.peer.sample()?, self.dense.counters().pings());
        std::thread::sleep(PING_WINDOW);
        let cpu = self.peer.sample()?.since(&server)?;
        let pings = self.dense.counters().pings() - seen;
        ensure!(pings > 0, "the target sent no ping in {PING_WINDOW:?}");
        self.set(Scenario::Pings, CPU_PINGS, cpu.cpu_ns_per(pings)?);
        self.set(Scenario::Pings, PINGS, pings as f64 / self.plan.connections as f64);
        Ok(())
    }
}
