//! Publishing: into one channel or several.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::node::Api;
use super::reading::raw;
use super::reply::{ApiError, MethodReply};
use crate::config::Config;
use crate::hub::publish::publication_kind;
use crate::link::Pending;
use crate::model::message::{Guard, Publish as Request};
use crate::model::publication::Extra;
use crate::wire::protocol::{Position, json};
use crate::wire::reading;

/// Bytes of a publication at most: past it every subscriber would be closed as slow.
const fn publication_max(config: &Config) -> usize {
    config.client.queue_max_size
}

/// A request that publishes: what, and where.
macro_rules! publication {
    (
        $(#[doc = $doc:literal])+
        $name:ident { $(#[doc = $target_doc:literal])+ $target:ident: $type:ty }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Deserialize, JsonSchema)]
        #[schemars(extend("anyOf" = [{ "required": ["data"] }, { "required": ["b64data"] }]))]
        pub(super) struct $name {
            $(#[doc = $target_doc])+
            #[schemars(required, length(min = 1))]
            $target: Option<$type>,
            /// What is published, as JSON.
            #[serde(default, deserialize_with = "raw")]
            data: Option<Box<RawValue>>,
            /// Instead of `data`: base64 of any bytes.
            b64data: Option<String>,
            /// Whether it stays out of the history.
            skip_history: Option<bool>,
            /// Texts that subscribers may filter by.
            tags: Option<BTreeMap<Box<str>, Box<str>>>,
            /// Whether subscribers who take differences get one.
            delta: Option<bool>,
            /// One of these is published once in five minutes.
            idempotency_key: Option<Box<str>>,
            /// Only what is newer than the channel's last is published.
            version: Option<u64>,
            /// In which life of the versions.
            version_epoch: Option<Box<str>>,
        }

        impl $name {
            fn draft(self, max: usize) -> Result<($type, Draft), ApiError> {
                let (data, is_json) = match (self.b64data.unwrap_or_default(), self.data) {
                    (base64, _) if !base64.is_empty() => {
                        let bytes = reading::base64(&base64).ok_or_else(ApiError::bad_request)?;
                        let is_json = json::is_json(&bytes);
                        (bytes.into_boxed_slice(), is_json)
                    }
                    (_, Some(data)) => (data.get().as_bytes().into(), true),
                    (_, None) => return Err(ApiError::bad_request()),
                };
                if data.len() > max {
                    return Err(ApiError::bad_request());
                }
                let tags = self.tags.unwrap_or_default();
                let extra = Extra { info: None, tags: tags.into_iter().collect() };
                let guard = Guard {
                    key: self.idempotency_key.unwrap_or_default(),
                    version: self.version.unwrap_or_default(),
                    version_epoch: self.version_epoch.unwrap_or_default(),
                };
                let draft = Draft {
                    data,
                    is_json,
                    extra: (!extra.tags.is_empty()).then(|| Arc::new(extra)),
                    guard: (guard != Guard::default()).then(|| Box::new(guard)),
                    skip_history: self.skip_history.unwrap_or_default(),
                    delta: self.delta.unwrap_or_default(),
                };
                Ok((self.$target.unwrap_or_default(), draft))
            }
        }
    };
}

publication! {
    /// Publishes into a channel.
    Publish {
        /// The channel.
        channel: Arc<str>
    }
}

publication! {
    /// Publishes the same into several channels.
    Broadcast {
        /// The channels.
        channels: Vec<Arc<str>>
    }
}

/// What a publication is made of, whichever channel it goes to.
struct Draft {
    data: Box<[u8]>,
    is_json: bool,
    extra: Option<Arc<Extra>>,
    guard: Option<Box<Guard>>,
    skip_history: bool,
    delta: bool,
}

/// Where a publication is; without fields where the channel keeps no history.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PublishResult {
    /// Its place in the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Which life of the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
}

impl From<Option<Position>> for PublishResult {
    fn from(position: Option<Position>) -> Self {
        PublishResult {
            offset: position.map(|position| position.offset),
            epoch: position.map(|position| position.epoch.as_str().to_owned()),
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct BroadcastResult {
    /// Of each channel, in the order of the channels.
    responses: Vec<MethodReply<PublishResult>>,
}

impl Api {
    pub(super) async fn publish(&self, request: Publish) -> Result<PublishResult, ApiError> {
        let (channel, draft) = request.draft(publication_max(&self.config))?;
        settle(self.post(&channel, &draft).await).await
    }

    /// Everything is sent before the first answer is waited for.
    pub(super) async fn broadcast(&self, request: Broadcast) -> Result<BroadcastResult, ApiError> {
        let (channels, draft) = request.draft(publication_max(&self.config))?;
        if channels.is_empty() {
            return Err(ApiError::bad_request());
        }
        let mut posted = Vec::with_capacity(channels.len());
        for channel in &channels {
            posted.push(self.post(channel, &draft).await);
        }
        let mut responses = Vec::with_capacity(posted.len());
        for pending in posted {
            responses.push(settle(pending).await.into());
        }
        Ok(BroadcastResult { responses })
    }

    async fn post(&self, channel: &Arc<str>, draft: &Draft) -> Result<Pending, ApiError> {
        let options = self.options(channel)?;
        let event = publication_kind(options.format, &draft.data, draft.is_json)?;
        let request = |reply_to, hash| Request {
            channel: channel.clone(),
            hash,
            data: draft.data.clone(),
            event,
            delta: draft.delta || options.delta_publish,
            extra: draft.extra.clone(),
            retention: options.retention.filter(|_| !draft.skip_history),
            guard: draft.guard.clone(),
            reply_to,
        };
        Ok(self.link.publish(channel, request).await?)
    }
}

async fn settle(pending: Result<Pending, ApiError>) -> Result<PublishResult, ApiError> {
    Ok(pending?.published().await?.outcome?.into())
}
