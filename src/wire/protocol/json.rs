//! The JSON encoding: commands read without copying, replies written straight into the output.
//!
//! Owns nothing. Never keeps a payload: client data passes through as the JSON text it is, with
//! newlines taken out, since a newline ends a reply.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::command::{
    ChannelRequest, Command, ConnectRequest, EmulationRequest, HistoryRequest, PublishRequest,
    RefreshRequest, Request, RpcRequest, SubRefreshRequest, SubscribeRequest,
};
use super::reply::{ClientInfo, Connected, History, Lease, Push, Reply, Roll, Stats, Subscribed};
use super::{Error, Position, VERSION};
use crate::wire::reading;

// ---- reading ---------------------------------------------------------------------------------

/// One command as it is written: which request is present says what it is.
#[derive(Debug, Deserialize)]
struct Written<'a> {
    #[serde(default, deserialize_with = "reading::nullable")]
    id: u32,
    #[serde(borrow, default, deserialize_with = "reading::object")]
    connect: Option<Box<ConnectRequest<'a>>>,
    #[serde(borrow, default, deserialize_with = "reading::object")]
    subscribe: Option<Box<SubscribeRequest<'a>>>,
    #[serde(borrow, default, deserialize_with = "reading::object")]
    unsubscribe: Option<ChannelRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "reading::object")]
    publish: Option<PublishRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "reading::object")]
    presence: Option<ChannelRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "reading::object")]
    presence_stats: Option<ChannelRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "reading::object")]
    history: Option<HistoryRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "reading::object")]
    rpc: Option<RpcRequest<'a>>,
    #[serde(default, deserialize_with = "reading::object")]
    send: Option<Ignored>,
    #[serde(borrow, default, deserialize_with = "reading::object")]
    refresh: Option<RefreshRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "reading::object")]
    sub_refresh: Option<SubRefreshRequest<'a>>,
    #[serde(default, deserialize_with = "reading::object")]
    ping: Option<Ignored>,
}

/// An object of which nothing is read.
#[derive(Debug, Deserialize)]
struct Ignored {}

impl<'a> Written<'a> {
    /// The first that is there, in the order of the protocol.
    fn request(self) -> Option<Request<'a>> {
        None.or(self.connect.map(Request::Connect))
            .or(self.ping.map(|_| Request::Ping))
            .or(self.subscribe.map(Request::Subscribe))
            .or(self.unsubscribe.map(Request::Unsubscribe))
            .or(self.publish.map(Request::Publish))
            .or(self.presence.map(Request::Presence))
            .or(self.presence_stats.map(Request::PresenceStats))
            .or(self.history.map(Request::History))
            .or(self.rpc.map(Request::Rpc))
            .or(self.send.map(|_| Request::Send))
            .or(self.refresh.map(Request::Refresh))
            .or(self.sub_refresh.map(Request::SubRefresh))
    }
}

/// The commands of a frame, one after the other.
pub struct Commands<'a> {
    stream: serde_json::StreamDeserializer<'a, serde_json::de::SliceRead<'a>, Written<'a>>,
}

impl<'a> Commands<'a> {
    /// Reads `frame`.
    pub fn new(frame: &'a [u8]) -> Self {
        Commands { stream: serde_json::Deserializer::from_slice(frame).into_iter() }
    }

    /// The next command, `None` at the end. An error ends the frame.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Result<Command<'a>, serde_json::Error>> {
        let written = self.stream.next()?;
        Some(written.map(|written| Command { id: written.id, request: written.request() }))
    }

    /// How many bytes of the frame the commands so far took.
    pub fn consumed(&self) -> usize {
        self.stream.byte_offset()
    }
}

/// The body of the API's publish method as backends mostly send it; another one does not parse.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainPublish<'a> {
    /// The channel.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// JSON text.
    #[serde(borrow)]
    pub data: &'a RawValue,
    /// Whether it stays out of the history.
    #[serde(default)]
    pub skip_history: bool,
}

