//! A publication, join or leave of a channel, encoded once in one shared allocation: a header, the
//! name of the channel, and the push as JSON. Client information and tags are rare and have an
//! allocation of their own.
//!
//! Owns the bytes. The invariant: a publication never changes; all shards and histories share it.

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::wire::delta::Differ;
use crate::wire::event_id::{ChannelEventId, EventIdMode};
use crate::wire::framing::Framing;
use crate::wire::protocol::json::{self, Data, PublicationFields};
use crate::wire::protocol::protobuf;
use crate::wire::protocol::reply::ClientInfo;
use crate::wire::protocol::{Epoch, Position, Wire};

/// How a group of subscribers receives the publications, joins and leaves of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// Encoding of messages: JSON or Protobuf.
    pub wire: Wire,
    /// How messages are delimited.
    pub framing: Framing,
    /// Send a push on its own (unidirectional) instead of within a reply.
    pub unidirectional: bool,
    /// Send join and leave pushes.
    pub joins: bool,
    /// Send deltas to the previous publication.
    pub delta: bool,
    /// Replace the name of the channel in pushes by a number; only in bidirectional JSON.
    pub compact: bool,
    /// Send compressed messages.
    pub compressed: bool,
    /// Contents of the event ids, for unidirectional SSE clients.
    pub event_ids: EventIdMode,
}

/// Kind of a publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum PublicationKind {
    /// Published data that is JSON text.
    #[default]
    Data,
    /// Published data that is not JSON text.
    Binary,
    /// A client has joined the channel.
    Join,
    /// A client has left the channel.
    Leave,
}

/// Parts that only few publications have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicationExtra {
    /// The client that published, joined or left.
    pub info: Option<ClientInfo>,
    /// Tags of the application: names and values.
    pub tags: Box<[(Box<str>, Box<str>)]>,
    /// Version that the application gave the publication; 0: none.
    pub version: u64,
}

impl PublicationExtra {
    /// Size in memory in bytes.
    pub fn size(&self) -> usize {
        let tags = self.tags.iter().map(|(name, value)| name.len() + value.len() + 64);
        let info = |info: &ClientInfo| {
            let texts = [&info.connection, &info.channel].into_iter().flatten();
            info.user.len() + info.client.len() + texts.map(|text| text.len()).sum::<usize>()
        };
        size_of::<PublicationExtra>() + tags.sum::<usize>() + self.info.as_ref().map_or(0, info)
    }
}

/// Input of [`Publication::new`].
#[derive(Clone, Debug, Default)]
pub struct NewPublication<'a> {
    /// The channel.
    pub channel: &'a str,
    /// Hash of its name.
    pub hash: u64,
    /// Kind of the publication.
    pub kind: PublicationKind,
    /// Published data; empty for joins and leaves.
    pub data: &'a [u8],
    /// Client information and tags, if any.
    pub extra: Option<Arc<PublicationExtra>>,
    /// Position in the stream; `None`: the channel keeps no history.
    pub position: Option<Position>,
    /// Whether subscribers may receive the publication as a delta.
    pub delta: bool,
    /// When the node accepted the publication: the low bits of the monotonic clock's microseconds.
    pub accepted: u32,
}

/// Bits of [`Header::shape`] that hold the length of the channel's name, which is at most 4 KiB.
const CHANNEL_BITS: u32 = 24;
/// Bit of [`Header::shape`]: subscribers may receive the publication as a delta.
const DELTA: u32 = 1 << 31;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    /// Hash of the channel's name.
    hash: u64,
    /// Offset in the stream; 0: the channel keeps no history.
    offset: u64,
    /// Epoch of the stream.
    epoch: Epoch,
    /// The publication object, in bytes from the end of the channel's name; empty without JSON.
    object_start: u32,
    object_end: u32,
    /// The data, in bytes from the end of the channel's name.
    data_start: u32,
    data_end: u32,
    /// Length of the channel's name, kind, and [`DELTA`].
    shape: u32,
    /// When the node accepted the publication.
    accepted: u32,
}

impl Header {
    fn channel_bytes(self) -> usize {
        (self.shape & ((1 << CHANNEL_BITS) - 1)) as usize
    }

    fn kind(self) -> usize {
        ((self.shape & !DELTA) >> CHANNEL_BITS) as usize
    }

    fn allows_delta(self) -> bool {
        self.shape & DELTA != 0
    }
}

