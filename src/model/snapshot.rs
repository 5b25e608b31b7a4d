//! What homes hand over at the end of a drain, and get back at the next start.
//!
//! Owns the types. Never reads a disk. The invariants: nothing names a home, so the number of
//! shards may differ between two starts; times are unix times, because the monotonic clock begins
//! anew.

use std::fmt;
use std::sync::Arc;

use crate::model::storage::{StoredPublication, StreamRecord};
use crate::wire::protocol::Position;

/// The secrets of a node from which the hashes of names and the epochs derive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NodeSecrets {
    /// Key of the hashes of names.
    pub names: [u8; 16],
    /// Seed of the epochs.
    pub epochs: u64,
}

impl fmt::Debug for NodeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSecrets")
    }
}

/// A stream in memory, without its publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedStream {
    /// The channel.
    pub channel: Arc<str>,
    /// Hash of its name.
    pub hash: u64,
    /// Generation of the stream.
    pub generation: u32,
    /// The stream.
    pub record: StreamRecord,
    /// Whether clients were subscribed to the channel when the drain began.
    pub was_subscribed: bool,
}

/// An idempotency key of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedKey {
    /// Hash of the channel.
    pub hash: u64,
    /// The key.
    pub key: Arc<str>,
    /// Position of the publication; `None`: it was made without history.
    pub position: Option<Position>,
    /// When the key is forgotten, in milliseconds of unix time.
    pub until: u64,
}

/// Place of an idempotency key in the order of a home: the moment of the monotonic clock at which
/// the key expires, and its serial.
pub type KeyOrder = (u64, u64);

/// The control plane asks the home of a shard for a part of the snapshot. The first question stops
/// publishing to channels in memory.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// Identifies the question; echoed in the answer.
    pub tag: u64,
    /// The question.
    pub query: SnapshotQuery,
}

/// What the control plane asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotQuery {
    /// The streams in memory.
    Streams {
        /// Index of the first channel to look at.
        from: u32,
    },
    /// The publications of streams, newest first.
    Publications {
        /// Indexes of the channels.
        channels: Arc<[u32]>,
        /// Place in `channels` at which to begin.
        nth: usize,
        /// Begin below this offset of that channel.
        below: u64,
    },
    /// The idempotency keys, in the order in which they expire.
    Keys {
        /// Place in that order at which to begin.
        from: KeyOrder,
    },
    /// The generations of the partitions.
    Generations {
        /// Index of the first counter.
        from: usize,
    },
}

/// A part of the snapshot.
#[derive(Debug)]
pub enum SnapshotPart {
    /// Streams, with the indexes of their channels at this home.
    Streams(Vec<(u32, SavedStream)>),
    /// Publications, with the places of their channels in the question.
    Publications(Vec<(usize, StoredPublication)>),
    /// Idempotency keys.
    Keys(Vec<SavedKey>),
    /// Partitions whose generation is not 0, and their generations.
    Generations(Vec<(u32, u32)>),
}

impl SnapshotPart {
    /// An empty answer to a question.
    pub fn of(query: &SnapshotQuery) -> Self {
        match query {
            SnapshotQuery::Streams { .. } => SnapshotPart::Streams(Vec::new()),
            SnapshotQuery::Publications { .. } => SnapshotPart::Publications(Vec::new()),
            SnapshotQuery::Keys { .. } => SnapshotPart::Keys(Vec::new()),
            SnapshotQuery::Generations { .. } => SnapshotPart::Generations(Vec::new()),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        match self {
            SnapshotPart::Streams(all) => all.len(),
            SnapshotPart::Publications(all) => all.len(),
            SnapshotPart::Keys(all) => all.len(),
            SnapshotPart::Generations(all) => all.len(),
        }
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The answer to [`SnapshotRequest`].
#[derive(Debug)]
pub struct SnapshotAnswer {
    /// Tag of the question.
    pub tag: u64,
    /// The part.
    pub part: SnapshotPart,
    /// The question for the rest; `None`: this part is the last.
    pub next: Option<SnapshotQuery>,
}

/// A stream and its history, as a home gets it back.
#[derive(Clone, Debug)]
pub struct RestoredStream {
    /// The stream.
    pub stream: SavedStream,
    /// The publications, oldest first. They are consecutive and end at the top, or there are none.
    pub publications: Vec<StoredPublication>,
}

/// What a home gets back at a start.
#[derive(Clone, Debug, Default)]
pub struct RestoredHome {
    /// Seed of the epochs.
    pub epochs: u64,
    /// Partitions of this home whose generation is not 0, and their generations.
    pub generations: Vec<(u32, u32)>,
    /// The streams.
    pub streams: Vec<RestoredStream>,
    /// The idempotency keys, oldest first.
    pub keys: Vec<SavedKey>,
}
