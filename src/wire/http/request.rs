//! What a request on the public port can be, and the paths that the shards serve.
//!
//! Owns the types. Never reads bytes.

use std::borrow::Cow;

use super::status::Status;

/// Headers of one request that can be configured at most.
pub const HEADERS_MOST: usize = 256;

/// How large a request head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the head.
    pub bytes: usize,
    /// Headers in it, at most [`HEADERS_MOST`].
    pub headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        HeadLimits { bytes: 32 * 1024, headers: 128 }
    }
}

/// How a connection is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transport {
    /// Commands and replies over WebSocket.
    WebSocket,
    /// Pushes only, over WebSocket.
    UniWebSocket,
    /// Replies as an answer that does not end; commands by requests of their own.
    HttpStream,
    /// The same as server-sent events.
    Sse,
    /// Pushes only, as an answer that does not end.
    UniHttpStream,
    /// The same as server-sent events.
    UniSse,
    /// Pushes only, as an answer that ends with the first of them.
    LongPolling,
    /// Test mode: every message comes back as it went.
    Echo,
}

impl Transport {
    /// Its name to the backend.
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

    /// Whether clients only listen.
    pub fn is_unidirectional(self) -> bool {
        matches!(
            self,
            Transport::UniWebSocket
                | Transport::UniHttpStream
                | Transport::UniSse
                | Transport::LongPolling
        )
    }

    /// Whether it begins with an upgrade and ends with a close frame.
    pub fn is_websocket(self) -> bool {
        matches!(self, Transport::WebSocket | Transport::UniWebSocket | Transport::Echo)
    }

    /// Whether commands come by requests of their own.
    pub fn is_emulated(self) -> bool {
        matches!(self, Transport::HttpStream | Transport::Sse)
    }
}

/// A complete upgrade request.
#[derive(Debug)]
pub struct Upgrade {
    /// Which transport its path names.
    pub transport: Transport,
    /// The Sec-WebSocket-Accept value that answers its key.
    pub accept: String,
    /// The connect request of a unidirectional client, from `?cf_connect=`, percent-decoded.
    pub connect: Option<String>,
    /// Whether the protobuf encoding was asked for.
    pub protobuf: bool,
    /// Whether pings are to be WebSocket's own, rather than the protocol's.
    pub frame_pings: bool,
    /// The subprotocol to name in the answer.
    pub subprotocol: Option<&'static str>,
    /// What the answer says of compression, where it was offered and is on.
    pub compression: Option<&'static str>,
    /// The Origin header.
    pub origin: Option<String>,
    /// The Host header.
    pub host: Option<String>,
    /// Headers that are kept of it, see [`super::kept_headers`].
    pub kept: Vec<Header>,
}

/// A header: its name in lower case, and its value.
pub type Header = (Box<str>, Box<[u8]>);

/// A complete request for a stream.
#[derive(Debug)]
pub struct OpenEmulation<'a> {
    /// Which transport its path names.
    pub transport: Transport,
    /// Whether the protobuf encoding was asked for.
    pub protobuf: bool,
    /// The first commands; of a unidirectional client the connect request.
    pub opening: Cow<'a, [u8]>,
    /// Whether they stood in the URL, which somebody else may have written.
    pub by_url: bool,
    /// The last event that a client got before it came back.
    pub last_event: Option<&'a str>,
    /// The Origin header.
    pub origin: Option<&'a str>,
    /// The Host header.
    pub host: Option<&'a str>,
}

/// A complete request that speaks for the client of a stream.
#[derive(Debug)]
pub struct EmulationCommands<'a> {
    /// Whether its body is protocol buffers, rather than JSON.
    pub protobuf: bool,
    /// The whole body.
    pub body: &'a [u8],
    /// The Origin header.
    pub origin: Option<&'a str>,
    /// The Host header.
    pub host: Option<&'a str>,
    /// Whether it is the connection's last.
    pub last: bool,
}

/// A browser's question whether a page may send a request.
#[derive(Debug)]
pub struct Preflight<'a> {
    /// The headers that it would have.
    pub headers: &'a str,
    /// The Origin header.
    pub origin: Option<&'a str>,
    /// The Host header.
    pub host: Option<&'a str>,
    /// Whether it is the connection's last.
    pub last: bool,
}

/// A call of the API's publish method in its plain form: HTTP/1.1, kept alive, a body of known
/// length and no key but in `X-API-Key`.
#[derive(Debug)]
pub struct PublishCall<'a> {
    /// The key it gives.
    pub key: Option<&'a str>,
    /// The whole body.
    pub body: &'a [u8],
}

/// A question whether the server is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether the answer has no body (HEAD).
    pub bodiless: bool,
    /// Whether it is the connection's last.
    pub last: bool,
}

/// What the bytes so far are.
#[derive(Debug)]
pub enum Head<'a> {
    /// Not all there yet.
    Partial,
    /// An upgrade for the shard; the head took this many bytes.
    Upgrade(Box<Upgrade>, usize),
    /// A stream for the shard; head and body took this many bytes.
    OpenEmulation(OpenEmulation<'a>, usize),
    /// Somebody speaks for the client of a stream; head and body took this many bytes.
    EmulationCommands(EmulationCommands<'a>, usize),
    /// A browser asks whether it may; the head took this many bytes.
    Preflight(Preflight<'a>, usize),
    /// A call for the shard; head and body took this many bytes.
    PublishCall(PublishCall<'a>, usize),
    /// Somebody asks whether the server is there; the head took this many bytes.
    Health(Health, usize),
    /// A request for the control plane.
    Control,
    /// Refused with this status.
    Refused(Status),
}

/// What a path that the shards serve is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Push connections.
    Transport(Transport),
    /// What clients of streams say.
    Emulation,
    /// The API's publish method.
    Publish,
    /// Whether the server is there: answered by the shard, so that it costs no descriptor and is
    /// answered on a full node too.
    Health,
}

/// A path that the shards serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The path.
    pub path: String,
    /// What it is for.
    pub service: Service,
    /// Bytes of a request's body at most.
    pub body_max: usize,
    /// Whether messages of its clients may be compressed.
    pub compresses: bool,
}

/// All paths that the shards serve.
pub type Routes = Vec<Route>;
