//! The timers of paced groups.
//!
//! Owns the timers. Never writes a publication.

use std::collections::{BTreeSet, HashMap};

use crate::model::namespaces::Pace;
use crate::model::publication::Publication;

/// Why a group waits.
pub(super) enum PaceWait {
    /// Its pending bytes wait for further publications.
    Window,
    /// The interval after a publication; holds the publication to send next, if one has arrived.
    Gap(Option<Publication>),
}

/// The timers of all groups, and the paces of channels.
#[derive(Default)]
pub(super) struct PaceTimers {
    /// The time of this turn, in milliseconds.
    pub(super) now: u64,
    /// Pace by channel.
    pub(super) paces: HashMap<u32, Pace>,
    /// End and kind of the wait, by group.
    pub(super) waits: HashMap<u32, (u64, PaceWait)>,
    pub(super) due: BTreeSet<(u64, u32)>,
    pub(super) windows: usize,
    pub(super) replaced: u64,
}

impl PaceTimers {
    pub(super) fn begin(&mut self, group: u32, time: u64, wait: PaceWait) {
        self.end(group);
        self.windows += usize::from(matches!(wait, PaceWait::Window));
        self.due.insert((self.now + time, group));
        self.waits.insert(group, (self.now + time, wait));
    }

    pub(super) fn end(&mut self, group: u32) -> Option<PaceWait> {
        let (until, wait) = self.waits.remove(&group)?;
        self.due.remove(&(until, group));
        self.windows -= usize::from(matches!(wait, PaceWait::Window));
        Some(wait)
    }

    /// Whether the pending bytes of a group wait for further publications.
    pub(super) fn has_window(&self, group: u32) -> bool {
        self.windows > 0 && matches!(self.waits.get(&group), Some((_, PaceWait::Window)))
    }

    /// Ends the batch of a group that has nothing pending.
    pub(super) fn end_window(&mut self, group: u32) {
        if self.has_window(group) {
            self.end(group);
        }
    }

    /// Removes a channel and the timer of its group.
    pub(super) fn forget(&mut self, channel: u32, group: u32) {
        self.paces.remove(&channel);
        self.end(group);
    }
}

impl PaceTimers {
    /// Removes the timer of a group.
    pub(super) fn leave(&mut self, group: u32) {
        if !self.waits.is_empty() {
            self.end(group);
        }
    }
}
