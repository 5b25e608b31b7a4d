//! How long the history of a channel is kept.
//!
//! Owns the setting. Never keeps a publication.

/// How much a stream keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Publications kept at most.
    pub size: usize,
    /// Milliseconds that a publication is kept.
    pub ttl: u64,
    /// Milliseconds that epoch and top outlive the last publication.
    pub meta_ttl: u64,
}
