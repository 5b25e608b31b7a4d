//! The JSON encoding: commands read without copying, replies written straight into the output.
//!
//! Owns nothing. Never keeps a payload: client data passes through as the JSON text it is, with
//! newlines taken out, since a newline ends a reply.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{Error, Position};

/// One command of a frame. Which request is present says what it is; unknown fields are ignored.
#[derive(Debug, Deserialize)]
pub struct Command<'a> {
    /// Echoed in the reply; 0 makes it a pong.
    #[serde(default)]
    pub id: u32,
    /// Must come first on a connection.
    #[serde(borrow)]
    pub connect: Option<ConnectRequest<'a>>,
    /// Join a channel.
    #[serde(borrow)]
    pub subscribe: Option<SubscribeRequest<'a>>,
    /// Leave a channel.
    #[serde(borrow)]
    pub unsubscribe: Option<ChannelRequest<'a>>,
    /// Publish into a channel.
    #[serde(borrow)]
    pub publish: Option<PublishRequest<'a>>,
    /// Who is in a channel.
    #[serde(borrow)]
    pub presence: Option<ChannelRequest<'a>>,
    /// How many are in a channel.
    #[serde(borrow)]
    pub presence_stats: Option<ChannelRequest<'a>>,
    /// What was published in a channel.
    #[serde(borrow)]
    pub history: Option<ChannelRequest<'a>>,
    /// A call of the application's own.
    pub rpc: Option<Ignored>,
    /// An asynchronous message of the application's own.
    pub send: Option<Ignored>,
    /// A new connection token.
    pub refresh: Option<Ignored>,
    /// A new subscription token.
    #[serde(borrow)]
    pub sub_refresh: Option<ChannelRequest<'a>>,
    /// Reserved; no client sends it.
    pub ping: Option<Ignored>,
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

/// An object of which nothing is read.
#[derive(Debug, Deserialize)]
pub struct Ignored {}

/// The first command.
#[derive(Debug, Default, Deserialize)]
pub struct ConnectRequest<'a> {
    /// A connection token.
    #[serde(borrow, default)]
    pub token: Cow<'a, str>,
    /// Name of the client library.
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    /// The channels that a unidirectional client wants, with its positions in them.
    #[serde(borrow, default)]
    pub subs: Option<Requested<'a>>,
}

/// Channels with the client's position in each, in the order given.
#[derive(Debug, Default)]
pub struct Requested<'a>(pub Vec<(Cow<'a, str>, SubscribeRequest<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Requested<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> serde::de::Visitor<'de> for Entries<'a> {
            type Value = Requested<'a>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of channels")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(
                self,
                mut map: M,
            ) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                while let Some((Text(channel), request)) = map.next_entry()? {
                    entries.push((channel, request));
                }
                Ok(Requested(entries))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Join a channel, perhaps where the client left off.
#[derive(Debug, Default, Deserialize)]
pub struct SubscribeRequest<'a> {
    /// The channel.
    #[serde(borrow, default)]
    pub channel: Cow<'a, str>,
    /// Whether the missed publications are wanted.
    #[serde(default)]
    pub recover: bool,
    /// The stream's life in which the client left off.
    #[serde(borrow, default)]
    pub epoch: Cow<'a, str>,
    /// The last offset that the client saw.
    #[serde(default)]
    pub offset: u64,
    /// Asks for positions to be checked.
    #[serde(default)]
    pub positioned: bool,
    /// Asks for recovery later on.
    #[serde(default)]
    pub recoverable: bool,
}

/// A request that only names a channel.
#[derive(Debug, Deserialize)]
pub struct ChannelRequest<'a> {
    /// The channel.
    #[serde(borrow, default)]
    pub channel: Cow<'a, str>,
}

/// Publish into a channel.
#[derive(Debug, Deserialize)]
pub struct PublishRequest<'a> {
    /// The channel.
    #[serde(borrow, default)]
    pub channel: Cow<'a, str>,
    /// Any JSON, `null` included.
    #[serde(borrow, default, deserialize_with = "present")]
    pub data: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The commands of a frame, one after the other.
pub struct Commands<'a> {
    stream: serde_json::StreamDeserializer<'a, serde_json::de::SliceRead<'a>, Command<'a>>,
}

impl<'a> Commands<'a> {
    /// Reads `frame`.
    pub fn new(frame: &'a [u8]) -> Self {
        Commands { stream: serde_json::Deserializer::from_slice(frame).into_iter() }
    }

    /// The next command, `None` at the end. An error ends the frame.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Result<Command<'a>, serde_json::Error>> {
        self.stream.next()
    }

    /// How many bytes of the frame the commands so far took.
    pub fn consumed(&self) -> usize {
        self.stream.byte_offset()
    }
}

