//! What the backend is asked and told about clients, and what it answers: the requests and results
//! of Centrifugo's proxies, and of the hooks that it lacks, as JSON.
//!
//! Owns the names of their fields. Never sends anything. The invariant: an answer that is not what
//! it must be is a failure, never half of an answer. Source of the fields: Centrifugo's
//! documentation, "Proxy events to the backend".

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::memory::Charge;
use crate::model::token::{ConnectClaims, SubscribeOptions, claims};
use crate::wire::http::{Header, Transport};
use crate::wire::protocol::command::ConnectRequest;
use crate::wire::protocol::{Error, Wire};
use crate::wire::reading::{self, Text};

/// One of the configured places where the backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream(pub u16);

/// Where the backend is asked about what concerns no channel, and what it wants to know.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    /// Who may connect without a token.
    pub connect: Option<Upstream>,
    /// How much longer a connection holds.
    pub refresh: Option<Upstream>,
    /// Who carries out calls.
    pub calls: Calls,
    /// Who is told of clients that are gone.
    pub disconnect_hook: Option<Upstream>,
    /// What is to be kept of clients.
    pub wants: Wants,
    /// What may wait on a shard to be told to the backend.
    pub waiting_max: usize,
}

/// Who carries out calls.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// Those of methods without a namespace.
    pub without: Option<Upstream>,
    /// The others, by the name in front of the boundary.
    pub named: HashMap<Box<str>, Option<Upstream>>,
    /// Behind a namespace's name; empty: there are none.
    pub boundary: String,
}

impl Calls {
    /// Who carries a method out, or why nobody does.
    pub fn upstream(&self, method: &str) -> Result<Upstream, Error> {
        let name = match self.boundary.as_str() {
            "" => None,
            boundary => method.split_once(boundary).map(|(name, _)| name),
        };
        let upstream = match name {
            None => self.without,
            Some(name) => *self.named.get(name).ok_or(Error::METHOD_NOT_FOUND)?,
        };
        upstream.ok_or(Error::NOT_AVAILABLE)
    }
}

/// What is to be kept of clients since some endpoint wants to see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Headers of clients' HTTP requests, in lower case.
    pub headers: Vec<String>,
    /// Headers that clients give with their connect, in lower case.
    pub emulated: Vec<String>,
    /// What the backend or a token said for the backend's eyes.
    pub meta: bool,
}

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

// ---- what is asked ---------------------------------------------------------------------------

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

// ---- what is answered ------------------------------------------------------------------------

/// What the backend answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a connect; `None`: it says nothing about the client.
    Connect(Option<Box<Introduction>>),
    /// To a refresh of a connection or subscription; `None`: it is over.
    Refresh(Option<Renewal>),
    /// To a subscribe.
    Subscribe(SubscribeOptions, Option<u64>),
    /// To a publish.
    Publish(Box<Permission>),
    /// To a call.
    Rpc(Option<Box<[u8]>>),
    /// To news.
    Heard,
}

/// Why a request leads to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no answer, or none that can be understood.
    Failed,
    /// What the client sent cannot be passed on.
    Payload,
    /// The client is told this.
    Error {
        /// Error code.
        code: u32,
        /// The same for people.
        message: Box<str>,
        /// Whether it may try again.
        temporary: bool,
    },
    /// The client is disconnected.
    Disconnect {
        /// Close code.
        code: u16,
        /// Its reason.
        reason: Box<str>,
    },
}

/// Who a client is, as the backend says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The same that a token would say.
    pub claims: ConnectClaims,
    /// For the client.
    pub data: Option<Box<[u8]>>,
}

/// How much longer something holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Its new end, as unix time in seconds; `None`: it has none.
    pub expires: Option<u64>,
    /// Shown to others: JSON text, or whatever bytes `b64info` held; `None`: as before.
    pub info: Option<Box<[u8]>>,
    /// For the backend's eyes; `None`: as before.
    pub meta: Option<Box<[u8]>>,
}

