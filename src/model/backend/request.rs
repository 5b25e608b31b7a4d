//! What the backend is asked and told about clients, and the JSON that says so.
//!
//! Owns the shape of requests. Never sends one.

use std::sync::Arc;

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

use super::failure::ProxyFailure;
use crate::base::memory::Charge;
use crate::model::backend::upstream::Upstream;
use crate::wire::http::{Header, Transport};
use crate::wire::protocol::Wire;
use crate::wire::protocol::command::ConnectRequest;

/// What is kept of a client for the backend's eyes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendContext {
    /// Headers of its HTTP request: names in lower case, and values.
    pub headers: Vec<Header>,
    /// Headers that it gave with its connect; nobody vouches for them.
    pub emulated: Vec<(Box<str>, Box<str>)>,
    /// JSON text of the backend's own.
    pub meta: Option<Box<[u8]>>,
}

impl BackendContext {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == BackendContext::default()
    }

    /// Bytes that it takes in memory.
    fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        let emulated = self.emulated.iter().map(|(name, value)| name.len() + value.len());
        let records = (self.headers.len() + self.emulated.len()) * size_of::<Header>();
        let meta = self.meta.as_ref().map_or(0, |meta| meta.len());
        headers.sum::<usize>() + emulated.sum::<usize>() + records + meta
    }
}

/// One question to the backend, or one piece of news for it.
#[derive(Debug)]
pub struct ProxyRequest {
    /// Where it goes.
    pub upstream: Upstream,
    /// The client's id.
    pub client: String,
    /// Its user; empty: none.
    pub user: Box<str>,
    /// How it is spoken to.
    pub transport: Transport,
    /// In which encoding.
    pub wire: Wire,
    /// What is kept of it.
    pub context: Option<Arc<BackendContext>>,
    /// What it is about.
    pub event: ProxyEvent,
    /// Counts it while it waits.
    pub charge: Option<Charge>,
}

/// Bytes that a request takes beside its texts: records, queues, what HTTP needs for it.
const REQUEST_BESIDE: usize = 1024;

impl ProxyRequest {
    /// Bytes that it takes in memory.
    pub fn size(&self) -> usize {
        let context = self.context.as_deref().map_or(0, BackendContext::size);
        REQUEST_BESIDE + self.client.len() + self.user.len() + context + self.event.size()
    }
}

/// What the backend is asked or told about.
#[derive(Debug)]
pub enum ProxyEvent {
    /// A client without a token connects.
    Connect {
        /// Name of its library.
        name: Box<str>,
        /// Its version.
        version: Box<str>,
        /// From the client.
        data: Option<Box<[u8]>>,
        /// Channels that it asks for.
        channels: Vec<Box<str>>,
    },
    /// A connection's time is over.
    Refresh,
    /// A client wants into a channel.
    Subscribe {
        /// The channel.
        channel: Box<str>,
        /// From the client.
        data: Option<Box<[u8]>>,
    },
    /// A client wants to publish.
    Publish {
        /// The channel.
        channel: Box<str>,
        /// What it publishes.
        data: Box<[u8]>,
    },
    /// A subscription's time is over.
    SubRefresh {
        /// The channel.
        channel: Arc<str>,
    },
    /// A client calls a method.
    Rpc {
        /// The method; empty: none in particular.
        method: Box<str>,
        /// With what.
        data: Option<Box<[u8]>>,
    },
    /// A client is gone.
    Disconnect {
        /// Close code; 3000 where the peer went.
        code: u16,
        /// Its reason.
        reason: Box<str>,
    },
    /// A subscription has ended.
    Unsubscribe {
        /// The channel.
        channel: Arc<str>,
        /// Why: 0 the client's wish, 1 its end, 2000 and above as the client was told.
        code: u32,
        /// The same for people.
        reason: Box<str>,
    },
}

