//! Writes that were sent to the store and are not committed, and the answers to those that failed.
//!
//! Owns the types. Never sends one.

use crate::home::channel_publications::PreparedPublication;
use crate::home::durable::stored::{Span, Version};
use crate::model::message::ReplyTo;

/// A write that is not committed.
pub struct SentWrite {
    pub(super) serial: u64,
    /// Unix time in milliseconds when it was sent.
    pub(super) unix: u64,
    /// Index of the channel.
    pub(super) at: u32,
    /// The stream after the write.
    pub(super) after: Span,
    /// Whether the publication carries the record of the stream.
    pub(super) is_carried: bool,
    /// Memory charged for the write.
    pub(super) bytes: usize,
    pub(super) what: What,
}

/// What a write does.
pub(super) enum What {
    Publication(PreparedPublication),
    /// The history is removed. The answer goes to the requester.
    Removal(ReplyTo),
    /// Old publications leave the history.
    Trim,
    /// Remains are erased, or the record is corrected.
    Upkeep,
    /// The stream ends.
    End,
    /// Something of a stream that is not in memory, because its channel is no longer durable.
    Leftover,
}

impl What {
    /// The version of the publication, if there is one.
    pub(super) fn version(&self) -> Version {
        match self {
            What::Publication(prepared) => prepared.version(),
            _ => None,
        }
    }
}

/// An answer that tells that a write failed.
pub enum Refusal {
    /// To a publish request.
    Publish(ReplyTo),
    /// To a removal of a history.
    Query(ReplyTo),
}
