//! Requests to the backend about clients, and their JSON.
//!
//! Owns the fields of requests. Never sends a request.

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

/// Data of a client that the server keeps only for requests to the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendContext {
    /// Headers of the client's HTTP request: names in lower case, and values.
    pub headers: Vec<Header>,
    /// Headers from the client's connect command. A client can send any value.
    pub emulated: Vec<(Box<str>, Box<str>)>,
    /// JSON text from the backend or a token (`meta`).
    pub meta: Option<Box<[u8]>>,
}

impl BackendContext {
    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        *self == BackendContext::default()
    }

    /// Size in memory in bytes.
    fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        let emulated = self.emulated.iter().map(|(name, value)| name.len() + value.len());
        let records = (self.headers.len() + self.emulated.len()) * size_of::<Header>();
        let meta = self.meta.as_ref().map_or(0, |meta| meta.len());
        headers.sum::<usize>() + emulated.sum::<usize>() + records + meta
    }
}

/// A request to a proxy or hook of the backend.
#[derive(Debug)]
pub struct ProxyRequest {
    /// The configured backend.
    pub upstream: Upstream,
    /// Client ID.
    pub client: String,
    /// User ID; empty: the client has no user.
    pub user: Box<str>,
    /// Transport of the client.
    pub transport: Transport,
    /// Encoding of the client's protocol.
    pub wire: Wire,
    /// Data of the client for the backend.
    pub context: Option<Arc<BackendContext>>,
    /// The event that the request is about.
    pub event: ProxyEvent,
    /// Counts the request's memory while it waits.
    pub charge: Option<Charge>,
}

/// Estimate of the bytes of a request besides its texts: structs, queues, HTTP buffers.
const REQUEST_OVERHEAD: usize = 1024;

impl ProxyRequest {
    /// Size in memory in bytes.
    pub fn size(&self) -> usize {
        let context = self.context.as_deref().map_or(0, BackendContext::size);
        REQUEST_OVERHEAD + self.client.len() + self.user.len() + context + self.event.size()
    }
}

/// Event of a client. Connect to Rpc are requests; Disconnect and Unsubscribe are hook events.
#[derive(Debug)]
pub enum ProxyEvent {
    /// A client without a token connects.
    Connect {
        /// Name of the client library.
        name: Box<str>,
        /// Version of the client library.
        version: Box<str>,
        /// Data from the client.
        data: Option<Box<[u8]>>,
        /// Channels that the client requests.
        channels: Vec<Box<str>>,
    },
    /// A connection has expired.
    Refresh,
    /// A client subscribes to a channel.
    Subscribe {
        /// The channel.
        channel: Box<str>,
        /// Data from the client.
        data: Option<Box<[u8]>>,
    },
    /// A client publishes.
    Publish {
        /// The channel.
        channel: Box<str>,
        /// Data to publish.
        data: Box<[u8]>,
    },
    /// A subscription has expired.
    SubRefresh {
        /// The channel.
        channel: Arc<str>,
    },
    /// A client calls a method (RPC).
    Rpc {
        /// Name of the method; may be empty.
        method: Box<str>,
        /// Data from the client.
        data: Option<Box<[u8]>>,
    },
    /// A client has disconnected.
    Disconnect {
        /// Close code; 3000: the client closed the connection.
        code: u16,
        /// Close reason.
        reason: Box<str>,
    },
    /// A subscription has ended.
    Unsubscribe {
        /// The channel.
        channel: Arc<str>,
        /// Unsubscribe code: 0: the client unsubscribed; 1: the connection closed; 2000 and above:
        /// the code that the server sent to the client.
        code: u32,
        /// Reason for people.
        reason: Box<str>,
    },
}

impl ProxyEvent {
    /// Name of the proxy or hook for the event.
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

    /// Size of the event's texts in bytes.
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

    /// The event of a connect command.
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
    /// Sets the fields of the event and returns the client's data.
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
    /// The JSON body of the request: the client's data as base64 if `binary`, and `meta` if
    /// `includes_meta`. Fails if the data is not JSON and `binary` is false.
    pub fn body(&self, binary: bool, includes_meta: bool) -> Result<Vec<u8>, ProxyFailure> {
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
        body.meta = meta.filter(|_| includes_meta).and_then(json);
        serde_json::to_vec(&body).map_err(|_| ProxyFailure::Payload)
    }
}

fn json(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}
