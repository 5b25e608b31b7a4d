//! What a subscriber says to a server and how it understands the answers.
//!
//! Owns the seam between the dense client and the protocols, and Drumline's own. Never does I/O and
//! keeps no state: a connection's state is the client's. Invariant: a subscriber counts as one only
//! when the server has said so, by the step that the dialect waits for.

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

/// A step to being subscribed: the server knows the client.
pub const CONNECTED: u8 = 2;
/// A step to being subscribed: the server knows the subscription.
pub const SUBSCRIBED: u8 = 4;

/// What a part of a server's message means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A publication: bytes that hold one stamped payload.
    Delivery(&'a [u8]),
    /// A ping of the protocol.
    Ping,
    /// The client is known; whether it is to answer pings.
    Connected {
        /// Whether it is.
        pong: bool,
    },
    /// The subscription is known, by this answer.
    Subscribed(&'a [u8]),
    /// The server refuses, in these words.
    Refused(&'a [u8]),
    /// Nothing that matters.
    Other,
}

/// How the content of publications is packed where it is not plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As fossil deltas to the publication before.
    Delta,
    /// Whole messages, by permessage-deflate without context takeover (RFC 7692).
    Deflate,
}

/// A connection that is to be a subscriber.
#[derive(Debug, Clone, Copy)]
pub struct Subscriber<'a> {
    /// Its number among all of them.
    pub index: u64,
    /// Its channel.
    pub channel: &'a str,
    /// Where it stood when it was cut, if it is to recover what it has missed since.
    pub position: Option<&'a Position>,
}

/// How subscribers of one kind of server speak. What is not overridden fits a server that takes
/// the channel from the path of the upgrade and sends publications as they are.
pub trait Dialect: Debug + Send + Sync {
    /// Path of its upgrade.
    fn path(&self, who: &Subscriber<'_>) -> String;

    /// More header lines of the upgrade, each with its CRLF.
    fn headers(&self) -> &'static str {
        ""
    }

    /// Why the head of the answer to its upgrade does not do; `None`: it does.
    fn refusal(&self, head: &[u8]) -> Option<String> {
        upgrade_refusal(head)
    }

    /// How messages stand behind that head.
    fn framing(&self) -> Framing {
        Framing::WebSocket
    }

    /// How publications are packed; `None`: not at all.
    fn packing(&self) -> Option<Packing> {
        None
    }

    /// Appends the frames that a client sends once it is upgraded.
    fn hello(&self, _who: &Subscriber<'_>, _out: &mut Vec<u8>) {}

    /// The steps ([`CONNECTED`], [`SUBSCRIBED`]) that make a subscriber; 0: the upgrade is enough.
    fn awaited(&self) -> u8 {
        0
    }

    /// What is at the front of a message, and its bytes. Called until the message is used up.
    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        (message.len(), Heard::Delivery(message))
    }

    /// Appends the frame that answers a ping of the protocol.
    fn pong(&self, _out: &mut Vec<u8>) {}

    /// Appends the frame that answers a delivery, where the server waits for one.
    fn acknowledge(&self, _delivery: &[u8], _out: &mut Vec<u8>) {}

    /// Takes over where the channel stands by a delivery or the answer to a subscription.
    fn note(&self, _heard: &[u8], _position: &mut Position) {}

    /// Whether the answer to the subscription of one that comes back says that nothing is missing.
    fn has_recovered(&self, _answer: &[u8]) -> bool {
        true
    }

    /// Appends its upgrade.
    fn upgrade(&self, port: u16, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        wire::upgrade(&self.path(who), port, self.headers(), out);
    }
}

/// Why an answer is no upgrade to a WebSocket.
fn upgrade_refusal(head: &[u8]) -> Option<String> {
    (!wire::accepted(head)).then(|| format!("upgrade answered `{}`", first_line(head)))
}

fn first_line(head: &[u8]) -> String {
    let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(first).into_owned()
}

/// Drumline's: JSON lines.
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
    fn lines_of_one_frame_are_heard_in_turn() {
        let message = b"{\"id\":1,\"connect\":{\"pong\":true}}\n{\"id\":2,\"subscribe\":{}}\n{}";
        let (used, heard) = Drumline.hear(message);
        assert_eq!(heard, Heard::Connected { pong: true });
        let (more, heard) = Drumline.hear(&message[used..]);
        assert_eq!(heard, Heard::Subscribed(b"{\"id\":2,\"subscribe\":{}}"));
        assert_eq!(Drumline.hear(&message[used + more..]), (3, Heard::Ping));
    }
}
