//! What is done to the connections of a user.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::channels::Since;
use super::{Api, Empty, Fault, raw};
use crate::message::{Deed, Grant, Message, Order, Overrides};
use crate::protocol::{Disconnect, json};
use crate::revocation::Mark;

/// Subscribes a user's connections to a channel.
#[derive(Debug, Deserialize)]
pub(super) struct Subscribe {
    #[serde(default)]
    user: Box<str>,
    #[serde(default)]
    channel: Arc<str>,
    #[serde(default)]
    client: Box<str>,
    #[serde(default, deserialize_with = "raw")]
    info: Option<Box<RawValue>>,
    #[serde(default)]
    b64info: String,
    #[serde(default, deserialize_with = "raw")]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    b64data: String,
    #[serde(default)]
    recover_since: Option<Since>,
    #[serde(default)]
    expire_at: u64,
    #[serde(default, rename = "override")]
    overrides: Option<Override>,
}

/// Options that differ from the channel's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Override {
    presence: Option<Value>,
    join_leave: Option<Value>,
    force_push_join_leave: Option<Value>,
    force_positioning: Option<Value>,
    force_recovery: Option<Value>,
}

#[derive(Debug, Deserialize)]
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

/// Ends subscriptions of a user's connections.
#[derive(Debug, Deserialize)]
pub(super) struct Unsubscribe {
    #[serde(default)]
    user: Box<str>,
    #[serde(default)]
    channel: Arc<str>,
    #[serde(default)]
    client: Box<str>,
}

/// Closes a user's connections.
#[derive(Debug, Deserialize)]
pub(super) struct Close {
    #[serde(default)]
    user: Box<str>,
    #[serde(default)]
    client: Box<str>,
    #[serde(default)]
    whitelist: Vec<Box<str>>,
    #[serde(default)]
    disconnect: Option<Reason>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: Box<str>,
}

/// Gives a user's connections a new end.
#[derive(Debug, Deserialize)]
pub(super) struct Refresh {
    #[serde(default)]
    user: Box<str>,
    #[serde(default)]
    client: Box<str>,
    #[serde(default)]
    expired: bool,
    #[serde(default)]
    expire_at: u64,
}

/// JSON text given as such or as base64.
fn text(value: Option<Box<RawValue>>, base64: &str) -> Result<Option<Box<[u8]>>, Fault> {
    if base64.is_empty() {
        return Ok(value.map(|value| value.get().as_bytes().into()));
    }
    let bytes = data_encoding::BASE64.decode(base64.as_bytes()).ok();
    let bytes = bytes.filter(|bytes| json::is_json(bytes)).ok_or_else(Fault::bad_request)?;
    Ok(Some(bytes.into()))
}

impl Api {
    pub(super) async fn subscribe(&self, request: Subscribe) -> Result<Empty, Fault> {
        self.options(&request.channel)?;
        let grant = Grant {
            expires: Some(request.expire_at).filter(|at| *at > 0),
            info: text(request.info, &request.b64info)?,
            data: text(request.data, &request.b64data)?,
            server_side: true,
            token: Mark::NONE,
            overrides: request.overrides.unwrap_or_default().into(),
        };
        let since = request.recover_since.as_ref().map(Since::position);
        let deed = Deed::Subscribe { channel: request.channel, grant, since };
        self.order(request.user, request.client, deed).await
    }

    pub(super) async fn unsubscribe(&self, request: Unsubscribe) -> Result<Empty, Fault> {
        if !request.channel.is_empty() {
            self.options(&request.channel)?;
        }
        let deed = Deed::Unsubscribe { channel: request.channel };
        self.order(request.user, request.client, deed).await
    }

    pub(super) async fn disconnect(&self, request: Close) -> Result<Empty, Fault> {
        let (code, reason) = match request.disconnect {
            Some(Reason { code, reason }) if code > 0 => (code, reason),
            _ => (Disconnect::FORCE_DISCONNECT.code, Disconnect::FORCE_DISCONNECT.reason.into()),
        };
        // Close codes of applications and of the protocol; others may not be sent.
        if !(3000..5000).contains(&code) {
            return Err(Fault::bad_request());
        }
        let deed = Deed::Disconnect { code, reason, except: request.whitelist };
        self.order(request.user, request.client, deed).await
    }

    pub(super) async fn refresh(&self, request: Refresh) -> Result<Empty, Fault> {
        let deed = if request.expired {
            let Disconnect { code, reason } = Disconnect::EXPIRED;
            Deed::Disconnect { code, reason: reason.into(), except: Vec::new() }
        } else {
            Deed::Refresh { expires: Some(request.expire_at).filter(|at| *at > 0) }
        };
        self.order(request.user, request.client, deed).await
    }

    /// Tells every shard; which of them has the user's connections is not known here.
    async fn order(&self, user: Box<str>, client: Box<str>, deed: Deed) -> Result<Empty, Fault> {
        if user.is_empty() {
            return Err(Fault::bad_request());
        }
        let order = Arc::new(Order { user, client, deed });
        for shard in self.link.shards() {
            let message = Message::Order(order.clone());
            self.link.tell(shard, message).await.map_err(|_| crate::control::link::Busy)?;
        }
        Ok(Empty {})
    }
}
