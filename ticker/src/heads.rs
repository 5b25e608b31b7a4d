//! Heads of HTTP requests and responses: as much of them as a relay needs.
//!
//! Owns the bounds of a request. Never reads a socket.

use crate::framing::Framing;

/// Maximum size of a head, in bytes.
pub const HEAD_MAX: usize = 32 * 1024;
/// Maximum number of headers.
const HEADERS_MAX: usize = 100;
/// Maximum size of the body of a request, in bytes.
const BODY_MAX: usize = 64 * 1024;

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the head.
    pub head: usize,
    /// Bytes of the body.
    pub body: usize,
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
}

/// What follows the head of a response.
#[derive(Debug)]
pub enum Body {
    /// A body of this many bytes.
    Length(u64),
    /// A body that ends with the connection.
    UntilClose(Framing),
    /// Another protocol, both ways.
    Upgraded,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// Bytes of the head.
    pub head: usize,
    /// What follows it.
    pub body: Body,
}

/// The value of a header; an empty text if it is missing.
fn value<'a>(headers: &[httparse::Header<'a>], name: &str) -> &'a str {
    let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    found.and_then(|header| std::str::from_utf8(header.value).ok()).unwrap_or_default()
}

/// The length that a head announces.
fn length(headers: &[httparse::Header<'_>]) -> Result<Option<u64>, &'static str> {
    if !value(headers, "transfer-encoding").is_empty() {
        return Err("a body in chunks is not supported");
    }
    match value(headers, "content-length").trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| "the content length is not a number"),
    }
}

/// Reads the head of a request. `None`: its end is missing.
pub fn request(bytes: &[u8]) -> Result<Option<Request>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut found = httparse::Request::new(&mut headers);
    let head = match found.parse(bytes) {
        Ok(httparse::Status::Complete(head)) if head <= HEAD_MAX => head,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX => return Ok(None),
        Ok(_) => return Err("the head is too large"),
        Err(_) => return Err("this is not an HTTP request"),
    };
    let body = length(found.headers)?.unwrap_or(0);
    let body = usize::try_from(body).ok().filter(|body| *body <= BODY_MAX);
    Ok(Some(Request {
        head,
        body: body.ok_or("the body is too large")?,
        method: found.method.unwrap_or_default().to_owned(),
        target: found.path.unwrap_or_default().to_owned(),
    }))
}

/// Reads the head of a response to a GET or POST request. `None`: its end is missing.
pub fn response(bytes: &[u8]) -> Result<Option<Response>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut found = httparse::Response::new(&mut headers);
    let head = match found.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX => return Ok(None),
        _ => return Err("the answer is not HTTP"),
    };
    let body = match (found.code, length(found.headers)?) {
        (Some(101), _) => Body::Upgraded,
        (Some(204 | 304), _) => Body::Length(0),
        (_, Some(length)) => Body::Length(length),
        (_, None) => {
            let kind = value(found.headers, "content-type");
            let is_event = kind.starts_with("text/event-stream");
            Body::UntilClose(if is_event { Framing::events() } else { Framing::Lines })
        }
    };
    Ok(Some(Response { head, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_the_length_of_its_body() {
        let text = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi and more";
        let wanted =
            Request { head: 52, body: 2, method: "POST".to_owned(), target: "/a?b=c".to_owned() };
        assert_eq!(request(text), Ok(Some(wanted)));
        assert_eq!(request(&text[..50]), Ok(None));
        assert!(request(b"\x16\x03\x01").is_err(), "TLS");
        let large = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(HEAD_MAX));
        assert_eq!(request(large.as_bytes()), Err("the head is too large"));
        for (header, cause) in [
            ("Transfer-Encoding: chunked", "a body in chunks is not supported"),
            ("Content-Length: 1x", "the content length is not a number"),
            ("Content-Length: 65537", "the body is too large"),
        ] {
            let text = format!("POST / HTTP/1.1\r\n{header}\r\n\r\n");
            assert_eq!(request(text.as_bytes()), Err(cause));
        }
    }

    #[test]
    fn the_body_of_a_response_is_known_from_its_head() {
        let body = |status: &str, headers: &str| {
            let text = format!("HTTP/1.1 {status}\r\n{headers}\r\n");
            response(text.as_bytes()).unwrap().unwrap().body
        };
        assert!(matches!(body("200 OK", "Content-Length: 7\r\n"), Body::Length(7)));
        assert!(matches!(body("204 No Content", ""), Body::Length(0)));
        assert!(matches!(body("101 Switching Protocols", ""), Body::Upgraded));
        let of = |kind: &str| body("200 OK", &format!("Content-Type: {kind}\r\n"));
        let events = of("text/event-stream; charset=utf-8");
        assert!(matches!(events, Body::UntilClose(Framing::Events(_))));
        assert!(matches!(of("application/json"), Body::UntilClose(Framing::Lines)));
        assert!(response(b"HTTP/1.1 200 OK\r\n").unwrap().is_none());
        assert!(response(b"no HTTP").is_err());
    }
}
