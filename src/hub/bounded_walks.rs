//! Walks over all slots or channels of a shard, a bounded part per turn.

use crate::model::ids::Address;
use crate::model::message::{Scope, Survey, Surveyed};

/// Slots and subscriptions visited per turn: about 100 us.
pub(super) const LOOKS_PER_TURN: usize = 512;

/// State of a walk over the slots.
#[derive(Debug, Default)]
pub(super) struct SlotWalk {
    /// The next slot.
    next: u32,
    /// Number of slots left.
    left: usize,
}

impl SlotWalk {
    /// Begins or restarts the walk: each of `slots` slots is visited from now on.
    pub(super) fn begin(&mut self, slots: usize) {
        self.left = slots;
    }

    /// Whether slots are left.
    pub(super) fn goes_on(&self) -> bool {
        self.left > 0
    }

    /// The next of `slots` slots, if one is left.
    pub(super) fn step(&mut self, slots: usize) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let slot = self.next % u32::try_from(slots).ok().filter(|slots| *slots > 0)?;
        self.next = slot + 1;
        Some(slot)
    }
}

/// A survey of the channels in progress.
pub(super) struct SurveyWalk {
    pub(super) survey: Survey,
    /// The next channel, or the next name.
    pub(super) next: u32,
    pub(super) found: Surveyed,
}

impl SurveyWalk {
    /// Whether the survey has found as many channels as it may.
    pub(super) fn is_full(&self) -> bool {
        let Scope::Matching { most, .. } = self.survey.scope else { return false };
        self.found.channels.len() >= most
    }
}

/// A connection whose new information its homes have not got yet.
#[derive(Debug)]
pub(super) struct StaleMember {
    pub(super) address: Address,
    /// Number of subscriptions whose homes have the new information.
    pub(super) done: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_walk_visits_every_slot_again() {
        let mut walk = SlotWalk::default();
        assert_eq!(walk.step(3), None);
        walk.begin(3);
        let mut seen: Vec<u32> = (0..2).filter_map(|_| walk.step(3)).collect();
        walk.begin(3);
        seen.extend(std::iter::from_fn(|| walk.step(3)));
        assert_eq!(seen, [0, 1, 2, 0, 1]);
        walk.begin(1);
        assert_eq!(walk.step(0), None);
        assert!(!walk.goes_on());
    }
}
