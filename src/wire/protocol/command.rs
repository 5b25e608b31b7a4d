//! The commands of clients, independent of the encoding.
//!
//! Owns only the parsed commands. Never validates them: the code that executes a command checks the
//! channel name and the token. The JSON parser deserializes directly into these types.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::position::{Epoch, Position};
use crate::wire::filter::FilterNode;
use crate::wire::lenient_json::{self, Text};

/// One command of a frame.
#[derive(Debug)]
pub struct Command<'a> {
    /// Command id, which the reply repeats. 0 marks a pong or a `send` message without a reply.
    pub id: u32,
    /// The request; `None` for a pong or a request that this server does not know.
    pub request: Option<Request<'a>>,
}

/// The request of a command.
#[derive(Debug)]
pub enum Request<'a> {
    /// Connect: the first command of a connection.
    Connect(Box<ConnectRequest<'a>>),
    /// Ping: reserved, clients do not send it.
    Ping,
    /// Subscribe to a channel.
    Subscribe(Box<SubscribeRequest<'a>>),
    /// Unsubscribe from a channel.
    Unsubscribe(ChannelRequest<'a>),
    /// Publish to a channel.
    Publish(PublishRequest<'a>),
    /// List the clients in a channel.
    Presence(ChannelRequest<'a>),
    /// Count the clients and users in a channel.
    PresenceStats(ChannelRequest<'a>),
    /// Read the publications of a channel's history.
    History(HistoryRequest<'a>),
    /// Call a method of the backend.
    Rpc(RpcRequest<'a>),
    /// Send a message to the backend without a reply.
    Send,
    /// Renew the connection token.
    Refresh(RefreshRequest<'a>),
    /// Renew a subscription token.
    SubRefresh(SubRefreshRequest<'a>),
}

/// Application data, passed through unchanged: the text of a JSON value if the client uses JSON.
pub type Payload<'a> = Cow<'a, [u8]>;

/// The connect command, the first command of a connection.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConnectRequest<'a> {
    /// Connection token.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub token: Cow<'a, str>,
    /// Data for the connect proxy.
    #[serde(borrow, deserialize_with = "payload")]
    pub data: Option<Payload<'a>>,
    /// Server-side subscriptions to recover: channels with the client's positions, in the order
    /// given.
    #[serde(borrow)]
    pub subs: Option<RequestedSubs<'a>>,
    /// Name of the client library.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub name: Cow<'a, str>,
    /// Version of the client library or of the application.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub version: Cow<'a, str>,
    /// Headers for proxy requests, used like headers of the HTTP request.
    #[serde(deserialize_with = "headers")]
    pub headers: Option<BTreeMap<String, String>>,
}

/// Channels with the client's positions, in the order given.
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

/// A request to subscribe to a channel, optionally with recovery.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SubscribeRequest<'a> {
    /// The channel.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub channel: Cow<'a, str>,
    /// Subscription token.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub token: Cow<'a, str>,
    /// Whether the client requests its missed publications.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub recover: bool,
    /// The epoch of the client's position.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub epoch: Cow<'a, str>,
    /// The offset of the last publication that the client received.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub offset: u64,
    /// Data for the subscribe proxy.
    #[serde(borrow, deserialize_with = "payload")]
    pub data: Option<Payload<'a>>,
    /// Whether the client requests position checks.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub positioned: bool,
    /// Whether the client requests a recoverable subscription.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub recoverable: bool,
    /// Whether the client requests join and leave pushes.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub join_leave: bool,
    /// The requested delta format: `fossil`, or empty for full publications.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub delta: Cow<'a, str>,
    /// A filter by tags: the client receives only publications that match.
    #[serde(rename = "tf", deserialize_with = "lenient_json::object")]
    pub filter: Option<Box<FilterNode>>,
    /// Bit set of protocol features that the client supports.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub flag: i64,
    /// Type of subscription. This server supports only 0, a stream.
    #[serde(rename = "type", deserialize_with = "lenient_json::nullable")]
    pub kind: i32,
}

impl SubscribeRequest<'_> {
    /// Whether the client requests deltas in a format that this server has.
    pub fn requests_delta(&self) -> bool {
        self.delta == "fossil"
    }

    /// The position to recover from; `None` if the client does not request recovery.
    pub fn since(&self) -> Option<Position> {
        self.recover.then(|| Position { offset: self.offset, epoch: Epoch::parse(&self.epoch) })
    }
}

/// A request that consists of a channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ChannelRequest<'a> {
    /// The channel.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub channel: Cow<'a, str>,
}

/// A request to publish to a channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PublishRequest<'a> {
    /// The channel.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub channel: Cow<'a, str>,
    /// The data; in JSON any value, including `null`.
    #[serde(borrow, deserialize_with = "payload")]
    pub data: Option<Payload<'a>>,
    /// The type of the channel that the client expects: 0 for a stream, 1 for a map.
    #[serde(rename = "type")]
    pub kind: i32,
}

/// A request for the publications of a channel's history.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HistoryRequest<'a> {
    /// The channel.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub channel: Cow<'a, str>,
    /// Maximum number of publications; 0: only the position; negative: all.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub limit: i32,
    /// Return publications after this position, or before it with `reverse`.
    #[serde(borrow, deserialize_with = "lenient_json::object")]
    pub since: Option<StreamPosition<'a>>,
    /// Return the newest publications first.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub reverse: bool,
}

/// A stream position in a client's request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamPosition<'a> {
    /// Offset of a publication.
    #[serde(deserialize_with = "lenient_json::nullable")]
    pub offset: u64,
    /// Epoch of the stream.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub epoch: Cow<'a, str>,
}

/// A call of a method of the backend.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RpcRequest<'a> {
    /// Name of the method.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub method: Cow<'a, str>,
    /// Data of the call.
    #[serde(borrow, deserialize_with = "payload")]
    pub data: Option<Payload<'a>>,
}

/// A request to renew the connection token.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RefreshRequest<'a> {
    /// The token.
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    pub token: Cow<'a, str>,
}

/// A request to renew a subscription token.
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

/// The text of any JSON value, including `null`.
fn payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Payload<'de>>, D::Error> {
    let text = lenient_json::payload(deserializer)?;
    Ok(text.map(|text| Cow::Borrowed(text.get().as_bytes())))
}

/// Headers by name; a header whose value is `null` counts as absent.
fn headers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    let headers = Option::<BTreeMap<String, Option<String>>>::deserialize(deserializer)?;
    let non_null = |(name, value): (String, Option<String>)| Some((name, value?));
    Ok(headers.map(|headers| headers.into_iter().filter_map(non_null).collect()))
}

/// An emulation request: commands for an SSE or HTTP streaming connection.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
pub struct EmulationRequest {
    /// The node that holds the connection.
    #[prost(string, tag = "1")]
    #[serde(default, deserialize_with = "lenient_json::nullable")]
    pub node: String,
    /// Session id of the connection.
    #[prost(string, tag = "2")]
    #[serde(default, deserialize_with = "lenient_json::nullable")]
    pub session: String,
    /// A frame of commands in the encoding of the connection.
    #[prost(bytes = "vec", tag = "3")]
    #[serde(default, deserialize_with = "text_bytes")]
    pub data: Vec<u8>,
}

fn text_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    lenient_json::nullable(deserializer).map(String::into_bytes)
}