/// What a subscribed client is told about the stream.
#[derive(Debug, Default)]
pub struct Subscribed<'a> {
    /// Whether it may recover later.
    pub recoverable: bool,
    /// Whether its position is checked.
    pub positioned: bool,
    /// Whether it asked for what it missed.
    pub was_recovering: bool,
    /// Whether it gets all of it here.
    pub recovered: bool,
    /// Where it stands after this answer's start.
    pub position: Option<Position>,
    /// What it missed, each a JSON object.
    pub publications: Vec<&'a [u8]>,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[derive(Serialize)]
struct SubscribeResult<'a> {
    #[serde(skip_serializing_if = "is_false")]
    recoverable: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    epoch: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    publications: Vec<&'a RawValue>,
    #[serde(skip_serializing_if = "is_false")]
    recovered: bool,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_false")]
    positioned: bool,
    #[serde(skip_serializing_if = "is_false")]
    was_recovering: bool,
}

#[derive(Serialize)]
struct ConnectResult<'a> {
    client: &'a str,
    version: &'a str,
    ping: u32,
    #[serde(skip_serializing_if = "is_false")]
    pong: bool,
}

/// What a connected client is told.
#[derive(Clone, Copy, Debug)]
pub struct Connected<'a> {
    /// The client's id.
    pub client: &'a str,
    /// Seconds between pings.
    pub ping: u32,
    /// Whether a pong is expected.
    pub pong: bool,
}

const VERSION: &str = concat!("drumline ", env!("CARGO_PKG_VERSION"));

fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a Vec takes everything, and the keys are strings");
}

fn write_result(id: u32, key: &str, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"{\"id\":");
    write_number(u64::from(id), out);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    write(out);
    out.push(b'}');
}

/// Appends decimal digits.
pub fn write_number(number: u64, out: &mut Vec<u8>) {
    use std::io::Write;
    write!(out, "{number}").expect("a Vec takes everything");
}

/// Appends a connect reply.
pub fn write_connected(id: u32, connected: &Connected<'_>, out: &mut Vec<u8>) {
    write_result(id, "connect", out, |out| write_json(&connect_result(connected), out));
}

fn connect_result<'a>(connected: &Connected<'a>) -> ConnectResult<'a> {
    ConnectResult {
        client: connected.client,
        version: VERSION,
        ping: connected.ping,
        pong: connected.pong,
    }
}

/// Appends a subscribe reply.
pub fn write_subscribed(id: u32, subscribed: &Subscribed<'_>, out: &mut Vec<u8>) {
    write_result(id, "subscribe", out, |out| write_subscribe_result(subscribed, out));
}

fn write_subscribe_result(subscribed: &Subscribed<'_>, out: &mut Vec<u8>) {
    let position = subscribed.position.unwrap_or_default();
    let publications = subscribed
        .publications
        .iter()
        .filter_map(|publication| serde_json::from_slice::<&RawValue>(publication).ok())
        .collect();
    write_json(
        &SubscribeResult {
            recoverable: subscribed.recoverable,
            epoch: position.epoch.as_str(),
            publications,
            recovered: subscribed.recovered,
            offset: position.offset,
            positioned: subscribed.positioned,
            was_recovering: subscribed.was_recovering,
        },
        out,
    );
}

