//! Publications, joins and leaves as JSON.
//!
//! Owns no state. Returns the byte ranges of the parts of a written publication, so that the caller
//! can replace them.

use std::ops::Range;

use serde::{Serialize, Serializer};

use super::text::{Raw, write_json, write_number, write_payload};
use crate::wire::protocol::position::Epoch;
use crate::wire::protocol::reply::ClientInfo;

#[derive(Serialize)]
pub(super) struct InfoBody<'a> {
    user: &'a str,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<Raw<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<Raw<'a>>,
}

impl<'a> From<&'a ClientInfo> for InfoBody<'a> {
    fn from(info: &'a ClientInfo) -> Self {
        InfoBody {
            user: &info.user,
            client: &info.client,
            conn_info: info.connection.as_deref().map(Raw),
            chan_info: info.channel.as_deref().map(Raw),
        }
    }
}

/// The fields of a publication besides its data.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublicationFields<'a> {
    /// The client that published it; `None` if the backend did.
    pub info: Option<&'a ClientInfo>,
    /// Offset in the stream; `None` if the channel keeps no history.
    pub offset: Option<u64>,
    /// Tags.
    pub tags: &'a [(Box<str>, Box<str>)],
    /// Epoch of the stream, in its first publication; unset in the others.
    pub epoch: Epoch,
    /// Version that the application gave the publication; 0: none.
    pub version: u64,
}

/// Byte ranges of the parts of a written publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationRanges {
    /// The publication object.
    pub object: Range<usize>,
    /// The data within the object.
    pub data: Range<usize>,
}

/// The data of a publication and how it is written.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// JSON text, written unchanged.
    Plain(&'a [u8]),
    /// JSON text, written as a JSON string, for subscribers that use deltas.
    Text(&'a str),
    /// A delta to the previous publication, written as a JSON string.
    Patch(&'a str),
}

/// Appends `{"channel":"c","pub":{"data":...}}`, the push of a publication to a unidirectional
/// client.
pub fn write_publication(
    channel: &str,
    data: Data<'_>,
    details: &PublicationFields<'_>,
    out: &mut Vec<u8>,
) -> PublicationRanges {
    out.extend_from_slice(b"{\"channel\":");
    write_json(&channel, out);
    out.extend_from_slice(b",\"pub\":");
    let ranges = write_object(data, details, out);
    out.push(b'}');
    ranges
}

/// Appends a publication object: `{"data":...}`.
pub fn write_object(
    data: Data<'_>,
    details: &PublicationFields<'_>,
    out: &mut Vec<u8>,
) -> PublicationRanges {
    let start = out.len();
    out.extend_from_slice(b"{\"data\":");
    let data_start = out.len();
    match data {
        Data::Plain(text) => write_payload(text, out),
        Data::Text(text) | Data::Patch(text) => write_json(&text, out),
    }
    let data_end = out.len();
    if let Some(info) = details.info {
        out.extend_from_slice(b",\"info\":");
        write_json(&InfoBody::from(info), out);
    }
    if let Some(offset) = details.offset {
        out.extend_from_slice(b",\"offset\":");
        write_number(offset, out);
    }
    if !details.tags.is_empty() {
        out.extend_from_slice(b",\"tags\":");
        write_json(&Tags(details.tags), out);
    }
    if matches!(data, Data::Patch(_)) {
        out.extend_from_slice(b",\"delta\":true");
    }
    if !details.epoch.is_unset() {
        out.extend_from_slice(b",\"epoch\":");
        write_json(&details.epoch.as_str(), out);
    }
    if details.version != 0 {
        out.extend_from_slice(b",\"version\":");
        write_number(details.version, out);
    }
    out.push(b'}');
    let end = out.len();
    PublicationRanges { object: start..end, data: data_start..data_end }
}

struct Tags<'a>(&'a [(Box<str>, Box<str>)]);

impl Serialize for Tags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Appends `{"channel":"c","join":{"info":...}}` or the same with `leave`.
pub fn write_presence_change(channel: &str, joined: bool, info: &ClientInfo, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"channel\":");
    write_json(&channel, out);
    out.extend_from_slice(if joined { b",\"join\":{\"info\":" } else { b",\"leave\":{\"info\":" });
    write_json(&InfoBody::from(info), out);
    out.extend_from_slice(b"}}");
}

/// Copies a push that begins with its channel name, and replaces the name with a number.
pub fn renamed(push: &[u8], number: u32) -> Vec<u8> {
    let name = &push[CHANNEL_OPEN.len()..];
    let mut escaped = false;
    let is_end = |byte: &u8| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    };
    let end = name.iter().position(is_end).map_or(name.len(), |end| end + 1);
    let mut renamed = Vec::with_capacity(push.len());
    renamed.extend_from_slice(b"{\"id\":");
    write_number(u64::from(number), &mut renamed);
    renamed.extend_from_slice(&name[end..]);
    renamed
}

/// The beginning of a push; the channel name follows.
const CHANNEL_OPEN: &[u8] = b"{\"channel\":\"";

/// Text before a push to a bidirectional client.
pub const PUSH_OPEN: &[u8] = b"{\"push\":";

/// Text after a push to a bidirectional client.
pub const PUSH_CLOSE: &[u8] = b"}";

/// A ping of the server and a pong of the client.
pub const PING: &[u8] = b"{}";