/// Reads the body of a request that speaks for a stream's client; its data is a text.
pub fn read_emulation(body: &[u8]) -> serde_json::Result<EmulationRequest> {
    reading::read_object(body)
}

/// Whether bytes are the text of one JSON value.
pub fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

/// Levels to which a publication may be nested. Readers of clients give up at some depth, the
/// Python SDK's at less than 1000.
const DEPTH_MAX: usize = 512;

/// Whether JSON text is nested deeper than every client can read.
pub fn is_too_deep(text: &[u8]) -> bool {
    let opens = |byte: &u8| matches!(byte, b'[' | b'{');
    // A level takes two bytes; most publications are told by that.
    if text.len() <= 2 * DEPTH_MAX || text.iter().filter(|byte| opens(byte)).count() <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut quoted, mut bytes) = (0usize, false, text.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' => _ = bytes.next(),
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

// ---- writing ---------------------------------------------------------------------------------

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a Vec takes everything, and the keys are strings");
}

/// Appends decimal digits.
pub fn write_number(number: u64, out: &mut Vec<u8>) {
    use std::io::Write;
    write!(out, "{number}").expect("a Vec takes everything");
}

/// Appends a payload without the newlines between its tokens.
fn write_payload(payload: &[u8], out: &mut Vec<u8>) {
    let mut start = 0;
    for newline in memchr::memchr2_iter(b'\n', b'\r', payload) {
        out.extend_from_slice(&payload[start..newline]);
        start = newline + 1;
    }
    out.extend_from_slice(&payload[start..]);
}

/// Text of a JSON value within another; `null` where it is none, as what a token gives in base64
/// may be.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Vec::new();
        let bytes = if memchr::memchr2(b'\n', b'\r', self.0).is_some() {
            write_payload(self.0, &mut text);
            &text
        } else {
            self.0
        };
        serde_json::from_slice::<&RawValue>(bytes).unwrap_or(RawValue::NULL).serialize(serializer)
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: u32,
    message: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    temporary: bool,
}

#[derive(Serialize)]
struct ConnectBody<'a> {
    client: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    expires: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Raw<'a>>,
    #[serde(skip_serializing_if = "Subs::is_empty")]
    subs: Subs<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    ping: u64,
    #[serde(skip_serializing_if = "is_false")]
    pong: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    session: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<i64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    unknown_event_id: &'a str,
}

impl<'a> From<&'a Connected<'a>> for ConnectBody<'a> {
    fn from(connected: &'a Connected<'a>) -> Self {
        ConnectBody {
            client: connected.client,
            version: VERSION,
            expires: connected.expires.is_some(),
            ttl: connected.expires.map(|Lease(seconds)| seconds),
            data: connected.data.map(Raw),
            subs: Subs(&connected.subs),
            ping: u64::from(connected.ping),
            pong: connected.pong,
            session: connected.session,
            node: connected.node,
            time: connected.time,
            unknown_event_id: connected.unknown_event_id,
        }
    }
}

struct Subs<'a>(&'a [(&'a str, Subscribed<'a>)]);

impl Subs<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Subs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.0.iter().map(|(channel, one)| (channel, SubscribeBody::from(one)));
        serializer.collect_map(entries)
    }
}

#[derive(Serialize)]
struct SubscribeBody<'a> {
    #[serde(flatten)]
    front: SubscribeFront<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    publications: Vec<Raw<'a>>,
    #[serde(flatten)]
    back: SubscribeBack<'a>,
}

/// What stands before the publications.
#[derive(Serialize)]
struct SubscribeFront<'a> {
    #[serde(skip_serializing_if = "is_false")]
    expires: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    recoverable: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    epoch: &'a str,
}

/// What stands behind the publications.
#[derive(Serialize)]
struct SubscribeBack<'a> {
    #[serde(skip_serializing_if = "is_false")]
    recovered: bool,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_false")]
    positioned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Raw<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    was_recovering: bool,
    #[serde(skip_serializing_if = "is_false")]
    delta: bool,
    #[serde(skip_serializing_if = "is_zero")]
    id: u64,
}

