//! What the backend answers, read from its JSON.
//!
//! Owns the shape of answers. Never carries one out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use serde_json::value::RawValue;

use super::failure::ProxyFailure;
use super::request::ProxyEvent;
use crate::model::token::payload_fields::{NotBase64, PayloadFields, json_text};
use crate::model::token::{ConnectClaims, SubscribeOptions, claims};
use crate::wire::lenient_json;

/// What the backend answered.
#[derive(Debug, PartialEq, Eq)]
pub enum ProxyAnswer {
    /// To a connect; `None`: it says nothing about the client.
    Connect(Option<Box<ConnectAnswer>>),
    /// To a refresh of a connection or subscription; `None`: it is over.
    Refresh(Option<RefreshAnswer>),
    /// To a subscribe.
    Subscribe(SubscribeOptions, Option<u64>),
    /// To a publish.
    Publish(Box<PublishAnswer>),
    /// To a call.
    Rpc(Option<Box<[u8]>>),
    /// To news.
    Acknowledged,
}

/// Who a client is, as the backend says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectAnswer {
    /// The same that a token would say.
    pub claims: ConnectClaims,
    /// For the client.
    pub data: Option<Box<[u8]>>,
}

/// How much longer something holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RefreshAnswer {
    /// Its new end, as unix time in seconds; `None`: it has none.
    pub expires: Option<u64>,
    /// Shown to others: JSON text, or whatever bytes `b64info` held; `None`: as before.
    pub info: Option<Box<[u8]>>,
    /// For the backend's eyes; `None`: as before.
    pub meta: Option<Box<[u8]>>,
}

/// What is published.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PublishAnswer {
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
    #[serde(deserialize_with = "lenient_json::object")]
    error: Option<ErrorText>,
    #[serde(deserialize_with = "lenient_json::object")]
    disconnect: Option<DisconnectText>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorText {
    #[serde(deserialize_with = "lenient_json::nullable")]
    code: u32,
    #[serde(deserialize_with = "lenient_json::nullable")]
    message: Box<str>,
    #[serde(deserialize_with = "lenient_json::nullable")]
    temporary: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DisconnectText {
    #[serde(deserialize_with = "lenient_json::nullable")]
    code: u16,
    #[serde(deserialize_with = "lenient_json::nullable")]
    reason: Box<str>,
}

/// The expiry fields of a connect, subscribe or refresh result.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ExpiryFields {
    #[serde(deserialize_with = "lenient_json::nullable")]
    expired: bool,
    #[serde(deserialize_with = "lenient_json::nullable")]
    expire_at: i64,
}

impl ExpiryFields {
    /// The expiry as Unix time in seconds; `None`: no expiry.
    fn expires(&self) -> Option<u64> {
        u64::try_from(self.expire_at).ok().filter(|at| *at > 0)
    }
}

/// The `meta` field of a result.
#[derive(Default, Deserialize)]
#[serde(default)]
struct MetaField<'a> {
    #[serde(borrow, deserialize_with = "lenient_json::payload")]
    meta: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConnectText<'a> {
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    user: Cow<'a, str>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    subs: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PublishText {
    #[serde(deserialize_with = "lenient_json::nullable")]
    skip_history: bool,
    #[serde(deserialize_with = "lenient_json::nullable")]
    tags: BTreeMap<Box<str>, Option<Box<str>>>,
    #[serde(deserialize_with = "lenient_json::nullable")]
    idempotency_key: Box<str>,
    #[serde(deserialize_with = "lenient_json::nullable")]
    delta: bool,
    #[serde(deserialize_with = "lenient_json::nullable")]
    version: u64,
    #[serde(deserialize_with = "lenient_json::nullable")]
    version_epoch: Box<str>,
}

/// Why an answer leads to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// The backend refused the request.
    Rejected(ProxyFailure),
    /// The answer cannot be read: the cause, without any value of the answer.
    Unreadable(String),
}

impl From<ProxyFailure> for AnswerError {
    fn from(refused: ProxyFailure) -> Self {
        AnswerError::Rejected(refused)
    }
}

impl From<NotBase64> for AnswerError {
    fn from(NotBase64(name): NotBase64) -> Self {
        AnswerError::Unreadable(format!("{name} of the result is not base64"))
    }
}

impl From<serde_json::Error> for AnswerError {
    fn from(error: serde_json::Error) -> Self {
        AnswerError::Unreadable(format!(
            "the answer is not as documented: {}",
            lenient_json::cause(&error)
        ))
    }
}

fn unreadable(cause: &str) -> AnswerError {
    AnswerError::Unreadable(cause.to_owned())
}

fn result_of<'a, T: Deserialize<'a>>(result: &'a str) -> Result<T, AnswerError> {
    let read = lenient_json::read_object(result.as_bytes());
    read.map_err(|error| {
        AnswerError::Unreadable(format!("the result is {}", lenient_json::cause(&error)))
    })
}

