//! What a client is told, in whichever encoding it is told.
//!
//! Owns nothing: everything is borrowed for as long as it takes to be written.

use std::sync::Arc;

use super::command::Payload;
use super::error::Error;
use super::position::Position;

/// Who a client is to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// The user; empty for one without a name.
    pub user: Box<str>,
    /// The connection's id.
    pub client: Box<str>,
    /// JSON text about the connection, from its token.
    pub connection: Option<Box<[u8]>>,
    /// JSON text about its being in this channel, from the subscription's token.
    pub channel: Option<Box<[u8]>>,
}

/// Everybody in a channel, in one encoding: parts that several answers share, each of some
/// members as [`super::write_member`] appends them.
#[derive(Clone, Debug, Default)]
pub struct PresenceList {
    parts: Vec<Arc<[u8]>>,
    bytes: usize,
}

impl PresenceList {
    /// Parts in their order, none of them empty.
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

/// The answer to a command.
#[derive(Debug)]
pub enum Reply<'a> {
    /// It failed; the connection goes on.
    Error(Error),
    /// It failed for a reason of the application's own.
    Refused {
        /// Why, as a number.
        code: u32,
        /// Why, for people.
        message: &'a str,
        /// Whether trying again may help.
        temporary: bool,
    },
    /// To connect.
    Connect(&'a ConnectResult<'a>),
    /// To subscribe.
    Subscribe(&'a SubscribeResult<'a>),
    /// To unsubscribe.
    Unsubscribe,
    /// To publish.
    Publish,
    /// To presence.
    Presence(&'a PresenceList),
    /// To presence stats.
    PresenceStats(PresenceStats),
    /// To history.
    History(&'a HistoryResult<'a>),
    /// To a call of the application's own; `None`: nothing was returned.
    Rpc(Option<&'a [u8]>),
    /// To refresh.
    Refresh(Option<Ttl>),
    /// To refresh of a subscription.
    SubRefresh(Option<Ttl>),
}

/// What comes without having been asked for. Publications, joins and leaves are written by
/// [`crate::model::publication`], once for all who get them.
#[derive(Debug)]
pub enum Push<'a> {
    /// A unidirectional client is connected.
    Connect(&'a ConnectResult<'a>),
    /// The server has subscribed the client to a channel.
    Subscribe {
        /// The channel.
        channel: &'a str,
        /// What it is told about the stream.
        subscribed: &'a SubscribeResult<'a>,
    },
    /// The server has ended a subscription.
    Unsubscribe {
        /// The channel.
        channel: &'a str,
        /// Why, as a number.
        code: u32,
        /// Why, for people.
        reason: &'a str,
    },
    /// The connection ends, where no close frame can say so.
    Disconnect {
        /// Why, as a number.
        code: u16,
        /// Why, for people.
        reason: &'a str,
    },
    /// A unidirectional client's connection has a new end.
    Refresh(Option<Ttl>),
}

/// How long something holds: seconds from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(pub u32);

/// How many are in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Connections.
    pub clients: u32,
    /// Different users among them.
    pub users: u32,
}

/// What a connected client is told.
#[derive(Debug, Default)]
pub struct ConnectResult<'a> {
    /// The client's id.
    pub client: &'a str,
    /// When it must have a new token; `None`: never.
    pub expires: Option<Ttl>,
    /// From the application.
    pub data: Option<&'a [u8]>,
    /// Channels that the server has subscribed it to.
    pub subs: Vec<(&'a str, SubscribeResult<'a>)>,
    /// Seconds between pings; 0: it gets none of the protocol's.
    pub ping: u32,
    /// Whether a pong is expected.
    pub pong: bool,
    /// Names the connection to others that speak for it; empty: it needs none.
    pub session: &'a str,
    /// The node that knows the session; empty: it needs none.
    pub node: &'a str,
    /// Unix time in milliseconds, if the client is to know it.
    pub time: Option<i64>,
    /// The `Last-Event-ID` that it gave, if that is none of this server's; else empty.
    pub unknown_event_id: &'a str,
}

/// What a subscribed client is told about the stream.
#[derive(Debug, Default)]
pub struct SubscribeResult<'a> {
    /// When it must have a new token; `None`: never.
    pub expires: Option<Ttl>,
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
    /// What it missed, each as the encoding's publication object.
    pub publications: Vec<Payload<'a>>,
    /// From the application.
    pub data: Option<&'a [u8]>,
    /// Whether publications come as differences.
    pub delta: bool,
    /// What stands for the channel's name in pushes; 0: the name does.
    pub number: u32,
}

/// What was published in a channel.
#[derive(Debug, Default)]
pub struct HistoryResult<'a> {
    /// Each as the encoding's publication object.
    pub publications: Vec<Payload<'a>>,
    /// Where the stream stands.
    pub position: Position,
}