const HEADER_BYTES: usize = size_of::<Header>();
/// Estimate of the bytes of a push besides the data and the channel's name.
const PUSH_OVERHEAD_BYTES: usize = 64;
/// Longest data in bytes for which deltas are computed: a delta of more takes over a millisecond.
const DELTA_DATA_MAX: usize = 64 * 1024;

/// An encoded publication. Clones share the bytes.
#[derive(Clone, Debug)]
pub struct Publication {
    bytes: Arc<[u8]>,
    extra: Option<Arc<PublicationExtra>>,
}

impl Publication {
    /// Encodes a publication.
    pub fn new(draft: NewPublication<'_>) -> Self {
        Publication::encode(draft, &mut Vec::new())
    }

    /// Encodes a publication with a scratch buffer that the caller reuses.
    pub fn encode(draft: NewPublication<'_>, bytes: &mut Vec<u8>) -> Self {
        let NewPublication { channel, hash, kind, data, extra, position, delta, accepted } = draft;
        let offset = position.map(|position| position.offset);
        bytes.clear();
        bytes.reserve(HEADER_BYTES + 2 * channel.len() + data.len() + PUSH_OVERHEAD_BYTES);
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend_from_slice(channel.as_bytes());
        let start = bytes.len();
        let at = |place: usize| (place - start) as u32;
        let mut header = Header {
            hash,
            offset: offset.unwrap_or(0),
            epoch: position.unwrap_or_default().epoch,
            object_start: 0,
            object_end: 0,
            data_start: 0,
            data_end: 0,
            shape: channel.len() as u32
                | (kind as u32) << CHANNEL_BITS
                | if delta { DELTA } else { 0 },
            accepted,
        };
        match kind {
            PublicationKind::Data => {
                let details = details(extra.as_deref(), position);
                let places = json::write_publication(channel, Data::Plain(data), &details, bytes);
                (header.object_start, header.object_end) =
                    (at(places.object.start), at(places.object.end));
                (header.data_start, header.data_end) = (at(places.data.start), at(places.data.end));
            }
            PublicationKind::Binary => {
                bytes.extend_from_slice(data);
                header.data_end = at(bytes.len());
            }
            PublicationKind::Join | PublicationKind::Leave => {
                let info = extra.as_ref().and_then(|extra| extra.info.as_ref());
                let info = info.expect("a join or leave has client information");
                json::write_presence_change(channel, kind == PublicationKind::Join, info, bytes);
            }
        }
        bytes[..HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
        Publication { bytes: bytes.as_slice().into(), extra }
    }

    /// Whether `other` is a clone of this publication.
    pub fn is(&self, other: &Publication) -> bool {
        Arc::ptr_eq(&self.bytes, &other.bytes)
    }

    fn header(&self) -> Header {
        bytemuck::pod_read_unaligned(&self.bytes[..HEADER_BYTES])
    }

    /// Hash of the channel's name.
    pub fn hash(&self) -> u64 {
        self.header().hash
    }

    /// When the node accepted the publication: the low bits of the monotonic clock's microseconds.
    pub fn accepted(&self) -> u32 {
        self.header().accepted
    }

    /// Kind of the publication.
    pub fn kind(&self) -> PublicationKind {
        let kinds = [
            PublicationKind::Data,
            PublicationKind::Binary,
            PublicationKind::Join,
            PublicationKind::Leave,
        ];
        kinds[self.header().kind()]
    }

    /// Offset in the stream; `None`: the channel keeps no history.
    pub fn offset(&self) -> Option<u64> {
        Some(self.header().offset).filter(|offset| *offset > 0)
    }

    /// Position in the stream; `None`: the channel keeps no history.
    pub fn position(&self) -> Option<Position> {
        let Header { offset, epoch, .. } = self.header();
        (offset > 0).then_some(Position { offset, epoch })
    }

    /// The channel's name.
    pub fn channel(&self) -> &str {
        let name = &self.bytes[HEADER_BYTES..HEADER_BYTES + self.header().channel_bytes()];
        // The bytes come from a str, so the default is never used.
        std::str::from_utf8(name).unwrap_or_default()
    }

    fn push(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES + self.header().channel_bytes()..]
    }

    /// Published data.
    pub fn data(&self) -> &[u8] {
        let Header { data_start, data_end, .. } = self.header();
        &self.push()[data_start as usize..data_end as usize]
    }