impl ProxyEvent {
    /// The name of the proxy or hook that is asked or told.
    pub fn name(&self) -> &'static str {
        match self {
            ProxyEvent::Connect { .. } => "connect",
            ProxyEvent::Refresh => "refresh",
            ProxyEvent::Subscribe { .. } => "subscribe",
            ProxyEvent::Publish { .. } => "publish",
            ProxyEvent::SubRefresh { .. } => "sub_refresh",
            ProxyEvent::Rpc { .. } => "rpc",
            ProxyEvent::Disconnect { .. } => "disconnect",
            ProxyEvent::Unsubscribe { .. } => "unsubscribe",
        }
    }

    /// Bytes of its texts.
    fn size(&self) -> usize {
        let data = |data: &Option<Box<[u8]>>| data.as_ref().map_or(0, |data| data.len());
        match self {
            ProxyEvent::Connect { name, version, data: sent, channels } => {
                let channels = channels.iter().map(|one| size_of::<Box<str>>() + one.len());
                name.len() + version.len() + data(sent) + channels.sum::<usize>()
            }
            ProxyEvent::Refresh => 0,
            ProxyEvent::Subscribe { channel, data: sent } => channel.len() + data(sent),
            ProxyEvent::Publish { channel, data } => channel.len() + data.len(),
            ProxyEvent::SubRefresh { channel } => channel.len(),
            ProxyEvent::Rpc { method, data: sent } => method.len() + data(sent),
            ProxyEvent::Disconnect { reason, .. } => reason.len(),
            ProxyEvent::Unsubscribe { channel, reason, .. } => channel.len() + reason.len(),
        }
    }

    /// A client's connect.
    pub fn connect(request: &ConnectRequest<'_>) -> Self {
        let subs = request.subs.iter().flat_map(|subs| &subs.0);
        ProxyEvent::Connect {
            name: (&*request.name).into(),
            version: (&*request.version).into(),
            data: request.data.as_deref().map(Into::into),
            channels: subs.map(|(channel, _)| (&**channel).into()).collect(),
        }
    }
}

#[derive(Default, Serialize)]
struct Body<'a> {
    client: &'a str,
    transport: &'static str,
    protocol: &'static str,
    encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    channels: &'a [Box<str>],
    #[serde(skip_serializing_if = "str::is_empty")]
    channel: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

impl<'a> Body<'a> {
    /// Adds what the event is about; returns the client's payload.
    fn describe(&mut self, event: &'a ProxyEvent) -> Option<&'a [u8]> {
        match event {
            ProxyEvent::Connect { name, version, data, channels } => {
                (self.name, self.version, self.channels) = (name, version, channels);
                data.as_deref()
            }
            ProxyEvent::Refresh => None,
            ProxyEvent::Subscribe { channel, data } => {
                self.channel = channel;
                data.as_deref()
            }
            ProxyEvent::Publish { channel, data } => {
                self.channel = channel;
                Some(data)
            }
            ProxyEvent::SubRefresh { channel } => {
                self.channel = channel;
                None
            }
            ProxyEvent::Rpc { method, data } => {
                self.method = method;
                data.as_deref()
            }
            ProxyEvent::Disconnect { code, reason } => {
                (self.code, self.reason) = (Some((*code).into()), Some(&**reason));
                None
            }
            ProxyEvent::Unsubscribe { channel, code, reason } => {
                (self.code, self.reason) = (Some(*code), Some(&**reason));
                self.channel = channel;
                None
            }
        }
    }
}

impl ProxyRequest {
    /// The request's body: payloads as base64 if `binary`, and the meta if `tells_meta`. An error
    /// is a payload that is no JSON where it must be.
    pub fn body(&self, binary: bool, tells_meta: bool) -> Result<Vec<u8>, ProxyFailure> {
        let mut body = Body {
            client: &self.client,
            transport: self.transport.name(),
            protocol: match self.wire {
                Wire::Json => "json",
                Wire::Protobuf => "protobuf",
            },
            encoding: if binary { "binary" } else { "json" },
            user: (!matches!(self.event, ProxyEvent::Connect { .. })).then_some(&*self.user),
            ..Body::default()
        };
        match body.describe(&self.event) {
            Some(data) if binary => body.b64data = Some(BASE64.encode(data)),
            Some(data) => body.data = Some(json(data).ok_or(ProxyFailure::Payload)?),
            None => {}
        }
        let meta = self.context.as_ref().and_then(|context| context.meta.as_deref());
        body.meta = meta.filter(|_| tells_meta).and_then(json);
        serde_json::to_vec(&body).map_err(|_| ProxyFailure::Payload)
    }
}

fn json(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}
