//! A connection as plain data: what a shard keeps for every socket it owns.
//!
//! Owns nothing but itself; what only some connections need (unread input, unsent output, held
//! publications) lives in side slabs. The invariant: an idle connection is this record alone, at
//! most 128 bytes.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::model::message::{Grant, Subscribed};
use crate::model::revocation::Mark;
use crate::wire::http::Transport;
use crate::wire::protocol::{Position, Wire};

/// No index into a side slab.
pub const NONE: u32 = u32::MAX;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The slot waits for a socket.
    Reserved,
    /// The request head is arriving.
    Head,
    /// A call of the API waits for the answer of its channel's home.
    AwaitingAnswer,
    /// A call of the API was answered; the next request may come.
    KeptAlive,
    /// Switched to its transport; the connect command has not come.
    Open,
    /// The connect command was answered.
    Connected,
    /// A close frame is on its way; the peer's is awaited.
    Closing,
    /// On its way to the control plane or to another shard.
    Leaving,
    /// The socket is being shut down and closed.
    Ending,
}

/// Yes-or-no facts of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($bit:literal $is:ident $set:ident $doc:literal;)*) => {
        impl Flags {
            $(
                #[doc = concat!("Whether ", $doc, ".")]
                pub fn $is(self) -> bool {
                    self.0 & (1 << $bit) != 0
                }

                #[doc = concat!("Says whether ", $doc, ".")]
                pub fn $set(&mut self, yes: bool) {
                    self.0 = self.0 & !(1 << $bit) | u32::from(yes) << $bit;
                }
            )*
        }
    };
}

flags! {
    0 watched set_watched "a multishot poll is armed";
    1 receiving set_receiving "a read is under way";
    2 awaiting_writable set_awaiting_writable "a poll for writability is armed";
    3 paused set_paused "its input is left where it is";
    4 readable set_readable "input arrived while it was paused";
    5 end_when_flushed set_end_when_flushed "it ends as soon as its output is sent";
    6 pong_due set_pong_due "a pong is awaited";
    7 queued set_queued "it is in the list of connections to go on with";
    8 lingering set_lingering "it was answered with a status and waits for the peer to close";
    9 counted set_counted "it is among the connected clients of the metrics";
    10 reset set_reset "its peer had its time and did not close";
    11 checking set_checking "its deadline looks for a pong rather than sending a ping";
    13 peer_ended set_peer_ended "the peer sends nothing more: read on until the end";
    14 refusing set_refusing "there is no room for it: its request is answered 503";
    15 unwatched set_unwatched "its polls are cancelled: it closes when no operation is left";
    16 connect_refused set_connect_refused "its connect was answered with an error: it may say nothing more";
    17 admitted set_admitted "its user's home counts it, or is about to";
    18 frame_pings set_frame_pings "its pings are WebSocket's own";
    19 compressing set_compressing "what is the same for many is compressed for it, and its messages may be";
    28 query_pending set_query_pending "its question to a channel's home is still to be answered";
    20 came_back set_came_back "its request was with the control plane already";
    21 listened set_listened "what its peer had sent by its deadline is being read, or was";
    12 shutting_down set_shutting_down "its deadline closes it, since the node shuts down";
}

/// What a shard keeps for every socket.
#[derive(Debug)]
pub struct Connection {
    /// Tells lives of the slot apart; 24 bits.
    pub generation: u32,
    /// First of its subscriptions.
    pub subscriptions: u32,
    /// Its entry in the turn's output.
    pub turn: u32,
    /// Its unread input.
    pub inbound: u32,
    /// Its unsent output.
    pub outbox: u32,
    /// Output held back while its server-side subscriptions are being made.
    pub hold: u32,
    /// Number of its subscriptions.
    pub subscribed: u16,
    /// Yes-or-no facts.
    pub flags: Flags,
    /// Kernel operations that have not completed for the last time.
    pub operations: u8,
    /// How far it has come.
    pub phase: Phase,
    /// How it is spoken to.
    pub transport: Transport,
    /// How what is said is written down.
    pub wire: Wire,
    /// Who it is; `None`: nobody in particular.
    pub identity: Option<Box<Identity>>,
}

/// Who a connection is, where a token says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user; empty: none.
    pub user: Box<str>,
    /// JSON text about the connection, for others.
    pub info: Option<Box<[u8]>>,
    /// When the connection ends unless it is refreshed, as unix time in seconds.
    pub expires: Option<NonZeroU64>,
    /// The token that says so.
    pub token: Mark,
}

const _: () = assert!(size_of::<Option<Connection>>() <= 128);
// An allocation of the C library of 64 bytes, its own 8 included.
const _: () = assert!(size_of::<Identity>() <= 56);

impl Connection {
    /// A slot that waits for a socket.
    pub fn reserved(generation: u32) -> Self {
        Connection {
            generation,
            subscriptions: NONE,
            turn: NONE,
            inbound: NONE,
            outbox: NONE,
            hold: NONE,
            subscribed: 0,
            flags: Flags::default(),
            operations: 0,
            phase: Phase::Reserved,
            transport: Transport::WebSocket,
            wire: Wire::Json,
            identity: None,
        }
    }

    /// Its user; empty: none.
    pub fn user(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.user)
    }

    /// When it ends unless it is refreshed, as unix time in seconds.
    pub fn expires(&self) -> Option<u64> {
        self.identity.as_ref().and_then(|identity| identity.expires).map(NonZeroU64::get)
    }

    /// Whether output may still be added.
    pub fn takes_output(&self) -> bool {
        self.is_plain_http() || matches!(self.phase, Phase::Open | Phase::Connected)
    }

    /// Whether it still speaks HTTP: what it is sent is responses, not frames.
    pub fn is_plain_http(&self) -> bool {
        matches!(self.phase, Phase::Head | Phase::AwaitingAnswer | Phase::KeptAlive)
    }
}

/// A channel that a client is to be in from the start.
#[derive(Debug)]
pub struct ServerSubscription {
    /// The channel.
    pub channel: Arc<str>,
    /// Where the client left off.
    pub since: Option<Position>,
    /// What it has there.
    pub grant: Grant,
}

/// How far a held connection's admission has come, where its user's connections are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// It is admitted, or need not be.
    #[default]
    Admitted,
    /// Its user's home is to be asked.
    Unasked,
    /// It has been asked.
    RequestedOptions,
}

/// A client whose channels are still being joined before its connect is answered.
#[derive(Debug, Default)]
pub struct Hold {
    /// The connection's slot.
    pub slot: u32,
    /// Id of its connect command.
    pub command: u32,
    /// Whether it may be there at all.
    pub admission: Admission,
    /// Channels whose homes have not been asked yet, last first.
    pub to_request: Vec<ServerSubscription>,
    /// Answers still to come.
    pub pending: usize,
    /// Answers that came.
    pub answers: Vec<Subscribed>,
    /// What the backend tells it.
    pub data: Option<Box<[u8]>>,
    /// Its last event's id, if that could not be read; else empty.
    pub unknown_event_id: Box<str>,
    /// Frames that go behind the answer to its connect.
    pub output: Vec<u8>,
}