    fn details(&self) -> PublicationFields<'_> {
        details(self.extra.as_deref(), self.position())
    }

    /// The fields for subscribers that receive deltas: as in Centrifugo, these get neither epoch
    /// nor version.
    fn delta_details(&self) -> PublicationFields<'_> {
        PublicationFields { epoch: Epoch::default(), version: 0, ..self.details() }
    }

    /// Whether subscribers may receive the publication as a delta.
    pub fn allows_delta(&self) -> bool {
        self.header().allows_delta()
    }

    /// Publisher, tags and version.
    pub fn extra(&self) -> Option<&PublicationExtra> {
        self.extra.as_deref()
    }

    /// Tags of the application.
    pub fn tags(&self) -> &[(Box<str>, Box<str>)] {
        self.extra.as_ref().map_or(&[], |extra| &extra.tags)
    }

    /// The publication object without its push, for history and recovery; `None`: the data cannot
    /// be encoded in JSON.
    pub fn object(&self, encoding: Encoding) -> Option<Cow<'_, [u8]>> {
        match encoding.wire {
            Wire::Json if self.kind() == PublicationKind::Binary => None,
            Wire::Json if encoding.delta => {
                let mut object = Vec::new();
                let text = std::str::from_utf8(self.data()).ok()?;
                json::write_object(Data::Text(text), &self.delta_details(), &mut object);
                Some(Cow::Owned(object))
            }
            Wire::Json => {
                let Header { object_start, object_end, .. } = self.header();
                Some(Cow::Borrowed(&self.push()[object_start as usize..object_end as usize]))
            }
            Wire::Protobuf => {
                let mut object = Vec::new();
                let delta = encoding.delta;
                let details = if delta { self.delta_details() } else { self.details() };
                protobuf::write_publication_object(self.data(), &details, false, &mut object);
                Some(Cow::Owned(object))
            }
        }
    }

    /// Total size of `publications` in bytes.
    pub fn total_size(publications: &[Publication]) -> usize {
        publications.iter().map(Publication::size).sum()
    }

    /// Size in memory in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.extra.as_ref().map_or(0, |extra| extra.size())
    }

    /// Whether a group with this encoding receives the publication.
    pub fn concerns(&self, encoding: Encoding) -> bool {
        match self.kind() {
            PublicationKind::Data => true,
            PublicationKind::Binary => encoding.wire == Wire::Protobuf,
            PublicationKind::Join | PublicationKind::Leave => encoding.joins,
        }
    }

    /// Whether this is published data and not a join or a leave.
    pub fn has_data(&self) -> bool {
        matches!(self.kind(), PublicationKind::Data | PublicationKind::Binary)
    }

    /// Appends the push to `out`. `number` stands for the channel in compact encodings.
    pub fn write(&self, encoding: Encoding, number: u32, out: &mut Vec<u8>) {
        match encoding.wire {
            Wire::Json => self.write_json(self.push(), encoding, number, out),
            Wire::Protobuf => {
                let mut message = Vec::with_capacity(self.bytes.len() + PUSH_OVERHEAD_BYTES);
                self.write_protobuf(&mut message);
                encoding.framing.write(encoding.wire, &message, out);
            }
        }
    }

    /// Appends the push for subscribers that receive deltas. The push contains a delta to `before`
    /// if the publication allows deltas and the delta is shorter than the data.
    pub fn write_difference(
        &self,
        (encoding, number): (Encoding, u32),
        before: Option<&Publication>,
        differ: &mut Differ,
        out: &mut Vec<u8>,
    ) {
        let mut patch = Vec::new();
        let data = self.data();
        let before =
            before.filter(|_| self.header().allows_delta() && data.len() <= DELTA_DATA_MAX);
        if let Some(before) = before {
            differ.create(before.data(), data, &mut patch);
        }
        let is_patch = before.is_some() && patch.len() < data.len();
        if encoding.wire == Wire::Protobuf {
            let mut message = Vec::with_capacity(self.bytes.len() + PUSH_OVERHEAD_BYTES);
            let bytes = if is_patch { &patch } else { data };
            // As in Centrifugo, a publication without one before it is sent as to everybody.
            let details = if before.is_some() { self.delta_details() } else { self.details() };
            let channel = self.channel();
            protobuf::write_publication(channel, bytes, &details, is_patch, &mut message);
            return encoding.framing.write(encoding.wire, &message, out);
        }
        // A patch that is not UTF-8 cannot be sent in JSON: send the data instead.
        let patch = is_patch.then(|| std::str::from_utf8(&patch).ok()).flatten();
        // JSON subscribers receive only JSON data, which is UTF-8.
        let text = String::from_utf8_lossy(data);
        let data = patch.map_or(Data::Text(&text), Data::Patch);
        let mut push = Vec::with_capacity(self.bytes.len() + PUSH_OVERHEAD_BYTES);
        json::write_publication(self.channel(), data, &self.delta_details(), &mut push);
        self.write_json(&push, encoding, number, out);
    }

    /// Appends a push in JSON, within a reply unless the encoding is unidirectional.
    fn write_json(&self, push: &[u8], encoding: Encoding, number: u32, out: &mut Vec<u8>) {
        let Encoding { wire, framing, unidirectional, .. } = encoding;
        if unidirectional {
            return self.write_event(push, encoding, out);
        }
        let renamed;
        let push = if encoding.compact {
            renamed = json::renamed(push, number);
            &renamed
        } else {
            push
        };
        let around = json::PUSH_OPEN.len() + json::PUSH_CLOSE.len();
        framing.open(wire, push.len() + around, out);
        out.extend_from_slice(json::PUSH_OPEN);
        out.extend_from_slice(push);
        out.extend_from_slice(json::PUSH_CLOSE);
        framing.close(wire, out);
    }

    /// Appends a unidirectional push, then its event id. A browser sends the last event id when it
    /// reconnects. A client whose connection breaks between the two receives the push twice.
    fn write_event(&self, push: &[u8], encoding: Encoding, out: &mut Vec<u8>) {
        let Encoding { wire, framing, event_ids, .. } = encoding;
        match (event_ids, self.position()) {
            (EventIdMode::Channel, Some(position)) => {
                framing.open(wire, push.len(), out);
                out.extend_from_slice(push);
                out.push(b'\n');
                ChannelEventId { position, channel: self.channel() }.write_line(out);
                out.push(b'\n');
            }
            (EventIdMode::Connection, _) => {
                // Ends the previous event. The connection's event id ends the last one.
                out.push(b'\n');
                framing.open(wire, push.len(), out);
                out.extend_from_slice(push);
                out.push(b'\n');
            }
            _ => framing.write(wire, push, out),
        }
    }

    fn write_protobuf(&self, out: &mut Vec<u8>) {
        let info = self.extra.as_ref().and_then(|extra| extra.info.as_ref());
        match (self.kind(), info) {
            (kind @ (PublicationKind::Join | PublicationKind::Leave), Some(info)) => {
                protobuf::write_presence_change(
                    self.channel(),
                    kind == PublicationKind::Join,
                    info,
                    out,
                );
            }
            _ => {
                let (channel, data) = (self.channel(), self.data());
                protobuf::write_publication(channel, data, &self.details(), false, out);
            }
        }
    }
}