impl<'a> From<&'a Subscribed<'a>> for SubscribeFront<'a> {
    fn from(subscribed: &'a Subscribed<'a>) -> Self {
        SubscribeFront {
            expires: subscribed.expires.is_some(),
            ttl: subscribed.expires.map(|Lease(seconds)| seconds),
            recoverable: subscribed.recoverable,
            epoch: subscribed.position.as_ref().map_or("", |position| position.epoch.as_str()),
        }
    }
}

impl<'a> From<&'a Subscribed<'a>> for SubscribeBack<'a> {
    fn from(subscribed: &'a Subscribed<'a>) -> Self {
        SubscribeBack {
            recovered: subscribed.recovered,
            offset: subscribed.position.map_or(0, |position| position.offset),
            positioned: subscribed.positioned,
            data: subscribed.data.map(Raw),
            was_recovering: subscribed.was_recovering,
            delta: subscribed.delta,
            id: u64::from(subscribed.number),
        }
    }
}

impl<'a> From<&'a Subscribed<'a>> for SubscribeBody<'a> {
    fn from(subscribed: &'a Subscribed<'a>) -> Self {
        SubscribeBody {
            front: subscribed.into(),
            publications: subscribed.publications.iter().map(|object| Raw(object)).collect(),
            back: subscribed.into(),
        }
    }
}

#[derive(Serialize)]
struct InfoBody<'a> {
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

#[derive(Serialize)]
struct StatsBody {
    num_clients: u32,
    num_users: u32,
}

#[derive(Serialize)]
struct RpcBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Raw<'a>>,
}

#[derive(Serialize)]
struct LeaseBody {
    #[serde(skip_serializing_if = "is_false")]
    expires: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
}

impl From<&Option<Lease>> for LeaseBody {
    fn from(lease: &Option<Lease>) -> Self {
        LeaseBody { expires: lease.is_some(), ttl: lease.map(|Lease(seconds)| seconds) }
    }
}

#[derive(Serialize)]
struct Reason<'a> {
    code: u32,
    reason: &'a str,
}

#[derive(Serialize)]
struct Empty {}

/// Appends what the API and clients are told of who is in a channel.
pub fn write_presence(roll: &Roll, out: &mut Vec<u8>) {
    out.reserve(roll.bytes() + roll.parts().len() + 16);
    out.extend_from_slice(b"{\"presence\":{");
    for (nth, part) in roll.parts().iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"}}");
}

/// Appends a member of a channel, behind those that a part of its roll has already.
pub fn write_member(info: &ClientInfo, out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b',');
    }
    write_json(&info.client, out);
    out.push(b':');
    write_json(&InfoBody::from(info), out);
}

/// Appends how many are in a channel, for the API and clients.
pub fn write_stats(stats: Stats, out: &mut Vec<u8>) {
    write_json(&StatsBody { num_clients: stats.clients, num_users: stats.users }, out);
}

/// Appends what was published in a channel, for the API and clients.
pub fn write_history(history: &History<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"publications\":");
    write_objects(&history.publications, out);
    out.extend_from_slice(b",\"epoch\":");
    write_json(&history.position.epoch.as_str(), out);
    out.extend_from_slice(b",\"offset\":");
    write_number(history.position.offset, out);
    out.push(b'}');
}

/// Appends publication objects as an array. They were written by this module, so they are copied
/// and not read again: a history answer of 1 MiB is little more than a copy.
fn write_objects(objects: &[Cow<'_, [u8]>], out: &mut Vec<u8>) {
    out.reserve(objects.iter().map(|object| object.len() + 1).sum::<usize>() + 2);
    out.push(b'[');
    for (nth, object) in objects.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        out.extend_from_slice(object);
    }
    out.push(b']');
}