/// What the body of an answer says to a request about such an event.
pub fn answer(event: &ProxyEvent, body: &[u8]) -> Result<ProxyAnswer, AnswerError> {
    if matches!(event, ProxyEvent::Disconnect { .. } | ProxyEvent::Unsubscribe { .. }) {
        return Ok(ProxyAnswer::Acknowledged);
    }
    let response: Response<'_> = lenient_json::read_object(body)?;
    let renews = matches!(event, ProxyEvent::Refresh | ProxyEvent::SubRefresh { .. });
    match (response.disconnect, response.error) {
        // The time is over or it is not; nothing else can be said then.
        _ if renews => {}
        (Some(DisconnectText { code, reason }), _) => {
            // Close codes of applications and of the protocol; others may not be sent.
            if !(3000..5000).contains(&code) {
                return Err(unreadable("the disconnect has no code from 3000 to 4999"));
            }
            return Err(ProxyFailure::Disconnect { code, reason }.into());
        }
        (None, Some(ErrorText { code: 0, .. })) => {
            return Err(unreadable("the error has no code above 0"));
        }
        (None, Some(ErrorText { code, message, temporary })) => {
            return Err(ProxyFailure::Error { code, message, temporary }.into());
        }
        (None, None) => {}
    }
    let Some(result) = response.result.map(RawValue::get) else { return Ok(nothing(event)) };
    Ok(match event {
        ProxyEvent::Connect { .. } => ProxyAnswer::Connect(Some(Box::new(introduction(result)?))),
        ProxyEvent::Refresh | ProxyEvent::SubRefresh { .. } => {
            ProxyAnswer::Refresh(renewal(result)?)
        }
        ProxyEvent::Subscribe { .. } => {
            let expiry: ExpiryFields = result_of(result)?;
            let options = claims::subscribe_options(result);
            ProxyAnswer::Subscribe(options.map_err(|_| unreadable(BAD_OPTIONS))?, expiry.expires())
        }
        ProxyEvent::Publish { .. } => ProxyAnswer::Publish(Box::new(permission(result)?)),
        ProxyEvent::Rpc { .. } => ProxyAnswer::Rpc(result_of::<PayloadFields<'_>>(result)?.data()?),
        ProxyEvent::Disconnect { .. } | ProxyEvent::Unsubscribe { .. } => ProxyAnswer::Acknowledged,
    })
}

/// Why the options of a subscription cannot be read.
const BAD_OPTIONS: &str = "info, data or override of a subscription in the result is not as \
                           documented";

/// An answer that refuses nothing, and says nothing.
fn nothing(event: &ProxyEvent) -> ProxyAnswer {
    match event {
        ProxyEvent::Connect { .. } => ProxyAnswer::Connect(None),
        ProxyEvent::Refresh | ProxyEvent::SubRefresh { .. } => ProxyAnswer::Refresh(None),
        ProxyEvent::Subscribe { .. } => ProxyAnswer::Subscribe(SubscribeOptions::default(), None),
        ProxyEvent::Publish { .. } => ProxyAnswer::Publish(Box::default()),
        ProxyEvent::Rpc { .. } => ProxyAnswer::Rpc(None),
        ProxyEvent::Disconnect { .. } | ProxyEvent::Unsubscribe { .. } => ProxyAnswer::Acknowledged,
    }
}

fn introduction(result: &str) -> Result<ConnectAnswer, AnswerError> {
    let expiry: ExpiryFields = result_of(result)?;
    let payloads: PayloadFields<'_> = result_of(result)?;
    let MetaField { meta } = result_of(result)?;
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
        expires: expiry.expires(),
        info: payloads.info()?,
        meta: meta.map(json_text),
        subs: wanted,
        ..ConnectClaims::default()
    };
    Ok(ConnectAnswer { claims, data: payloads.data()? })
}

fn renewal(result: &str) -> Result<Option<RefreshAnswer>, AnswerError> {
    let expiry: ExpiryFields = result_of(result)?;
    if expiry.expired {
        return Ok(None);
    }
    let payloads: PayloadFields<'_> = result_of(result)?;
    let MetaField { meta } = result_of(result)?;
    Ok(Some(RefreshAnswer {
        expires: expiry.expires(),
        info: payloads.info()?,
        meta: meta.map(json_text),
    }))
}

fn permission(result: &str) -> Result<PublishAnswer, AnswerError> {
    let text: PublishText = result_of(result)?;
    let payloads: PayloadFields<'_> = result_of(result)?;
    let tags = text.tags.into_iter();
    Ok(PublishAnswer {
        // For this answer alone, Centrifugo prefers JSON to base64.
        data: payloads.data_json_first()?,
        skip_history: text.skip_history,
        tags: tags.map(|(name, value)| (name, value.unwrap_or_default())).collect(),
        idempotency_key: text.idempotency_key,
        delta: text.delta,
        version: text.version,
        version_epoch: text.version_epoch,
    })
}
