//! The kinds of request on the public port, and the paths that the shards serve.
//!
//! Owns the types. Never parses bytes.

use std::borrow::Cow;

use super::status::Status;

/// Maximum that the number of headers per request can be configured to.
pub const HEADERS_MOST: usize = 256;

/// Limits of a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Maximum bytes of the head.
    pub bytes: usize,
    /// Maximum number of headers, at most [`HEADERS_MOST`].
    pub headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        HeadLimits { bytes: 32 * 1024, headers: 128 }
    }
}

/// The transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transport {
    /// Commands and replies over WebSocket.
    WebSocket,
    /// Pushes only (unidirectional), over WebSocket.
    UniWebSocket,
    /// Replies in one endless HTTP response; commands in separate emulation requests.
    HttpStream,
    /// Replies as server-sent events; commands in separate emulation requests.
    Sse,
    /// Pushes only, in one endless HTTP response.
    UniHttpStream,
    /// Pushes only, as server-sent events.
    UniSse,
    /// Pushes only, in an HTTP response that ends after the first push.
    LongPolling,
    /// Test mode: the server sends every message back unchanged.
    Echo,
}

impl Transport {
    /// Every transport, in the order of the numbers.
    pub const ALL: [Transport; 8] = [
        Transport::WebSocket,
        Transport::UniWebSocket,
        Transport::HttpStream,
        Transport::Sse,
        Transport::UniHttpStream,
        Transport::UniSse,
        Transport::LongPolling,
        Transport::Echo,
    ];

    /// The name of the transport in requests to the backend.
    pub fn name(self) -> &'static str {
        match self {
            Transport::WebSocket => "websocket",
            Transport::UniWebSocket => "uni_websocket",
            Transport::HttpStream => "http_stream",
            Transport::UniHttpStream => "uni_http_stream",
            Transport::Sse => "sse",
            Transport::UniSse => "uni_sse",
            Transport::LongPolling => "long_polling",
            Transport::Echo => "echo",
        }
    }

    /// Whether clients only receive pushes and send no commands.
    pub fn is_unidirectional(self) -> bool {
        matches!(
            self,
            Transport::UniWebSocket
                | Transport::UniHttpStream
                | Transport::UniSse
                | Transport::LongPolling
        )
    }

    /// Whether the transport runs over WebSocket: an upgrade starts it, a close frame ends it.
    pub fn is_websocket(self) -> bool {
        matches!(self, Transport::WebSocket | Transport::UniWebSocket | Transport::Echo)
    }

    /// Whether clients send commands in separate emulation requests.
    pub fn is_emulated(self) -> bool {
        matches!(self, Transport::HttpStream | Transport::Sse)
    }
}

/// A complete upgrade request.
#[derive(Debug)]
pub struct Upgrade {
    /// The transport of the request's path.
    pub transport: Transport,
    /// The Sec-WebSocket-Accept value that answers its key.
    pub accept: String,
    /// The connect request of a unidirectional client, from `?cf_connect=`, percent-decoded.
    pub connect: Option<String>,
    /// Whether the client requests the protobuf encoding.
    pub protobuf: bool,
    /// Whether the client requests WebSocket pings instead of pings of the protocol.
    pub frame_pings: bool,
    /// The subprotocol that the response names.
    pub subprotocol: Option<&'static str>,
    /// The Sec-WebSocket-Extensions value of the response; `None` without compression.
    pub compression: Option<&'static str>,
    /// The Origin header.
    pub origin: Option<String>,
    /// The Host header.
    pub host: Option<String>,
    /// Headers that are kept for the backend, see [`super::kept_headers`].
    pub kept: Vec<Header>,
}

/// A header: its name in lower case and its value.
pub type Header = (Box<str>, Box<[u8]>);

