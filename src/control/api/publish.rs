//! The methods `publish` and `broadcast`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::node::Api;
use super::reading::raw;
use super::reply::{ApiError, MethodReply};
use crate::base::sys;
use crate::config::Config;
use crate::link::publishing::{self, Draft};
use crate::link::{Pending, Wake};
use crate::model::duplicate_guard::{DuplicateGuard, VERSION_EPOCH_MAX};
use crate::model::publication::PublicationExtra;
use crate::wire::lenient_json;
use crate::wire::protocol::{Position, json};

/// Maximum size of a publication in bytes: a larger one would close every subscriber as slow.
const fn publication_max(config: &Config) -> usize {
    config.client.queue_max_size
}

/// Logs a publication that is too large, at most once a minute.
fn log_too_large(size: usize, max: usize) {
    static LOGGED_MINUTE: AtomicU64 = AtomicU64::new(0);
    let minute = sys::unix_millis() / 60_000;
    if LOGGED_MINUTE.swap(minute, Ordering::Relaxed) != minute {
        let what = "API: publication refused";
        let cure = "raise the key or publish less data at once";
        let cause = format_args!("{size} bytes are more than client.queue_max_size {max}");
        tracing::warn!(target: "api", "{what}: {cause}; {cure}");
    }
}

/// Defines a request that publishes to the channels of one field.
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
            /// Payload as JSON.
            #[serde(default, deserialize_with = "raw")]
            data: Option<Box<RawValue>>,
            /// Payload as base64, instead of `data`.
            b64data: Option<String>,
            /// Do not add the publication to the history.
            skip_history: Option<bool>,
            /// Tags of the publication. Subscribers can filter by them.
            tags: Option<BTreeMap<Box<str>, Option<Box<str>>>>,
            /// Send a delta to subscribers that negotiated deltas.
            delta: Option<bool>,
            /// A second publication with the same key within five minutes is not published.
            idempotency_key: Option<Box<str>>,
            /// Version of the data. A publication with a version that is not higher than the last
            /// one is not published; 0: no version.
            version: Option<u64>,
            /// Epoch of the version: at most 256 bytes. Versions are compared within one epoch.
            version_epoch: Option<Box<str>>,
        }

        impl $name {
            /// The target, and the publication for it.
            pub(super) fn split(mut self, max: usize) -> Result<($type, Draft), ApiError> {
                let target = self.$target.take().unwrap_or_default();
                Ok((target, self.draft(max)?))
            }

            fn draft(self, max: usize) -> Result<Draft, ApiError> {
                let (data, is_json) = match (self.b64data.unwrap_or_default(), self.data) {
                    (base64, _) if !base64.is_empty() => {
                        let bytes =
                            lenient_json::base64(&base64).ok_or_else(ApiError::bad_request)?;
                        let is_json = json::is_json(&bytes);
                        (bytes.into_boxed_slice(), is_json)
                    }
                    (_, Some(data)) => (data.get().as_bytes().into(), true),
                    (_, None) => return Err(ApiError::bad_request()),
                };
                if data.len() > max {
                    log_too_large(data.len(), max);
                    return Err(ApiError::TOO_LARGE);
                }
                let tags = self.tags.unwrap_or_default().into_iter();
                let tags = tags.map(|(key, value)| (key, value.unwrap_or_default())).collect();
                let version = self.version.unwrap_or_default();
                let extra = PublicationExtra { info: None, tags, version };
                let guard = DuplicateGuard {
                    key: self.idempotency_key.unwrap_or_default(),
                    version,
                    version_epoch: self.version_epoch.unwrap_or_default(),
                };
                if guard.version_epoch.len() > VERSION_EPOCH_MAX {
                    return Err(ApiError::VERSION_EPOCH_TOO_LONG);
                }
                Ok(Draft {
                    data,
                    is_json,
                    extra: (extra != PublicationExtra::default()).then(|| Arc::new(extra)),
                    guard: (guard != DuplicateGuard::default()).then(|| Box::new(guard)),
                    skip_history: self.skip_history.unwrap_or_default(),
                    delta: self.delta.unwrap_or_default(),
                })
            }
        }
    };
}

publication! {
    /// Publishes a message to a channel.
    Publish {
        /// Name of the channel.
        channel: Arc<str>
    }
}

publication! {
    /// Publishes one message to several channels.
    Broadcast {
        /// Names of the channels.
        channels: Vec<Arc<str>>
    }
}

/// Position of the publication; empty if the channel has no history.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PublishResult {
    /// Offset of the publication in the channel's stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Epoch of the stream.
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
    /// One reply per channel, in the order of the channels.
    responses: Vec<MethodReply<PublishResult>>,
}

impl Api {
    pub(super) async fn publish(&self, request: Publish) -> Result<PublishResult, ApiError> {
        let (channel, draft) = request.split(publication_max(&self.config))?;
        settle(self.post(&channel, &draft).await).await
    }

    /// Sends all publications before it waits for the first answer.
    pub(super) async fn broadcast(
        &self,
        mut request: Broadcast,
    ) -> Result<BroadcastResult, ApiError> {
        let channels = request.channels.take().unwrap_or_default();
        if channels.is_empty() {
            return Err(ApiError::bad_request());
        }
        let draft = match request.draft(publication_max(&self.config)) {
            Ok(draft) => draft,
            // Data that cannot be published is an error of each channel, as in Centrifugo.
            Err(error) => {
                let responses = channels.iter().map(|_| MethodReply::Error(error)).collect();
                return Ok(BroadcastResult { responses });
            }
        };
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
        Ok(publishing::post(&self.link, channel, options, draft, Wake::Now).await?)
    }
}

async fn settle(pending: Result<Pending, ApiError>) -> Result<PublishResult, ApiError> {
    Ok(publishing::settle(Ok(pending?)).await?.into())
}
