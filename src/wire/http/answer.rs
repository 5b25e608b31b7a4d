//! Answers that a shard gives by itself.
//!
//! Owns nothing. There is no `Date` in them: state has no clock.

use tungstenite::handshake::derive_accept_key;

use super::request::{Transport, Upgrade};
use super::status::Cors;
use crate::wire::protocol::Wire;

/// The `Sec-WebSocket-Accept` value that answers a `Sec-WebSocket-Key`.
pub(super) fn accept_key(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

/// Appends the 101 answer to an upgrade.
pub fn write_switching(upgrade: &Upgrade, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(upgrade.accept.as_bytes());
    let named = [
        (&b"\r\nSec-WebSocket-Protocol: "[..], upgrade.subprotocol),
        (b"\r\nSec-WebSocket-Extensions: ", upgrade.compression),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            out.extend_from_slice(name);
            out.extend_from_slice(value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a kept-alive answer to a call; with `last` the connection is closed behind it.
pub fn write_answer(json: &[u8], last: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n");
    if last {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(json.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(json);
}

/// Appends the answer to a question whether the server is there; with `last` the connection is
/// closed behind it.
pub fn write_health(bodiless: bool, last: bool, out: &mut Vec<u8>) {
    const BODY: &[u8] = b"{}";
    write_answer(BODY, last, out);
    if bodiless {
        out.truncate(out.len() - BODY.len());
    }
}

/// Appends the head of an answer that goes on until the connection ends. The first event follows it
/// at once: npm's `eventsource` 2 loses an event behind an empty line.
pub fn write_stream_head(transport: Transport, wire: Wire, cors: Cors<'_>, out: &mut Vec<u8>) {
    let kind = match (transport, wire) {
        (Transport::Sse | Transport::UniSse, _) => "text/event-stream",
        (_, Wire::Json) => "application/json",
        (_, Wire::Protobuf) => "application/octet-stream",
    };
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: ");
    out.extend_from_slice(kind.as_bytes());
    // Proxies are to pass on what they get when they get it.
    out.extend_from_slice(
        b"\r\nCache-Control: private, no-cache, no-store, must-revalidate, max-age=0\r\n\
          X-Accel-Buffering: no\r\nConnection: close\r\n",
    );
    cors.write(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends an answer without content: to an emulation request, or with `asked` (the headers that
/// a page wants to send) to a browser's question whether it may send one.
pub fn write_no_content(cors: Cors<'_>, asked: Option<&str>, last: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 204 No Content\r\n");
    cors.write(out);
    if let Some(headers) = asked {
        out.extend_from_slice(
            b"Access-Control-Allow-Methods: GET, POST, OPTIONS\r\n\
              Access-Control-Max-Age: 300\r\nAccess-Control-Allow-Headers: ",
        );
        out.extend_from_slice(headers.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if last {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::Status;

    #[test]
    fn an_answer_is_read_by_others() {
        for last in [false, true] {
            let mut bytes = Vec::new();
            write_answer(b"{\"result\":{}}", last, &mut bytes);
            let mut headers = [httparse::EMPTY_HEADER; 4];
            let mut response = httparse::Response::new(&mut headers);
            let Ok(httparse::Status::Complete(used)) = response.parse(&bytes) else { panic!() };
            assert_eq!((response.code, &bytes[used..]), (Some(200), &b"{\"result\":{}}"[..]));
            let said = |name, value: &[u8]| {
                response.headers.iter().any(|found| found.name == name && found.value == value)
            };
            assert!(said("Content-Length", b"13"));
            assert_eq!(said("Connection", b"close"), last);
        }
    }

    #[test]
    fn refusals_are_read_by_others() {
        let cors = Cors { origin: Some("https://a.com") };
        let table = [
            (Status::BadRequest, 400, None),
            (Status::NotFound, 404, None),
            (Status::MethodNotAllowed("GET"), 405, Some(("Allow", "GET"))),
            (Status::TooLarge, 413, None),
            (Status::UpgradeRequired, 426, Some(("Sec-WebSocket-Version", "13"))),
            (Status::HeadTooLarge(100), 431, None),
            (Status::TooManyHeaders(100), 431, None),
            (Status::Unavailable, 503, Some(("Retry-After", "5"))),
        ];
        for (status, code, named) in table {
            for bodiless in [false, true] {
                let bytes = status.response(cors, bodiless);
                let mut headers = [httparse::EMPTY_HEADER; 8];
                let mut response = httparse::Response::new(&mut headers);
                let Ok(httparse::Status::Complete(used)) = response.parse(&bytes) else { panic!() };
                assert_eq!(response.code, Some(code));
                let said = |name: &str| {
                    let found = response.headers.iter().find(|found| found.name == name);
                    found.map(|found| std::str::from_utf8(found.value).unwrap())
                };
                let length = said("Content-Length").unwrap().parse::<usize>().unwrap();
                assert_eq!(bytes.len() - used, if bodiless { 0 } else { length });
                assert_eq!(said("Access-Control-Allow-Origin"), Some("https://a.com"));
                assert_eq!(said("Connection"), Some("close"));
                if let Some((name, value)) = named {
                    assert_eq!(said(name), Some(value));
                }
            }
        }
        let cause =
            |status: Status| String::from_utf8(status.response(Cors::default(), false)).unwrap();
        assert!(cause(Status::HeadTooLarge(100)).contains("over 100 bytes"));
        assert!(cause(Status::TooManyHeaders(100)).contains("more than 100 headers"));
        assert!(!cause(Status::NotFound).contains("Access-Control"));
    }

    #[test]
    fn a_page_of_another_origin_may_read_what_it_is_let() {
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            write(&mut bytes);
            String::from_utf8(bytes).unwrap()
        };
        let cors = Cors { origin: Some("https://a.com") };
        let allowed = "Access-Control-Allow-Origin: https://a.com\r\n";
        let head = |cors| text(&|out| write_stream_head(Transport::Sse, Wire::Json, cors, out));
        assert!(head(cors).contains(allowed) && head(cors).ends_with("\r\n\r\n"));
        assert!(!head(Cors::default()).contains("Access-Control"));
        let answer = text(&|out| write_no_content(cors, Some("content-type"), false, out));
        assert!(answer.contains(allowed));
        assert!(answer.contains("Access-Control-Allow-Headers: content-type\r\n"));
        let answer = text(&|out| write_no_content(cors, None, true, out));
        assert!(!answer.contains("Allow-Headers") && answer.contains("Connection: close\r\n"));
    }
}
