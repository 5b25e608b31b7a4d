//! Connections that are silent: what they hold, and what keeping them alive costs.
//!
//! Owns the numbers of `idle`. Never publishes. Invariant: pings are those that the client has
//! seen, whatever the target was asked for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::measure::{SETTLE, Turn, connects, slab};
use super::{CONNECTS, CPU_PINGS, FIXED, KERNEL, PINGS, Scenario, USER};
use crate::account::{ProcessSample, per_connection};
use crate::dense::Ramp;

/// Pings are watched for so long.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

impl Turn<'_> {
    /// Memory, and how fast the connections came.
    pub(super) fn idle(&mut self, ramp: Ramp, empty: &ProcessSample, kernel: i64) -> Result<()> {
        std::thread::sleep(SETTLE);
        let used = self.peer.sample()?.since(empty)?;
        let user = used.pss.context("/proc/PID/smaps_rollup may not be read: run as root")?;
        let fixed = empty.pss.unwrap_or(empty.rss_anon) as f64;
        let values = [
            (USER, per_connection(user, ramp.up)?),
            (KERNEL, per_connection(slab()? - kernel, ramp.up)?),
            (CONNECTS, connects(ramp)),
            (FIXED, fixed),
        ];
        values.into_iter().for_each(|(column, v)| self.set(Scenario::Idle, column, v));
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
