//! The interface between the dense client and the protocols.
//!
//! Owns the trait and the meanings of messages. Never does I/O and keeps no state.

use std::fmt::Debug;

use super::framing::Framing;
use crate::wire::{self, Position};

/// Step of a subscriber: the server accepted the connect command.
pub const CONNECTED: u8 = 2;
/// Step of a subscriber: the server accepted the subscribe command.
pub const SUBSCRIBED: u8 = 4;

/// Meaning of a part of a server's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A publication. The bytes hold one stamped payload.
    Delivery(&'a [u8]),
    /// A protocol ping.
    Ping,
    /// The connect command succeeded.
    Connected {
        /// The server expects pongs.
        pong: bool,
    },
    /// The subscribe command succeeded with this reply.
    Subscribed(&'a [u8]),
    /// The server refused the client with this message.
    Refused(&'a [u8]),
    /// So many items: those of the answer to [`Dialect::ask`], or of a push.
    Items(u64),
    /// A message that the dense client ignores.
    Other,
}

/// Packing of publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Fossil deltas to the previous publication.
    Delta,
    /// Messages compressed by permessage-deflate without context takeover (RFC 7692).
    Deflate,
}

/// A connection that becomes a subscriber.
#[derive(Debug, Clone, Copy)]
pub struct Subscriber<'a> {
    /// Index among all connections.
    pub index: u64,
    /// Channel to subscribe to.
    pub channel: &'a str,
    /// Position to recover from; `None`: subscribe without recovery.
    pub position: Option<&'a Position>,
}

/// Protocol of the subscribers of one kind of server. The default methods fit a server that takes
/// the channel from the path of the upgrade and sends each publication as a WebSocket message.
pub trait Dialect: Debug + Send + Sync {
    /// Path of the upgrade request.
    fn path(&self, who: &Subscriber<'_>) -> String;

    /// Additional header lines of the upgrade request, each with its CRLF.
    fn headers(&self) -> &'static str {
        ""
    }

    /// The cause to refuse the head of the upgrade response; `None`: the head is acceptable.
    fn refusal(&self, head: &[u8]) -> Option<String> {
        upgrade_refusal(head)
    }

    /// Framing of the messages after the response head.
    fn framing(&self) -> Framing {
        Framing::WebSocket
    }

    /// Packing of publications; `None`: not packed.
    fn packing(&self) -> Option<Packing> {
        None
    }

    /// Appends the frames that a client sends after the upgrade.
    fn hello(&self, _who: &Subscriber<'_>, _out: &mut Vec<u8>) {}

    /// The steps ([`CONNECTED`], [`SUBSCRIBED`]) after which a connection is a subscriber; 0: the
    /// upgrade is enough.
    fn awaited(&self) -> u8 {
        0
    }

    /// Parses the first part of a message. Returns its length in bytes and its meaning. The caller
    /// repeats this until the message is consumed.
    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        (message.len(), Heard::Delivery(message))
    }

    /// Appends the frame that answers a protocol ping.
    fn pong(&self, _out: &mut Vec<u8>) {}

    /// Appends the frame that acknowledges a delivery, if the server requires one.
    fn acknowledge(&self, _delivery: &[u8], _out: &mut Vec<u8>) {}

    /// Appends the frame that asks for the items of the subscriber's channel.
    fn ask(&self, _who: &Subscriber<'_>, _out: &mut Vec<u8>) {}

    /// Updates the channel's position from a delivery or a subscribe reply.
    fn note(&self, _heard: &[u8], _position: &mut Position) {}

    /// Whether the subscribe reply confirms that all missed publications were recovered.
    fn has_recovered(&self, _answer: &[u8]) -> bool {
        true
    }

    /// Appends the upgrade request.
    fn upgrade(&self, port: u16, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        wire::upgrade(&self.path(who), port, self.headers(), out);
    }
}

/// The cause if a response head does not accept the WebSocket upgrade.
pub(super) fn upgrade_refusal(head: &[u8]) -> Option<String> {
    (!wire::accepted(head)).then(|| format!("upgrade answered `{}`", first_line(head)))
}

pub(super) fn first_line(head: &[u8]) -> String {
    let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(first).into_owned()
}
