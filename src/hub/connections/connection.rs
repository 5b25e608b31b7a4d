//! A connection as plain data: the record that a shard keeps for every socket.
//!
//! Owns only itself; what only some connections need (unread input, unsent output, holds) is in
//! side tables. The invariant: an idle connection is this record alone, at most 128 bytes.
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::hub::ping_plans::NO_PLAN;
use crate::model::message::{Grant, Subscribed};
use crate::model::revocation::TokenFingerprint;
use crate::wire::http::Transport;
use crate::wire::protocol::{Position, Wire};

/// No index into a side slab.
pub const NONE: u32 = u32::MAX;

/// Phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The slot is reserved for a socket.
    Reserved,
    /// The TLS handshake is in progress.
    Handshake,
    /// The PROXY header is arriving.
    ProxyHeader,
    /// The request head is arriving.
    Head,
    /// An API call or a poll waits for the answer of the home.
    AwaitingAnswer,
    /// A request was answered; the next one may come.
    KeptAlive,
    /// The transport has begun; the connect command has not arrived.
    Open,
    /// The connect command was answered.
    Connected,
    /// A close frame was sent; that of the peer is awaited.
    Closing,
    /// The socket is moving to the control plane or to another shard.
    Leaving,
    /// The socket is being shut down and closed.
    Ending,
}

/// Flags of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($bit:literal $is:ident $set:ident $doc:literal;)*) => {
        /// Each flag has a bit of its own.
        const _: () = assert!((0u32 $(| 1 << $bit)*).count_ones() as usize == [$($bit),*].len());

        impl Flags {
            $(
                #[doc = concat!("Whether ", $doc, ".")]
                pub fn $is(self) -> bool {
                    self.0 & (1 << $bit) != 0
                }

                #[doc = concat!("Sets whether ", $doc, ".")]
                pub fn $set(&mut self, yes: bool) {
                    self.0 = self.0 & !(1 << $bit) | u32::from(yes) << $bit;
                }
            )*
        }
    };
}

flags! {
    0 watched set_watched "a multishot poll is armed";
    1 receiving set_receiving "a read is in progress";
    2 awaiting_writable set_awaiting_writable "a poll for writability is armed";
    3 paused set_paused "its input is left unprocessed";
    4 readable set_readable "input arrived while it was paused";
    5 end_when_flushed set_end_when_flushed "the connection ends when its output is sent";
    6 pong_due set_pong_due "a pong is awaited";
    7 queued set_queued "it is queued to continue with its input";
    8 lingering set_lingering "it got a final HTTP status and waits for the peer to close";
    9 counted set_counted "the metrics count it as a connected client";
    10 reset set_reset "the peer did not close in time, so the close is a reset";
    11 checking set_checking "its deadline checks for a pong instead of sending a ping";
    13 peer_ended set_peer_ended "the peer has ended its direction: read until the end";
    14 refusing set_refusing "the node has no room for it: its request is answered 503";
    15 unwatched set_unwatched "its polls are cancelled: it closes when no operation is in progress";
    16 connect_refused set_connect_refused "its connect was answered with an error: further commands are rejected";
    17 admitted set_admitted "the home of its user counts it, or has been asked to";
    18 frame_pings set_frame_pings "its pings are WebSocket ping frames";
    19 compressing set_compressing "shared bytes are compressed for it, and its messages may be compressed";
    26 named set_named "the client told the name of its library";
    27 versioned set_versioned "the client told its version";
    28 query_pending set_query_pending "a query to a home waits for its answer";
    20 came_back set_came_back "the control plane has already handled the connection";
    21 listened set_listened "input that arrived before its deadline has been requested from the socket";
    22 info_changed set_info_changed "its new information is queued for presence";
    23 last_request set_last_request "the peer closes after the answer to its poll";
    24 sealed set_sealed "its bytes are TLS records";
    25 key_update_unsent set_key_update_unsent "a key update is among its unsent records";
    29 forwarded set_forwarded "a trusted peer is still to name its client, whose address is limited";
    30 alert_sealed set_alert_sealed "the alert that ends its output is sealed";
    12 shutting_down set_shutting_down "its deadline closes it, because the node shuts down";
}

