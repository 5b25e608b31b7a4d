//! Clients of the Centrifuge protocol that ask for the history or the presence of their channel,
//! and one that watches members join and leave.
//!
//! Owns the requests. Never checks what an item holds: it counts the items of each answer.
//! Invariant: an answer with an error has no items.

use super::drumline::Drumline;
use super::interface::{Dialect, Heard, Subscriber};
use crate::wire::{self, Line};

/// Number of the command that asks. Connect and subscribe have the numbers before it.
const ASKS: u32 = 3;

/// What clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// The last publications of the channel.
    History {
        /// How many at most.
        limit: u32,
    },
    /// The members of the channel.
    Presence,
}

impl Asking {
    /// What stands once in every item of an answer.
    fn item(self) -> &'static [u8] {
        match self {
            Asking::History { .. } => b"\"data\":",
            Asking::Presence => b"\"client\":",
        }
    }
}

impl Dialect for Asking {
    fn path(&self, who: &Subscriber<'_>) -> String {
        Drumline.path(who)
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        Drumline.hello(who, out);
    }

    fn awaited(&self) -> u8 {
        Drumline.awaited()
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        let end = memchr::memchr(b'\n', message).unwrap_or(message.len());
        match wire::line(&message[..end]) {
            Line::Reply(ASKS, answer) => (end + 1, Heard::Items(count(answer, self.item()))),
            _ => Drumline.hear(message),
        }
    }

    fn pong(&self, out: &mut Vec<u8>) {
        Drumline.pong(out);
    }

    fn ask(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        let channel = who.channel;
        let command = match self {
            Asking::History { limit } => {
                format!("\"history\":{{\"channel\":\"{channel}\",\"limit\":{limit}}}")
            }
            Asking::Presence => format!("\"presence\":{{\"channel\":\"{channel}\"}}"),
        };
        wire::client_frame(wire::TEXT, format!("{{\"id\":{ASKS},{command}}}").as_bytes(), out);
    }
}

/// A client that is told when members join and leave. Each join and each leave is an item.
#[derive(Debug, Clone, Copy)]
pub struct Watching;

impl Dialect for Watching {
    fn path(&self, who: &Subscriber<'_>) -> String {
        Drumline.path(who)
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        let text = format!(
            "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{}\",\
             \"join_leave\":true}}}}",
            who.channel
        );
        wire::client_frame(wire::TEXT, text.as_bytes(), out);
    }

    fn awaited(&self) -> u8 {
        Drumline.awaited()
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        match Drumline.hear(message) {
            (used, Heard::Delivery(push)) => {
                let told = |kind: &[u8]| wire::find(push, kind).is_some();
                let items = u64::from(told(b"\"join\":{") || told(b"\"leave\":{"));
                (used, Heard::Items(items))
            }
            other => other,
        }
    }

    fn pong(&self, out: &mut Vec<u8>) {
        Drumline.pong(out);
    }
}

/// How often `what` stands in `text`.
fn count(mut text: &[u8], what: &[u8]) -> u64 {
    let mut found = 0;
    while let Some(at) = wire::find(text, what) {
        found += 1;
        text = &text[at + what.len()..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_items_of_an_answer_are_counted() {
        let history = Asking::History { limit: 100 };
        let answer = b"{\"id\":3,\"history\":{\"publications\":[{\"data\":{}},{\"data\":{}}]}}";
        assert_eq!(history.hear(answer).1, Heard::Items(2));
        let members = b"{\"id\":3,\"presence\":{\"presence\":{\"a\":{\"client\":\"a\"}}}}";
        assert_eq!(Asking::Presence.hear(members).1, Heard::Items(1));
        let refused = b"{\"id\":3,\"error\":{\"code\":103}}";
        assert_eq!(history.hear(refused).1, Heard::Refused(refused));
        let subscribed = b"{\"id\":2,\"subscribe\":{}}";
        assert_eq!(history.hear(subscribed).1, Heard::Subscribed(subscribed));
    }

    #[test]
    fn a_join_and_a_leave_are_items_and_a_publication_is_not() {
        let push = |kind: &str| format!("{{\"push\":{{\"channel\":\"all\",\"{kind}\":{{}}}}}}");
        for (kind, items) in [("join", 1), ("leave", 1), ("pub", 0)] {
            assert_eq!(Watching.hear(push(kind).as_bytes()).1, Heard::Items(items), "{kind}");
        }
    }
}
