//! Refusals of a shard, and the CORS headers that let a page read them.
//!
//! Owns no state. The responses have no `Date` header, because this layer has no clock.

use std::borrow::Cow;

/// The HTTP statuses with which a shard refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 400: the bytes are not HTTP, or the upgrade request is malformed.
    BadRequest,
    /// 400: `cf_connect` in the URL does not hold exactly one connect command.
    NotConnect,
    /// 400: the URL names no channel.
    NoChannel,
    /// 403: the origin is not allowed.
    Forbidden,
    /// 403: anonymous clients may not read the history of the channel, or it has none.
    Unreadable,
    /// 403: a browser navigates to the path of a transport as to a page.
    Navigation,
    /// 404: the emulation request names another node.
    NotFound,
    /// 405: the path accepts only these methods.
    MethodNotAllowed(&'static str),
    /// 408: the head did not arrive in time.
    Timeout,
    /// 413: the body exceeds the limit of the path.
    TooLarge,
    /// 426: the client requests another WebSocket version than 13.
    UpgradeRequired,
    /// 429: the address of the client has reached a limit of connections.
    TooManyConnections,
    /// 431: the head exceeds this many bytes.
    HeadTooLarge(usize),
    /// 431: the head has more than this many headers.
    TooManyHeaders(usize),
    /// 503: the node has reached a limit of connections or memory.
    Unavailable,
    /// 503: the node shuts down.
    ShuttingDown,
}

impl Status {
    /// The whole response, with the CORS headers for a page of an allowed origin. `bodiless` leaves
    /// the body out, for a HEAD request.
    pub fn response(self, cors: Cors<'_>, bodiless: bool) -> Vec<u8> {
        let body = self.body();
        let mut out = format!("HTTP/1.1 {}\r\n", self.line()).into_bytes();
        match self {
            Status::MethodNotAllowed(methods) => {
                out.extend_from_slice(format!("Allow: {methods}\r\n").as_bytes());
            }
            Status::UpgradeRequired => out.extend_from_slice(b"Sec-WebSocket-Version: 13\r\n"),
            Status::Unavailable | Status::ShuttingDown | Status::TooManyConnections => {
                out.extend_from_slice(b"Retry-After: 5\r\n");
            }
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
            Status::BadRequest | Status::NotConnect | Status::NoChannel => "400 Bad Request",
            Status::Forbidden | Status::Navigation | Status::Unreadable => "403 Forbidden",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed(_) => "405 Method Not Allowed",
            Status::Timeout => "408 Request Timeout",
            Status::TooLarge => "413 Content Too Large",
            Status::UpgradeRequired => "426 Upgrade Required",
            Status::TooManyConnections => "429 Too Many Requests",
            Status::HeadTooLarge(_) | Status::TooManyHeaders(_) => {
                "431 Request Header Fields Too Large"
            }
            Status::Unavailable | Status::ShuttingDown => "503 Service Unavailable",
        }
    }

    fn body(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Status::BadRequest => "malformed request\n",
            Status::Forbidden => "origin not allowed: add it to client.allowed_origins\n",
            Status::NoChannel => "the URL names no channel: add `?channel=NAME`\n",
            Status::Unreadable => {
                "channel not readable: it needs a history that anonymous clients may read\n"
            }
            Status::NotConnect => {
                "cf_connect must hold one connect command: send other commands by POST\n"
            }
            Status::Navigation => {
                "this path is not a page: open it with EventSource or fetch, not with a link or a form\n"
            }
            Status::NotFound => "unknown node\n",
            Status::MethodNotAllowed(methods) => {
                return format!("method not allowed: this path accepts only {methods}\n").into();
            }
            Status::Timeout => "the request did not arrive in time\n",
            Status::TooLarge => "the request body exceeds the limit of this path\n",
            Status::UpgradeRequired => "unsupported WebSocket version: use version 13\n",
            Status::TooManyConnections => "too many connections from this address\n",
            Status::HeadTooLarge(limit) => {
                let action = "raise http_server.head_size_limit";
                return format!("request head over {limit} bytes; {action}\n").into();
            }
            Status::TooManyHeaders(limit) => {
                let action = "raise http_server.headers_limit";
                return format!("request head of more than {limit} headers; {action}\n").into();
            }
            Status::Unavailable => "no room for another connection\n",
            Status::ShuttingDown => "the server shuts down: try again\n",
        })
    }
}

/// A browser page of another origin that is allowed to read the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cors<'a> {
    /// The page's origin; `None`: the response gets no CORS headers.
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