/// What is published.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// Instead of what the client sent.
    pub data: Option<Box<[u8]>>,
    /// Whether it stays out of the history.
    pub skip_history: bool,
    /// What tags it has.
    pub tags: BTreeMap<Box<str>, Box<str>>,
    /// It is published once under this key; empty: none.
    pub idempotency_key: Box<str>,
    /// Whether it may go out as a difference.
    pub delta: bool,
    /// Only what is newer than the stream's last is published; 0: none.
    pub version: u64,
    /// In which life of the versions.
    pub version_epoch: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Response<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(deserialize_with = "reading::object")]
    error: Option<ErrorText>,
    #[serde(deserialize_with = "reading::object")]
    disconnect: Option<DisconnectText>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorText {
    #[serde(deserialize_with = "reading::nullable")]
    code: u32,
    #[serde(deserialize_with = "reading::nullable")]
    message: Box<str>,
    #[serde(deserialize_with = "reading::nullable")]
    temporary: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DisconnectText {
    #[serde(deserialize_with = "reading::nullable")]
    code: u16,
    #[serde(deserialize_with = "reading::nullable")]
    reason: Box<str>,
}

/// What all results with an end have beside their own fields.
#[derive(Default, Deserialize)]
#[serde(default)]
struct End {
    #[serde(deserialize_with = "reading::nullable")]
    expired: bool,
    #[serde(deserialize_with = "reading::nullable")]
    expire_at: i64,
}

impl End {
    fn at(&self) -> Option<u64> {
        u64::try_from(self.expire_at).ok().filter(|at| *at > 0)
    }
}

/// Payloads of results, as JSON or as base64.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Payloads<'a> {
    #[serde(borrow, deserialize_with = "reading::payload")]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    b64info: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "reading::payload")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "reading::payload")]
    meta: Option<&'a RawValue>,
}

impl Payloads<'_> {
    fn info(&self) -> Result<Option<Box<[u8]>>, Problem> {
        bytes("b64info", self.info, self.b64info.as_ref())
    }

    fn data(&self) -> Result<Option<Box<[u8]>>, Problem> {
        bytes("b64data", self.data, self.b64data.as_ref())
    }

    fn meta(&self) -> Option<Box<[u8]>> {
        self.meta.map(|meta| meta.get().as_bytes().into())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConnectText<'a> {
    #[serde(borrow, deserialize_with = "reading::text")]
    user: Cow<'a, str>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    subs: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PublishText {
    #[serde(deserialize_with = "reading::nullable")]
    skip_history: bool,
    #[serde(deserialize_with = "reading::nullable")]
    tags: BTreeMap<Box<str>, Option<Box<str>>>,
    #[serde(deserialize_with = "reading::nullable")]
    idempotency_key: Box<str>,
    #[serde(deserialize_with = "reading::nullable")]
    delta: bool,
    #[serde(deserialize_with = "reading::nullable")]
    version: u64,
    #[serde(deserialize_with = "reading::nullable")]
    version_epoch: Box<str>,
}

/// Why an answer leads to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The backend refuses.
    Refused(Refused),
    /// The answer cannot be read: the cause, without any value of the answer.
    Unreadable(String),
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Problem::Refused(refused)
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Problem::Unreadable(format!("the answer is not as documented: {}", reading::cause(&error)))
    }
}

fn unreadable(cause: &str) -> Problem {
    Problem::Unreadable(cause.to_owned())
}

fn bytes(
    name: &str,
    json: Option<&RawValue>,
    base64: Option<&Text<'_>>,
) -> Result<Option<Box<[u8]>>, Problem> {
    let read = claims::bytes(json, base64);
    read.map_err(|_| Problem::Unreadable(format!("{name} of the result is not base64")))
}

fn result_of<'a, T: Deserialize<'a>>(result: &'a str) -> Result<T, Problem> {
    let read = reading::read_object(result.as_bytes());
    read.map_err(|error| Problem::Unreadable(format!("the result is {}", reading::cause(&error))))
}

