//! The ways to get prices, and the requests that begin each.
//!
//! Owns the texts of requests. Never sends them.

use crate::wire::{self, Position};

/// How a client gets prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A request for the latest price at regular times.
    Polling,
    /// A request that is answered with the next price, then the next request: Drumline's.
    LongPolling,
    /// The same of nchan, whose responses carry the position in two headers.
    LongPollingNchan,
    /// One response that never ends, with a line per price.
    HttpStream,
    /// One response that never ends, with a server-sent event per price.
    Sse,
    /// The Centrifuge protocol over WebSocket.
    WebSocket,
    /// Pushes alone over WebSocket.
    UniWebSocket,
}

/// The bytes of a request: the head, and what follows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Way {
    /// The request for `channel`; `path` and `headers` are those of the plan. With a position, a
    /// long poll asks for what came after it.
    pub(super) fn request(
        self,
        (path, headers): (&str, &str),
        channel: &str,
        position: Option<&Position>,
    ) -> Request {
        let post = |path: &str| {
            let body = wire::uni_connect(channel, position);
            let length = body.len();
            let head = format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n");
            Request { head: head.into_bytes(), body: body.into_bytes() }
        };
        match self {
            Way::Polling => {
                let path = path.replace("{}", channel);
                let head = format!("GET {path} HTTP/1.1\r\n{headers}\r\n").into_bytes();
                Request { head, body: Vec::new() }
            }
            Way::LongPolling => post("/connection/long_polling"),
            Way::LongPollingNchan => {
                let since = position.map_or_else(String::new, |Position { epoch, offset }| {
                    format!("If-Modified-Since: {epoch}\r\nIf-None-Match: {offset}\r\n")
                });
                let head = format!("GET /subscribe/{channel} HTTP/1.1\r\n{headers}{since}\r\n");
                Request { head: head.into_bytes(), body: Vec::new() }
            }
            Way::HttpStream => post("/connection/uni_http_stream"),
            Way::Sse => post("/connection/uni_sse"),
            Way::WebSocket => upgrade(wire::PATH, headers),
            Way::UniWebSocket => upgrade("/connection/uni_websocket", headers),
        }
    }

    /// Whether a client asks again after each response.
    pub(super) fn asks_again(self) -> bool {
        matches!(self, Way::Polling | Way::LongPolling | Way::LongPollingNchan)
    }

    /// What a client sends after the answer to its upgrade.
    pub(super) fn hello(self, channel: &str) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Way::WebSocket => wire::hello(channel, &mut out),
            Way::UniWebSocket => {
                let subscription = wire::uni_connect(channel, None);
                wire::client_frame(wire::TEXT, subscription.as_bytes(), &mut out);
            }
            _ => {}
        }
        out
    }
}

fn upgrade(path: &str, headers: &str) -> Request {
    Request { head: wire::bare_upgrade(path, headers), body: Vec::new() }
}

/// Updates the position of a long poll from the response head of nchan.
pub(super) fn note_headers(head: &[u8], position: &mut Position) {
    for line in String::from_utf8_lossy(head).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        match name.to_ascii_lowercase().as_str() {
            "last-modified" => position.epoch = value.to_owned(),
            "etag" => position.offset = value.trim_matches('"').parse().unwrap_or_default(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: (&str, &str) = ("/poll?channel={}", "Host: a\r\n");

    #[test]
    fn a_poll_has_only_the_given_headers() {
        let request = Way::Polling.request(PLAIN, "r7", None);
        assert_eq!(request.head, b"GET /poll?channel=r7 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(request.body.is_empty());
    }

    #[test]
    fn a_long_poll_asks_from_the_position_on() {
        let position = Position { epoch: "abcd".into(), offset: 7 };
        let request = Way::LongPolling.request(PLAIN, "r1", Some(&position));
        let body = r#"{"subs":{"r1":{"recover":true,"epoch":"abcd","offset":7}}}"#;
        assert_eq!(request.body, body.as_bytes());
        let head = String::from_utf8(request.head).unwrap();
        assert!(head.starts_with("POST /connection/long_polling HTTP/1.1\r\nHost: a\r\n"));
        assert!(head.ends_with(&format!("Content-Length: {}\r\n\r\n", body.len())), "{head}");
        let first = Way::LongPolling.request(PLAIN, "r1", None).body;
        assert_eq!(first, br#"{"subs":{"r1":{}}}"#);
    }

    #[test]
    fn the_position_of_nchan_is_in_two_headers() {
        let mut position = Position::default();
        note_headers(
            b"HTTP/1.1 200 OK\r\nLast-Modified: Fri, 1 Nov\r\nEtag: 3\r\n\r\n",
            &mut position,
        );
        assert_eq!(position, Position { epoch: "Fri, 1 Nov".into(), offset: 3 });
        let head = Way::LongPollingNchan.request(PLAIN, "r1", Some(&position)).head;
        let wanted = "GET /subscribe/r1 HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: Fri, 1 Nov\r\n\
                      If-None-Match: 3\r\n\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), wanted);
    }

    #[test]
    fn only_websockets_say_hello() {
        for way in [Way::Polling, Way::LongPolling, Way::HttpStream, Way::Sse] {
            assert!(way.hello("r1").is_empty());
        }
        assert!(!Way::WebSocket.hello("r1").is_empty());
        let head = Way::UniWebSocket.request(PLAIN, "r1", None).head;
        assert!(head.starts_with(b"GET /connection/uni_websocket HTTP/1.1\r\nHost: a\r\n"));
    }
}