/// The record of a connection.
#[derive(Debug)]
pub struct Connection {
    /// Distinguishes successive connections of the slot; 24 bits.
    pub generation: u32,
    /// Key of its first subscription.
    pub subscriptions: u32,
    /// Index of its entry in the output of the turn.
    pub turn: u32,
    /// Index of its unread input.
    pub inbound: u32,
    /// Index of its outbox.
    pub outbox: u32,
    /// Index of its hold, while its connect waits for server-side subscriptions.
    pub hold: u32,
    /// When its last ping was sent, or its last question to the backend or call of the API began:
    /// the low bits of the monotonic clock's microseconds.
    pub stamp: u32,
    /// Number of its subscriptions.
    pub subscribed: u16,
    /// Flags.
    pub flags: Flags,
    /// Number of operations in progress in the kernel.
    pub operations: u8,
    /// Phase.
    pub phase: Phase,
    /// Transport.
    pub transport: Transport,
    /// Encoding of the protocol.
    pub wire: Wire,
    /// Index of its listener among the entrances of the node.
    pub entrance: u8,
    /// Index of its ping times.
    pub ping_plan: u8,
    /// Identity; `None`: anonymous.
    pub identity: Option<Box<Identity>>,
}

/// Identity of a connection, from a token or from the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id; empty: anonymous.
    pub user: Box<str>,
    /// JSON info about the connection for other clients.
    pub info: Option<Box<[u8]>>,
    /// Expiry unless the connection is refreshed, as unix time in seconds.
    pub expires: Option<NonZeroU64>,
    /// The token that it came with.
    pub token: TokenFingerprint,
}

const _: () = assert!(size_of::<Option<Connection>>() <= 48);
// The C library then allocates 64 bytes, including 8 of its own.
const _: () = assert!(size_of::<Identity>() <= 56);

impl Connection {
    /// Creates the record of a slot that is reserved for a socket.
    pub fn reserved(generation: u32) -> Self {
        Connection {
            generation,
            subscriptions: NONE,
            turn: NONE,
            inbound: NONE,
            outbox: NONE,
            hold: NONE,
            stamp: 0,
            subscribed: 0,
            flags: Flags::default(),
            operations: 0,
            phase: Phase::Reserved,
            transport: Transport::WebSocket,
            wire: Wire::Json,
            entrance: 0,
            ping_plan: NO_PLAN,
            identity: None,
        }
    }

    /// User id; empty: anonymous.
    pub fn user(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.user)
    }

    /// Expiry unless it is refreshed, as unix time in seconds.
    pub fn expires(&self) -> Option<u64> {
        self.identity.as_ref().and_then(|identity| identity.expires).map(NonZeroU64::get)
    }

    /// Whether output may be added.
    pub fn takes_output(&self) -> bool {
        self.is_plain_http() || matches!(self.phase, Phase::Open | Phase::Connected)
    }

    /// Whether the connection is in an HTTP phase: output is responses, not frames.
    pub fn is_plain_http(&self) -> bool {
        matches!(self.phase, Phase::Head | Phase::AwaitingAnswer | Phase::KeptAlive)
    }
}

/// What the access log keeps of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessEntry {
    /// Address of the client.
    pub address: Option<IpAddr>,
    /// When it connected, in milliseconds of the monotonic clock.
    pub connected: Option<u64>,
}

/// A server-side subscription to request.
#[derive(Debug)]
pub struct ServerSubscription {
    /// The channel.
    pub channel: Arc<str>,
    /// Position to recover from.
    pub since: Option<Position>,
    /// Whether the client requests deltas.
    pub delta: bool,
    /// Grant of the subscription.
    pub grant: Grant,
}

/// State of the admission of a hold, where connections per user are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Admitted, or no limit applies.
    #[default]
    Admitted,
    /// The home of the user must be asked.
    Unasked,
    /// The home of the user has been asked.
    Requested,
}

/// A connect that waits for its server-side subscriptions.
#[derive(Debug, Default)]
pub struct Hold {
    /// Slot of the connection.
    pub slot: u32,
    /// Id of its connect command.
    pub command: u32,
    /// When the connect command began.
    pub began: u32,
    /// State of its admission.
    pub admission: Admission,
    /// Subscriptions not requested yet, last first.
    pub to_request: Vec<ServerSubscription>,
    /// Number of answers still to come.
    pub pending: usize,
    /// Answers that arrived.
    pub answers: Vec<Subscribed>,
    /// Data of the backend for the client.
    pub data: Option<Box<[u8]>>,
    /// The last event id of the client if it is invalid; otherwise empty.
    pub unknown_event_id: Box<str>,
    /// Frames to send after the connect result.
    pub output: Vec<u8>,
}
