//! The TLS sessions of a shard's connections, by slot.
//!
//! Owns the keys of established connections. Takes no memory before the first TLS connection.

use crate::wire::tls::TlsSession;

/// The TLS sessions of a shard.
#[derive(Default)]
pub struct Sessions {
    by_slot: Vec<Option<TlsSession>>,
    /// Slots that the table is made for.
    slots: usize,
    len: usize,
}

impl Sessions {
    /// Creates a table for `slots` connections.
    pub fn new(slots: usize) -> Self {
        Sessions { by_slot: Vec::new(), slots, len: 0 }
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no connection has a session.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the session of a slot.
    pub fn insert(&mut self, slot: u32, session: TlsSession) {
        let slot = slot as usize;
        if self.by_slot.len() <= slot {
            // The length is known, so the table grows to it at once and keeps no spare room.
            self.by_slot.reserve_exact(self.slots.max(slot + 1).saturating_sub(self.by_slot.len()));
            self.by_slot.resize_with(slot + 1, || None);
        }
        self.len += usize::from(self.by_slot[slot].replace(session).is_none());
    }

    /// The session of a slot.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut TlsSession> {
        self.by_slot.get_mut(slot as usize).and_then(Option::as_mut)
    }

    /// The session of a slot.
    pub fn get(&self, slot: u32) -> Option<&TlsSession> {
        self.by_slot.get(slot as usize).and_then(Option::as_ref)
    }

    /// Removes the session of a slot.
    pub fn remove(&mut self, slot: u32) -> Option<TlsSession> {
        if self.len == 0 {
            return None;
        }
        let session = self.by_slot.get_mut(slot as usize)?.take();
        self.len -= usize::from(session.is_some());
        session
    }
}
