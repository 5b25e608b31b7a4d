//! Records of the store as bytes.
//!
//! Owns the field numbers. Never changes the meaning of a number: later versions add numbers, and
//! the format of the folder (`folder.rs`) changes when an older version could not read a record.

use std::sync::Arc;

use prost::Message;

use crate::model::publication::{NewPublication, Publication, PublicationExtra, PublicationKind};
use crate::model::storage::{StoredKey, StoredPublication, StreamRecord};
use crate::store::disk::Fault;
use crate::wire::protocol::reply::ClientInfo;
use crate::wire::protocol::{Epoch, Position};

#[derive(Clone, PartialEq, Message)]
struct Stream {
    #[prost(bytes = "vec", tag = "1")]
    epoch: Vec<u8>,
    #[prost(uint64, tag = "2")]
    top: u64,
    #[prost(uint64, tag = "3")]
    first: u64,
    #[prost(uint64, tag = "4")]
    ends: u64,
    #[prost(uint64, tag = "5")]
    due: u64,
    #[prost(message, optional, tag = "6")]
    version: Option<Version>,
    #[prost(uint64, tag = "7")]
    settled: u64,
    #[prost(uint64, tag = "8")]
    bytes: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Version {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(string, tag = "2")]
    epoch: String,
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(bool, tag = "3")]
    delta: bool,
    #[prost(uint64, tag = "4")]
    expires: u64,
    #[prost(message, optional, tag = "5")]
    extra: Option<Extra>,
    #[prost(message, optional, tag = "6")]
    carried: Option<Stream>,
}

/// The part of a publication that housekeeping and loads look at.
#[derive(Clone, PartialEq, Message)]
struct StoredHead {
    #[prost(uint64, tag = "4")]
    expires: u64,
    #[prost(message, optional, tag = "6")]
    carried: Option<Stream>,
}

