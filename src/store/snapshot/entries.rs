//! Numbers of the entries of a snapshot.
//!
//! Owns the type. Never counts itself.

use std::fmt;

/// Numbers of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Streams.
    pub streams: u64,
    /// Publications.
    pub publications: u64,
    /// Idempotency keys.
    pub keys: u64,
}

impl Entries {
    /// Whether there is no entry.
    pub fn is_empty(self) -> bool {
        self == Entries::default()
    }
}

impl fmt::Display for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entries { streams, publications, keys } = self;
        write!(f, "{streams} streams, {publications} publications and {keys} idempotency keys")
    }
}
