//! Input of connections that could not be processed at once.
//!
//! Owns the bytes, only for connections that have any. Never reads a socket.

use crate::base::buffer;
use crate::hub::connections::counted_table::{CountedTable, Measured};
use crate::wire::frame::Fragments;
use crate::wire::tls::Handshake;

/// Unprocessed input of one connection.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Bytes that form no whole TLS record yet, or that wait.
    pub sealed: Vec<u8>,
    /// The TLS handshake, while it is in progress.
    pub handshake: Option<Box<Handshake>>,
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
        let Inbound { sealed, handshake, bytes, fragments, commands } = self;
        let waits = sealed.is_empty() && handshake.is_none();
        waits && bytes.is_empty() && fragments.is_empty() && commands.is_empty()
    }
}

impl Measured for Inbound {
    fn trimmed_bytes(&mut self) -> usize {
        buffer::trim(&mut self.bytes);
        buffer::trim(&mut self.commands);
        buffer::trim(&mut self.sealed);
        let sealed = self.handshake.as_ref().map_or(0, |handshake| handshake.memory());
        let opened = self.bytes.capacity() + self.fragments.capacity() + self.commands.capacity();
        sealed + self.sealed.capacity() + opened
    }
}

/// The unprocessed input of a shard.
pub type Unread = CountedTable<Inbound>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits, ShardToFree};

    fn unread(limit: usize) -> Unread {
        Unread::new(
            MemoryBudgets::new(&MemoryLimits::all(limit), 1).shard_usage(MemoryKind::Unread, 0),
        )
    }

    #[test]
    fn the_counted_bytes_are_the_memory_of_the_input() {
        let mut unread = unread(20_000);
        for slot in 0..10 {
            let at = unread.insert(slot, Inbound::default());
            let inbound = unread.get_mut(at).unwrap();
            inbound.bytes = vec![0; 1000 * slot as usize];
            inbound.commands = Vec::with_capacity(100_000);
            unread.settle(at, slot != 9);
        }
        let used = unread.usage().used();
        assert!((45_000..47_500).contains(&used), "no room that is not needed: {used}");
        assert_eq!(unread.largest(), Some(8), "the ninth cannot be closed");
        assert_eq!(unread.usage().shard_to_free(), ShardToFree::This);
        (1..10).for_each(|at| assert!(unread.remove(at).is_some()));
        assert_eq!((unread.len(), unread.largest()), (1, Some(0)));
        assert!(unread.remove(0).is_some() && unread.remove(0).is_none());
        assert_eq!((unread.usage().used(), unread.largest()), (0, None));
        assert_eq!(unread.usage().shard_to_free(), ShardToFree::None);
    }
}
