//! How many clients a node takes, how many new ones in a second, and how many sockets its control
//! plane takes.
//!
//! Owns the counters, which all shards share. Never waits. The invariants: the limit on clients is
//! passed by no more clients than there are shards, which all may let one in at the same moment;
//! the limit on sockets of the control plane is never passed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Places on the control plane that idle connections are closed for, at most.
const PLACES_KEPT: u64 = 64;

/// Bits of the window's word that count; the others say which second it is.
const COUNT_BITS: u32 = 32;

/// The node's door.
#[derive(Debug)]
pub struct ConnectionLimits {
    /// Clients at most; 0: no limit.
    limit: u64,
    /// New connections in a second; 0: no limit.
    rate: u64,
    present: AtomicU64,
    window: AtomicU64,
    /// Sockets that the control plane takes at most.
    places: u64,
    /// Those of them that are taken.
    placed: AtomicU64,
}

impl Default for ConnectionLimits {
    /// A door without limits.
    fn default() -> Self {
        ConnectionLimits::new(0, 0)
    }
}

impl ConnectionLimits {
    /// A door for `limit` clients and `rate` new connections a second; 0: no limit.
    pub fn new(limit: u64, rate: u64) -> Self {
        let (present, window, placed) = Default::default();
        ConnectionLimits { limit, rate, present, window, places: u64::MAX, placed }
    }

    /// The same door, for as many sockets on their way to the control plane or there.
    pub fn with_places(self, places: u64) -> Self {
        ConnectionLimits { places, ..self }
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

    /// Takes a place on the control plane, if there is one. The caller makes a
    /// [`ConnectionPermit`] of it
    /// or gives it back.
    pub fn take_place(&self) -> bool {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let next = |placed: u64| (placed < self.places).then_some(placed + 1);
        self.placed.fetch_update(order.0, order.1, next).is_ok()
    }

    /// Gives a place on the control plane back.
    pub fn give_place_back(&self) {
        self.placed.fetch_sub(1, Ordering::AcqRel);
    }

    /// Places on the control plane that are taken.
    pub fn placed(&self) -> u64 {
        self.placed.load(Ordering::Acquire)
    }

    /// Whether so few places are left that idle connections should be closed to make room.
    pub fn is_tight(&self) -> bool {
        let kept = (self.places / 8).clamp(1, PLACES_KEPT);
        self.placed() > self.places.saturating_sub(kept)
    }
}

/// A socket's place on the control plane, given back when it is dropped.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<ConnectionLimits>);

impl ConnectionPermit {
    /// A place at `gate`; `None`: there is none.
    pub fn take(gate: &Arc<ConnectionLimits>) -> Option<Self> {
        gate.take_place().then(|| ConnectionPermit(gate.clone()))
    }

    /// Of the place that was taken at `gate` by [`ConnectionLimits::take_place`].
    pub fn of_taken(gate: &Arc<ConnectionLimits>) -> Self {
        ConnectionPermit(gate.clone())
    }

    /// Where the place is.
    pub fn gate(&self) -> &Arc<ConnectionLimits> {
        &self.0
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.give_place_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold() {
        let open = ConnectionLimits::default();
        assert!((0..100).all(|_| open.admits(0)) && !open.is_full());
        let gate = ConnectionLimits::new(2, 3);
        gate.enter();
        assert!(!gate.is_full());
        gate.enter();
        assert!(gate.is_full() && !gate.admits(0));
        gate.leave();
        assert!(!gate.is_full());
        let let_in = |now| (0..10).filter(|_| gate.admits(now)).count();
        assert_eq!((let_in(1_500), let_in(1_999), let_in(2_000)), (3, 0, 3));
    }

    #[test]
    fn places_are_taken_and_given_back() {
        let gate = Arc::new(ConnectionLimits::default().with_places(16));
        let mut passes: Vec<ConnectionPermit> = Vec::new();
        while let Some(pass) = ConnectionPermit::take(&gate) {
            passes.push(pass);
            assert_eq!(gate.is_tight(), passes.len() > 14, "{}", passes.len());
        }
        assert_eq!((passes.len(), gate.placed()), (16, 16));
        drop(passes.pop());
        assert!(gate.take_place() && !gate.take_place());
        drop(ConnectionPermit::of_taken(&gate));
        drop(passes);
        assert_eq!(gate.placed(), 0);
        assert!(ConnectionPermit::take(&Arc::new(ConnectionLimits::default())).is_some());
    }
}