/// Appends the answer to a subscribe.
fn write_subscribed(subscribed: &Subscribed<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    write_fields(&SubscribeFront::from(subscribed), out);
    if !subscribed.publications.is_empty() {
        if !out.ends_with(b"{") {
            out.push(b',');
        }
        out.extend_from_slice(b"\"publications\":");
        write_objects(&subscribed.publications, out);
    }
    write_fields(&SubscribeBack::from(subscribed), out);
    out.push(b'}');
}

/// Appends the fields of `value`, which is written as an object, to the object that `out` ends in.
fn write_fields(value: &impl Serialize, out: &mut Vec<u8>) {
    let (is_first, start) = (out.ends_with(b"{"), out.len());
    write_json(value, out);
    out.pop();
    match (out.len() - start, is_first) {
        (0 | 1, _) => out.truncate(start),
        (_, true) => _ = out.remove(start),
        (_, false) => out[start] = b',',
    }
}

/// Appends a reply.
pub fn write_reply(id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let key = match reply {
        Reply::Error(_) | Reply::Refused { .. } => "error",
        Reply::Connect(_) => "connect",
        Reply::Subscribe(_) => "subscribe",
        Reply::Unsubscribe => "unsubscribe",
        Reply::Publish => "publish",
        Reply::Presence(_) => "presence",
        Reply::PresenceStats(_) => "presence_stats",
        Reply::History(_) => "history",
        Reply::Rpc(_) => "rpc",
        Reply::Refresh(_) => "refresh",
        Reply::SubRefresh(_) => "sub_refresh",
    };
    out.extend_from_slice(b"{\"id\":");
    write_number(u64::from(id), out);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    match reply {
        Reply::Error(Error { code, message, temporary }) => {
            write_json(&ErrorBody { code: *code, message, temporary: *temporary }, out);
        }
        Reply::Refused { code, message, temporary } => {
            write_json(&ErrorBody { code: *code, message, temporary: *temporary }, out);
        }
        Reply::Connect(connected) => write_json(&ConnectBody::from(*connected), out),
        Reply::Subscribe(subscribed) => write_subscribed(subscribed, out),
        Reply::Unsubscribe | Reply::Publish => write_json(&Empty {}, out),
        Reply::Presence(members) => write_presence(members, out),
        Reply::PresenceStats(stats) => write_stats(*stats, out),
        Reply::History(history) => write_history(history, out),
        Reply::Rpc(data) => write_json(&RpcBody { data: data.map(Raw) }, out),
        Reply::Refresh(lease) | Reply::SubRefresh(lease) => {
            write_json(&LeaseBody::from(lease), out);
        }
    }
    out.push(b'}');
}

/// Appends a push as a unidirectional client gets it.
pub fn write_push(push: &Push<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    match push {
        Push::Subscribe { channel, .. } | Push::Unsubscribe { channel, .. } => {
            out.extend_from_slice(b"\"channel\":");
            write_json(channel, out);
            out.push(b',');
        }
        Push::Connect(_) | Push::Disconnect { .. } | Push::Refresh(_) => {}
    }
    let key: &[u8] = match push {
        Push::Connect(_) => b"\"connect\":",
        Push::Subscribe { .. } => b"\"subscribe\":",
        Push::Unsubscribe { .. } => b"\"unsubscribe\":",
        Push::Disconnect { .. } => b"\"disconnect\":",
        Push::Refresh(_) => b"\"refresh\":",
    };
    out.extend_from_slice(key);
    match push {
        Push::Connect(connected) => write_json(&ConnectBody::from(*connected), out),
        Push::Subscribe { subscribed, .. } => write_subscribed(subscribed, out),
        Push::Unsubscribe { code, reason, .. } => {
            write_json(&Reason { code: *code, reason }, out);
        }
        Push::Disconnect { code, reason } => {
            write_json(&Reason { code: u32::from(*code), reason }, out);
        }
        Push::Refresh(lease) => write_json(&LeaseBody::from(lease), out),
    }
    out.push(b'}');
}

