//! Positions in a channel's stream.
//!
//! Owns the types. Never moves a position.

use bytemuck::{Pod, Zeroable};

/// Where a client stands in a channel's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Offset of the last publication seen; 0 before the first.
    pub offset: u64,
    /// Which life of the stream the offset counts in.
    pub epoch: Epoch,
}

/// Names one life of a stream: eight letters, all zero where the client gave none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Epoch([u8; 8]);

impl Epoch {
    /// An epoch drawn from randomness.
    pub fn from_random(random: u64) -> Self {
        let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        Epoch(random.to_le_bytes().map(|byte| letters[usize::from(byte) % letters.len()]))
    }

    /// The epoch that a client names. One that this server cannot have given out equals none of
    /// its own.
    pub fn parse(text: &str) -> Self {
        match text.as_bytes().try_into() {
            Ok(letters) if letters != [0; 8] => Epoch(letters),
            Err(_) if text.is_empty() => Epoch::default(),
            _ => Epoch([b'?'; 8]),
        }
    }

    /// Whether the client named none.
    pub fn is_unset(&self) -> bool {
        self.0 == [0; 8]
    }

    /// The letters as they are; zeroes where unset.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// The letters; empty where unset.
    pub fn as_str(&self) -> &str {
        if self.is_unset() { "" } else { std::str::from_utf8(&self.0).unwrap_or("") }
    }
}
