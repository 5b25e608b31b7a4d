//! What a subscriber says to a server and how it understands the answers.
//!
//! Owns the seam between the dense client and the protocols, and Drumline's own. Never does I/O and
//! keeps no state: a connection's state is the client's. Invariant: a subscriber counts as one only
//! when the server has said so, by the step that the dialect waits for.

use std::fmt::Debug;

use crate::wire::{self, Line};

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

/// How subscribers of one kind of server speak. What is not overridden fits a server that takes
/// the channel from the path of the upgrade and sends publications as they are.
pub trait Dialect: Debug + Send + Sync {
    /// Path of the upgrade of a subscriber of `channel`.
    fn path(&self, channel: &str) -> String;

    /// More header lines of the upgrade, each with its CRLF.
    fn headers(&self) -> &'static str {
        ""
    }

    /// Appends the frames that a client sends once it is upgraded.
    fn hello(&self, _channel: &str, _out: &mut Vec<u8>) {}

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

    /// Appends the upgrade of a subscriber of `channel`.
    fn upgrade(&self, port: u16, channel: &str, out: &mut Vec<u8>) {
        wire::upgrade(&self.path(channel), port, self.headers(), out);
    }
}

/// Drumline's: JSON lines.
#[derive(Debug, Clone, Copy)]
pub struct Drumline;

impl Dialect for Drumline {
    fn path(&self, _channel: &str) -> String {
        wire::PATH.to_owned()
    }

    fn hello(&self, channel: &str, out: &mut Vec<u8>) {
        wire::hello(channel, out);
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
