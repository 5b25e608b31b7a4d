//! Answers of the backend, read from JSON.
//!
//! Owns the fields of answers. Never acts on an answer.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use serde_json::value::RawValue;

use super::failure::ProxyFailure;
use super::request::ProxyEvent;
use crate::model::duplicate_guard::VERSION_EPOCH_MAX;
use crate::model::token::payload_fields::{NotBase64, PayloadFields, json_text};
use crate::model::token::{ConnectClaims, SubscribeOptions, claims};
use crate::wire::lenient_json;

/// A successful answer of the backend.
#[derive(Debug, PartialEq, Eq)]
pub enum ProxyAnswer {
    /// To a connect; `None`: the answer has no result, so it does not authenticate the client.
    Connect(Option<Box<ConnectAnswer>>),
    /// To a refresh of a connection or subscription; `None`: the connection or subscription ends.
    Refresh(Option<RefreshAnswer>),
    /// To a subscribe: options, and the expiry as Unix time in seconds (`None`: no expiry).
    Subscribe(SubscribeOptions, Option<u64>),
    /// To a publish.
    Publish(Box<PublishAnswer>),
    /// To an RPC: the data for the client.
    Rpc(Option<Box<[u8]>>),
    /// To a hook event.
    Acknowledged,
}

/// The backend's answer to a connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectAnswer {
    /// Claims about the client, as in a connection token.
    pub claims: ConnectClaims,
    /// Data for the client: JSON text, or the bytes of `b64data`.
    pub data: Option<Box<[u8]>>,
}

/// The backend's answer to the refresh of a connection or subscription.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RefreshAnswer {
    /// New expiry as Unix time in seconds; `None`: no expiry.
    pub expires: Option<u64>,
    /// Information for other clients: JSON text, or the bytes of `b64info`; `None`: unchanged.
    pub info: Option<Box<[u8]>>,
    /// JSON text that later requests to the backend include; `None`: unchanged.
    pub meta: Option<Box<[u8]>>,
}

/// The backend's answer to a publish.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PublishAnswer {
    /// Data to publish instead of the client's; `None`: publish the client's data.
    pub data: Option<Box<[u8]>>,
    /// Do not add the publication to the history.
    pub skip_history: bool,
    /// Tags of the publication.
    pub tags: BTreeMap<Box<str>, Box<str>>,
    /// Idempotency key: one publication per key is published. Empty: no key.
    pub idempotency_key: Box<str>,
    /// Allow the publication to be sent as a delta.
    pub delta: bool,
    /// Publish only if this is above the stream's last version; 0: no version.
    pub version: u64,
    /// Epoch of the version: versions of different epochs are not compared.
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
struct ConnectFields<'a> {
    #[serde(borrow, deserialize_with = "lenient_json::text")]
    user: Cow<'a, str>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    subs: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PublishFields {
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

/// An answer that is a refusal or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// The backend refused the request.
    Rejected(ProxyFailure),
    /// The answer cannot be read. The text is the cause and contains no value of the answer.
    Unreadable(String),
}

