//! Positions in a channel's stream.
//!
//! Owns the types. Never moves a position.

use bytemuck::{Pod, Zeroable};

/// A position in a channel's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Offset of the last publication; 0 before the first.
    pub offset: u64,
    /// The epoch in which the offset counts.
    pub epoch: Epoch,
}

/// Identifies one lifetime of a stream by eight letters; all bytes are zero if unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Epoch([u8; 8]);

impl Epoch {
    /// A new epoch from random bits.
    pub fn from_random(random: u64) -> Self {
        let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        Epoch(random.to_le_bytes().map(|byte| letters[usize::from(byte) % letters.len()]))
    }

    /// Parses the epoch of a client. A text that is not an epoch of this server gives an epoch that
    /// no stream has.
    pub fn parse(text: &str) -> Self {
        match text.as_bytes().try_into() {
            Ok(letters) if letters != [0; 8] => Epoch(letters),
            Err(_) if text.is_empty() => Epoch::default(),
            _ => Epoch([b'?'; 8]),
        }
    }

    /// Whether the epoch is unset.
    pub fn is_unset(&self) -> bool {
        self.0 == [0; 8]
    }

    /// The letters; zero bytes if unset.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// The letters; empty if unset.
    pub fn as_str(&self) -> &str {
        if self.is_unset() { "" } else { std::str::from_utf8(&self.0).unwrap_or("") }
    }
}
