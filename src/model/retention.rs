//! How long the history of a channel is kept.
//!
//! Owns the setting. Never stores a publication.

/// Limits of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Maximum number of publications.
    pub size: usize,
    /// Lifetime of a publication in milliseconds.
    pub ttl: u64,
    /// Lifetime of epoch and top offset after the last publication, in milliseconds.
    pub meta_ttl: u64,
    /// Keep the publications in the store: a publication is committed when it is on disk.
    pub durable: bool,
}
