//! Dialects: the protocols that subscribers speak with the measured servers.
//!
//! Owns the interface between the dense client and the protocols, and Drumline's JSON dialect.
//! Never does I/O and keeps no state: the dense client holds the state of each connection.
//! Invariant: a connection counts as a subscriber only when the server has confirmed every step
//! that the dialect awaits.

use std::fmt::Debug;

use crate::wire::{self, Line, Position};

mod bearer;
mod framing;
mod identified;
mod packed;
mod streamed;

pub use bearer::Bearer;
pub use framing::{Framing, Part};
pub use identified::Identified;
pub use packed::Packed;
pub use streamed::Streamed;

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
fn upgrade_refusal(head: &[u8]) -> Option<String> {
    (!wire::accepted(head)).then(|| format!("upgrade answered `{}`", first_line(head)))
}

fn first_line(head: &[u8]) -> String {
    let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(first).into_owned()
}

/// Drumline's JSON protocol: one command or reply per line.
#[derive(Debug, Clone, Copy)]
pub struct Drumline;

impl Dialect for Drumline {
    fn path(&self, _who: &Subscriber<'_>) -> String {
        wire::PATH.to_owned()
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        match who.position {
            Some(position) => wire::recover(who.channel, position, out),
            None => wire::hello(who.channel, out),
        }
    }

    fn awaited(&self) -> u8 {
        CONNECTED | SUBSCRIBED
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        let end = message.iter().position(|byte| *byte == b'\n').unwrap_or(message.len());
        let heard = match wire::line(&message[..end]) {
            Line::Ping => Heard::Ping,
            Line::Push(push) => Heard::Delivery(push),
            Line::Reply(1, reply) => {
                Heard::Connected { pong: wire::find(reply, b"\"pong\":true").is_some() }
            }
            Line::Reply(2, reply) => Heard::Subscribed(reply),
            Line::Error(reply) => Heard::Refused(reply),
            Line::Reply(..) | Line::Other(_) => Heard::Other,
        };
        (end + 1, heard)
    }

    fn pong(&self, out: &mut Vec<u8>) {
        wire::client_frame(wire::TEXT, b"{}", out);
    }

    fn note(&self, heard: &[u8], position: &mut Position) {
        position.update(heard);
    }

    fn has_recovered(&self, answer: &[u8]) -> bool {
        wire::find(answer, b"\"recovered\":true").is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_frame_are_parsed_in_order() {
        let message = b"{\"id\":1,\"connect\":{\"pong\":true}}\n{\"id\":2,\"subscribe\":{}}\n{}";
        let (used, heard) = Drumline.hear(message);
        assert_eq!(heard, Heard::Connected { pong: true });
        let (more, heard) = Drumline.hear(&message[used..]);
        assert_eq!(heard, Heard::Subscribed(b"{\"id\":2,\"subscribe\":{}}"));
        assert_eq!(Drumline.hear(&message[used + more..]), (3, Heard::Ping));
    }
}
