//! Pusher's protocol.
//!
//! Owns its messages. Never does I/O. Invariant: a client counts as subscribed only when the server
//! has confirmed the subscription.

use super::interface::{CONNECTED, Dialect, Heard, SUBSCRIBED, Subscriber};
use crate::wire;

/// Clients of the application with this key.
#[derive(Debug, Clone, Copy)]
pub struct Pusher {
    /// The key.
    pub key: &'static str,
}

impl Dialect for Pusher {
    fn path(&self, _who: &Subscriber<'_>) -> String {
        format!("/app/{}?protocol=7&client=js&version=8&flash=false", self.key)
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        let channel = who.channel;
        let text =
            format!("{{\"event\":\"pusher:subscribe\",\"data\":{{\"channel\":\"{channel}\"}}}}");
        wire::client_frame(wire::TEXT, text.as_bytes(), out);
    }

    fn awaited(&self) -> u8 {
        CONNECTED | SUBSCRIBED
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        let heard = match event(message) {
            b"pusher:connection_established" => Heard::Connected { pong: true },
            b"pusher_internal:subscription_succeeded" => Heard::Subscribed(message),
            b"pusher:ping" => Heard::Ping,
            b"pusher:error" => Heard::Refused(message),
            name if name.starts_with(b"pusher") => Heard::Other,
            _ => Heard::Delivery(message),
        };
        (message.len(), heard)
    }

    fn pong(&self, out: &mut Vec<u8>) {
        wire::client_frame(wire::TEXT, b"{\"event\":\"pusher:pong\",\"data\":{}}", out);
    }
}

/// The name of a message's event.
fn event(message: &[u8]) -> &[u8] {
    const NAME: &[u8] = b"\"event\":\"";
    let start = wire::find(message, NAME).map_or(message.len(), |at| at + NAME.len());
    let rest = &message[start..];
    &rest[..rest.iter().position(|byte| *byte == b'"').unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart_by_their_names() {
        let hear = |event: &str| {
            let text = format!("{{\"event\":\"{event}\",\"data\":\"{{}}\"}}");
            match (Pusher { key: "k" }).hear(text.as_bytes()).1 {
                Heard::Connected { pong } => format!("connected {pong}"),
                Heard::Subscribed(_) => "subscribed".to_owned(),
                Heard::Refused(_) => "refused".to_owned(),
                Heard::Delivery(_) => "delivery".to_owned(),
                other => format!("{other:?}"),
            }
        };
        for (event, heard) in [
            ("pusher:connection_established", "connected true"),
            ("pusher_internal:subscription_succeeded", "subscribed"),
            ("pusher_internal:subscription_count", "Other"),
            ("pusher:ping", "Ping"),
            ("pusher:error", "refused"),
            ("message", "delivery"),
        ] {
            assert_eq!(hear(event), heard, "{event}");
        }
    }
}
