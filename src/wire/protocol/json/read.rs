//! Reading JSON: commands are read without copying.
//!
//! Owns nothing. Never carries a command out.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::lenient_json;
use crate::wire::protocol::command::{
    ChannelRequest, Command, ConnectRequest, EmulationRequest, HistoryRequest, PublishRequest,
    RefreshRequest, Request, RpcRequest, SubRefreshRequest, SubscribeRequest,
};

/// One command as it is written: which request is present says what it is.
#[derive(Debug, Deserialize)]
struct Written<'a> {
    #[serde(default, deserialize_with = "lenient_json::nullable")]
    id: u32,
    #[serde(borrow, default, deserialize_with = "lenient_json::object")]
    connect: Option<Box<ConnectRequest<'a>>>,
    #[serde(borrow, default, deserialize_with = "lenient_json::object")]
    subscribe: Option<Box<SubscribeRequest<'a>>>,
    #[serde(borrow, default, deserialize_with = "lenient_json::object")]
    unsubscribe: Option<ChannelRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_json::object")]
    publish: Option<PublishRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_json::object")]
    presence: Option<ChannelRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_json::object")]
    presence_stats: Option<ChannelRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_json::object")]
    history: Option<HistoryRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_json::object")]
    rpc: Option<RpcRequest<'a>>,
    #[serde(default, deserialize_with = "lenient_json::object")]
    send: Option<Ignored>,
    #[serde(borrow, default, deserialize_with = "lenient_json::object")]
    refresh: Option<RefreshRequest<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient_json::object")]
    sub_refresh: Option<SubRefreshRequest<'a>>,
    #[serde(default, deserialize_with = "lenient_json::object")]
    ping: Option<Ignored>,
}

/// An object of which nothing is read.
#[derive(Debug, Deserialize)]
struct Ignored {}

impl<'a> Written<'a> {
    /// The first that is there, in the order of the protocol.
    fn request(self) -> Option<Request<'a>> {
        None.or(self.connect.map(Request::Connect))
            .or(self.ping.map(|_| Request::Ping))
            .or(self.subscribe.map(Request::Subscribe))
            .or(self.unsubscribe.map(Request::Unsubscribe))
            .or(self.publish.map(Request::Publish))
            .or(self.presence.map(Request::Presence))
            .or(self.presence_stats.map(Request::PresenceStats))
            .or(self.history.map(Request::History))
            .or(self.rpc.map(Request::Rpc))
            .or(self.send.map(|_| Request::Send))
            .or(self.refresh.map(Request::Refresh))
            .or(self.sub_refresh.map(Request::SubRefresh))
    }
}

/// The commands of a frame, one after the other.
pub struct Commands<'a> {
    stream: serde_json::StreamDeserializer<'a, serde_json::de::SliceRead<'a>, Written<'a>>,
}

impl<'a> Commands<'a> {
    /// Reads `frame`.
    pub fn new(frame: &'a [u8]) -> Self {
        Commands { stream: serde_json::Deserializer::from_slice(frame).into_iter() }
    }

    /// The next command, `None` at the end. An error ends the frame.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Result<Command<'a>, serde_json::Error>> {
        let written = self.stream.next()?;
        Some(written.map(|written| Command { id: written.id, request: written.request() }))
    }

    /// How many bytes of the frame the commands so far took.
    pub fn consumed(&self) -> usize {
        self.stream.byte_offset()
    }
}

/// The body of the API's publish method as backends mostly send it; another one does not parse.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainPublish<'a> {
    /// The channel.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// JSON text.
    #[serde(borrow)]
    pub data: &'a RawValue,
    /// Whether it stays out of the history.
    #[serde(default)]
    pub skip_history: bool,
}

/// Reads the body of a request that speaks for a stream's client; its data is a text.
pub fn read_emulation(body: &[u8]) -> serde_json::Result<EmulationRequest> {
    lenient_json::read_object(body)
}

/// Whether bytes are the text of one JSON value.
pub fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

/// Levels to which a publication may be nested. Readers of clients give up at some depth, the
/// Python SDK's at less than 1000.
pub(super) const DEPTH_MAX: usize = 512;

/// Whether JSON text is nested deeper than every client can read.
pub fn is_too_deep(text: &[u8]) -> bool {
    let opens = |byte: &u8| matches!(byte, b'[' | b'{');
    // A level takes two bytes; most publications are told by that.
    if text.len() <= 2 * DEPTH_MAX || text.iter().filter(|byte| opens(byte)).count() <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut quoted, mut bytes) = (0usize, false, text.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' => _ = bytes.next(),
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}
