//! The context of a target's turn, which its parts share.
//!
//! Owns that context and the waits of all parts. Never starts a target.

use std::time::Duration;

use anyhow::Result;

use super::scenarios::{Numbers, Stage};
use super::tables::Tables;
use crate::account::{KernelSample, ProcessSample};
use crate::dense::{Dense, Mode, Plan};
use crate::dialect::Dialect;
use crate::scenario::{Bench, time_waits};
use crate::target::Peer;

/// Connections that each client ring opens at the same time in a storm.
const STORM_IN_FLIGHT: u32 = 1024;
/// Time without a delivery after which the missing deliveries count as lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Time after which the work that a ramp has deferred is done.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// Slab memory of a socket in TIME_WAIT, in bytes.
const TIME_WAIT_BYTES: i64 = 256;

/// Memory without connections.
pub(super) struct Empty {
    pub(super) user: ProcessSample,
    /// Slab memory, in bytes.
    pub(super) kernel: i64,
}

/// Context of the parts of a turn.
pub(super) struct Turn<'a> {
    pub(super) bench: &'a mut Bench,
    pub(super) tables: &'a mut Tables,
    pub(super) plan: &'a Numbers,
    pub(super) peer: &'a mut Peer,
    pub(super) dense: Dense,
}

/// Connections to a target.
pub(super) fn client(
    bench: &Bench,
    peer: &Peer,
    (dialect, stage): (&'static dyn Dialect, Stage),
    plan: &Numbers,
) -> Plan {
    let storms = matches!(stage, Stage::Storm | Stage::Recovery);
    let at_once = if storms { STORM_IN_FLIGHT } else { 0 };
    Plan {
        connections: stage.connections(plan.connections),
        port: peer.port(),
        one_address: true,
        dialect,
        in_flight: bench.common.in_flight.max(at_once),
        mode: Mode::Subscribe(stage.channels(plan.connections)),
        tls: None,
        quiet: false,
    }
}

/// Slab memory now, in bytes, without the sockets of earlier turns in TIME_WAIT.
pub(super) fn slab() -> Result<i64> {
    let now = KernelSample::now()?;
    let waits = time_waits()? as i64;
    Ok((now.s_unreclaim + now.s_reclaimable) as i64 - waits * TIME_WAIT_BYTES)
}

/// The client's own processor time.
pub(super) fn own() -> Result<ProcessSample> {
    ProcessSample::of_one(std::process::id())
}
