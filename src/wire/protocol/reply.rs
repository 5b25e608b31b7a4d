//! The replies and pushes to clients, independent of the encoding.
//!
//! Owns no state: replies and pushes borrow their parts until they are written.

use std::sync::Arc;

use super::command::Payload;
use super::error::Error;
use super::position::Position;

/// The information about a client that other clients see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// The user id; empty for an anonymous user.
    pub user: Box<str>,
    /// The client id of the connection.
    pub client: Box<str>,
    /// JSON text about the connection, from the connection token.
    pub connection: Option<Box<[u8]>>,
    /// JSON text about the subscription, from the subscription token.
    pub channel: Option<Box<[u8]>>,
}

impl ClientInfo {
    /// Bytes of the texts.
    pub fn size(&self) -> usize {
        let texts = [&self.connection, &self.channel];
        let texts = texts.into_iter().flatten().map(|text| text.len()).sum::<usize>();
        self.user.len() + self.client.len() + texts
    }
}

/// The members of a channel in one encoding. The list consists of parts that replies share. A part
/// holds members as [`super::write_member`] appends them.
#[derive(Clone, Debug, Default)]
pub struct PresenceList {
    parts: Vec<Arc<[u8]>>,
    bytes: usize,
}

impl PresenceList {
    /// A list of these parts in order. No part is empty.
    pub fn new(parts: Vec<Arc<[u8]>>) -> Self {
        let bytes = parts.iter().map(|part| part.len()).sum();
        PresenceList { parts, bytes }
    }

    /// The parts.
    pub fn parts(&self) -> &[Arc<[u8]>] {
        &self.parts
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The reply to a command.
#[derive(Debug)]
pub enum Reply<'a> {
    /// The command failed; the connection stays open.
    Error(Error),
    /// The backend refused the command.
    Refused {
        /// Code of the reason.
        code: u32,
        /// Reason for humans.
        message: &'a str,
        /// Whether a retry may succeed.
        temporary: bool,
    },
    /// Reply to connect.
    Connect(&'a ConnectResult<'a>),
    /// Reply to subscribe.
    Subscribe(&'a SubscribeResult<'a>),
    /// Reply to unsubscribe.
    Unsubscribe,
    /// Reply to publish.
    Publish,
    /// Reply to presence.
    Presence(&'a PresenceList),
    /// Reply to presence stats.
    PresenceStats(PresenceStats),
    /// Reply to history.
    History(&'a HistoryResult<'a>),
    /// Reply to rpc; `None`: the backend returned no data.
    Rpc(Option<&'a [u8]>),
    /// Reply to refresh.
    Refresh(Option<Ttl>),
    /// Reply to the refresh of a subscription.
    SubRefresh(Option<Ttl>),
}

/// A push: a message that is not a reply. Publications, joins and leaves are not here:
/// [`crate::model::publication`] writes them once for all subscribers.
#[derive(Debug)]
pub enum Push<'a> {
    /// A unidirectional client is connected.
    Connect(&'a ConnectResult<'a>),
    /// The server has subscribed the client to a channel.
    Subscribe {
        /// The channel.
        channel: &'a str,
        /// The result of the subscription.
        subscribed: &'a SubscribeResult<'a>,
    },
    /// The server has ended a subscription.
    Unsubscribe {
        /// The channel.
        channel: &'a str,
        /// Code of the reason.
        code: u32,
        /// Reason for humans.
        reason: &'a str,
    },
    /// The connection closes. Sent on transports that have no close frame.
    Disconnect {
        /// Code of the reason.
        code: u16,
        /// Reason for humans.
        reason: &'a str,
    },
    /// The expiry of a unidirectional client's connection has changed.
    Refresh(Option<Ttl>),
}

/// Time to live in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(pub u32);

/// Number of clients and users in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Number of connections.
    pub clients: u32,
    /// Number of distinct users.
    pub users: u32,
}

/// The result of a connect command.
#[derive(Debug, Default)]
pub struct ConnectResult<'a> {
    /// The client id.
    pub client: &'a str,
    /// Time until the token expires; `None`: it never expires.
    pub expires: Option<Ttl>,
    /// Data from the backend.
    pub data: Option<&'a [u8]>,
    /// Server-side subscriptions.
    pub subs: Vec<(&'a str, SubscribeResult<'a>)>,
    /// Seconds between pings of the protocol; 0: the server sends none.
    pub ping: u32,
    /// Whether the client must answer pings.
    pub pong: bool,
    /// Session id for emulation requests; empty on transports without emulation.
    pub session: &'a str,
    /// Node id for emulation requests; empty on transports without emulation.
    pub node: &'a str,
    /// Server time in Unix milliseconds; `None`: not sent.
    pub time: Option<i64>,
    /// The client's `Last-Event-ID` if this server did not write it; otherwise empty.
    pub unknown_event_id: &'a str,
}

/// The result of a subscription.
#[derive(Debug, Default)]
pub struct SubscribeResult<'a> {
    /// Time until the token expires; `None`: it never expires.
    pub expires: Option<Ttl>,
    /// Whether the client may recover this subscription after a reconnect.
    pub recoverable: bool,
    /// Whether the server checks the client's position.
    pub positioned: bool,
    /// Whether the client requested recovery.
    pub was_recovering: bool,
    /// Whether `publications` holds all missed publications.
    pub recovered: bool,
    /// Current position of the stream; `None` if the channel keeps no history.
    pub position: Option<Position>,
    /// Missed publications, each encoded as a publication object.
    pub publications: Vec<Payload<'a>>,
    /// Data from the backend.
    pub data: Option<&'a [u8]>,
    /// Whether publications may be deltas.
    pub delta: bool,
    /// Number that replaces the channel name in pushes; 0: pushes carry the name.
    pub number: u32,
}

/// The result of a history command.
#[derive(Debug, Default)]
pub struct HistoryResult<'a> {
    /// The publications, each encoded as a publication object.
    pub publications: Vec<Payload<'a>>,
    /// Current position of the stream.
    pub position: Position,
}
