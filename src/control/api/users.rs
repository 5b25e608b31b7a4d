//! The methods about connections of a user: subscribe, unsubscribe, disconnect and refresh.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::channels::HistoryPosition;
use super::node::Api;
use super::reading::{object, raw};
use super::reply::{ApiError, EmptyResult};
use crate::base::sys;
use crate::model::message::{Action, Grant, Order, Overrides, Target};
use crate::model::revocation::TokenFingerprint;
use crate::wire::lenient_json;
use crate::wire::protocol::{self, Error, json};

/// Defines a request about the connections of a user.
macro_rules! user_request {
    ($(#[doc = $doc:literal])+ $name:ident { $($fields:tt)* }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Deserialize, JsonSchema)]
        pub(super) struct $name {
            /// ID of the user. Empty or absent: clients without a user, one of which `client` or
            /// `session` selects.
            user: Option<Box<str>>,
            /// Only the client with this ID; empty: all.
            client: Option<Box<str>>,
            /// Only the client with this session ID; empty: all.
            session: Option<Box<str>>,
            $($fields)*
        }

        impl $name {
            /// The connections that the request selects.
            fn target(&mut self) -> Target {
                Target {
                    user: self.user.take().unwrap_or_default(),
                    client: self.client.take().unwrap_or_default(),
                    session: self.session.take().unwrap_or_default(),
                }
            }
        }
    };
}

user_request! {
    /// Subscribes the connections of a user to a channel.
    Subscribe {
        /// Name of the channel.
        #[schemars(required, length(min = 1))]
        channel: Option<Arc<str>>,
        /// Channel information of the clients, which other subscribers see in presence and join
        /// events.
        #[serde(default, deserialize_with = "raw")]
        info: Option<Box<RawValue>>,
        /// `info` as base64.
        b64info: Option<String>,
        /// Data for the clients, sent with the subscription.
        #[serde(default, deserialize_with = "raw")]
        data: Option<Box<RawValue>>,
        /// `data` as base64.
        b64data: Option<String>,
        /// Send the publications after this position to the clients.
        #[serde(default, deserialize_with = "object")]
        recover_since: Option<HistoryPosition>,
        /// Expiration of the subscription as Unix time in seconds; 0 or negative: it does not
        /// expire.
        expire_at: Option<i64>,
        /// Options that override the channel's.
        #[serde(default, rename = "override", deserialize_with = "object")]
        overrides: Option<Override>,
    }
}

impl Subscribe {
    /// Whether the expiration is in the past.
    pub(super) fn has_expired(&self) -> bool {
        end(self.expire_at).is_some_and(|end| end <= sys::unix_millis() / 1000)
    }
}

/// Options that override the channel's.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Override {
    /// Include the clients in presence.
    #[serde(deserialize_with = "object")]
    presence: Option<BoolValue>,
    /// Send join and leave events of the clients.
    #[serde(deserialize_with = "object")]
    join_leave: Option<BoolValue>,
    /// Send join and leave events of other clients to the clients.
    #[serde(deserialize_with = "object")]
    force_push_join_leave: Option<BoolValue>,
    /// Check the position of the clients in the stream.
    #[serde(deserialize_with = "object")]
    force_positioning: Option<BoolValue>,
    /// Allow the clients to recover missed publications.
    #[serde(deserialize_with = "object")]
    force_recovery: Option<BoolValue>,
}

/// A Boolean option.
#[derive(Debug, Deserialize, JsonSchema)]
struct BoolValue {
    /// Value of the option; `false` if absent.
    #[serde(default)]
    value: bool,
}

impl From<Override> for Overrides {
    fn from(given: Override) -> Self {
        let value = |value: Option<BoolValue>| value.map(|value| value.value);
        Overrides {
            presence: value(given.presence),
            join_leave: value(given.join_leave),
            force_push_join_leave: value(given.force_push_join_leave),
            force_positioning: value(given.force_positioning),
            force_recovery: value(given.force_recovery),
        }
    }
}

user_request! {
    /// Unsubscribes the connections of a user from a channel.
    Unsubscribe {
        /// Name of the channel; empty: no subscription ends.
        channel: Option<Arc<str>>,
    }
}

user_request! {
    /// Closes the connections of a user.
    Disconnect {
        /// IDs of clients that stay connected.
        whitelist: Option<Vec<Box<str>>>,
        /// Code and reason for the clients; absent: 3503, `force disconnect`.
        #[serde(default, deserialize_with = "object")]
        disconnect: Option<DisconnectReason>,
    }
}

