//! What homes and the store tell each other: changes of durable streams, questions, and answers.
//!
//! Owns the types. Never reads a disk. The invariants: the home of a channel alone decides what is
//! written, and the store writes the changes of a home in their order; a stream is named by its
//! channel, never by its home, so the number of shards may differ between two starts.

use std::ops::Range;
use std::sync::Arc;

use crate::base::memory::Charge;
use crate::model::endpoint::Endpoint;
use crate::model::publication::Publication;
use crate::wire::protocol::{Epoch, Position};

/// Publications by which the record in the table of streams may be older than the stream. Each of
/// them carries the record as it was with it, so a publication is one entry on disk, not two.
pub const CARRIED_MAX: u64 = 64;

/// What the store keeps of a stream beside its publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    /// The epoch.
    pub epoch: Epoch,
    /// Offset of the latest publication; 0 before the first.
    pub top: u64,
    /// Offset of the oldest publication that belongs to the history; `top + 1`: none does. Older
    /// ones that are still on disk are remains.
    pub first: u64,
    /// What is older than this offset belongs to the history no more, whatever becomes of the write
    /// that carries the record. It can be removed from the disk.
    pub settled: u64,
    /// When the stream ends and its epoch and top offset are dropped, in milliseconds of unix time.
    pub ends: u64,
    /// When the oldest publication expires, or when the stream ends if it keeps none, in
    /// milliseconds of unix time.
    pub due: u64,
    /// Bytes of the publications of the history. Every publication adds its own, and one that goes
    /// takes the mean of all, so a history cannot count for more than it has had.
    pub bytes: u64,
    /// Version of the latest publication and the version epoch, as the application gave them.
    pub version: Option<Box<(u64, Box<str>)>>,
}

/// A publication and when it leaves the history, in milliseconds of unix time.
#[derive(Clone, Debug)]
pub struct StoredPublication {
    /// The publication.
    pub publication: Publication,
    /// When it expires.
    pub expires: u64,
}

/// An idempotency key and the position of its publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// The key.
    pub key: Box<str>,
    /// The position of the publication.
    pub position: Position,
    /// When the key is forgotten, in milliseconds of unix time.
    pub until: u64,
}

impl StoredKey {
    /// What tells its place on disk.
    pub fn place(&self) -> KeyPlace {
        KeyPlace { position: self.position, until: self.until }
    }
}

/// An idempotency key without its text, which its place on disk does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// The position of the publication.
    pub position: Position,
    /// When the key is forgotten, in milliseconds of unix time.
    pub until: u64,
}

/// A change of one stream. All of it is on disk, or nothing.
#[derive(Clone, Debug, Default)]
pub struct StreamChange {
    /// The stream after the change; `None`: the stream has ended, and its record is removed.
    pub record: Option<StreamRecord>,
    /// The publication that the change adds, at offset `record.top`.
    pub publication: Option<StoredPublication>,
    /// Whether the publication carries the record, and the record in the table of streams stays as
    /// it is. It is at most [`CARRIED_MAX`] publications older.
    pub is_carried: bool,
    /// Offsets whose publications are erased: old ones, and those of writes that failed and may
    /// have reached the disk nevertheless. Never contains the offset of `publication`.
    pub erased: [Range<u64>; 2],
    /// The idempotency key of the publication.
    pub key: Option<StoredKey>,
    /// Idempotency keys of writes that failed and may have reached the disk nevertheless. They are
    /// erased.
    pub erased_keys: Vec<KeyPlace>,
}

impl StreamChange {
    /// Bytes of the texts and the data: the publication with its tags, the version that the record
    /// carries, and the idempotency keys.
    pub fn size(&self) -> usize {
        let publication = self.publication.as_ref().map_or(0, |stored| stored.publication.size());
        let version = self.record.as_ref().and_then(|record| record.version.as_deref());
        let key = self.key.as_ref().map_or(0, |key| key.key.len());
        let erased = self.erased_keys.len() * size_of::<KeyPlace>();
        publication + version.map_or(0, |(_, epoch)| epoch.len()) + key + erased
    }
}

/// A change of a stream on its way from the home of its channel to the store.
#[derive(Debug)]
pub struct StoreWrite {
    /// The shard of the home.
    pub shard: Endpoint,
    /// Counts the writes of the home, from 1.
    pub serial: u64,
    /// Counts the failures that the home knows of. After a failure the store refuses every write
    /// of the same term, because it was decided before the home knew of the failure.
    pub term: u32,
    /// The channel.
    pub channel: Arc<str>,
    /// The change.
    pub change: StreamChange,
}