fn details(extra: Option<&PublicationExtra>, position: Option<Position>) -> PublicationFields<'_> {
    let first = position.filter(|position| position.offset == 1);
    PublicationFields {
        info: extra.and_then(|extra| extra.info.as_ref()),
        offset: position.map(|position| position.offset),
        tags: extra.map_or(&[], |extra| &extra.tags),
        epoch: first.unwrap_or_default().epoch,
        version: extra.map_or(0, |extra| extra.version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(publication: &Publication, unidirectional: bool) -> String {
        let mut out = Vec::new();
        let encoding = Encoding { unidirectional, ..Encoding::default() };
        publication.write(encoding, 5, &mut out);
        let header = if out[1] < 126 { 2 } else { 4 };
        String::from_utf8(out[header..].to_vec()).unwrap()
    }

    #[test]
    fn an_encoded_publication_returns_its_fields_and_its_push() {
        let draft = NewPublication {
            channel: "news",
            hash: 42,
            data: b"{\"a\":1}",
            ..NewPublication::default()
        };
        let position = Some(Position { offset: 7, epoch: Epoch::parse("abcdefgh") });
        let publication = Publication::new(NewPublication { position, ..draft.clone() });
        assert_eq!(publication.hash(), 42);
        assert_eq!(publication.offset(), Some(7));
        assert_eq!(publication.channel(), "news");
        assert_eq!(publication.data(), b"{\"a\":1}");
        let object = publication.object(Encoding::default()).unwrap();
        assert_eq!(*object, *b"{\"data\":{\"a\":1},\"offset\":7}");
        let push = r#"{"channel":"news","pub":{"data":{"a":1},"offset":7}}"#;
        assert_eq!(text(&publication, true), push);
        assert_eq!(text(&publication, false), format!(r#"{{"push":{push}}}"#));
        let (mut event, encoding) = (Vec::new(), Encoding::default());
        for (event_ids, expected) in [
            (EventIdMode::None, format!("data: {push}\n\n")),
            (EventIdMode::Channel, format!("data: {push}\nid: 7:abcdefgh:news\n\n")),
            (EventIdMode::Connection, format!("\ndata: {push}\n")),
        ] {
            let events =
                Encoding { framing: Framing::Events, unidirectional: true, event_ids, ..encoding };
            event.clear();
            publication.write(events, 5, &mut event);
            assert_eq!(String::from_utf8_lossy(&event), expected);
        }

        let binary = Publication::new(NewPublication {
            kind: PublicationKind::Binary,
            data: b"\xff",
            ..draft
        });
        assert_eq!(binary.data(), b"\xff");
        assert_eq!(binary.object(Encoding::default()), None);
        assert!(!binary.concerns(Encoding::default()));
        assert!(binary.concerns(Encoding { wire: Wire::Protobuf, ..Encoding::default() }));
    }

    #[test]
    fn delta_subscribers_receive_a_delta_only_if_it_is_shorter_than_the_data() {
        let make = |data: &str, delta| {
            let data = data.as_bytes();
            Publication::new(NewPublication {
                channel: "c",
                data,
                delta,
                ..NewPublication::default()
            })
        };
        let long = "x".repeat(200);
        let (one, two) = (format!("\"{long}1\""), format!("\"{long}2\""));
        let (before, after) = (make(&one, true), make(&two, true));
        let encoding = Encoding { unidirectional: true, delta: true, ..Encoding::default() };
        let sent = |publication: &Publication, before: Option<&Publication>| {
            let mut out = Vec::new();
            publication.write_difference((encoding, 5), before, &mut Differ::default(), &mut out);
            let header = if out[1] < 126 { 2 } else { 4 };
            let push: serde_json::Value = serde_json::from_slice(&out[header..]).unwrap();
            let data = push["pub"]["data"].as_str().unwrap().to_owned();
            (data, push["pub"]["delta"].as_bool().unwrap_or(false))
        };
        assert_eq!(sent(&after, None), (two.clone(), false));
        let (patch, is_patch) = sent(&after, Some(&before));
        assert!(is_patch && patch.len() < 40, "{patch}");
        let applied = crate::wire::delta::apply(one.as_bytes(), patch.as_bytes()).unwrap();
        assert_eq!(applied, two.as_bytes());
        assert_eq!(sent(&make(&two, false), Some(&before)), (two.clone(), false));
        assert_eq!(sent(&make("1", true), Some(&before)), ("1".to_owned(), false));
        let object = after.object(encoding).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&object).unwrap();
        assert_eq!(object["data"], *two);
    }

    #[test]
    fn leaves_and_publications_contain_the_client_information() {
        let info = ClientInfo {
            user: "u".into(),
            client: "c".into(),
            connection: Some(b"{\"n\":1}"[..].into()),
            channel: None,
        };
        let tags = [("k".into(), "v".into())].into();
        let extra = Some(Arc::new(PublicationExtra { info: Some(info), tags, version: 0 }));
        let draft = NewPublication { channel: "a", extra, data: b"1", ..NewPublication::default() };
        let info = r#""info":{"user":"u","client":"c","conn_info":{"n":1}}"#;
        let leave =
            Publication::new(NewPublication { kind: PublicationKind::Leave, ..draft.clone() });
        assert_eq!(text(&leave, true), format!(r#"{{"channel":"a","leave":{{{info}}}}}"#));
        assert!(!leave.concerns(Encoding::default()));
        let data = Publication::new(draft);
        let push = format!(r#"{{"channel":"a","pub":{{"data":1,{info},"tags":{{"k":"v"}}}}}}"#);
        assert_eq!(text(&data, true), push);
    }
}
