//! What waits at a pace, by group, and until when.
//!
//! Owns the waits. Never writes a publication.

use std::collections::{BTreeSet, HashMap};

use crate::model::namespaces::Pace;
use crate::model::publication::Publication;

/// What a group waits with.
pub(super) enum PaceWait {
    /// Its pending bytes; they go out with what comes meanwhile.
    Window,
    /// Nothing, or the publication that goes out next unless a later one comes.
    Gap(Option<Publication>),
}

/// Everything that waits.
#[derive(Default)]
pub(super) struct PaceTimers {
    /// The time of this turn, in milliseconds.
    pub(super) now: u64,
    /// By channel.
    pub(super) paces: HashMap<u32, Pace>,
    /// By group, with the time until when.
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

    /// Whether a group's pending bytes wait for more.
    pub(super) fn has_window(&self, group: u32) -> bool {
        self.windows > 0 && matches!(self.waits.get(&group), Some((_, PaceWait::Window)))
    }

    /// A group has nothing pending any more.
    pub(super) fn end_window(&mut self, group: u32) {
        if self.has_window(group) {
            self.end(group);
        }
    }

    /// A channel is gone, and with it this group of its.
    pub(super) fn forget(&mut self, channel: u32, group: u32) {
        self.paces.remove(&channel);
        self.end(group);
    }
}

impl PaceTimers {
    /// A group is gone.
    pub(super) fn leave(&mut self, group: u32) {
        if !self.waits.is_empty() {
            self.end(group);
        }
    }
}