/// What the body of an answer says to a request about such an event.
pub fn answer(event: &Event, body: &[u8]) -> Result<Answer, Problem> {
    if matches!(event, Event::Disconnect { .. } | Event::Unsubscribe { .. }) {
        return Ok(Answer::Heard);
    }
    let response: Response<'_> = reading::read_object(body)?;
    let renews = matches!(event, Event::Refresh | Event::SubRefresh { .. });
    match (response.disconnect, response.error) {
        // The time is over or it is not; nothing else can be said then.
        _ if renews => {}
        (Some(DisconnectText { code, reason }), _) => {
            // Close codes of applications and of the protocol; others may not be sent.
            if !(3000..5000).contains(&code) {
                return Err(unreadable("the disconnect has no code from 3000 to 4999"));
            }
            return Err(Refused::Disconnect { code, reason }.into());
        }
        (None, Some(ErrorText { code: 0, .. })) => {
            return Err(unreadable("the error has no code above 0"));
        }
        (None, Some(ErrorText { code, message, temporary })) => {
            return Err(Refused::Error { code, message, temporary }.into());
        }
        (None, None) => {}
    }
    let Some(result) = response.result.map(RawValue::get) else { return Ok(nothing(event)) };
    Ok(match event {
        Event::Connect { .. } => Answer::Connect(Some(Box::new(introduction(result)?))),
        Event::Refresh | Event::SubRefresh { .. } => Answer::Refresh(renewal(result)?),
        Event::Subscribe { .. } => {
            let end: End = result_of(result)?;
            let options = claims::subscribe_options(result);
            Answer::Subscribe(options.map_err(|_| unreadable(BAD_OPTIONS))?, end.at())
        }
        Event::Publish { .. } => Answer::Publish(Box::new(permission(result)?)),
        Event::Rpc { .. } => Answer::Rpc(result_of::<Payloads<'_>>(result)?.data()?),
        Event::Disconnect { .. } | Event::Unsubscribe { .. } => Answer::Heard,
    })
}

/// Why the options of a subscription cannot be read.
const BAD_OPTIONS: &str = "info, data or override of a subscription in the result is not as \
                           documented";

/// An answer that refuses nothing, and says nothing.
fn nothing(event: &Event) -> Answer {
    match event {
        Event::Connect { .. } => Answer::Connect(None),
        Event::Refresh | Event::SubRefresh { .. } => Answer::Refresh(None),
        Event::Subscribe { .. } => Answer::Subscribe(SubscribeOptions::default(), None),
        Event::Publish { .. } => Answer::Publish(Box::default()),
        Event::Rpc { .. } => Answer::Rpc(None),
        Event::Disconnect { .. } | Event::Unsubscribe { .. } => Answer::Heard,
    }
}

fn introduction(result: &str) -> Result<Introduction, Problem> {
    let end: End = result_of(result)?;
    let payloads: Payloads<'_> = result_of(result)?;
    let ConnectText { user, channels, subs } = result_of(result)?;
    let options = |_| unreadable(BAD_OPTIONS);
    let mut wanted = claims::subs(subs, None).map_err(options)?;
    let listed = claims::subs(None, channels);
    for (channel, options) in listed.map_err(|_| unreadable("channels is no list of texts"))? {
        if !wanted.iter().any(|(named, _)| *named == channel) {
            wanted.push((channel, options));
        }
    }
    let claims = ConnectClaims {
        user: user.into_owned(),
        expires: end.at(),
        info: payloads.info()?,
        meta: payloads.meta(),
        subs: wanted,
        ..ConnectClaims::default()
    };
    Ok(Introduction { claims, data: payloads.data()? })
}

fn renewal(result: &str) -> Result<Option<Renewal>, Problem> {
    let end: End = result_of(result)?;
    if end.expired {
        return Ok(None);
    }
    let payloads: Payloads<'_> = result_of(result)?;
    Ok(Some(Renewal { expires: end.at(), info: payloads.info()?, meta: payloads.meta() }))
}

fn permission(result: &str) -> Result<Permission, Problem> {
    let text: PublishText = result_of(result)?;
    let payloads: Payloads<'_> = result_of(result)?;
    // Unlike elsewhere, JSON wins over base64, as in Centrifugo.
    let base64 = payloads.b64data.as_ref().filter(|_| payloads.data.is_none());
    let tags = text.tags.into_iter();
    Ok(Permission {
        data: bytes("b64data", payloads.data, base64)?,
        skip_history: text.skip_history,
        tags: tags.map(|(name, value)| (name, value.unwrap_or_default())).collect(),
        idempotency_key: text.idempotency_key,
        delta: text.delta,
        version: text.version,
        version_epoch: text.version_epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(event: Event) -> Request {
        Request {
            upstream: Upstream(0),
            client: "c1".to_owned(),
            user: "56".into(),
            transport: Transport::WebSocket,
            wire: Wire::Json,
            baggage: None,
            event,
            charge: None,
        }
    }

    fn text(request: &Request, binary: bool, meta: bool) -> String {
        String::from_utf8(request.body(binary, meta).unwrap()).unwrap()
    }

    fn subscribe() -> Event {
        Event::Subscribe { channel: "chat:index".into(), data: Some(b"[1]".as_slice().into()) }
    }

    fn publish() -> Event {
        Event::Publish { channel: "c".into(), data: b"1".as_slice().into() }
    }

    fn connect() -> Event {
        Event::connect(&ConnectRequest::default())
    }

    #[test]
    fn requests_have_the_documented_fields() {
        let head = r#"{"client":"c1","transport":"websocket","protocol":"json","#;
        let check = |event, rest: &str| {
            let expected = format!(r#"{head}"encoding":"json",{rest}}}"#);
            assert_eq!(text(&request(event), false, false), expected);
        };
        check(Event::Refresh, r#""user":"56""#);
        check(subscribe(), r#""user":"56","channel":"chat:index","data":[1]"#);
        check(publish(), r#""user":"56","channel":"c","data":1"#);
        check(Event::SubRefresh { channel: "c".into() }, r#""user":"56","channel":"c""#);
        let call = Event::Rpc { method: "m".into(), data: None };
        check(call, r#""user":"56","method":"m""#);
        let gone = Event::Disconnect { code: 3000, reason: "gone".into() };
        check(gone, r#""user":"56","code":3000,"reason":"gone""#);
        let left = Event::Unsubscribe { channel: "c".into(), code: 0, reason: "".into() };
        check(left, r#""user":"56","channel":"c","code":0,"reason":"""#);
        let asked: ConnectRequest<'_> =
            serde_json::from_str(r#"{"name":"js","data":{"a":1},"subs":{"x":{}}}"#).unwrap();
        check(Event::connect(&asked), r#""name":"js","channels":["x"],"data":{"a":1}"#);
    }

    #[test]
    fn payloads_that_are_no_json_go_as_base64_or_not_at_all() {
        let binary = Event::Publish { channel: "c".into(), data: [0xff].as_slice().into() };
        let mut request = request(binary);
        assert_eq!(request.body(false, false), Err(Refused::Payload));
        assert!(text(&request, true, false).ends_with(r#""b64data":"/w=="}"#));
        assert!(text(&request, true, false).contains(r#""encoding":"binary""#));
        let meta = Some(br#"{"k":1}"#.as_slice().into());
        request.baggage = Some(Arc::new(Baggage { meta, ..Baggage::default() }));
        assert!(text(&request, true, true).ends_with(r#","meta":{"k":1}}"#));
        assert!(!text(&request, true, false).contains("meta"));
    }

    #[test]
    fn a_connect_is_answered_with_what_a_token_would_say() {
        let body = br#"{"result":{"user":"56","expire_at":9,"b64info":"eyJhIjoxfQ==",
            "data":{"x":1},"channels":["a","b"],"subs":{"b":{"data":2}},"meta":{"m":1}}}"#;
        let Ok(Answer::Connect(Some(found))) = answer(&connect(), body) else { panic!() };
        let Introduction { claims, data } = *found;
        assert_eq!((claims.user.as_str(), claims.expires), ("56", Some(9)));
        assert_eq!(claims.info.as_deref(), Some(br#"{"a":1}"#.as_slice()));
        assert_eq!(claims.meta.as_deref(), Some(br#"{"m":1}"#.as_slice()));
        assert_eq!(data.as_deref(), Some(br#"{"x":1}"#.as_slice()));
        let named: Vec<_> = claims.subs.iter().map(|(channel, _)| channel.as_str()).collect();
        assert_eq!(named, ["b", "a"]);
        assert_eq!(answer(&connect(), b"{}"), Ok(Answer::Connect(None)));
    }

    #[test]
    fn refusals_come_before_results() {
        let check = |body: &str, expected: Refused| {
            let expected = Err(Problem::Refused(expected));
            assert_eq!(answer(&subscribe(), body.as_bytes()), expected, "{body}");
        };
        let error = |temporary| Refused::Error { code: 403, message: "no".into(), temporary };
        check(r#"{"error":{"code":403,"message":"no"},"result":{}}"#, error(false));
        check(r#"{"error":{"code":403,"message":"no","temporary":true}}"#, error(true));
        let close = Refused::Disconnect { code: 4500, reason: "bye".into() };
        check(r#"{"error":{"code":1},"disconnect":{"code":4500,"reason":"bye"}}"#, close);
        let close = Refused::Disconnect { code: 4500, reason: "".into() };
        check(r#"{"error":null,"disconnect":{"code":4500,"reason":null}}"#, close);
        let error = Refused::Error { code: 7, message: "".into(), temporary: false };
        check(r#"{"error":{"code":7,"message":null,"temporary":null}}"#, error);
    }

    #[test]
    fn an_answer_that_cannot_be_read_has_a_cause_without_its_values() {
        for (body, cause) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[]", "invalid type: sequence, expected an object"),
            ("null", "invalid type: null, expected an object"),
            ("{\"result\":1}", "the result is invalid type: integer, expected an object"),
            ("{\"result\":[]}", "the result is invalid type: sequence, expected an object"),
            ("{\"result\":{\"override\":[]}}", "override of a subscription in the result"),
            ("{\"result\":{\"override\":{\"presence\":[]}}}", "override of a subscription"),
            ("{\"error\":[]}", "invalid type: sequence, expected an object"),
            ("{\"error\":{}}", "the error has no code above 0"),
            ("{\"disconnect\":{}}", "the disconnect has no code from 3000 to 4999"),
            ("{\"disconnect\":{\"code\":1005}}", "the disconnect has no code from 3000 to 4999"),
            ("{\"result\":{\"b64data\":\"s3cret?\"}}", "data or override of a subscription"),
            ("{\"result\":{\"expire_at\":\"s3cret\"}}", "invalid type: string, expected i64"),
            ("{\"result\":{}} s3cret", "trailing characters"),
        ] {
            let Err(Problem::Unreadable(found)) = answer(&subscribe(), body.as_bytes()) else {
                panic!("{body} was read");
            };
            assert!(found.contains(cause) && !found.contains("s3cret"), "{body}: {found}");
        }
        for event in [connect(), publish(), Event::Rpc { method: "".into(), data: None }] {
            for body in ["{\"result\":[]}", "{\"result\":{\"b64data\":\"s3cret?\"}}"] {
                let found = answer(&event, body.as_bytes());
                assert!(matches!(found, Err(Problem::Unreadable(_))), "{body}: {found:?}");
            }
        }
        for event in [Event::Refresh, Event::SubRefresh { channel: "c".into() }] {
            let found = answer(&event, b"{\"result\":[]}");
            assert!(matches!(found, Err(Problem::Unreadable(_))), "{found:?}");
        }
    }

    #[test]
    fn null_counts_as_absent_and_is_a_payload() {
        let null = || Some(b"null".as_slice().into());
        let body = br#"{"result":{"user":null,"expire_at":null,"channels":[null,"a"],"subs":null,
            "info":null,"b64info":null,"data":null,"b64data":null,"meta":null}}"#;
        let Ok(Answer::Connect(Some(found))) = answer(&connect(), body) else { panic!() };
        let Introduction { claims, data } = *found;
        assert_eq!((claims.user.as_str(), claims.expires), ("", None));
        assert_eq!((claims.info, claims.meta, data), (null(), null(), null()));
        assert_eq!(claims.subs, [("a".to_owned(), SubscribeOptions::default())]);
        let body = br#"{"result":{"subs":{"a":null,"b":{"info":null,"data":null,"b64info":null,
            "override":{"presence":{"value":null},"join_leave":null}}}}}"#;
        let Ok(Answer::Connect(Some(found))) = answer(&connect(), body) else { panic!() };
        let options = SubscribeOptions {
            info: null(),
            data: null(),
            presence: Some(false),
            ..SubscribeOptions::default()
        };
        let [(_, first), (_, second)] = &*found.claims.subs else { panic!() };
        assert_eq!((first, second), (&SubscribeOptions::default(), &options));
        let body = br#"{"result":{"expire_at":null,"override":null,"b64data":null}}"#;
        let expected = Answer::Subscribe(SubscribeOptions::default(), None);
        assert_eq!(answer(&subscribe(), body), Ok(expected));
        let body = br#"{"result":{"skip_history":null,"tags":{"a":null},"idempotency_key":null,
            "delta":null,"version":null,"version_epoch":null,"b64data":null}}"#;
        let tags = [("a".into(), "".into())].into();
        let expected = Permission { tags, ..Permission::default() };
        assert_eq!(answer(&publish(), body), Ok(Answer::Publish(Box::new(expected))));
        // JSON wins over base64 here, and `null` is JSON.
        let body = br#"{"result":{"data":null,"b64data":"MQ=="}}"#;
        let expected = Permission { data: null(), ..Permission::default() };
        assert_eq!(answer(&publish(), body), Ok(Answer::Publish(Box::new(expected))));
        let call = Event::Rpc { method: "".into(), data: None };
        let one = Some(b"1".as_slice().into());
        assert_eq!(answer(&call, body), Ok(Answer::Rpc(one)));
        assert_eq!(answer(&call, br#"{"result":{"data":null}}"#), Ok(Answer::Rpc(null())));
    }

    #[test]
    fn base64_may_have_line_ends() {
        let body = br#"{"result":{"b64data":"eyJk\r\nIjox\r\nfQ==\r\n","b64info":"MQ==\n"}}"#;
        let data = Some(br#"{"d":1}"#.as_slice().into());
        let info = Some(b"1".as_slice().into());
        let Ok(Answer::Connect(Some(found))) = answer(&connect(), body) else { panic!() };
        assert_eq!((&found.data, &found.claims.info), (&data, &info));
        let options = SubscribeOptions { data: data.clone(), info, ..SubscribeOptions::default() };
        assert_eq!(answer(&subscribe(), body), Ok(Answer::Subscribe(options, None)));
        let permission = Permission { data: data.clone(), ..Permission::default() };
        assert_eq!(answer(&publish(), body), Ok(Answer::Publish(Box::new(permission))));
        let call = Event::Rpc { method: "".into(), data: None };
        assert_eq!(answer(&call, body), Ok(Answer::Rpc(data)));
    }

    #[test]
    fn the_other_results() {
        let check = |event: &Event, result: &str, expected: Answer| {
            let body = format!("{{\"result\":{result}}}");
            assert_eq!(answer(event, body.as_bytes()), Ok(expected), "{result}");
        };
        let options = SubscribeOptions { presence: Some(true), ..SubscribeOptions::default() };
        let result = r#"{"expire_at":7,"override":{"presence":{"value":true}}}"#;
        check(&subscribe(), result, Answer::Subscribe(options, Some(7)));
        check(&subscribe(), "null", Answer::Subscribe(SubscribeOptions::default(), None));
        let renewed = Renewal { expires: Some(7), ..Renewal::default() };
        check(&Event::Refresh, r#"{"expire_at":7}"#, Answer::Refresh(Some(renewed)));
        check(&Event::Refresh, r#"{"expired":true}"#, Answer::Refresh(None));
        check(&Event::Refresh, "null", Answer::Refresh(None));
        let data = Some(b"2".as_slice().into());
        let tags = [("a".into(), "b".into())].into();
        let permission = Permission { data, skip_history: true, tags, ..Permission::default() };
        let result = r#"{"data":2,"skip_history":true,"tags":{"a":"b"}}"#;
        check(&publish(), result, Answer::Publish(Box::new(permission)));
        let call = Event::Rpc { method: "".into(), data: None };
        check(&call, r#"{"data":[]}"#, Answer::Rpc(Some(b"[]".as_slice().into())));
        check(&call, "{}", Answer::Rpc(None));
    }

    #[test]
    fn methods_find_who_carries_them_out() {
        let named = [("on".into(), Some(Upstream(2))), ("off".into(), None)].into();
        let calls = Calls { without: Some(Upstream(1)), named, boundary: ":".into() };
        let check = |method, expected| assert_eq!(calls.upstream(method), expected, "{method}");
        check("", Ok(Upstream(1)));
        check("on:x", Ok(Upstream(2)));
        check("off:x", Err(Error::NOT_AVAILABLE));
        check("other:x", Err(Error::METHOD_NOT_FOUND));
        assert_eq!(Calls::default().upstream("a:b"), Err(Error::NOT_AVAILABLE));
    }
}