/// Close code and reason.
#[derive(Debug, Deserialize, JsonSchema)]
struct DisconnectReason {
    /// Close code from 3000 to 4999; 0: 3503. With 3500 to 3999 and 4500 to 4999 clients do not
    /// reconnect.
    code: Option<u16>,
    /// Reason, as plain text.
    reason: Option<Box<str>>,
}

user_request! {
    /// Sets a new expiration time for the connections of a user.
    Refresh {
        /// Close the connections as expired.
        expired: Option<bool>,
        /// Expiration of the connections as Unix time in seconds; 0 or negative: they do not
        /// expire.
        expire_at: Option<i64>,
        /// New connection information, which other clients see.
        info: Option<Box<RawValue>>,
    }
}

/// Expiration of a request as Unix time in seconds; `None`: it does not expire.
fn end(expire_at: Option<i64>) -> Option<u64> {
    expire_at.and_then(|at| u64::try_from(at).ok()).filter(|at| *at > 0)
}

/// JSON text from a JSON field or a base64 field.
fn text(
    value: Option<Box<RawValue>>,
    base64: Option<String>,
) -> Result<Option<Box<[u8]>>, ApiError> {
    let base64 = base64.unwrap_or_default();
    if base64.is_empty() {
        return Ok(value.map(|value| value.get().as_bytes().into()));
    }
    let bytes = lenient_json::base64(&base64)
        .filter(|bytes| json::is_json(bytes))
        .ok_or_else(ApiError::bad_request)?;
    Ok(Some(bytes.into()))
}

impl Api {
    pub(super) async fn subscribe(&self, mut request: Subscribe) -> Result<EmptyResult, ApiError> {
        let (target, channel) = (request.target(), request.channel.take().unwrap_or_default());
        self.options(&channel)?;
        if request.has_expired() {
            // Centrifugo answers the same to an expiration in the past.
            return Err(Error::INTERNAL.into());
        }
        let expires = end(request.expire_at);
        let grant = Grant {
            expires,
            info: text(request.info, request.b64info)?,
            data: text(request.data, request.b64data)?,
            server_side: true,
            by_connection_token: false,
            token: TokenFingerprint::NONE,
            overrides: request.overrides.unwrap_or_default().into(),
        };
        let since = request.recover_since.as_ref().map(HistoryPosition::position);
        self.order(target, Action::Subscribe { channel, grant, since }).await
    }

    pub(super) async fn unsubscribe(
        &self,
        mut request: Unsubscribe,
    ) -> Result<EmptyResult, ApiError> {
        let (target, channel) = (request.target(), request.channel.unwrap_or_default());
        if !channel.is_empty() {
            self.options(&channel)?;
        }
        self.order(target, Action::Unsubscribe { channel }).await
    }

    pub(super) async fn disconnect(
        &self,
        mut request: Disconnect,
    ) -> Result<EmptyResult, ApiError> {
        let target = request.target();
        let given = request.disconnect.map(|DisconnectReason { code, reason }| (code, reason));
        let (code, reason) = match given {
            Some((Some(code), reason)) if code > 0 => (code, reason.unwrap_or_default()),
            _ => {
                let force = protocol::Disconnect::FORCE_DISCONNECT;
                (force.code, force.reason.into())
            }
        };
        // WebSocket allows only these codes to applications and libraries.
        if !(3000..5000).contains(&code) {
            return Err(ApiError::bad_request());
        }
        let except = request.whitelist.unwrap_or_default();
        self.order(target, Action::Disconnect { code, reason, except }).await
    }

    pub(super) async fn refresh(&self, mut request: Refresh) -> Result<EmptyResult, ApiError> {
        let target = request.target();
        let action = if request.expired.unwrap_or_default() {
            let protocol::Disconnect { code, reason } = protocol::Disconnect::EXPIRED;
            Action::Disconnect { code, reason: reason.into(), except: Vec::new() }
        } else {
            let info = request.info.map(|info| info.get().as_bytes().into());
            Action::Refresh { expires: end(request.expire_at), info }
        };
        self.order(target, action).await
    }

    /// Sends the order to every shard, because the control plane does not know where the
    /// connections are, and waits until it is carried out: a publication that follows finds the
    /// subscribers as the order left them.
    async fn order(&self, target: Target, action: Action) -> Result<EmptyResult, ApiError> {
        // Without more, it would be all clients without a user.
        if target.user.is_empty() && target.client.is_empty() && target.session.is_empty() {
            return Err(ApiError::bad_request());
        }
        let order = Arc::new(Order { target, action });
        let mut asked = Vec::new();
        for shard in self.link.shards() {
            asked.push(self.link.order(shard, order.clone()).await?);
        }
        for pending in asked {
            pending.ordered().await?;
        }
        Ok(EmptyResult {})
    }
}