impl From<ProxyFailure> for AnswerError {
    fn from(failure: ProxyFailure) -> Self {
        AnswerError::Rejected(failure)
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

/// Parses the body of the backend's answer to a request about `event`.
pub fn answer(event: &ProxyEvent, body: &[u8]) -> Result<ProxyAnswer, AnswerError> {
    if matches!(event, ProxyEvent::Disconnect { .. } | ProxyEvent::Unsubscribe { .. }) {
        return Ok(ProxyAnswer::Acknowledged);
    }
    let response: Response<'_> = lenient_json::read_object(body)?;
    let is_refresh = matches!(event, ProxyEvent::Refresh | ProxyEvent::SubRefresh { .. });
    match (response.disconnect, response.error) {
        // As in Centrifugo, only the result of a refresh counts.
        _ if is_refresh => {}
        (Some(DisconnectText { code, reason }), _) => {
            // WebSocket reserves all other close codes.
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
    let Some(result) = response.result.map(RawValue::get) else { return Ok(without_result(event)) };
    Ok(match event {
        ProxyEvent::Connect { .. } => ProxyAnswer::Connect(Some(Box::new(connect_answer(result)?))),
        ProxyEvent::Refresh | ProxyEvent::SubRefresh { .. } => {
            ProxyAnswer::Refresh(refresh_answer(result)?)
        }
        ProxyEvent::Subscribe { .. } => {
            let expiry: ExpiryFields = result_of(result)?;
            let options = claims::subscribe_options(result);
            ProxyAnswer::Subscribe(options.map_err(|_| unreadable(BAD_OPTIONS))?, expiry.expires())
        }
        ProxyEvent::Publish { .. } => ProxyAnswer::Publish(Box::new(publish_answer(result)?)),
        ProxyEvent::Rpc { .. } => ProxyAnswer::Rpc(result_of::<PayloadFields<'_>>(result)?.data()?),
        ProxyEvent::Disconnect { .. } | ProxyEvent::Unsubscribe { .. } => ProxyAnswer::Acknowledged,
    })
}

/// Cause of an answer with invalid subscription options.
const BAD_OPTIONS: &str = "info, data or override of a subscription in the result is not as \
                           documented";

/// The meaning of an answer without error, disconnect and result.
fn without_result(event: &ProxyEvent) -> ProxyAnswer {
    match event {
        ProxyEvent::Connect { .. } => ProxyAnswer::Connect(None),
        ProxyEvent::Refresh | ProxyEvent::SubRefresh { .. } => ProxyAnswer::Refresh(None),
        ProxyEvent::Subscribe { .. } => ProxyAnswer::Subscribe(SubscribeOptions::default(), None),
        ProxyEvent::Publish { .. } => ProxyAnswer::Publish(Box::default()),
        ProxyEvent::Rpc { .. } => ProxyAnswer::Rpc(None),
        ProxyEvent::Disconnect { .. } | ProxyEvent::Unsubscribe { .. } => ProxyAnswer::Acknowledged,
    }
}

fn connect_answer(result: &str) -> Result<ConnectAnswer, AnswerError> {
    let expiry: ExpiryFields = result_of(result)?;
    let payloads: PayloadFields<'_> = result_of(result)?;
    let MetaField { meta } = result_of(result)?;
    let ConnectFields { user, channels, subs } = result_of(result)?;
    let options = |_| unreadable(BAD_OPTIONS);
    let mut subs = claims::subs(subs, None).map_err(options)?;
    let channels = claims::subs(None, channels);
    for (channel, options) in
        channels.map_err(|_| unreadable("channels of the result is not a list of strings"))?
    {
        if !subs.iter().any(|(present, _)| *present == channel) {
            subs.push((channel, options));
        }
    }
    let claims = ConnectClaims {
        user: user.into_owned(),
        expires: expiry.expires(),
        info: payloads.info()?,
        meta: meta.map(json_text),
        subs,
        ..ConnectClaims::default()
    };
    Ok(ConnectAnswer { claims, data: payloads.data()? })
}

fn refresh_answer(result: &str) -> Result<Option<RefreshAnswer>, AnswerError> {
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

fn publish_answer(result: &str) -> Result<PublishAnswer, AnswerError> {
    let fields: PublishFields = result_of(result)?;
    let payloads: PayloadFields<'_> = result_of(result)?;
    if fields.version_epoch.len() > VERSION_EPOCH_MAX {
        let cause = format!("version_epoch of the result is longer than {VERSION_EPOCH_MAX} bytes");
        return Err(AnswerError::Unreadable(cause));
    }
    let tags = fields.tags.into_iter();
    Ok(PublishAnswer {
        // For this answer alone, Centrifugo prefers JSON to base64.
        data: payloads.data_json_first()?,
        skip_history: fields.skip_history,
        tags: tags.map(|(name, value)| (name, value.unwrap_or_default())).collect(),
        idempotency_key: fields.idempotency_key,
        delta: fields.delta,
        version: fields.version,
        version_epoch: fields.version_epoch,
    })
}
