//! How many clients a node takes, and how many new ones in a second.
//!
//! Owns two counters that all shards share. Never waits. The invariant: a limit is passed by no
//! more clients than there are shards, which all may let one in at the same moment.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of the window's word that count; the others say which second it is.
const COUNT_BITS: u32 = 32;

/// The node's door.
#[derive(Debug, Default)]
pub struct Gate {
    /// Clients at most; 0: no limit.
    limit: u64,
    /// New connections in a second; 0: no limit.
    rate: u64,
    present: AtomicU64,
    window: AtomicU64,
}

impl Gate {
    /// A door for `limit` clients and `rate` new connections a second; 0: no limit.
    pub fn new(limit: u64, rate: u64) -> Self {
        Gate { limit, rate, ..Gate::default() }
    }

    /// Whether there is no place for another client.
    pub fn is_full(&self) -> bool {
        self.limit > 0 && self.present.load(Ordering::Relaxed) >= self.limit
    }

    /// A client has come.
    pub fn enter(&self) {
        self.present.fetch_add(1, Ordering::Relaxed);
    }

    /// A client has gone.
    pub fn leave(&self) {
        self.present.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether another connection may come in at `now`, in milliseconds: the node has a place for
    /// it, and not too many came in this second. Counts it. To be asked before the request is
    /// answered: who is turned away by a status comes back.
    pub fn admits(&self, now: u64) -> bool {
        if self.is_full() {
            return false;
        }
        if self.rate == 0 {
            return true;
        }
        let second = (now / 1000) << COUNT_BITS;
        let counted = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let count = if word & !(u64::from(u32::MAX)) == second { word as u32 } else { 0 };
            (u64::from(count) < self.rate).then_some(second | u64::from(count + 1))
        });
        counted.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold() {
        let open = Gate::default();
        assert!((0..100).all(|_| open.admits(0)) && !open.is_full());
        let gate = Gate::new(2, 3);
        gate.enter();
        assert!(!gate.is_full());
        gate.enter();
        assert!(gate.is_full() && !gate.admits(0));
        gate.leave();
        assert!(!gate.is_full());
        let let_in = |now| (0..10).filter(|_| gate.admits(now)).count();
        assert_eq!((let_in(1_500), let_in(1_999), let_in(2_000)), (3, 0, 3));
    }
}
