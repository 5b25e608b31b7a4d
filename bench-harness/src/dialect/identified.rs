//! Drumline clients whose token names a user of their own, in JSON or Protobuf.
//!
//! Owns the commands of these clients. Never parses more of a reply than the dense client needs.
//! Invariant: no two clients have the same user.

use std::time::{SystemTime, UNIX_EPOCH};

use drumline::model::token::{TokenSettings, make_connection};
use drumline::wire::protocol::Wire;

use super::drumline::Drumline;
use super::interface::{CONNECTED, Dialect, Heard, SUBSCRIBED, Subscriber};
use crate::protobuf::{command, field, fields, varint};
use crate::wire;

/// Secret key that signs the tokens and that the server is configured with.
const SECRET: &str = "a-secret-of-the-benchmark";

/// Clients with a user of their own.
#[derive(Debug, Clone, Copy)]
pub struct Identified {
    /// Encoding of commands and replies.
    pub wire: Wire,
}

impl Identified {
    /// The connect and subscribe commands in JSON. `more` holds further fields of the subscribe
    /// request.
    pub(super) fn commands(who: &Subscriber<'_>, more: &str) -> String {
        let (token, channel) = (Self::token(who), who.channel);
        format!(
            "{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}\n\
             {{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"{more}}}}}"
        )
    }

    /// Command-line argument that lets the server verify the tokens.
    pub fn server_argument() -> String {
        format!("--client.token.hmac_secret_key={SECRET}")
    }

    fn token(who: &Subscriber<'_>) -> String {
        let settings =
            TokenSettings { hmac_secret_key: SECRET.to_owned(), ..TokenSettings::default() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let user = format!("user-{:08}", who.index);
        // If no token can be made, the server refuses the connection and reports the cause.
        make_connection(&settings, &user, None, now).unwrap_or_default()
    }
}

impl Dialect for Identified {
    fn path(&self, _who: &Subscriber<'_>) -> String {
        match self.wire {
            Wire::Json => wire::PATH.to_owned(),
            Wire::Protobuf => format!("{}?format=protobuf", wire::PATH),
        }
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        match self.wire {
            Wire::Json => {
                wire::client_frame(wire::TEXT, Self::commands(who, "").as_bytes(), out);
            }
            Wire::Protobuf => {
                let mut commands = Vec::new();
                command(1, 4, &field(1, Self::token(who).as_bytes()), &mut commands);
                command(2, 5, &field(1, who.channel.as_bytes()), &mut commands);
                wire::client_frame(wire::BINARY, &commands, out);
            }
        }
    }

    fn awaited(&self) -> u8 {
        CONNECTED | SUBSCRIBED
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        if self.wire == Wire::Json {
            return Drumline.hear(message);
        }
        let Some((length, start)) = varint(message) else { return (message.len(), Heard::Other) };
        let end = start.saturating_add(length as usize).min(message.len());
        let reply = &message[start..end];
        if reply.is_empty() {
            return (end, Heard::Ping);
        }
        let heard = match fields(reply).find(|(number, _)| *number != 1) {
            Some((2, error)) => Heard::Refused(error),
            Some((4, push)) => Heard::Delivery(push),
            // Field 8 of the connect result: the server expects pongs.
            Some((5, result)) => {
                Heard::Connected { pong: fields(result).any(|(number, _)| number == 8) }
            }
            Some((6, result)) => Heard::Subscribed(result),
            _ => Heard::Other,
        };
        (end, heard)
    }

    fn pong(&self, out: &mut Vec<u8>) {
        match self.wire {
            Wire::Json => wire::client_frame(wire::TEXT, b"{}", out),
            Wire::Protobuf => wire::client_frame(wire::BINARY, &[0], out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drumline::wire::protocol::protobuf;
    use drumline::wire::protocol::reply::{ConnectResult, Reply, SubscribeResult};

    #[test]
    fn protobuf_replies_are_parsed() {
        let dialect = Identified { wire: Wire::Protobuf };
        let mut message = Vec::new();
        let connected =
            ConnectResult { client: "c", ping: 25, pong: true, ..ConnectResult::default() };
        protobuf::write_reply(1, &Reply::Connect(&connected), &mut message);
        let first = message.len();
        protobuf::write_reply(2, &Reply::Subscribe(&SubscribeResult::default()), &mut message);
        let second = message.len();
        message.push(0);
        assert_eq!(dialect.hear(&message), (first, Heard::Connected { pong: true }));
        assert_eq!(dialect.hear(&message[first..]), (second - first, Heard::Subscribed(b"")));
        assert_eq!(dialect.hear(&message[second..]), (1, Heard::Ping));
        let mut error = Vec::new();
        protobuf::write_reply(
            1,
            &Reply::Error(drumline::wire::protocol::Error::INTERNAL),
            &mut error,
        );
        assert!(matches!(dialect.hear(&error), (_, Heard::Refused(_))));
    }

    #[test]
    fn the_server_parses_the_protobuf_commands() {
        let dialect = Identified { wire: Wire::Protobuf };
        let who = Subscriber { index: 7, channel: "news", position: None };
        let mut frame = Vec::new();
        dialect.hello(&who, &mut frame);
        let mask_at = if frame[1] & 0x7f == 126 { 4 } else { 2 };
        let mask: [u8; 4] = frame[mask_at..mask_at + 4].try_into().unwrap();
        let payload = frame[mask_at + 4..].iter().enumerate();
        let payload: Vec<u8> = payload.map(|(at, byte)| byte ^ mask[at % 4]).collect();
        let mut commands = protobuf::Commands::new(&payload);
        assert_eq!(commands.next().unwrap().unwrap().id, 1);
        assert_eq!(commands.next().unwrap().unwrap().id, 2);
        assert!(commands.next().is_none());
    }
}
