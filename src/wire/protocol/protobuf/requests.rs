//! Protobuf commands: prost parses them, and they are moved into [`crate::wire::protocol::command`]
//! without another copy.
//!
//! Owns the parsed messages. Never validates them. Source of the field numbers:
//! centrifugal/protocol, `client.proto`. Fields that this server does not use are not declared, so
//! prost skips them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use prost::Message;

use crate::wire::filter;
use crate::wire::protocol::command::{self, Payload, Request, RequestedSubs};

/// One command; the field that is present names the request.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Command {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(message, optional, boxed, tag = "4")]
    pub(super) connect: Option<Box<ConnectRequest>>,
    #[prost(message, optional, boxed, tag = "5")]
    pub(super) subscribe: Option<Box<SubscribeRequest>>,
    #[prost(message, optional, tag = "6")]
    pub(super) unsubscribe: Option<ChannelRequest>,
    #[prost(message, optional, tag = "7")]
    pub(super) publish: Option<PublishRequest>,
    #[prost(message, optional, tag = "8")]
    pub(super) presence: Option<ChannelRequest>,
    #[prost(message, optional, tag = "9")]
    pub(super) presence_stats: Option<ChannelRequest>,
    #[prost(message, optional, tag = "10")]
    pub(super) history: Option<HistoryRequest>,
    #[prost(message, optional, tag = "11")]
    pub(super) ping: Option<Ignored>,
    #[prost(message, optional, tag = "12")]
    pub(super) send: Option<Ignored>,
    #[prost(message, optional, tag = "13")]
    pub(super) rpc: Option<RpcRequest>,
    #[prost(message, optional, tag = "14")]
    pub(super) refresh: Option<RefreshRequest>,
    #[prost(message, optional, tag = "15")]
    pub(super) sub_refresh: Option<SubRefreshRequest>,
}

impl Command {
    /// The first request that is present, in protocol order.
    pub(super) fn request(self) -> Option<Request<'static>> {
        None.or(self.connect.map(|request| Request::Connect(Box::new((*request).into()))))
            .or(self.ping.map(|_| Request::Ping))
            .or(self.subscribe.map(|request| Request::Subscribe(Box::new((*request).into()))))
            .or(self.unsubscribe.map(|request| Request::Unsubscribe(request.into())))
            .or(self.publish.map(|request| Request::Publish(request.into())))
            .or(self.presence.map(|request| Request::Presence(request.into())))
            .or(self.presence_stats.map(|request| Request::PresenceStats(request.into())))
            .or(self.history.map(|request| Request::History(request.into())))
            .or(self.rpc.map(|request| Request::Rpc(request.into())))
            .or(self.send.map(|_| Request::Send))
            .or(self.refresh.map(|request| Request::Refresh(request.into())))
            .or(self.sub_refresh.map(|request| Request::SubRefresh(request.into())))
    }
}

/// A message whose fields are ignored.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ignored {}

/// Empty bytes count as absent, because proto3 does not distinguish them.
fn payload(bytes: Vec<u8>) -> Option<Payload<'static>> {
    (!bytes.is_empty()).then_some(Cow::Owned(bytes))
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ConnectRequest {
    #[prost(string, tag = "1")]
    pub(super) token: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) data: Vec<u8>,
    /// A map, parsed as a list to preserve its order on the wire.
    #[prost(message, repeated, tag = "3")]
    pub(super) subs: Vec<RequestedSubEntry>,
    #[prost(string, tag = "4")]
    pub(super) name: String,
    #[prost(string, tag = "5")]
    pub(super) version: String,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(super) headers: BTreeMap<String, String>,
}

/// An entry of the map of channels.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RequestedSubEntry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, boxed, tag = "2")]
    pub(super) value: Option<Box<SubscribeRequest>>,
}

impl From<ConnectRequest> for command::ConnectRequest<'static> {
    fn from(request: ConnectRequest) -> Self {
        let subs: Vec<_> = request.subs.into_iter().map(RequestedSubEntry::into_pair).collect();
        command::ConnectRequest {
            token: request.token.into(),
            data: payload(request.data),
            subs: (!subs.is_empty()).then_some(RequestedSubs(subs)),
            name: request.name.into(),
            version: request.version.into(),
            headers: (!request.headers.is_empty()).then_some(request.headers),
        }
    }
}