/// Appends a reply whose result is empty: `{"id":4,"unsubscribe":{}}`.
pub fn write_empty(id: u32, key: &str, out: &mut Vec<u8>) {
    write_result(id, key, out, |out| out.extend_from_slice(b"{}"));
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

/// Appends an error reply.
pub fn write_error(id: u32, error: Error, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Body {
        code: u32,
        message: &'static str,
        #[serde(skip_serializing_if = "is_false")]
        temporary: bool,
    }
    let Error { code, message, temporary } = error;
    write_result(id, "error", out, |out| write_json(&Body { code, message, temporary }, out));
}

/// Appends the first push of a unidirectional client.
pub fn write_connect_push(
    connected: &Connected<'_>,
    subs: &[(&str, Subscribed<'_>)],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"connect\":");
    write_json(&connect_result(connected), out);
    if !subs.is_empty() {
        out.pop();
        out.extend_from_slice(b",\"subs\":{");
        for (index, (channel, subscribed)) in subs.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_json(channel, out);
            out.push(b':');
            write_subscribe_result(subscribed, out);
        }
        out.extend_from_slice(b"}}");
    }
    out.push(b'}');
}

/// Appends the last push of a unidirectional client.
pub fn write_disconnect_push(code: u16, reason: &str, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Push<'a> {
        disconnect: Body<'a>,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        code: u16,
        reason: &'a str,
    }
    write_json(&Push { disconnect: Body { code, reason } }, out);
}

/// Appends `{"channel":"c","pub":{"data":...}}`, the push of a publication as a unidirectional
/// client gets it; returns where in `out` the publication object stands.
pub fn write_publication(
    channel: &str,
    data: &[u8],
    offset: Option<u64>,
    out: &mut Vec<u8>,
) -> std::ops::Range<usize> {
    out.extend_from_slice(b"{\"channel\":");
    write_json(&channel, out);
    out.extend_from_slice(b",\"pub\":");
    let start = out.len();
    out.extend_from_slice(b"{\"data\":");
    out.extend(data.iter().filter(|byte| **byte != b'\n' && **byte != b'\r'));
    if let Some(offset) = offset {
        out.extend_from_slice(b",\"offset\":");
        write_number(offset, out);
    }
    out.push(b'}');
    let end = out.len();
    out.push(b'}');
    start..end
}

/// What goes around a push for a bidirectional client.
pub const PUSH_OPEN: &[u8] = b"{\"push\":";
/// See [`PUSH_OPEN`].
pub const PUSH_CLOSE: &[u8] = b"}";
/// A ping, and a client's pong.
pub const PING: &[u8] = b"{}";

#[cfg(test)]
mod tests {
    use super::super::Epoch;
    use super::*;
    use proptest::prelude::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn commands_of_a_frame_come_in_order() {
        let frame = b"{\"id\":1,\"connect\":{\"name\":\"js\"},\"new\":[]}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\\u0062\"}}\n{}\n";
        let mut commands = Commands::new(frame);
        let first = commands.next().unwrap().unwrap();
        assert_eq!((first.id, first.connect.unwrap().name.as_ref()), (1, "js"));
        let second = commands.next().unwrap().unwrap();
        assert_eq!(second.subscribe.unwrap().channel, "ab");
        let consumed = commands.consumed();
        assert_eq!(&frame[consumed..], b"\n{}\n");
        assert_eq!(commands.next().unwrap().unwrap().id, 0);
        assert!(commands.next().is_none());
    }

    #[test]
    fn data_may_be_null_or_missing() {
        let check = |data: &str, expected: Option<&str>| {
            let frame = format!("{{\"id\":1,\"publish\":{{\"channel\":\"c\"{data}}}}}");
            let command = Commands::new(frame.as_bytes()).next().unwrap().unwrap();
            assert_eq!(command.publish.unwrap().data.map(RawValue::get), expected);
        };
        check("", None);
        check(",\"data\":null", Some("null"));
        check(",\"data\":{\"a\": 1}", Some("{\"a\": 1}"));
    }

    #[test]
    fn replies_have_the_documented_shape() {
        let connected = Connected { client: "id", ping: 25, pong: true };
        assert_eq!(
            text(|out| write_connected(1, &connected, out)),
            format!(
                "{{\"id\":1,\"connect\":{{\"client\":\"id\",\"version\":\"{VERSION}\",\"ping\":25,\"pong\":true}}}}"
            )
        );
        assert_eq!(
            text(|out| write_subscribed(2, &Subscribed::default(), out)),
            "{\"id\":2,\"subscribe\":{}}"
        );
        let position = Position { offset: 7, epoch: Epoch::parse("abcdefgh") };
        let recovered = Subscribed {
            recoverable: true,
            positioned: true,
            was_recovering: true,
            recovered: true,
            position: Some(position),
            publications: vec![b"{\"data\":1,\"offset\":8}"],
        };
        assert_eq!(
            text(|out| write_subscribed(3, &recovered, out)),
            "{\"id\":3,\"subscribe\":{\"recoverable\":true,\"epoch\":\"abcdefgh\",\"publications\":\
             [{\"data\":1,\"offset\":8}],\"recovered\":true,\"offset\":7,\"positioned\":true,\
             \"was_recovering\":true}}"
        );
        assert_eq!(
            text(|out| write_error(4, Error::INTERNAL, out)),
            "{\"id\":4,\"error\":{\"code\":100,\"message\":\"internal server error\",\"temporary\":true}}"
        );
        assert_eq!(text(|out| write_empty(5, "publish", out)), "{\"id\":5,\"publish\":{}}");
        assert_eq!(
            text(|out| write_connect_push(&connected, &[("c", Subscribed::default())], out)),
            format!(
                "{{\"connect\":{{\"client\":\"id\",\"version\":\"{VERSION}\",\"ping\":25,\"pong\":true,\"subs\":{{\"c\":{{}}}}}}}}"
            )
        );
    }

    #[test]
    fn a_publication_has_no_newline_and_knows_its_object() {
        let mut out = b"x".to_vec();
        let object = write_publication("a\"b", b"{\n\"k\":1}", Some(3), &mut out);
        assert_eq!(
            &out[1..],
            b"{\"channel\":\"a\\\"b\",\"pub\":{\"data\":{\"k\":1},\"offset\":3}}"
        );
        assert_eq!(&out[object], b"{\"data\":{\"k\":1},\"offset\":3}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut commands = Commands::new(&bytes);
            while let Some(Ok(_)) = commands.next() {}
        }
    }
}
