//! What is done to the connections of a user.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::channels::Since;
use super::fault::{Empty, Fault};
use super::node::Api;
use super::reading::{object, raw};
use crate::base::sys;
use crate::model::message::{Action, Grant, Message, Order, Overrides, Target};
use crate::model::revocation::Mark;
use crate::wire::protocol::{self, Error, json};
use crate::wire::reading;

/// A request about the connections of a user: what, beside whose.
macro_rules! about_a_user {
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
            fn whose(&mut self) -> Target {
                Target {
                    user: self.user.take().unwrap_or_default(),
                    client: self.client.take().unwrap_or_default(),
                    session: self.session.take().unwrap_or_default(),
                }
            }
        }
    };
}

about_a_user! {
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
        recover_since: Option<Since>,
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
    presence: Option<Value>,
    /// Whether their coming and going is told.
    #[serde(deserialize_with = "object")]
    join_leave: Option<Value>,
    /// Whether they are told of others' coming and going.
    #[serde(deserialize_with = "object")]
    force_push_join_leave: Option<Value>,
    /// Whether their position is checked.
    #[serde(deserialize_with = "object")]
    force_positioning: Option<Value>,
    /// Whether they may recover.
    #[serde(deserialize_with = "object")]
    force_recovery: Option<Value>,
}

/// Whether.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "BoolValue")]
struct Value {
    value: bool,
}

impl From<Override> for Overrides {
    fn from(given: Override) -> Self {
        let value = |value: Option<Value>| value.map(|value| value.value);
        Overrides {
            presence: value(given.presence),
            join_leave: value(given.join_leave),
            force_push_join_leave: value(given.force_push_join_leave),
            force_positioning: value(given.force_positioning),
            force_recovery: value(given.force_recovery),
        }
    }
}

about_a_user! {
    /// Ends a subscription of a user's connections.
    Unsubscribe {
        /// The channel; without it nothing ends.
        channel: Option<Arc<str>>,
    }
}

about_a_user! {
    /// Closes a user's connections.
    Disconnect {
        /// Ids of clients that stay.
        whitelist: Option<Vec<Box<str>>>,
        /// What they are told; without it 3503, `force disconnect`.
        #[serde(default, deserialize_with = "object")]
        disconnect: Option<Reason>,
    }
}

/// Why a connection is closed.
#[derive(Debug, Deserialize, JsonSchema)]
struct Reason {
    /// From 3000 to 4999; of these 3500 to 3999 and from 4500 on ask clients not to come back. 0 is
    /// 3503.
    code: Option<u16>,
    /// A text that is no JSON.
    reason: Option<Box<str>>,
}

about_a_user! {
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
fn text(value: Option<Box<RawValue>>, base64: Option<String>) -> Result<Option<Box<[u8]>>, Fault> {
    let base64 = base64.unwrap_or_default();
    if base64.is_empty() {
        return Ok(value.map(|value| value.get().as_bytes().into()));
    }
    let bytes = reading::base64(&base64)
        .filter(|bytes| json::is_json(bytes))
        .ok_or_else(Fault::bad_request)?;
    Ok(Some(bytes.into()))
}

impl Api {
    pub(super) async fn subscribe(&self, mut request: Subscribe) -> Result<Empty, Fault> {
        let (whose, channel) = (request.whose(), request.channel.unwrap_or_default());
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
        let since = request.recover_since.as_ref().map(Since::position);
        self.order(whose, Action::Subscribe { channel, grant, since }).await
    }

    pub(super) async fn unsubscribe(&self, mut request: Unsubscribe) -> Result<Empty, Fault> {
        let (whose, channel) = (request.whose(), request.channel.unwrap_or_default());
        if !channel.is_empty() {
            self.options(&channel)?;
        }
        self.order(whose, Action::Unsubscribe { channel }).await
    }

    pub(super) async fn disconnect(&self, mut request: Disconnect) -> Result<Empty, Fault> {
        let whose = request.whose();
        let given = request.disconnect.map(|Reason { code, reason }| (code, reason));
        let (code, reason) = match given {
            Some((Some(code), reason)) if code > 0 => (code, reason.unwrap_or_default()),
            _ => {
                let force = protocol::Disconnect::FORCE_DISCONNECT;
                (force.code, force.reason.into())
            }
        };
        // Close codes of applications and of the protocol; others may not be sent.
        if !(3000..5000).contains(&code) {
            return Err(Fault::bad_request());
        }
        let except = request.whitelist.unwrap_or_default();
        self.order(whose, Action::Disconnect { code, reason, except }).await
    }

    pub(super) async fn refresh(&self, mut request: Refresh) -> Result<Empty, Fault> {
        let whose = request.whose();
        let deed = if request.expired.unwrap_or_default() {
            let protocol::Disconnect { code, reason } = protocol::Disconnect::EXPIRED;
            Action::Disconnect { code, reason: reason.into(), except: Vec::new() }
        } else {
            let info = request.info.map(|info| info.get().as_bytes().into());
            Action::Refresh { expires: end(request.expire_at), info }
        };
        self.order(whose, deed).await
    }

    /// Tells every shard; which of them has the user's connections is not known here.
    async fn order(&self, whose: Target, deed: Action) -> Result<Empty, Fault> {
        if whose.user.is_empty() {
            return Err(Fault::bad_request());
        }
        let order = Arc::new(Order { whose, deed });
        for shard in self.link.shards() {
            let message = Message::Order(order.clone());
            self.link.tell(shard, message).await.map_err(|_| crate::link::Busy)?;
        }
        Ok(Empty {})
    }
}
