//! Parses JSON commands without copying.
//!
//! Owns no state. Never executes a command.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::lenient_json;
use crate::wire::protocol::command::{
    ChannelRequest, Command, ConnectRequest, EmulationRequest, HistoryRequest, PublishRequest,
    RefreshRequest, Request, RpcRequest, SubRefreshRequest, SubscribeRequest,
};

/// One command as JSON; the field that is present names the request.
#[derive(Debug, Deserialize)]
struct CommandBody<'a> {
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

/// An object whose fields are ignored.
#[derive(Debug, Deserialize)]
struct Ignored {}

impl<'a> CommandBody<'a> {
    /// The first request that is present, in protocol order.
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

/// An iterator over the commands of a frame.
pub struct Commands<'a> {
    stream: serde_json::StreamDeserializer<'a, serde_json::de::SliceRead<'a>, CommandBody<'a>>,
}

impl<'a> Commands<'a> {
    /// Iterates over the commands of `frame`.
    pub fn new(frame: &'a [u8]) -> Self {
        Commands { stream: serde_json::Deserializer::from_slice(frame).into_iter() }
    }

    /// The next command, `None` at the end. An error ends the frame.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Result<Command<'a>, serde_json::Error>> {
        let result = self.stream.next()?;
        Some(result.map(|body| Command { id: body.id, request: body.request() }))
    }

    /// Bytes of the frame that the commands returned so far occupy.
    pub fn consumed(&self) -> usize {
        self.stream.byte_offset()
    }
}

/// The most common body of the API's publish method. Bodies with other fields do not parse.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainPublish<'a> {
    /// The channel.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// The data as JSON text.
    #[serde(borrow)]
    pub data: &'a RawValue,
    /// Whether to leave the publication out of the history.
    #[serde(default)]
    pub skip_history: bool,
}

/// Parses the body of an emulation request; its data is a string.
pub fn read_emulation(body: &[u8]) -> serde_json::Result<EmulationRequest> {
    lenient_json::read_object(body)
}

/// Whether the bytes are one valid JSON value.
pub fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

/// Maximum nesting depth of a publication. JSON parsers of clients fail at some depth, the one of
/// the Python SDK below 1000.
pub(super) const DEPTH_MAX: usize = 512;

/// Whether JSON text is nested deeper than all clients can parse.
pub fn is_too_deep(text: &[u8]) -> bool {
    let opens = |byte: &u8| matches!(byte, b'[' | b'{');
    // Fast path: a level takes at least two bytes, so most publications are too short or have too
    // few brackets.
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