impl RequestedSubEntry {
    fn into_pair(self) -> (Cow<'static, str>, command::SubscribeRequest<'static>) {
        let request = self.value.map(|request| (*request).into()).unwrap_or_default();
        (self.key.into(), request)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SubscribeRequest {
    #[prost(string, tag = "1")]
    pub(super) channel: String,
    #[prost(string, tag = "2")]
    pub(super) token: String,
    #[prost(bool, tag = "3")]
    pub(super) recover: bool,
    #[prost(string, tag = "6")]
    pub(super) epoch: String,
    #[prost(uint64, tag = "7")]
    pub(super) offset: u64,
    #[prost(bytes = "vec", tag = "8")]
    pub(super) data: Vec<u8>,
    #[prost(bool, tag = "9")]
    pub(super) positioned: bool,
    #[prost(bool, tag = "10")]
    pub(super) recoverable: bool,
    #[prost(bool, tag = "11")]
    pub(super) join_leave: bool,
    #[prost(string, tag = "12")]
    pub(super) delta: String,
    #[prost(message, optional, boxed, tag = "13")]
    pub(super) tf: Option<Box<FilterNode>>,
    #[prost(int64, tag = "14")]
    pub(super) flag: i64,
    #[prost(int32, tag = "15")]
    pub(super) r#type: i32,
}

impl From<SubscribeRequest> for command::SubscribeRequest<'static> {
    fn from(request: SubscribeRequest) -> Self {
        command::SubscribeRequest {
            channel: request.channel.into(),
            token: request.token.into(),
            recover: request.recover,
            epoch: request.epoch.into(),
            offset: request.offset,
            data: payload(request.data),
            positioned: request.positioned,
            recoverable: request.recoverable,
            join_leave: request.join_leave,
            delta: request.delta.into(),
            filter: request.tf.map(|node| Box::new((*node).into())),
            flag: request.flag,
            kind: request.r#type,
        }
    }
}

/// A node of a filter. Nodes nest; prost refuses messages nested deeper than 100 levels.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FilterNode {
    #[prost(string, tag = "1")]
    pub(super) op: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(string, tag = "3")]
    pub(super) cmp: String,
    #[prost(string, tag = "4")]
    pub(super) val: String,
    #[prost(string, repeated, tag = "5")]
    pub(super) vals: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub(super) nodes: Vec<FilterNode>,
}

impl From<FilterNode> for filter::FilterNode {
    fn from(node: FilterNode) -> Self {
        filter::FilterNode {
            op: node.op,
            key: node.key,
            cmp: node.cmp,
            val: node.val,
            vals: node.vals,
            nodes: node.nodes.into_iter().map(Self::from).collect(),
        }
    }
}

/// A request that consists of a channel.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ChannelRequest {
    #[prost(string, tag = "1")]
    pub(super) channel: String,
}

impl From<ChannelRequest> for command::ChannelRequest<'static> {
    fn from(request: ChannelRequest) -> Self {
        command::ChannelRequest { channel: request.channel.into() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PublishRequest {
    #[prost(string, tag = "1")]
    pub(super) channel: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) data: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub(super) r#type: i32,
}

impl From<PublishRequest> for command::PublishRequest<'static> {
    fn from(request: PublishRequest) -> Self {
        command::PublishRequest {
            channel: request.channel.into(),
            data: payload(request.data),
            kind: request.r#type,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HistoryRequest {
    #[prost(string, tag = "1")]
    pub(super) channel: String,
    #[prost(int32, tag = "7")]
    pub(super) limit: i32,
    #[prost(message, optional, tag = "8")]
    pub(super) since: Option<StreamPosition>,
    #[prost(bool, tag = "9")]
    pub(super) reverse: bool,
}

impl From<HistoryRequest> for command::HistoryRequest<'static> {
    fn from(request: HistoryRequest) -> Self {
        command::HistoryRequest {
            channel: request.channel.into(),
            limit: request.limit,
            since: request.since.map(|position| command::StreamPosition {
                offset: position.offset,
                epoch: position.epoch.into(),
            }),
            reverse: request.reverse,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StreamPosition {
    #[prost(uint64, tag = "1")]
    pub(super) offset: u64,
    #[prost(string, tag = "2")]
    pub(super) epoch: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) data: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) method: String,
}

impl From<RpcRequest> for command::RpcRequest<'static> {
    fn from(request: RpcRequest) -> Self {
        command::RpcRequest { method: request.method.into(), data: payload(request.data) }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RefreshRequest {
    #[prost(string, tag = "1")]
    pub(super) token: String,
}

impl From<RefreshRequest> for command::RefreshRequest<'static> {
    fn from(request: RefreshRequest) -> Self {
        command::RefreshRequest { token: request.token.into() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SubRefreshRequest {
    #[prost(string, tag = "1")]
    pub(super) channel: String,
    #[prost(string, tag = "2")]
    pub(super) token: String,
}

impl From<SubRefreshRequest> for command::SubRefreshRequest<'static> {
    fn from(request: SubRefreshRequest) -> Self {
        command::SubRefreshRequest { channel: request.channel.into(), token: request.token.into() }
    }
}
