//! Drumline clients of http_stream and SSE, which read replies from a response that stays open.
//!
//! Owns the requests. Never posts to `/emulation`: the first request holds all commands, and these
//! clients do not answer pings. Invariant: only responses without chunked encoding are accepted, so
//! all bytes after the response head are messages.

use std::fmt::Write as _;

use super::drumline::Drumline;
use super::framing::Framing;
use super::identified::Identified;
use super::interface::{Dialect, Heard, Subscriber, first_line};
use crate::wire;

/// Clients of one transport, each with a user of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streamed {
    /// POST with the commands in the body. The response holds one reply per line.
    HttpStream,
    /// GET with the commands in the URL. The response holds one reply per event.
    Sse,
}

impl Streamed {
    /// Command-line argument that enables the transport on the server.
    pub fn server_argument(self) -> String {
        match self {
            Streamed::HttpStream => "--http_stream.enabled".to_owned(),
            Streamed::Sse => "--sse.enabled".to_owned(),
        }
    }
}

impl Dialect for Streamed {
    fn path(&self, who: &Subscriber<'_>) -> String {
        match self {
            Streamed::HttpStream => "/connection/http_stream".to_owned(),
            Streamed::Sse => {
                let commands = percent_encoded(&Identified::commands(who, ""));
                format!("/connection/sse?cf_connect={commands}")
            }
        }
    }

    fn upgrade(&self, port: u16, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        let (path, host) = (self.path(who), format!("127.0.0.1:{port}"));
        let request = match self {
            Streamed::HttpStream => {
                let body = Identified::commands(who, "");
                format!(
                    "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
            Streamed::Sse => {
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n")
            }
        };
        out.extend_from_slice(request.as_bytes());
    }

    fn refusal(&self, head: &[u8]) -> Option<String> {
        let lower = head.to_ascii_lowercase();
        if !lower.starts_with(b"http/1.1 200 ") {
            return Some(format!("answered `{}`", first_line(head)));
        }
        let coded = wire::find(&lower, b"\r\ntransfer-encoding:").is_some();
        coded.then(|| "the response is sent in chunks; expected it unencoded".to_owned())
    }

    fn framing(&self) -> Framing {
        match self {
            Streamed::HttpStream => Framing::Lines,
            Streamed::Sse => Framing::Events,
        }
    }

    fn awaited(&self) -> u8 {
        Drumline.awaited()
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        Drumline.hear(message)
    }
}

/// Percent-encodes a query value. Only unreserved characters stay (RFC 3986, section 2.3).
fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Subscriber<'_> = Subscriber { index: 7, channel: "news", position: None };

    #[test]
    fn requests_contain_the_commands() {
        let mut post = Vec::new();
        Streamed::HttpStream.upgrade(8000, &WHO, &mut post);
        let post = String::from_utf8(post).unwrap();
        let (head, body) = post.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /connection/http_stream HTTP/1.1\r\nHost: 127.0.0.1:8000"));
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.ends_with("}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}"), "{body}");
        let path = Streamed::Sse.path(&WHO);
        let end = "%7D%0A%7B%22id%22%3A2%2C%22subscribe%22%3A%7B%22channel%22%3A%22news%22%7D%7D";
        assert!(
            path.starts_with("/connection/sse?cf_connect=%7B") && path.ends_with(end),
            "{path}"
        );
    }

    #[test]
    fn error_and_chunked_responses_are_refused() {
        let refusal = |head: &str| Streamed::Sse.refusal(head.as_bytes());
        assert_eq!(refusal("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"), None);
        let gone = refusal("HTTP/1.1 404 Not Found\r\n\r\n");
        assert_eq!(gone.unwrap(), "answered `HTTP/1.1 404 Not Found`");
        let chunks = refusal("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(chunks.unwrap().contains("in chunks"));
    }
}
