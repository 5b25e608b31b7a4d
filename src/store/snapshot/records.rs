//! Records of a snapshot.
//!
//! Owns the field numbers. Never changes the meaning of a number: a format that an older version
//! could not read gets a new number (`unreadable.rs`). Streams and publications have the same
//! records as in the store.

use prost::{Message, Oneof};

use crate::model::names::Names;
use crate::model::snapshot::{NodeSecrets, SavedKey, SavedStream};
use crate::model::storage::StoredPublication;
use crate::store::records;
use crate::store::snapshot::unreadable::Unreadable;
use crate::wire::protocol::{Epoch, Position};

/// A record of a snapshot.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// The record itself.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// The kinds of records.
#[derive(Clone, PartialEq, Oneof)]
pub enum Kind {
    /// The first record.
    #[prost(message, tag = "1")]
    Node(Node),
    /// Generations of partitions.
    #[prost(message, tag = "2")]
    Generations(Generations),
    /// A stream. The streams are numbered in their order, from 0.
    #[prost(message, tag = "3")]
    Stream(Stream),
    /// A publication. Those of a stream are written newest first.
    #[prost(message, tag = "4")]
    Publication(Publication),
    /// An idempotency key.
    #[prost(message, tag = "5")]
    Key(Key),
    /// The last record.
    #[prost(message, tag = "6")]
    End(End),
}

/// Secrets of the node.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Key of the hashes of names.
    #[prost(bytes = "vec", tag = "1")]
    pub names: Vec<u8>,
    /// Seed of the epochs.
    #[prost(fixed64, tag = "2")]
    pub epochs: u64,
    /// When the snapshot was begun, in milliseconds of unix time.
    #[prost(uint64, tag = "3")]
    pub begun: u64,
}

/// Generations of partitions.
#[derive(Clone, PartialEq, Message)]
pub struct Generations {
    /// The partitions.
    #[prost(uint32, repeated, tag = "1")]
    pub partitions: Vec<u32>,
    /// Their generations, in the same order.
    #[prost(uint32, repeated, tag = "2")]
    pub generations: Vec<u32>,
}

/// A stream.
#[derive(Clone, PartialEq, Message)]
pub struct Stream {
    /// The channel.
    #[prost(string, tag = "1")]
    pub channel: String,
    /// Generation of the stream.
    #[prost(uint32, tag = "2")]
    pub generation: u32,
    /// The record of the stream, as the store writes it.
    #[prost(bytes = "vec", tag = "3")]
    pub record: Vec<u8>,
    /// Whether the channel had subscribers when the drain began.
    #[prost(bool, tag = "4")]
    pub was_subscribed: bool,
}

/// A publication.
#[derive(Clone, PartialEq, Message)]
pub struct Publication {
    /// Number of the stream.
    #[prost(uint64, tag = "1")]
    pub stream: u64,
    /// The offset.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// The publication, as the store writes it.
    #[prost(bytes = "vec", tag = "3")]
    pub publication: Vec<u8>,
}

/// An idempotency key.
#[derive(Clone, PartialEq, Message)]
pub struct Key {
    /// Hash of the channel.
    #[prost(fixed64, tag = "1")]
    pub hash: u64,
    /// The key.
    #[prost(string, tag = "2")]
    pub key: String,
    /// Epoch of the publication; empty: it was made without history.
    #[prost(bytes = "vec", tag = "3")]
    pub epoch: Vec<u8>,
    /// Offset of the publication.
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    /// When the key is forgotten, in milliseconds of unix time.
    #[prost(uint64, tag = "5")]
    pub until: u64,
}

/// The end of the snapshot.
#[derive(Clone, PartialEq, Message)]
pub struct End {
    /// Number of the records before this one.
    #[prost(uint64, tag = "1")]
    pub records: u64,
}

impl Node {
    /// The record of these secrets.
    pub fn new(secrets: NodeSecrets, begun: u64) -> Self {
        Node { names: secrets.names.to_vec(), epochs: secrets.epochs, begun }
    }

    /// The secrets.
    ///
    /// # Errors
    /// A secret has another length.
    pub fn secrets(&self) -> Result<NodeSecrets, Unreadable> {
        let names = self.names.as_slice().try_into();
        let names = names.map_err(|_| Unreadable::Damaged("a secret has another length"))?;
        Ok(NodeSecrets { names, epochs: self.epochs })
    }
}

impl Stream {
    /// The record of a stream.
    pub fn new(stream: &SavedStream) -> Self {
        Stream {
            channel: (*stream.channel).into(),
            generation: stream.generation,
            record: records::write_stream(&stream.record),
            was_subscribed: stream.was_subscribed,
        }
    }

    /// The stream.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn read(self, names: &Names) -> Result<SavedStream, Unreadable> {
        let Stream { channel, generation, record, was_subscribed } = self;
        let record = records::read_stream(&record)
            .map_err(|_| Unreadable::Damaged("the record of a stream cannot be read"))?;
        let hash = names.hash(&channel);
        Ok(SavedStream { channel: channel.into(), hash, generation, record, was_subscribed })
    }
}

impl Publication {
    /// The record of a publication of the stream with this number.
    pub fn new(stream: u64, stored: &StoredPublication) -> Self {
        let offset = stored.publication.offset().unwrap_or(0);
        Publication { stream, offset, publication: records::write_publication(stored, None) }
    }

    /// The publication of this stream.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, stream: &SavedStream) -> Result<StoredPublication, Unreadable> {
        let position = Position { offset: self.offset, epoch: stream.record.epoch };
        let of = (&*stream.channel, stream.hash);
        records::read_publication(of, position, &self.publication)
            .map_err(|_| Unreadable::Damaged("a publication cannot be read"))
    }
}

impl Key {
    /// The record of a key.
    pub fn new(key: &SavedKey) -> Self {
        let position = key.position;
        Key {
            hash: key.hash,
            key: (*key.key).into(),
            epoch: position.map_or(Vec::new(), |position| position.epoch.as_bytes().to_vec()),
            offset: position.map_or(0, |position| position.offset),
            until: key.until,
        }
    }

    /// The key.
    ///
    /// # Errors
    /// Its epoch cannot be read.
    pub fn read(self) -> Result<SavedKey, Unreadable> {
        let Key { hash, key, epoch, offset, until } = self;
        let position = match &*epoch {
            [] => None,
            bytes => {
                let epoch = std::str::from_utf8(bytes).map(Epoch::parse).unwrap_or_default();
                if epoch.as_bytes() != bytes {
                    return Err(Unreadable::Damaged("an epoch cannot be read"));
                }
                Some(Position { offset, epoch })
            }
        };
        Ok(SavedKey { hash, key: key.into(), position, until })
    }
}
