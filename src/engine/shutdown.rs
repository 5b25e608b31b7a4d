//! The shutdown of a shard: it refuses newcomers and closes its connections one after the other,
//! and at the end it stops accepting.
//!
//! Owns nothing: the walk is the shard's. The invariant: a connection is closed when its part of
//! the time is over, and until then it is served as before.

use std::mem::replace;

use crate::base::work_budget::{Stage, cost};
use crate::engine::ring::{Op, Token};
use crate::engine::shard::{Shard, ShutdownWalk};
use crate::hub::connections::Phase;

impl ShutdownWalk {
    /// Time at which the next connection is closed, in milliseconds.
    fn next_close(&self) -> u64 {
        self.begun + self.over.saturating_mul(self.nth.min(self.count)) / self.count
    }
}

impl Shard {
    /// Refuses newcomers from now on, and closes every other connection within `over` milliseconds.
    pub(super) fn drain(&mut self, over: u64) {
        if replace(&mut self.draining, true) {
            return;
        }
        self.hub.begin_drain();
        self.begin_walk(over);
    }

    /// Stops accepting, and closes every connection that is left.
    pub(super) fn stop(&mut self) {
        self.drain(0);
        if !replace(&mut self.stopping, true) {
            self.ring.stop_listening();
            self.begin_walk(0);
        }
    }

    fn begin_walk(&mut self, over: u64) {
        let count = self.established().max(1) as u64;
        self.shutdown = Some(ShutdownWalk { next: 0, nth: 0, count, over, begun: self.now });
    }

    /// Number of connections that a drain must close.
    pub(super) fn established(&self) -> usize {
        self.hub.established().saturating_sub(self.accepts)
    }

    /// Time at which the shutdown closes the next connection, in milliseconds.
    pub(super) fn next_close(&self) -> Option<u64> {
        self.shutdown.as_ref().map(ShutdownWalk::next_close)
    }

    /// Closes the connections whose time has come, some per turn; returns whether others are late.
    pub(super) fn continue_shutdown(&mut self) -> bool {
        let Some(mut walk) = self.shutdown.take() else { return false };
        self.hub.begin(Stage::Deadlines);
        while walk.next < self.hub.slot_end() {
            let is_late = walk.next_close() <= self.now;
            if !is_late || self.hub.is_spent() {
                self.shutdown = Some(walk);
                return is_late;
            }
            self.hub.charge(cost::LOOK);
            let slot = walk.next;
            walk.next += 1;
            let generation = self.hub.generation(slot);
            let Some(found) = self.hub.connection(slot, generation) else { continue };
            if found.phase != Phase::Reserved {
                if !self.hub.is_refused(slot) {
                    self.hub.close_to_drain(slot);
                    walk.nth += 1;
                }
            } else if self.stopping && found.operations > 0 && self.begin(slot, generation) {
                self.ring.cancel(Token::new(Op::Accept, generation, slot));
            }
        }
        false
    }
}