/// Appends the API's answer to a publish: `{"result":{"offset":7,"epoch":"abcdefgh"}}`, empty
/// inside where the channel keeps no history.
pub fn write_published(position: Option<Position>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"result\":{");
    if let Some(position) = position {
        out.extend_from_slice(b"\"offset\":");
        write_number(position.offset, out);
        out.extend_from_slice(b",\"epoch\":\"");
        out.extend_from_slice(position.epoch.as_str().as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b"}}");
}

/// Parts of a publication beside its data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details<'a> {
    /// Who published it, if a client did.
    pub info: Option<&'a ClientInfo>,
    /// Its offset, where the channel keeps history.
    pub offset: Option<u64>,
    /// Its tags.
    pub tags: &'a [(Box<str>, Box<str>)],
}

/// Where the parts of a written publication stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The publication object.
    pub object: Range<usize>,
    /// The data within it.
    pub data: Range<usize>,
}

/// What a publication's data is written as.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// JSON text as it is.
    Plain(&'a [u8]),
    /// The same as a string of text, for who may get differences.
    Text(&'a str),
    /// The difference to the publication before, as a string.
    Patch(&'a str),
}

/// Appends `{"channel":"c","pub":{"data":...}}`, the push of a publication as a unidirectional
/// client gets it.
pub fn write_publication(
    channel: &str,
    data: Data<'_>,
    details: &Details<'_>,
    out: &mut Vec<u8>,
) -> Places {
    out.extend_from_slice(b"{\"channel\":");
    write_json(&channel, out);
    out.extend_from_slice(b",\"pub\":");
    let places = write_object(data, details, out);
    out.push(b'}');
    places
}

/// Appends a publication object: `{"data":...}`.
pub fn write_object(data: Data<'_>, details: &Details<'_>, out: &mut Vec<u8>) -> Places {
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
    out.push(b'}');
    let end = out.len();
    Places { object: start..end, data: data_start..data_end }
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

/// A push that begins with its channel's name, with a number in the name's place.
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

/// How a push begins; the channel's name follows.
const CHANNEL_OPEN: &[u8] = b"{\"channel\":\"";
/// What goes around a push for a bidirectional client.
pub const PUSH_OPEN: &[u8] = b"{\"push\":";
/// See [`PUSH_OPEN`].
pub const PUSH_CLOSE: &[u8] = b"}";
/// A ping, and a client's pong.
pub const PING: &[u8] = b"{}";

#[cfg(test)]
mod tests {
    use super::super::{Epoch, Wire};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn depth_is_that_of_what_is_not_quoted() {
        let nested = |levels: usize, within: &str| {
            format!("{}{within}{}", "[{\"a\":".repeat(levels), "}]".repeat(levels))
        };
        let check = |text: &str, expected| {
            assert!(is_json(text.as_bytes()), "{text}");
            assert_eq!(is_too_deep(text.as_bytes()), expected, "{text}");
        };
        check(&nested(DEPTH_MAX / 2, "1"), false);
        check(&nested(DEPTH_MAX / 2, "[]"), true);
        check(&nested(20_000, "1"), true);
        check(&format!("[{}1]", "[[]],".repeat(2000)), false);
        check(&format!("\"{}\"", "[".repeat(5000)), false);
        check(&format!("\"\\\"{}\\\\\"", "[".repeat(5000)), false);
        check(&nested(DEPTH_MAX / 2, &format!("\"\\\\{}\"", "[".repeat(99))), false);
    }

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn first(text: &str) -> Request<'_> {
        Commands::new(text.as_bytes()).next().unwrap().unwrap().request.unwrap()
    }

    #[test]
    fn a_number_takes_the_place_of_any_name() {
        for name in ["c", "", "quo\"te", "back\\", "\\\"", "\u{1}\n\u{e9}", "\",\"pub\":{}"] {
            let named = text(|out| {
                write_publication(name, Data::Plain(b"\"c\""), &Details::default(), out);
            });
            let renamed = String::from_utf8(renamed(named.as_bytes(), 305)).unwrap();
            assert_eq!(renamed, r#"{"id":305,"pub":{"data":"c"}}"#, "{name:?}");
        }
    }

    #[test]
    fn commands_of_a_frame_come_in_order() {
        let frame = b"{\"id\":1,\"connect\":{\"name\":\"js\"},\"new\":[]}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\\u0062\"}}\n{}\n";
        let mut commands = Commands::new(frame);
        let first = commands.next().unwrap().unwrap();
        assert_eq!(first.id, 1);
        assert!(matches!(first.request, Some(Request::Connect(connect)) if connect.name == "js"));
        let second = commands.next().unwrap().unwrap();
        assert!(matches!(second.request, Some(Request::Subscribe(join)) if join.channel == "ab"));
        let consumed = commands.consumed();
        assert_eq!(&frame[consumed..], b"\n{}\n");
        let third = commands.next().unwrap().unwrap();
        assert!(third.id == 0 && third.request.is_none());
        assert!(commands.next().is_none());
    }

    #[test]
    fn the_first_request_in_the_protocols_order_counts() {
        let both = first(r#"{"id":1,"refresh":{},"publish":{},"history":{}}"#);
        assert!(matches!(both, Request::Publish(_)));
        let ping = first(r#"{"id":1,"subscribe":{},"ping":{}}"#);
        assert!(matches!(ping, Request::Ping));
    }

    #[test]
    fn data_may_be_null_or_missing() {
        let check = |data: &str, expected: Option<&str>| {
            let command = format!("{{\"id\":1,\"publish\":{{\"channel\":\"c\"{data}}}}}");
            let Request::Publish(request) = first(&command) else { panic!("{command}") };
            assert_eq!(request.data.as_deref(), expected.map(str::as_bytes));
        };
        check("", None);
        check(",\"data\":null", Some("null"));
        check(",\"data\":{\"a\": 1}", Some("{\"a\": 1}"));
    }

    #[test]
    fn replies_have_the_documented_shape() {
        let check = |id, reply: &Reply<'_>, expected: &str| {
            assert_eq!(text(|out| write_reply(id, reply, out)), expected);
        };
        let connected = Connected { client: "id", ping: 25, pong: true, ..Connected::default() };
        let body =
            format!("{{\"client\":\"id\",\"version\":\"{VERSION}\",\"ping\":25,\"pong\":true}}");
        check(1, &Reply::Connect(&connected), &format!("{{\"id\":1,\"connect\":{body}}}"));
        let plain = Subscribed::default();
        check(2, &Reply::Subscribe(&plain), "{\"id\":2,\"subscribe\":{}}");
        let position = Position { offset: 7, epoch: Epoch::parse("abcdefgh") };
        let recovered = Subscribed {
            recoverable: true,
            positioned: true,
            was_recovering: true,
            recovered: true,
            position: Some(position),
            publications: vec![b"{\"data\":1,\"offset\":8}".into()],
            expires: Some(Lease(60)),
            data: Some(b"[1,\n2]"),
            delta: true,
            number: 12,
        };
        check(
            3,
            &Reply::Subscribe(&recovered),
            "{\"id\":3,\"subscribe\":{\"expires\":true,\"ttl\":60,\"recoverable\":true,\
             \"epoch\":\"abcdefgh\",\"publications\":[{\"data\":1,\"offset\":8}],\
             \"recovered\":true,\"offset\":7,\"positioned\":true,\"data\":[1,2],\
             \"was_recovering\":true,\"delta\":true,\"id\":12}}",
        );
        check(
            4,
            &Reply::Error(Error::INTERNAL),
            "{\"id\":4,\"error\":{\"code\":100,\"message\":\"internal server error\",\"temporary\":true}}",
        );
        check(5, &Reply::Publish, "{\"id\":5,\"publish\":{}}");
        check(6, &Reply::Unsubscribe, "{\"id\":6,\"unsubscribe\":{}}");
        let info = ClientInfo { user: "u".into(), client: "c".into(), ..ClientInfo::default() };
        check(
            7,
            &Reply::Presence(&Roll::of(Wire::Json, &[info])),
            "{\"id\":7,\"presence\":{\"presence\":{\"c\":{\"user\":\"u\",\"client\":\"c\"}}}}",
        );
        check(8, &Reply::Presence(&Roll::default()), "{\"id\":8,\"presence\":{\"presence\":{}}}");
        check(
            9,
            &Reply::PresenceStats(Stats::default()),
            "{\"id\":9,\"presence_stats\":{\"num_clients\":0,\"num_users\":0}}",
        );
        let nothing = History { position, ..History::default() };
        check(
            10,
            &Reply::History(&nothing),
            "{\"id\":10,\"history\":{\"publications\":[],\"epoch\":\"abcdefgh\",\"offset\":7}}",
        );
        check(11, &Reply::Refresh(None), "{\"id\":11,\"refresh\":{}}");
        let lease = Some(Lease(9));
        check(
            12,
            &Reply::SubRefresh(lease),
            "{\"id\":12,\"sub_refresh\":{\"expires\":true,\"ttl\":9}}",
        );
    }

    #[test]
    fn what_the_backend_said_has_the_documented_shape() {
        let check = |id, reply: &Reply<'_>, expected: &str| {
            assert_eq!(text(|out| write_reply(id, reply, out)), expected);
        };
        check(13, &Reply::Rpc(Some(b"{\n}")), "{\"id\":13,\"rpc\":{\"data\":{}}}");
        check(14, &Reply::Rpc(None), "{\"id\":14,\"rpc\":{}}");
        let (code, message) = (1000, "a \"word\"");
        check(
            15,
            &Reply::Refused { code, message, temporary: false },
            "{\"id\":15,\"error\":{\"code\":1000,\"message\":\"a \\\"word\\\"\"}}",
        );
    }

    #[test]
    fn pushes_have_the_documented_shape() {
        let check = |push: &Push<'_>, expected: &str| {
            assert_eq!(text(|out| write_push(push, out)), expected);
        };
        let subs = vec![("c", Subscribed::default())];
        let connected = Connected { client: "id", subs, ..Connected::default() };
        check(
            &Push::Connect(&connected),
            &format!(
                "{{\"connect\":{{\"client\":\"id\",\"version\":\"{VERSION}\",\"subs\":{{\"c\":{{}}}}}}}}"
            ),
        );
        let subscribed = Subscribed { recoverable: true, ..Subscribed::default() };
        check(
            &Push::Subscribe { channel: "a\"b", subscribed: &subscribed },
            "{\"channel\":\"a\\\"b\",\"subscribe\":{\"recoverable\":true}}",
        );
        check(
            &Push::Unsubscribe { channel: "c", code: 2000, reason: "r" },
            "{\"channel\":\"c\",\"unsubscribe\":{\"code\":2000,\"reason\":\"r\"}}",
        );
        check(
            &Push::Disconnect { code: 3001, reason: "shutdown" },
            "{\"disconnect\":{\"code\":3001,\"reason\":\"shutdown\"}}",
        );
        check(&Push::Refresh(Some(Lease(5))), "{\"refresh\":{\"expires\":true,\"ttl\":5}}");
    }

    #[test]
    fn a_publication_has_no_newline_and_knows_its_parts() {
        let mut out = b"x".to_vec();
        let details = Details { offset: Some(3), ..Details::default() };
        let data = Data::Plain(b"{\n\"k\":1}");
        let places = write_publication("a\"b", data, &details, &mut out);
        assert_eq!(
            &out[1..],
            b"{\"channel\":\"a\\\"b\",\"pub\":{\"data\":{\"k\":1},\"offset\":3}}"
        );
        assert_eq!(&out[places.object], b"{\"data\":{\"k\":1},\"offset\":3}");
        assert_eq!(&out[places.data], b"{\"k\":1}");
        let patch = text(|out| _ = write_object(Data::Patch("a\"b"), &details, out));
        assert_eq!(patch, "{\"data\":\"a\\\"b\",\"offset\":3,\"delta\":true}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut commands = Commands::new(&bytes);
            while let Some(Ok(_)) = commands.next() {}
        }
    }
}
