//! What the backend is asked and told about clients, and the JSON that says so.
//!
//! Owns the shape of requests. Never sends one.

use std::sync::Arc;

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

use super::refusal::Refused;
use crate::base::memory::Charge;
use crate::model::backend::upstream::Upstream;
use crate::wire::http::{Header, Transport};
use crate::wire::protocol::Wire;
use crate::wire::protocol::command::ConnectRequest;

/// What is kept of a client for the backend's eyes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    /// Headers of its HTTP request: names in lower case, and values.
    pub headers: Vec<Header>,
    /// Headers that it gave with its connect; nobody vouches for them.
    pub emulated: Vec<(Box<str>, Box<str>)>,
    /// JSON text of the backend's own.
    pub meta: Option<Box<[u8]>>,
}

impl Baggage {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Baggage::default()
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
pub struct Request {
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
    pub baggage: Option<Arc<Baggage>>,
    /// What it is about.
    pub event: Event,
    /// Counts it while it waits.
    pub charge: Option<Charge>,
}

/// Bytes that a request takes beside its texts: records, queues, what HTTP needs for it.
const REQUEST_BESIDE: usize = 1024;

impl Request {
    /// Bytes that it takes in memory.
    pub fn size(&self) -> usize {
        let baggage = self.baggage.as_deref().map_or(0, Baggage::size);
        REQUEST_BESIDE + self.client.len() + self.user.len() + baggage + self.event.size()
    }
}

/// What the backend is asked or told about.
#[derive(Debug)]
pub enum Event {
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

impl Event {
    /// The name of the proxy or hook that is asked or told.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Connect { .. } => "connect",
            Event::Refresh => "refresh",
            Event::Subscribe { .. } => "subscribe",
            Event::Publish { .. } => "publish",
            Event::SubRefresh { .. } => "sub_refresh",
            Event::Rpc { .. } => "rpc",
            Event::Disconnect { .. } => "disconnect",
            Event::Unsubscribe { .. } => "unsubscribe",
        }
    }

    /// Bytes of its texts.
    fn size(&self) -> usize {
        let data = |data: &Option<Box<[u8]>>| data.as_ref().map_or(0, |data| data.len());
        match self {
            Event::Connect { name, version, data: sent, channels } => {
                let channels = channels.iter().map(|one| size_of::<Box<str>>() + one.len());
                name.len() + version.len() + data(sent) + channels.sum::<usize>()
            }
            Event::Refresh => 0,
            Event::Subscribe { channel, data: sent } => channel.len() + data(sent),
            Event::Publish { channel, data } => channel.len() + data.len(),
            Event::SubRefresh { channel } => channel.len(),
            Event::Rpc { method, data: sent } => method.len() + data(sent),
            Event::Disconnect { reason, .. } => reason.len(),
            Event::Unsubscribe { channel, reason, .. } => channel.len() + reason.len(),
        }
    }

    /// A client's connect.
    pub fn connect(request: &ConnectRequest<'_>) -> Self {
        let subs = request.subs.iter().flat_map(|subs| &subs.0);
        Event::Connect {
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
    fn describe(&mut self, event: &'a Event) -> Option<&'a [u8]> {
        match event {
            Event::Connect { name, version, data, channels } => {
                (self.name, self.version, self.channels) = (name, version, channels);
                data.as_deref()
            }
            Event::Refresh => None,
            Event::Subscribe { channel, data } => {
                self.channel = channel;
                data.as_deref()
            }
            Event::Publish { channel, data } => {
                self.channel = channel;
                Some(data)
            }
            Event::SubRefresh { channel } => {
                self.channel = channel;
                None
            }
            Event::Rpc { method, data } => {
                self.method = method;
                data.as_deref()
            }
            Event::Disconnect { code, reason } => {
                (self.code, self.reason) = (Some((*code).into()), Some(&**reason));
                None
            }
            Event::Unsubscribe { channel, code, reason } => {
                (self.code, self.reason) = (Some(*code), Some(&**reason));
                self.channel = channel;
                None
            }
        }
    }
}

impl Request {
    /// The request's body: payloads as base64 if `binary`, and the meta if `tells_meta`. An error
    /// is a payload that is no JSON where it must be.
    pub fn body(&self, binary: bool, tells_meta: bool) -> Result<Vec<u8>, Refused> {
        let mut body = Body {
            client: &self.client,
            transport: self.transport.name(),
            protocol: match self.wire {
                Wire::Json => "json",
                Wire::Protobuf => "protobuf",
            },
            encoding: if binary { "binary" } else { "json" },
            user: (!matches!(self.event, Event::Connect { .. })).then_some(&*self.user),
            ..Body::default()
        };
        match body.describe(&self.event) {
            Some(data) if binary => body.b64data = Some(BASE64.encode(data)),
            Some(data) => body.data = Some(json(data).ok_or(Refused::Payload)?),
            None => {}
        }
        let meta = self.baggage.as_ref().and_then(|baggage| baggage.meta.as_deref());
        body.meta = meta.filter(|_| tells_meta).and_then(json);
        serde_json::to_vec(&body).map_err(|_| Refused::Payload)
    }
}

fn json(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}
