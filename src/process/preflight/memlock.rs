//! RLIMIT_MEMLOCK: how many rings fit into it.
//!
//! Owns the arithmetic, and the trial that shows whether this kernel counts rings for this process.
//! It does not for a process with CAP_IPC_LOCK, and not before Linux 6.14. The invariant: if the
//! check passes, all rings of the node fit, unless other processes of the same user lock memory.

use std::fs;

use super::facts::Memlock;
use super::fatal::{Fatal, memlock_cure};
use super::parse::parse_limits;
use super::report::{CapacityBound, Report, recommended_shards};
use crate::base::sys;

const KIB: u64 = 1024;

/// Bytes of trial rings, which the kernel may count for a while after their end.
const TRIALS: u64 = 64 * KIB;

/// Reads the limit. `ring` tries to set up a small ring.
pub(super) fn read(ring: impl FnOnce() -> bool) -> Option<Memlock> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let (_, bytes) = parse_limits(&limits, "Max locked memory")?;
    let counts = sys::without_locked_memory(|| !ring()).unwrap_or(false);
    Some(Memlock { bytes, counts })
}

impl Report {
    /// Counted bytes per ring, and how many rings fit into the limit; `None`: any number.
    fn locked(&self) -> Option<(u64, u64)> {
        let limit = self.facts.memlock.filter(|limit| limit.counts && limit.bytes != u64::MAX)?;
        let each = self.request.rings.sizes(self.slots_each()).locked_bytes();
        Some((each, limit.bytes.saturating_sub(TRIALS) / each))
    }

    /// Limit that the shards need, in KiB.
    fn locked_need(each: u64, shards: usize) -> u64 {
        (each.saturating_mul(shards as u64) + TRIALS).div_ceil(KIB)
    }

    /// Maximum number of shards whose rings fit.
    pub(super) fn locked_shards(&self) -> Option<usize> {
        self.locked().map(|(_, fits)| fits.try_into().unwrap_or(usize::MAX))
    }

    /// Checks that the rings of all shards fit.
    pub(super) fn locked_verdict(&self) -> Result<(), Fatal> {
        let shards = self.request.shards;
        match (self.locked(), self.facts.memlock) {
            (Some((each, fits)), Some(limit)) if fits < shards as u64 => Err(Fatal::Memlock {
                limit: limit.bytes / KIB,
                each: each / KIB,
                fits,
                shards,
                need: Self::locked_need(each, shards),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn locked_bound(&self) -> Option<CapacityBound> {
        let ((each, fits), limit) = self.locked().zip(self.facts.memlock)?;
        let (_, hard) = self.facts.nofile?;
        let wanted = recommended_shards(self.facts.cores, hard, self.request.connections);
        let (limit, each_kib) = (limit.bytes / KIB, each / KIB);
        Some(CapacityBound {
            name: "RLIMIT_MEMLOCK",
            connections: fits.saturating_mul(self.slots_each() as u64),
            because: format!("{fits} rings of {each_kib} KiB fit into {limit} KiB"),
            cure: memlock_cure(Self::locked_need(each, wanted.max(self.request.shards))),
        })
    }
}
