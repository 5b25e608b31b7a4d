//! Drumline's unidirectional clients: they send one connect request and get pushes.
//!
//! Owns their requests. Never answers anything: such a client sends nothing else. Invariant: a
//! client counts as a subscriber when the connect push has come, which confirms its channel.

use super::framing::Framing;
use super::interface::{CONNECTED, Dialect, Heard, Subscriber, first_line, upgrade_refusal};
use crate::wire;

/// Unidirectional clients of one transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unidirectional {
    /// Pushes as WebSocket messages.
    WebSocket,
    /// Pushes as lines of one response.
    HttpStream,
    /// Pushes as server-sent events.
    Sse,
}

impl Dialect for Unidirectional {
    fn path(&self, _who: &Subscriber<'_>) -> String {
        let name = match self {
            Unidirectional::WebSocket => "uni_websocket",
            Unidirectional::HttpStream => "uni_http_stream",
            Unidirectional::Sse => "uni_sse",
        };
        format!("/connection/{name}")
    }

    fn upgrade(&self, port: u16, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        if *self == Unidirectional::WebSocket {
            return wire::upgrade(&self.path(who), port, self.headers(), out);
        }
        let body = wire::uni_connect(who.channel, who.position);
        let (path, length) = (self.path(who), body.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {length}\r\n\r\n\
             {body}"
        );
        out.extend_from_slice(request.as_bytes());
    }

    fn refusal(&self, head: &[u8]) -> Option<String> {
        match self {
            Unidirectional::WebSocket => upgrade_refusal(head),
            _ if head.starts_with(b"HTTP/1.1 200 ") => None,
            _ => Some(format!("answered `{}`", first_line(head))),
        }
    }

    fn framing(&self) -> Framing {
        match self {
            Unidirectional::WebSocket => Framing::WebSocket,
            Unidirectional::HttpStream => Framing::Lines,
            Unidirectional::Sse => Framing::Events,
        }
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        if *self == Unidirectional::WebSocket {
            let request = wire::uni_connect(who.channel, who.position);
            wire::client_frame(wire::TEXT, request.as_bytes(), out);
        }
    }

    fn awaited(&self) -> u8 {
        CONNECTED
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        let end = message.iter().position(|byte| *byte == b'\n').unwrap_or(message.len());
        let line = &message[..end];
        let heard = match line {
            b"{}" => Heard::Ping,
            _ if line.starts_with(b"{\"connect\":") => Heard::Connected { pong: false },
            _ if line.starts_with(b"{\"disconnect\":") => Heard::Refused(line),
            _ if wire::find(line, b"\"pub\":").is_some() => Heard::Delivery(line),
            _ => Heard::Other,
        };
        (end + 1, heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_told_apart() {
        let hear = |text: &'static str| Unidirectional::Sse.hear(text.as_bytes()).1;
        assert_eq!(hear("{}"), Heard::Ping);
        assert_eq!(hear("{\"connect\":{\"client\":\"a\"}}"), Heard::Connected { pong: false });
        let push = "{\"channel\":\"r1\",\"pub\":{\"data\":1}}";
        assert_eq!(hear(push), Heard::Delivery(push.as_bytes()));
        assert!(matches!(hear("{\"disconnect\":{\"code\":3000}}"), Heard::Refused(_)));
        let two = b"{}\n{\"connect\":{}}";
        assert_eq!(Unidirectional::HttpStream.hear(two), (3, Heard::Ping));
    }

    #[test]
    fn the_request_names_the_channel_once() {
        let who = Subscriber { index: 7, channel: "r1", position: None };
        for (way, path) in [
            (Unidirectional::WebSocket, "GET /connection/uni_websocket "),
            (Unidirectional::HttpStream, "POST /connection/uni_http_stream "),
            (Unidirectional::Sse, "POST /connection/uni_sse "),
        ] {
            let (mut request, mut hello) = (Vec::new(), Vec::new());
            way.upgrade(8000, &who, &mut request);
            way.hello(&who, &mut hello);
            let text = String::from_utf8(request).unwrap();
            assert!(text.starts_with(path), "{text}");
            let named = text.ends_with("{\"subs\":{\"r1\":{}}}");
            assert_eq!(named, hello.is_empty(), "{text}");
        }
    }
}
