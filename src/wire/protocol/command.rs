//! What a client may say, in whichever encoding it says it.
//!
//! Owns nothing but what it was given. Never judges: that a channel is named or a token is right
//! is checked by who carries the command out. The JSON encoding is read straight into these.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::position::{Epoch, Position};
use crate::wire::filter::FilterNode;
use crate::wire::lenient_json::{self, Text};

/// One command of a frame.
#[derive(Debug)]
pub struct Command<'a> {
    /// Echoed in the reply; 0 makes it a pong, unless it is a message that no reply follows.
    pub id: u32,
    /// `None`: a pong, or a request that this server has never heard of.
    pub request: Option<Request<'a>>,
}

/// What is asked for.
#[derive(Debug)]
pub enum Request<'a> {
    /// Must come first on a connection.
    Connect(Box<ConnectRequest<'a>>),
    /// Reserved; no client sends it.
    Ping,
    /// Join a channel.
    Subscribe(Box<SubscribeRequest<'a>>),
    /// Leave a channel.
    Unsubscribe(ChannelRequest<'a>),
    /// Publish into a channel.
    Publish(PublishRequest<'a>),
    /// Who is in a channel.
    Presence(ChannelRequest<'a>),
    /// How many are in a channel.
    PresenceStats(ChannelRequest<'a>),
    /// What was published in a channel.
    History(HistoryRequest<'a>),
    /// A call of the application's own.
    Rpc(RpcRequest<'a>),
    /// An asynchronous message of the application's own.
    Send,
    /// A new connection token.
    Refresh(RefreshRequest<'a>),
    /// A new subscription token.
    SubRefresh(SubRefreshRequest<'a>),
}

/// Bytes that pass through as they are: for a JSON client the text of a JSON value.
pub type Payload<'a> = Cow<'a, [u8]>;

/// The first command.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConnectRequest<'a> {
    /// A connection token.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub token: Cow<'a, str>,
    /// For the application's connect proxy.
    #[serde(borrow, deserialize_with = "payload")]
    pub data: Option<Payload<'a>>,
    /// Channels with the client's position in each, in the order given.
    #[serde(borrow)]
    pub subs: Option<RequestedSubs<'a>>,
    /// Name of the client library.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub name: Cow<'a, str>,
    /// Its version, or the application's.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub version: Cow<'a, str>,
    /// For the application's proxies, as if the HTTP request had them.
    #[serde(deserialize_with = "headers")]
    pub headers: Option<BTreeMap<String, String>>,
}

/// Channels with the client's position in each, in the order given.
#[derive(Debug, Default)]
pub struct RequestedSubs<'a>(pub Vec<(Cow<'a, str>, SubscribeRequest<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for RequestedSubs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> serde::de::Visitor<'de> for Entries<'a> {
            type Value = RequestedSubs<'a>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of channels")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(
                self,
                mut map: M,
            ) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                while let Some((Text(channel), request)) = map.next_entry()? {
                    let RequestedSub(request) = request;
                    entries.push((channel, request.unwrap_or_default()));
                }
                Ok(RequestedSubs(entries))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

#[derive(Deserialize)]
struct RequestedSub<'a>(
    #[serde(borrow, deserialize_with = "lenient_json::object")] Option<SubscribeRequest<'a>>,
);

/// Join a channel, perhaps where the client left off.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SubscribeRequest<'a> {
    /// The channel.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub channel: Cow<'a, str>,
    /// A subscription token.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub token: Cow<'a, str>,
    /// Whether the missed publications are wanted.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub recover: bool,
    /// The stream's life in which the client left off.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub epoch: Cow<'a, str>,
    /// The last offset that the client saw.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub offset: u64,
    /// For the application's subscribe proxy.
    #[serde(borrow, deserialize_with = "payload")]
    pub data: Option<Payload<'a>>,
    /// Asks for positions to be checked.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub positioned: bool,
    /// Asks for recovery later on.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub recoverable: bool,
    /// Asks to be told who comes and goes.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub join_leave: bool,
    /// Asks for differences to the publication before; `fossil` or nothing.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub delta: Cow<'a, str>,
    /// Asks for publications with certain tags only.
    #[serde(rename = "tf", deserialize_with = "lenient_json::object")]
    pub filter: Option<Box<FilterNode>>,
    /// Bits of what the client understands.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub flag: i64,
    /// Kind of subscription; 0 is a stream, the only kind served here.
    #[serde(rename = "type", deserialize_with = "lenient_json::nullable")]
    pub kind: i32,
}

impl SubscribeRequest<'_> {
    /// The position to be recovered from, if that is asked for.
    pub fn since(&self) -> Option<Position> {
        self.recover.then(|| Position { offset: self.offset, epoch: Epoch::parse(&self.epoch) })
    }
}

/// A request that only names a channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ChannelRequest<'a> {
    /// The channel.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub channel: Cow<'a, str>,
}

/// Publish into a channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PublishRequest<'a> {
    /// The channel.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub channel: Cow<'a, str>,
    /// In JSON any value, `null` included.
    #[serde(borrow, deserialize_with = "payload")]
    pub data: Option<Payload<'a>>,
}

/// What was published in a channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HistoryRequest<'a> {
    /// The channel.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub channel: Cow<'a, str>,
    /// How many publications; 0: only the position, negative: all.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub limit: i32,
    /// From behind this position on, or in front of it.
    #[serde(borrow, deserialize_with = "lenient_json::object")]
    pub since: Option<StreamPosition<'a>>,
    /// Newest first.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub reverse: bool,
}

/// A position as a client names it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamPosition<'a> {
    /// Of a publication.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub offset: u64,
    /// The stream's life.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub epoch: Cow<'a, str>,
}

/// A call of the application's own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RpcRequest<'a> {
    /// What is called.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub method: Cow<'a, str>,
    /// With what.
    #[serde(borrow, deserialize_with = "payload")]
    pub data: Option<Payload<'a>>,
}

/// A new connection token.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RefreshRequest<'a> {
    /// The token.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub token: Cow<'a, str>,
}

/// A new subscription token.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SubRefreshRequest<'a> {
    /// The channel.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub channel: Cow<'a, str>,
    /// The token.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub token: Cow<'a, str>,
}

/// The text of a JSON value; `null` is one too.
fn payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Payload<'de>>, D::Error> {
    let text = lenient_json::payload(deserializer)?;
    Ok(text.map(|text| Cow::Borrowed(text.get().as_bytes())))
}

/// Headers by name; one whose value is `null` counts as absent.
fn headers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    let headers = Option::<BTreeMap<String, Option<String>>>::deserialize(deserializer)?;
    let given = |(name, value): (String, Option<String>)| Some((name, value?));
    Ok(headers.map(|headers| headers.into_iter().filter_map(given).collect()))
}

/// What somebody says for the client of a stream, by a request of its own.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
pub struct EmulationRequest {
    /// The node that knows the session.
    #[prost(string, tag = "1")]
    #[serde(default, deserialize_with = "lenient_json::nullable")]
    pub node: String,
    /// Names the connection that it speaks for.
    #[prost(string, tag = "2")]
    #[serde(default, deserialize_with = "lenient_json::nullable")]
    pub session: String,
    /// A frame of commands, in the connection's own encoding.
    #[prost(bytes = "vec", tag = "3")]
    #[serde(default, deserialize_with = "text_bytes")]
    pub data: Vec<u8>,
}

fn text_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    lenient_json::nullable(deserializer).map(String::into_bytes)
}