/// The store has handled writes of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreWritten {
    /// Serial of the last write that was handled; all earlier ones were handled, too.
    pub through: u64,
    /// Term of the writes.
    pub term: u32,
    /// Whether they are on disk.
    pub kept: bool,
    /// Whether parts of writes that are not kept may be on disk nevertheless.
    pub touched: bool,
}

/// A question of a home to the store.
#[derive(Debug)]
pub struct StoreRead {
    /// The shard of the home.
    pub shard: Endpoint,
    /// Identifies the question; echoed in the answer.
    pub tag: u64,
    /// The channel.
    pub channel: Arc<str>,
    /// The time: unix time in milliseconds. What has expired by then is not answered.
    pub now: u64,
    /// The question.
    pub query: StoreQuery,
}

/// What a home asks the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreQuery {
    /// The stream, its newest publications within these limits, and its idempotency keys.
    Load {
        /// Maximum number of publications.
        limit: usize,
        /// Maximum bytes of the publications.
        bytes: usize,
    },
    /// The oldest publication of these offsets that has not expired. All of them are committed, so
    /// the answer does not depend on what is written meanwhile.
    OldestAlive {
        /// The offsets.
        offsets: Range<u64>,
    },
    /// Publications of these offsets that have not expired.
    Range {
        /// The offsets.
        offsets: Range<u64>,
        /// Maximum number of publications.
        limit: usize,
        /// Maximum bytes of the publications; more are an error of the request.
        bytes: usize,
        /// Return the newest publications first.
        reverse: bool,
    },
}

/// A stream as the store has it.
#[derive(Clone, Debug)]
pub struct LoadedStream {
    /// The stream; `None`: the channel has none on disk, or it has ended.
    pub record: Option<StreamRecord>,
    /// Top offset of the record in the table of streams: publications carry newer ones.
    pub recorded: u64,
    /// Whether the record of a stream that has ended is on disk.
    pub has_ended: bool,
    /// Epoch of the stream, or of the one that the first publication begins. It is the same after a
    /// restart.
    pub epoch: Epoch,
    /// Offset of the oldest publication on disk, also of one that is only remains; `None`: there
    /// are none.
    pub oldest: Option<u64>,
    /// Offset of the oldest publication of the history that has not expired, and when it expires.
    /// `None`: there is none. After very many expired ones, the search ends at one that may have
    /// expired.
    pub alive: Option<(u64, u64)>,
    /// The newest publications of the history that have not expired, oldest first. They are
    /// consecutive and end at the top, or there are none.
    pub newest: Vec<StoredPublication>,
    /// Idempotency keys that are still valid, oldest first.
    pub keys: Vec<StoredKey>,
}

/// Why the store does not answer a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreRefusal {
    /// The store cannot be read now.
    Unavailable,
    /// The answer has more bytes than the question allows.
    TooLarge,
}

/// What the store answers.
#[derive(Debug)]
pub enum StoreFound {
    /// To [`StoreQuery::Load`].
    Stream(LoadedStream),
    /// To [`StoreQuery::OldestAlive`]: the offset, and when the publication expires. `None`: there
    /// is none. After very many expired ones, the search ends at one that may have expired.
    OldestAlive(Option<(u64, u64)>),
    /// To [`StoreQuery::Range`].
    Publications(Vec<StoredPublication>),
}

impl StoreFound {
    /// Bytes of memory, about.
    pub fn size(&self) -> usize {
        let publications = |found: &[StoredPublication]| -> usize {
            found.iter().map(|stored| stored.publication.size()).sum()
        };
        match self {
            StoreFound::Stream(loaded) => {
                let keys = loaded.keys.iter().map(|key| size_of::<StoredKey>() + key.key.len());
                publications(&loaded.newest) + keys.sum::<usize>()
            }
            StoreFound::OldestAlive(_) => 0,
            StoreFound::Publications(found) => publications(found),
        }
    }
}

/// The answer to [`StoreRead`].
#[derive(Debug)]
pub struct StoreAnswer {
    /// Tag of the question.
    pub tag: u64,
    /// The channel.
    pub channel: Arc<str>,
    /// The answer, or why there is none.
    pub result: Result<StoreFound, StoreRefusal>,
    /// Counts its memory until it is taken up; `None`: nobody counts.
    pub charge: Option<Charge>,
}

/// Streams of which something has expired or takes too much room. The store asks their homes to
/// remove it.
#[derive(Debug, Default)]
pub struct StoreDue {
    /// Channels in whose streams something has expired.
    pub channels: Vec<Arc<str>>,
    /// Channels whose histories must be shorter, and the first offsets that they keep.
    pub trims: Vec<(Arc<str>, u64)>,
}