/// A complete request that opens an SSE, HTTP streaming or long-polling connection.
#[derive(Debug)]
pub struct OpenEmulation<'a> {
    /// The transport of the request's path.
    pub transport: Transport,
    /// Whether the client requests the protobuf encoding.
    pub protobuf: bool,
    /// The first commands; for a unidirectional client the connect request.
    pub opening: Cow<'a, [u8]>,
    /// Whether they come from the URL, which an attacker may have written (a link).
    pub by_url: bool,
    /// The `Last-Event-ID` header: the last event that the client received before it reconnected.
    pub last_event: Option<&'a str>,
    /// The Origin header.
    pub origin: Option<&'a str>,
    /// The Host header.
    pub host: Option<&'a str>,
}

/// A complete emulation request: commands for an SSE or HTTP streaming connection.
#[derive(Debug)]
pub struct EmulationCommands<'a> {
    /// Whether the body is protobuf instead of JSON.
    pub protobuf: bool,
    /// The whole body.
    pub body: &'a [u8],
    /// The Origin header.
    pub origin: Option<&'a str>,
    /// The Host header.
    pub host: Option<&'a str>,
    /// Whether the HTTP connection closes after this request.
    pub last: bool,
}

/// A CORS preflight: a browser asks whether a page may send a request.
#[derive(Debug)]
pub struct Preflight<'a> {
    /// The headers that the page wants to send.
    pub headers: &'a str,
    /// The Origin header.
    pub origin: Option<&'a str>,
    /// The Host header.
    pub host: Option<&'a str>,
    /// Whether the HTTP connection closes after this request.
    pub last: bool,
}

/// A call of the API's publish method in its plain form: HTTP/1.1, keep-alive, with Content-Length,
/// no API key outside of `X-API-Key`, and errors as the configuration says.
#[derive(Debug)]
pub struct PublishCall<'a> {
    /// The API key of the call.
    pub key: Option<&'a str>,
    /// The whole body.
    pub body: &'a [u8],
}

/// A request for the latest publication of a channel.
#[derive(Debug)]
pub struct Poll<'a> {
    /// The channel, percent-decoded.
    pub channel: String,
    /// The Origin header.
    pub origin: Option<&'a str>,
    /// The Host header.
    pub host: Option<&'a str>,
    /// Whether the HTTP connection closes after this request.
    pub last: bool,
}

/// A check whether the node is alive, or ready for new clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether the check asks for readiness.
    pub ready: bool,
    /// Whether the response has no body (HEAD).
    pub bodiless: bool,
    /// Whether the HTTP connection closes after this request.
    pub last: bool,
}

/// What the received bytes are.
#[derive(Debug)]
pub enum Head<'a> {
    /// The request is incomplete.
    Partial,
    /// The shard upgrades the connection. The number is the bytes of the head.
    Upgrade(Box<Upgrade>, usize),
    /// The shard opens an emulated or unidirectional HTTP connection. The number is the bytes of
    /// head and body.
    OpenEmulation(OpenEmulation<'a>, usize),
    /// Commands for an emulated connection. The number is the bytes of head and body.
    EmulationCommands(EmulationCommands<'a>, usize),
    /// A CORS preflight. The number is the bytes of the request.
    Preflight(Preflight<'a>, usize),
    /// The shard executes a publish call. The number is the bytes of head and body.
    PublishCall(PublishCall<'a>, usize),
    /// The shard answers with the latest publication of a channel. The number is the bytes of the
    /// head.
    Poll(Poll<'a>, usize),
    /// A health check. The number is the bytes of the head.
    Health(Health, usize),
    /// The control plane serves the request.
    Control,
    /// The shard refuses the request with this status.
    Refused(Status),
}

/// What the shards serve at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Client connections of a transport.
    Transport(Transport),
    /// Commands for emulated connections.
    Emulation,
    /// The API's publish method.
    Publish,
    /// The latest publication of a channel, one per request.
    Polling,
    /// Health checks. The shard answers them, so they need no descriptor of the control plane and
    /// work on a full node too.
    Health,
    /// Checks whether the node is ready for new clients, answered like health checks.
    Readiness,
}

/// A path that the shards serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The path.
    pub path: String,
    /// What the shards serve at the path.
    pub service: Service,
    /// Maximum bytes of a request body.
    pub body_max: usize,
    /// Whether WebSocket messages may be compressed.
    pub compresses: bool,
}

/// All paths that the shards serve.
pub type Routes = Vec<Route>;
