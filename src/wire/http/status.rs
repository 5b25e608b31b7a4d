//! Refusals that a shard answers by itself, and the headers that let a page read them.
//!
//! Owns nothing. There is no `Date` in them: state has no clock.

use std::borrow::Cow;

/// The statuses that a shard itself answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 400: no HTTP, or an upgrade that breaks its rules.
    BadRequest,
    /// 400: what stands in a URL is not one connect command.
    NotConnect,
    /// 403: an origin that is not allowed.
    Forbidden,
    /// 403: a browser goes to a stream as to a page.
    Navigation,
    /// 404: the node that was named is another.
    NotFound,
    /// 405: the path is served by these methods alone.
    MethodNotAllowed(&'static str),
    /// 408: the head did not come in time.
    Timeout,
    /// 413: the body is over its limit.
    TooLarge,
    /// 426: another WebSocket version.
    UpgradeRequired,
    /// 431: the head is over so many bytes.
    HeadTooLarge(usize),
    /// 431: the head has more than so many headers.
    TooManyHeaders(usize),
    /// 503: no room for another connection.
    Unavailable,
}

impl Status {
    /// The whole response, with what lets a page of a permitted origin read it; `bodiless` where
    /// the request was a HEAD.
    pub fn response(self, cors: Cors<'_>, bodiless: bool) -> Vec<u8> {
        let body = self.body();
        let mut out = format!("HTTP/1.1 {}\r\n", self.line()).into_bytes();
        match self {
            Status::MethodNotAllowed(methods) => {
                out.extend_from_slice(format!("Allow: {methods}\r\n").as_bytes());
            }
            Status::UpgradeRequired => out.extend_from_slice(b"Sec-WebSocket-Version: 13\r\n"),
            Status::Unavailable => out.extend_from_slice(b"Retry-After: 5\r\n"),
            _ => {}
        }
        cors.write(&mut out);
        let length = body.len();
        let rest = format!("Content-Type: text/plain\r\nContent-Length: {length}\r\n");
        out.extend_from_slice(rest.as_bytes());
        out.extend_from_slice(b"Connection: close\r\n\r\n");
        if !bodiless {
            out.extend_from_slice(body.as_bytes());
        }
        out
    }

    fn line(self) -> &'static str {
        match self {
            Status::BadRequest | Status::NotConnect => "400 Bad Request",
            Status::Forbidden | Status::Navigation => "403 Forbidden",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed(_) => "405 Method Not Allowed",
            Status::Timeout => "408 Request Timeout",
            Status::TooLarge => "413 Content Too Large",
            Status::UpgradeRequired => "426 Upgrade Required",
            Status::HeadTooLarge(_) | Status::TooManyHeaders(_) => {
                "431 Request Header Fields Too Large"
            }
            Status::Unavailable => "503 Service Unavailable",
        }
    }

    fn body(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Status::BadRequest => "malformed request\n",
            Status::Forbidden => "origin not allowed: see client.allowed_origins\n",
            Status::NotConnect => "cf_connect must hold one connect command: send others by POST\n",
            Status::Navigation => {
                "a stream is no page: open it by EventSource or fetch, not by a link or a form\n"
            }
            Status::NotFound => "unknown node\n",
            Status::MethodNotAllowed(methods) => {
                return format!("this path takes {methods} only\n").into();
            }
            Status::Timeout => "request took too long\n",
            Status::TooLarge => "request body over its limit\n",
            Status::UpgradeRequired => "only WebSocket version 13 is spoken here\n",
            Status::HeadTooLarge(limit) => {
                let cure = "http_server.head_size_limit raises the limit";
                return format!("request head over {limit} bytes; {cure}\n").into();
            }
            Status::TooManyHeaders(limit) => {
                let cure = "http_server.headers_limit raises the limit";
                return format!("request head of more than {limit} headers; {cure}\n").into();
            }
            Status::Unavailable => "no room for another connection\n",
        })
    }
}

/// A browser page of another origin, which may read an answer if it is let.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cors<'a> {
    /// The page's origin; `None`: it is no such page that asks.
    pub origin: Option<&'a str>,
}

impl Cors<'_> {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        if let Some(origin) = self.origin {
            let parts = ["Access-Control-Allow-Origin: ", origin, "\r\n"];
            out.extend(parts.iter().flat_map(|part| part.bytes()));
            out.extend_from_slice(b"Access-Control-Allow-Credentials: true\r\nVary: Origin\r\n");
        }
    }
}