#[derive(Clone, PartialEq, Message)]
struct Extra {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
    #[prost(message, repeated, tag = "2")]
    tags: Vec<Tag>,
    #[prost(uint64, tag = "3")]
    version: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    client: String,
    #[prost(bytes = "vec", optional, tag = "3")]
    connection: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    channel: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Tag {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Key {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", tag = "2")]
    epoch: Vec<u8>,
    #[prost(uint64, tag = "3")]
    offset: u64,
    #[prost(uint64, tag = "4")]
    until: u64,
}

fn epoch_of(bytes: &[u8]) -> Result<Epoch, Fault> {
    let epoch = std::str::from_utf8(bytes).map(Epoch::parse).unwrap_or_default();
    let is_known = !epoch.is_unset() && epoch.as_bytes() == bytes;
    is_known.then_some(epoch).ok_or_else(|| Fault::corrupt("an epoch is not one of this server"))
}

fn decode<T: Message + Default>(what: &str, bytes: &[u8]) -> Result<T, Fault> {
    T::decode(bytes).map_err(|error| Fault::corrupt(format!("cannot decode {what}: {error}")))
}

/// The bytes of a stream.
pub fn write_stream(record: &StreamRecord) -> Vec<u8> {
    stream_of(record).encode_to_vec()
}

fn stream_of(record: &StreamRecord) -> Stream {
    let StreamRecord { epoch, top, first, settled, ends, due, bytes, version } = record;
    let version = version.as_deref();
    Stream {
        epoch: epoch.as_bytes().to_vec(),
        top: *top,
        first: *first,
        settled: *settled,
        ends: *ends,
        due: *due,
        bytes: *bytes,
        version: version
            .map(|(number, epoch)| Version { number: *number, epoch: (**epoch).into() }),
    }
}

/// Reads a stream.
///
/// # Errors
/// The bytes are no stream.
pub fn read_stream(bytes: &[u8]) -> Result<StreamRecord, Fault> {
    record_of(decode("the record of a stream", bytes)?)
}

fn record_of(stream: Stream) -> Result<StreamRecord, Fault> {
    let Stream { epoch, top, first, ends, due, version, settled, bytes } = stream;
    let version = version.map(|version| Box::new((version.number, version.epoch.into())));
    Ok(StreamRecord { epoch: epoch_of(&epoch)?, top, first, settled, ends, due, bytes, version })
}

/// The bytes of a publication, and of the record that it carries. Channel and offset are part of
/// its key, the epoch of the stream.
pub fn write_publication(stored: &StoredPublication, carried: Option<&StreamRecord>) -> Vec<u8> {
    let StoredPublication { publication, expires } = stored;
    let message = Stored {
        data: publication.data().to_vec(),
        kind: publication.kind() as u32,
        delta: publication.allows_delta(),
        expires: *expires,
        extra: publication.extra().map(write_extra),
        carried: carried.map(stream_of),
    };
    message.encode_to_vec()
}

fn write_extra(extra: &PublicationExtra) -> Extra {
    let owned = |bytes: &Option<Box<[u8]>>| bytes.as_ref().map(|bytes| bytes.to_vec());
    let info = |info: &ClientInfo| Info {
        user: info.user.to_string(),
        client: info.client.to_string(),
        connection: owned(&info.connection),
        channel: owned(&info.channel),
    };
    let tag = |(name, value): &(Box<str>, Box<str>)| Tag {
        name: name.to_string(),
        value: value.to_string(),
    };
    Extra {
        info: extra.info.as_ref().map(info),
        tags: extra.tags.iter().map(tag).collect(),
        version: extra.version,
    }
}

/// When a publication expires.
///
/// # Errors
/// The bytes are no publication.
pub fn read_expiry(bytes: &[u8]) -> Result<u64, Fault> {
    Ok(decode::<StoredHead>("a publication", bytes)?.expires)
}

/// The record that a publication carries.
///
/// # Errors
/// The bytes are no publication, or the record is none.
pub fn read_carried(bytes: &[u8]) -> Result<Option<StreamRecord>, Fault> {
    decode::<StoredHead>("a publication", bytes)?.carried.map(record_of).transpose()
}

/// Reads a publication of a channel with this hash.
///
/// # Errors
/// The bytes are no publication.
pub fn read_publication(
    (channel, hash): (&str, u64),
    position: Position,
    bytes: &[u8],
) -> Result<StoredPublication, Fault> {
    let Stored { data, kind, delta, expires, extra, .. } = decode("a publication", bytes)?;
    let kind = match kind {
        0 => PublicationKind::Data,
        1 => PublicationKind::Binary,
        _ => return Err(Fault::corrupt(format!("a publication of `{channel}` has no known kind"))),
    };
    let draft = NewPublication {
        channel,
        hash,
        kind,
        data: &data,
        extra: extra.map(|extra| Arc::new(read_extra(extra))),
        position: Some(position),
        delta,
        accepted: 0,
    };
    Ok(StoredPublication { publication: Publication::new(draft), expires })
}

fn read_extra(extra: Extra) -> PublicationExtra {
    let info = |info: Info| ClientInfo {
        user: info.user.into(),
        client: info.client.into(),
        connection: info.connection.map(Vec::into_boxed_slice),
        channel: info.channel.map(Vec::into_boxed_slice),
    };
    let tags = extra.tags.into_iter().map(|tag| (tag.name.into(), tag.value.into()));
    PublicationExtra { info: extra.info.map(info), tags: tags.collect(), version: extra.version }
}

/// The bytes of an idempotency key.
pub fn write_key(key: &StoredKey) -> Vec<u8> {
    let message = Key {
        key: key.key.to_string(),
        epoch: key.position.epoch.as_bytes().to_vec(),
        offset: key.position.offset,
        until: key.until,
    };
    message.encode_to_vec()
}

/// Reads an idempotency key.
///
/// # Errors
/// The bytes are no idempotency key.
pub fn read_key(bytes: &[u8]) -> Result<StoredKey, Fault> {
    let Key { key, epoch, offset, until } = decode("an idempotency key", bytes)?;
    let position = Position { offset, epoch: epoch_of(&epoch)? };
    Ok(StoredKey { key: key.into(), position, until })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::disk::FaultKind;

    pub(crate) fn record(top: u64, first: u64) -> StreamRecord {
        let epoch = Epoch::from_random(1);
        let (settled, ends, due) = (first, 1_000_000, 500_000);
        let bytes = 100 * (top + 1).saturating_sub(first);
        StreamRecord { epoch, top, first, settled, ends, due, bytes, version: None }
    }

    /// A publication with the data `{"n":offset}`.
    pub(crate) fn stored(channel: &str, offset: u64, expires: u64) -> StoredPublication {
        let data = format!("{{\"n\":{offset}}}");
        let position = Some(Position { offset, epoch: Epoch::from_random(1) });
        let data = data.as_bytes();
        let draft = NewPublication { channel, data, position, ..NewPublication::default() };
        StoredPublication { publication: Publication::new(draft), expires }
    }

    #[test]
    fn a_stream_reads_as_it_was_written() {
        let plain = record(7, 3);
        let versioned = StreamRecord { version: Some(Box::new((9, "v".into()))), ..record(0, 1) };
        for record in [plain, versioned] {
            assert_eq!(read_stream(&write_stream(&record)).unwrap(), record);
        }
        let unset = StreamRecord { epoch: Epoch::default(), ..record(1, 1) };
        for bytes in [&b"\xff"[..], b"", &write_stream(&unset)] {
            assert_eq!(read_stream(bytes).unwrap_err().kind, FaultKind::Corrupt, "{bytes:?}");
        }
    }

    #[test]
    fn a_publication_reads_as_it_was_written() {
        let info = ClientInfo {
            user: "u".into(),
            client: "c".into(),
            connection: Some(b"{\"a\":1}"[..].into()),
            channel: None,
        };
        let tags = [("t".into(), "v".into())].into();
        let extra = Some(Arc::new(PublicationExtra { info: Some(info), tags, version: 3 }));
        let at = Position { offset: 5, epoch: Epoch::from_random(1) };
        let kinds = [(PublicationKind::Data, &b"{}"[..]), (PublicationKind::Binary, b"\0\xff")];
        for (kind, data) in kinds {
            let position = Some(at);
            let of = NewPublication { channel: "a", hash: 9, extra: extra.clone(), ..draft() };
            let new = NewPublication { kind, data, position, ..of };
            let publication = Publication::new(new);
            let bytes = write_publication(&StoredPublication { publication, expires: 77 }, None);
            assert_eq!(read_expiry(&bytes).unwrap(), 77);
            let read = read_publication(("a", 9), at, &bytes).unwrap();
            let publication = read.publication;
            assert_eq!((read.expires, publication.hash(), publication.data()), (77, 9, data));
            assert_eq!((publication.kind(), publication.position()), (kind, position));
            assert_eq!(publication.extra(), extra.as_deref());
            assert!(publication.allows_delta() && publication.tags().len() == 1);
            assert_eq!(publication.extra().unwrap().version, 3);
        }
    }

    fn draft() -> NewPublication<'static> {
        NewPublication { delta: true, ..NewPublication::default() }
    }

    #[test]
    fn a_key_reads_as_it_was_written() {
        let position = Position { offset: 5, epoch: Epoch::from_random(1) };
        let key = StoredKey { key: "k".into(), position, until: 60_001 };
        assert_eq!(read_key(&write_key(&key)).unwrap(), key);
        assert!(read_key(b"\x01").is_err());
    }
}
