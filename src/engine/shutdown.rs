//! The drain of a shard: it stops accepting and closes its connections, some in each turn.
//!
//! Owns nothing: the walk is the shard's.

use crate::base::work_budget::{Stage, cost};
use crate::engine::ring::{Op, Token};
use crate::engine::shard::{Shard, ShutdownWalk};
use crate::hub::connections::Phase;

impl Shard {
    /// Stops accepting and closes every connection within `over` milliseconds.
    pub(super) fn drain(&mut self, over: u64) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        let count = self.hub.len().saturating_sub(self.accepts).max(1) as u64;
        self.shutdown = Some(ShutdownWalk { next: 0, nth: 0, count, over, begun: self.now });
        self.ring.stop_listening();
    }

    /// Schedules the close of further connections, some per turn; returns whether some are left.
    pub(super) fn continue_shutdown(&mut self) -> bool {
        let Some(mut shutdown) = self.shutdown.take() else { return false };
        self.hub.begin(Stage::Deadlines);
        while shutdown.next < self.hub.slot_end() && !self.hub.is_spent() {
            self.hub.charge(cost::LOOK);
            let slot = shutdown.next;
            shutdown.next += 1;
            let generation = self.hub.generation(slot);
            let Some(found) = self.hub.connection(slot, generation) else { continue };
            if found.phase != Phase::Reserved {
                let after = shutdown.over * shutdown.nth.min(shutdown.count) / shutdown.count;
                let late = self.now.saturating_sub(shutdown.begun);
                self.hub.disconnect_after(slot, after.saturating_sub(late));
                shutdown.nth += 1;
            } else if found.operations > 0 && self.begin(slot, generation) {
                self.ring.cancel(Token::new(Op::Accept, generation, slot));
            }
        }
        let more = shutdown.next < self.hub.slot_end();
        self.shutdown = more.then_some(shutdown);
        more
    }
}
