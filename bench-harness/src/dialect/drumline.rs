//! Drumline's JSON dialect.
//!
//! Owns its messages. Never does I/O.

use super::interface::{CONNECTED, Dialect, Heard, SUBSCRIBED, Subscriber};
use crate::wire::{self, Line, Position};

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
        let end = memchr::memchr(b'\n', message).unwrap_or(message.len());
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
