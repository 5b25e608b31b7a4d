//! HTTP responses of a shard, except refusals.
//!
//! Owns no state. The responses have no `Date` header, because this layer has no clock.

use std::borrow::Cow;

use ::http::StatusCode;
use tungstenite::handshake::derive_accept_key;

use super::request::{Transport, Upgrade};
use super::status::Cors;
use crate::wire::protocol::Wire;

/// The `Sec-WebSocket-Accept` value that answers a `Sec-WebSocket-Key`.
pub(super) fn accept_key(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

/// Appends the 101 response to an upgrade request.
pub fn write_switching(upgrade: &Upgrade, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(upgrade.accept.as_bytes());
    let optional = [
        (&b"\r\nSec-WebSocket-Protocol: "[..], upgrade.subprotocol),
        (b"\r\nSec-WebSocket-Extensions: ", upgrade.compression),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            out.extend_from_slice(name);
            out.extend_from_slice(value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// HTTP status of an API call that failed with this code, where errors have a status of their own
/// (`http_api.error_mode: transport`).
pub fn error_status(code: u32) -> StatusCode {
    match code {
        102 | 104 => StatusCode::NOT_FOUND,
        107 | 108 => StatusCode::BAD_REQUEST,
        112 => StatusCode::RANGE_NOT_SATISFIABLE,
        113 => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Appends the JSON response to an API call, with the status of the code with which it `failed`;
/// `None`: 200. `last` announces that the connection closes after it.
pub fn write_answer(failed: Option<u32>, json: &[u8], last: bool, out: &mut Vec<u8>) {
    match failed.map(error_status) {
        None => out.extend_from_slice(b"HTTP/1.1 200 OK"),
        Some(status) => out.extend_from_slice(format!("HTTP/1.1 {status}").as_bytes()),
    }
    out.extend_from_slice(b"\r\nContent-Type: application/json\r\n");
    write_body(json, last, out);
}

/// Appends the last headers of a response, and its body.
fn write_body(body: &[u8], last: bool, out: &mut Vec<u8>) {
    if last {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(body.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// Appends the response with the data of the latest publication of a channel. `last` announces that
/// the connection closes after it.
pub fn write_latest(data: &[u8], binary: bool, cors: Cors<'_>, last: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/");
    out.extend_from_slice(if binary { b"octet-stream" } else { b"json" });
    // A page that polls must not get an old answer from a cache.
    out.extend_from_slice(b"\r\nCache-Control: no-store\r\n");
    cors.write(out);
    write_body(data, last, out);
}

/// Appends the response to a health check: 200, or 503 with the `fault` of the node, which must
/// need no escaping in JSON. `bodiless` leaves the body out (HEAD). `last` announces that the
/// connection closes after it.
pub fn write_health(fault: Option<&str>, bodiless: bool, last: bool, out: &mut Vec<u8>) {
    let body = health_body(fault);
    let status = if fault.is_none() { "200 OK" } else { "503 Service Unavailable" };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(b"\r\nContent-Type: application/json\r\n");
    write_body(body.as_bytes(), last, out);
    if bodiless {
        out.truncate(out.len() - body.len());
    }
}

/// Body of the response to a health check.
pub fn health_body(fault: Option<&str>) -> Cow<'static, str> {
    match fault {
        None => "{}".into(),
        Some(fault) => format!("{{\"error\":\"{fault}\"}}").into(),
    }
}

/// Appends the head of a response whose body lasts until the connection ends. The first event must
/// follow directly: npm's `eventsource` 2 loses an event that follows an empty line.
pub fn write_stream_head(transport: Transport, wire: Wire, cors: Cors<'_>, out: &mut Vec<u8>) {
    let kind = match (transport, wire) {
        (Transport::Sse | Transport::UniSse, _) => "text/event-stream",
        (_, Wire::Json) => "application/json",
        (_, Wire::Protobuf) => "application/octet-stream",
    };
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: ");
    out.extend_from_slice(kind.as_bytes());
    // These headers keep proxies from caching or buffering the events.
    out.extend_from_slice(
        b"\r\nCache-Control: private, no-cache, no-store, must-revalidate, max-age=0\r\n\
          X-Accel-Buffering: no\r\nConnection: close\r\n",
    );
    cors.write(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the response to a refused connect, after which the connection closes.
pub fn write_refused_connect(status: u16, body: &str, cors: Cors<'_>, out: &mut Vec<u8>) {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let head = format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or_default());
    out.extend_from_slice(head.as_bytes());
    cors.write(out);
    out.extend_from_slice(b"Connection: close\r\n");
    // Responses with these statuses have no body.
    if matches!(status, 204 | 304) {
        return out.extend_from_slice(b"\r\n");
    }
    let length = body.len();
    let rest =
        format!("Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n");
    out.extend_from_slice(rest.as_bytes());
    out.extend_from_slice(body.as_bytes());
}

/// Appends a 204 response: to an emulation request or, with `requested_headers` (the headers that a
/// page wants to send), to a CORS preflight. `last` announces that the connection closes after it.
pub fn write_no_content(
    cors: Cors<'_>,
    requested_headers: Option<&str>,
    last: bool,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"HTTP/1.1 204 No Content\r\n");
    cors.write(out);
    if let Some(headers) = requested_headers {
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
    fn an_http_parser_reads_an_answer() {
        let statuses = [(None, 200), (Some(100), 500), (Some(102), 404), (Some(107), 400)];
        for (nth, (failed, status)) in statuses.into_iter().enumerate() {
            let last = nth % 2 == 1;
            let mut bytes = Vec::new();
            write_answer(failed, b"{\"result\":{}}", last, &mut bytes);
            let mut headers = [httparse::EMPTY_HEADER; 4];
            let mut response = httparse::Response::new(&mut headers);
            let Ok(httparse::Status::Complete(used)) = response.parse(&bytes) else { panic!() };
            assert_eq!((response.code, &bytes[used..]), (Some(status), &b"{\"result\":{}}"[..]));
            let has_header = |name, value: &[u8]| {
                response.headers.iter().any(|found| found.name == name && found.value == value)
            };
            assert!(has_header("Content-Length", b"13"));
            assert_eq!(has_header("Connection", b"close"), last);
        }
    }

    #[test]
    fn an_http_parser_reads_every_refusal() {
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
            (Status::ShuttingDown, 503, Some(("Retry-After", "5"))),
        ];
        for (status, code, expected) in table {
            for bodiless in [false, true] {
                let bytes = status.response(cors, bodiless);
                let mut headers = [httparse::EMPTY_HEADER; 8];
                let mut response = httparse::Response::new(&mut headers);
                let Ok(httparse::Status::Complete(used)) = response.parse(&bytes) else { panic!() };
                assert_eq!(response.code, Some(code));
                let header = |name: &str| {
                    let found = response.headers.iter().find(|found| found.name == name);
                    found.map(|found| std::str::from_utf8(found.value).unwrap())
                };
                let length = header("Content-Length").unwrap().parse::<usize>().unwrap();
                assert_eq!(bytes.len() - used, if bodiless { 0 } else { length });
                assert_eq!(header("Access-Control-Allow-Origin"), Some("https://a.com"));
                assert_eq!(header("Connection"), Some("close"));
                if let Some((name, value)) = expected {
                    assert_eq!(header(name), Some(value));
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
    fn cors_headers_name_only_an_allowed_origin() {
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
