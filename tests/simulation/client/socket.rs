//! The socket between a model client and its shard: sends may be short, refused or cut off.

use std::collections::VecDeque;

use crate::random::Random;

/// Result of a send.
pub enum Taken {
    Whole,
    Part(usize),
    Refused,
}

/// The socket between a client and its shard.
#[derive(Default)]
pub struct Socket {
    /// Sent by the client, unread by the shard.
    pub input: VecDeque<u8>,
    /// The client sends nothing more.
    pub ended: bool,
    /// The client vanished: sends fail.
    pub vanished: bool,
    /// Sent by the shard, unread by the client.
    pub output: VecDeque<u8>,
    /// Maximum length of `output`.
    pub capacity: usize,
    /// The shard waits for room.
    pub awaited: bool,
    /// The shard has shut its side down.
    pub shut: bool,
    /// The shard reset the connection after the close timeout.
    pub reset: bool,
    /// A send was short, and the shard has not been notified yet: bytes are missing.
    pub cut: bool,
}

impl Socket {
    /// Takes bytes of a send of the shard.
    pub fn take(&mut self, bytes: &[u8], random: &mut Random) -> Taken {
        if self.vanished {
            return Taken::Refused;
        }
        if self.cut {
            // The client cannot read anything after missing bytes.
            return Taken::Whole;
        }
        let mut room = self.capacity.saturating_sub(self.output.len());
        if random.one_in(6) {
            room = room.min(random.below(bytes.len() + 1));
        }
        let taken = room.min(bytes.len());
        self.output.extend(&bytes[..taken]);
        if taken == bytes.len() { Taken::Whole } else { Taken::Part(taken) }
    }
}
