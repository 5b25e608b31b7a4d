//! What is done to the connections of a user.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::channels::HistoryPosition;
use super::node::Api;
use super::reading::{object, raw};
use super::reply::{ApiError, EmptyResult};
use crate::base::sys;
use crate::model::message::{Action, Grant, Message, Order, Overrides, Target};
use crate::model::revocation::Mark;
use crate::wire::protocol::{self, Error, json};
use crate::wire::reading;

/// A request about the connections of a user: what, beside target.
macro_rules! user_request {
    ($(#[doc = $doc:literal])+ $name:ident { $($fields:tt)* }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Deserialize, JsonSchema)]
        pub(super) struct $name {
            /// The user.
            #[schemars(required, length(min = 1))]
            user: Option<Box<str>>,
            /// Only the client of this id.
            client: Option<Box<str>>,
            /// Only the client of this session.
            session: Option<Box<str>>,
            $($fields)*
        }

        impl $name {
            /// Target connections are meant.
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
    /// Subscribes a user's connections to a channel.
    Subscribe {
        /// The channel.
        #[schemars(required, length(min = 1))]
        channel: Option<Arc<str>>,
        /// What others in the channel are told about them.
        #[serde(default, deserialize_with = "raw")]
        info: Option<Box<RawValue>>,
        /// The same in base64.
        b64info: Option<String>,
        /// What they alone are told.
        #[serde(default, deserialize_with = "raw")]
        data: Option<Box<RawValue>>,
        /// The same in base64.
        b64data: Option<String>,
        /// They get what was published behind this position.
        #[serde(default, deserialize_with = "object")]
        recover_since: Option<HistoryPosition>,
        /// End of the subscription, as unix time in seconds; 0 or less: the subscription has none.
        expire_at: Option<i64>,
        /// Options that differ from the channel's.
        #[serde(default, rename = "override", deserialize_with = "object")]
        overrides: Option<Override>,
    }
}

/// Options that differ from the channel's.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Override {
    /// Whether it is known that they are there.
    #[serde(deserialize_with = "object")]
    presence: Option<BoolValue>,
    /// Whether their coming and going is told.
    #[serde(deserialize_with = "object")]
    join_leave: Option<BoolValue>,
    /// Whether they are told of others' coming and going.
    #[serde(deserialize_with = "object")]
    force_push_join_leave: Option<BoolValue>,
    /// Whether their position is checked.
    #[serde(deserialize_with = "object")]
    force_positioning: Option<BoolValue>,
    /// Whether they may recover.
    #[serde(deserialize_with = "object")]
    force_recovery: Option<BoolValue>,
}

/// Whether.
#[derive(Debug, Deserialize, JsonSchema)]
struct BoolValue {
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
    /// Ends a subscription of a user's connections.
    Unsubscribe {
        /// The channel; without it nothing ends.
        channel: Option<Arc<str>>,
    }
}

user_request! {
    /// Closes a user's connections.
    Disconnect {
        /// Ids of clients that stay.
        whitelist: Option<Vec<Box<str>>>,
        /// What they are told; without it 3503, `force disconnect`.
        #[serde(default, deserialize_with = "object")]
        disconnect: Option<DisconnectReason>,
    }
}

/// Why a connection is closed.
#[derive(Debug, Deserialize, JsonSchema)]
struct DisconnectReason {
    /// From 3000 to 4999; of these 3500 to 3999 and from 4500 on ask clients not to come back. 0 is
    /// 3503.
    code: Option<u16>,
    /// A text that is no JSON.
    reason: Option<Box<str>>,
}

user_request! {
    /// Gives a user's connections a new end.
    Refresh {
        /// They have ended already, and are closed.
        expired: Option<bool>,
        /// End of the connections, as unix time in seconds; 0 or less: the connections have none.
        expire_at: Option<i64>,
        /// What others are told about them from now on.
        info: Option<Box<RawValue>>,
    }
}

/// The end that a request names, as unix time in seconds.
fn end(expire_at: Option<i64>) -> Option<u64> {
    expire_at.and_then(|at| u64::try_from(at).ok()).filter(|at| *at > 0)
}

/// JSON text given as such or as base64.
fn text(
    value: Option<Box<RawValue>>,
    base64: Option<String>,
) -> Result<Option<Box<[u8]>>, ApiError> {
    let base64 = base64.unwrap_or_default();
    if base64.is_empty() {
        return Ok(value.map(|value| value.get().as_bytes().into()));
    }
    let bytes = reading::base64(&base64)
        .filter(|bytes| json::is_json(bytes))
        .ok_or_else(ApiError::bad_request)?;
    Ok(Some(bytes.into()))
}

impl Api {
    pub(super) async fn subscribe(&self, mut request: Subscribe) -> Result<EmptyResult, ApiError> {
        let (target, channel) = (request.target(), request.channel.unwrap_or_default());
        self.options(&channel)?;
        let expires = end(request.expire_at);
        if expires.is_some_and(|end| end <= sys::unix_millis() / 1000) {
            // Centrifugo's answer to an end in the past.
            return Err(Error::INTERNAL.into());
        }
        let grant = Grant {
            expires,
            info: text(request.info, request.b64info)?,
            data: text(request.data, request.b64data)?,
            server_side: true,
            by_connection_token: false,
            token: Mark::NONE,
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
        // Close codes of applications and of the protocol; others may not be sent.
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

    /// Tells every shard; which of them has the user's connections is not known here.
    async fn order(&self, target: Target, action: Action) -> Result<EmptyResult, ApiError> {
        if target.user.is_empty() {
            return Err(ApiError::bad_request());
        }
        let order = Arc::new(Order { whose: target, deed: action });
        for shard in self.link.shards() {
            let message = Message::Order(order.clone());
            self.link.send(shard, message).await.map_err(|_| crate::link::LinkBusy)?;
        }
        Ok(EmptyResult {})
    }
}
