//! Connections with left input: why each is paused, and when it continues.

use crate::base::work_budget::{Stage, cost};
use crate::hub::shard_state::Hub;
use crate::model::message::Post;

/// Why a connection is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PauseReason {
    /// It used its share of the turn.
    Ready,
    /// An inbox was full.
    Blocked,
}

impl Hub {
    pub(super) fn pause(&mut self, slot: u32, pause: PauseReason) {
        let flags = &mut self.connections[slot].flags;
        flags.set_paused(true);
        if !flags.queued() {
            flags.set_queued(true);
            match pause {
                PauseReason::Ready => self.ready.push_back(slot),
                PauseReason::Blocked => self.blocked.push(slot),
            }
        }
    }

    /// Queues a paused connection, because what it waited for has arrived.
    pub(super) fn resume_later(&mut self, slot: u32) {
        let flags = &mut self.connections[slot].flags;
        if flags.paused() && !flags.queued() {
            flags.set_queued(true);
            self.ready.push_back(slot);
        }
    }

    /// Continues connections with left input: those that used their share, and those that found an
    /// inbox full.
    pub fn resume_paused(&mut self, post: &mut impl Post) {
        self.inflater.renew();
        self.budget.begin(Stage::Input);
        if !self.blocked.is_empty() {
            self.ready.extend(self.blocked.drain(..));
        }
        for _ in 0..self.ready.len() {
            if self.is_spent() {
                break;
            }
            let Some(slot) = self.ready.pop_front() else { break };
            if self.connections.get(slot).is_some_and(|found| found.flags.queued()) {
                // Charged afterwards, so that the first connection of a turn can always run a
                // command.
                self.resume(post, slot);
                self.serve_own(post);
                self.budget.charge(cost::CONNECTION);
            }
        }
    }
}
