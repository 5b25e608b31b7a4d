//! Input of connections that could not be processed at once, and its memory use.
//!
//! Owns the bytes, only for connections that have any. Never reads a socket or closes a connection:
//! it finds the connection with the most input. The invariant: the counted bytes are the memory of
//! the buffers.

use slab::Slab;

use crate::base::growth;
use crate::base::memory::Share;
use crate::base::ranking::Counted;
use crate::wire::frame::Fragments;

/// Unprocessed input of one connection.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Bytes that form no whole frame or request head yet, or that wait.
    pub bytes: Vec<u8>,
    /// A message of which some fragments have arrived.
    pub fragments: Fragments,
    /// The remaining commands of a frame, or the connect request of a unidirectional client. They
    /// wait for room on the bus or for an answer.
    pub commands: Vec<u8>,
}

impl Inbound {
    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.fragments.is_empty() && self.commands.is_empty()
    }

    /// Bytes of memory.
    fn size(&self) -> usize {
        let buffers = self.bytes.capacity() + self.fragments.capacity() + self.commands.capacity();
        size_of::<Held>() + buffers
    }
}

struct Held {
    slot: u32,
    /// Bytes counted for it.
    counted: usize,
    inbound: Inbound,
}

/// The unprocessed input of a shard.
pub struct Unread {
    held: Slab<Held>,
    counted: Counted,
}

impl Unread {
    /// Creates an empty table; `share` is its part of the memory budget.
    pub fn new(share: Share) -> Self {
        Unread { held: Slab::new(), counted: Counted::new(share) }
    }

    /// Number of connections with unprocessed input.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether no connection has any.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Memory use of the input.
    pub fn share(&self) -> &Share {
        self.counted.share()
    }

    /// Adds an empty entry for a slot; returns its index.
    pub fn insert(&mut self, slot: u32) -> u32 {
        let held = Held { slot, counted: 0, inbound: Inbound::default() };
        self.held.insert(held) as u32
    }

    /// The input of an entry. Call [`Unread::settle`] after a change.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut Inbound> {
        self.held.get_mut(at as usize).map(|held| &mut held.inbound)
    }

    /// Counts the memory of an entry. A connection that is not `closable` is not a candidate for
    /// [`Unread::largest`].
    pub fn settle(&mut self, at: u32, closable: bool) {
        let Some(held) = self.held.get_mut(at as usize) else { return };
        growth::trim(&mut held.inbound.bytes);
        growth::trim(&mut held.inbound.commands);
        let size = held.inbound.size();
        let before = std::mem::replace(&mut held.counted, size);
        self.counted.change(at, before, size, closable);
    }

    /// The input of a slot; searches all entries.
    pub fn of_slot(&self, slot: u32) -> impl Iterator<Item = &Inbound> {
        let held = self.held.iter().filter(move |(_, held)| held.slot == slot);
        held.map(|(_, held)| &held.inbound)
    }

    /// Removes an entry.
    pub fn remove(&mut self, at: u32) -> Option<Inbound> {
        let held = self.held.try_remove(at as usize)?;
        self.counted.change(at, held.counted, 0, true);
        Some(held.inbound)
    }

    /// The slot with the most input.
    pub fn largest(&self) -> Option<u32> {
        self.held.get(self.counted.largest()? as usize).map(|held| held.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::memory::{Budgets, Kind, Limits, Relief};

    fn unread(limit: usize) -> Unread {
        Unread::new(Budgets::new(&Limits::all(limit), 1).share(Kind::Unread, 0))
    }

    #[test]
    fn the_counted_bytes_are_the_memory_of_the_input() {
        let mut unread = unread(20_000);
        for slot in 0..10 {
            let at = unread.insert(slot);
            let inbound = unread.get_mut(at).unwrap();
            inbound.bytes = vec![0; 1000 * slot as usize];
            inbound.commands = Vec::with_capacity(100_000);
            unread.settle(at, slot != 9);
        }
        let used = unread.share().used();
        assert!((45_000..47_500).contains(&used), "no room that is not needed: {used}");
        assert_eq!(unread.largest(), Some(8), "the ninth cannot be closed");
        assert_eq!(unread.share().relief(), Relief::Here);
        (1..10).for_each(|at| assert!(unread.remove(at).is_some()));
        assert_eq!((unread.len(), unread.largest()), (1, Some(0)));
        assert!(unread.remove(0).is_some() && unread.remove(0).is_none());
        assert_eq!((unread.share().used(), unread.largest()), (0, None));
        assert_eq!(unread.share().relief(), Relief::None);
    }
}
