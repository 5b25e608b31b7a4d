//! Connections that are silent: what they hold, and what keeping them alive costs.
//!
//! Owns the numbers of `idle`. Never publishes. Invariant: pings are those that the client has
//! seen, whatever the target was asked for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::turn::{Empty, SETTLE, Turn, slab};
use super::{CONNECTS, CPU_PINGS, FIXED, KERNEL, PINGS, SLOPE, Scenario, USER};
use crate::account::{ProcessSample, per_connection};
use crate::dense::Ramp;

/// The slope is that from one connection of so many to all.
pub(super) const PART: u32 = 3;
/// Without it there is no account of memory.
const NO_PSS: &str = "/proc/PID/smaps_rollup may not be read: run as root";
/// Pings are watched for so long.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// What was there when the first connections were up.
pub(super) struct Early {
    ramp: Ramp,
    user: ProcessSample,
}

impl Turn<'_> {
    /// The first connections, and then the others begin to come.
    pub(super) fn early(&mut self) -> Result<Early> {
        let ramp = self.dense.ramp()?;
        self.up(ramp)?;
        std::thread::sleep(SETTLE);
        let user = self.peer.sample()?;
        self.dense.open_rest()?;
        Ok(Early { ramp, user })
    }

    /// Memory, and how fast the connections came.
    pub(super) fn idle(&mut self, ramp: Ramp, early: &Early, empty: &Empty) -> Result<()> {
        std::thread::sleep(SETTLE);
        let now = self.peer.sample()?;
        let user = now.since(&empty.user)?.pss.context(NO_PSS)?;
        let rise = now.since(&early.user)?.pss.context(NO_PSS)?;
        let took = (early.ramp.took + ramp.took).as_secs_f64();
        let fixed = empty.user.pss.unwrap_or(empty.user.rss_anon) as f64;
        let values = [
            (USER, per_connection(user, ramp.up)?),
            (KERNEL, per_connection(slab()? - empty.kernel, ramp.up)?),
            (CONNECTS, ramp.up as f64 / took.max(1e-9)),
            (FIXED, fixed),
        ];
        values.into_iter().for_each(|(column, v)| self.set(Scenario::Idle, column, v));
        // A few connections may all be among the first.
        if ramp.up > early.ramp.up {
            let slope = per_connection(rise, ramp.up - early.ramp.up)?;
            self.set(Scenario::Idle, SLOPE, slope);
        }
        Ok(())
    }

    /// Nothing happens but pings and the answers to them.
    pub(super) fn pings(&mut self) -> Result<()> {
        std::thread::sleep(SETTLE);
        let (server, seen) = (self.peer.sample()?, self.dense.counters().pings());
        std::thread::sleep(WINDOW);
        let cpu = self.peer.sample()?.since(&server)?;
        let pings = self.dense.counters().pings() - seen;
        ensure!(pings > 0, "no ping came in {WINDOW:?}");
        self.set(Scenario::Idle, CPU_PINGS, cpu.cpu_ns_per(pings)?);
        self.set(Scenario::Idle, PINGS, pings as f64 / self.plan.connections as f64);
        Ok(())
    }
}
