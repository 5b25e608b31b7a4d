//! Publishing: into one channel or several.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Api, Fault, Outcome, raw};
use crate::config::Config;
use crate::control::link::Pending;
use crate::hub::subscriptions::checked;
use crate::message::{Guard, Publish as Request, Published};
use crate::protocol::json;
use crate::publication::Extra;

/// Bytes of a publication at most: past it every subscriber would be closed as slow.
const fn publication_max(config: &Config) -> usize {
    config.client.queue_max_size
}

/// A publication: JSON, or base64 of anything, into one channel or several.
#[derive(Debug, Deserialize)]
pub(super) struct Publish {
    #[serde(default)]
    channel: Arc<str>,
    #[serde(default)]
    channels: Vec<Arc<str>>,
    #[serde(default, deserialize_with = "raw")]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    b64data: String,
    #[serde(default)]
    skip_history: bool,
    #[serde(default)]
    tags: BTreeMap<Box<str>, Box<str>>,
    #[serde(default)]
    delta: bool,
    #[serde(default)]
    idempotency_key: Box<str>,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    version_epoch: Box<str>,
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

impl Publish {
    fn draft(&mut self, max: usize) -> Result<Draft, Fault> {
        let (data, is_json) = match &self.data {
            _ if !self.b64data.is_empty() => {
                let bytes = data_encoding::BASE64.decode(self.b64data.as_bytes());
                let bytes = bytes.map_err(|_| Fault::bad_request())?;
                let is_json = json::is_json(&bytes);
                (bytes, is_json)
            }
            Some(data) => (data.get().as_bytes().to_vec(), true),
            None => return Err(Fault::bad_request()),
        };
        if data.len() > max {
            return Err(Fault::bad_request());
        }
        let tags = std::mem::take(&mut self.tags);
        let extra = Extra { info: None, tags: tags.into_iter().collect() };
        let guard = Guard {
            key: std::mem::take(&mut self.idempotency_key),
            version: self.version,
            version_epoch: std::mem::take(&mut self.version_epoch),
        };
        Ok(Draft {
            data: data.into(),
            is_json,
            extra: (!extra.tags.is_empty()).then(|| Arc::new(extra)),
            guard: (guard != Guard::default()).then(|| Box::new(guard)),
            skip_history: self.skip_history,
            delta: self.delta,
        })
    }
}

#[derive(Debug, Serialize)]
pub(super) struct PublishResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
}

impl From<Published> for PublishResult {
    fn from(published: Published) -> Self {
        let position = published.position;
        PublishResult {
            offset: position.map(|position| position.offset),
            epoch: position.map(|position| position.epoch.as_str().to_owned()),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct BroadcastResult {
    responses: Vec<Outcome<PublishResult>>,
}

impl Api {
    pub(super) async fn publish(&self, mut request: Publish) -> Result<PublishResult, Fault> {
        let draft = request.draft(publication_max(&self.config))?;
        let pending = self.post(&request.channel, &draft).await?;
        Ok(pending.published().await?.into())
    }

    /// Everything is sent before the first answer is waited for.
    pub(super) async fn broadcast(&self, mut request: Publish) -> Result<BroadcastResult, Fault> {
        if request.channels.is_empty() {
            return Err(Fault::bad_request());
        }
        let draft = request.draft(publication_max(&self.config))?;
        let mut posted = Vec::with_capacity(request.channels.len());
        for channel in &request.channels {
            posted.push(self.post(channel, &draft).await);
        }
        let mut responses = Vec::with_capacity(posted.len());
        for pending in posted {
            responses.push(settle(pending).await.into());
        }
        Ok(BroadcastResult { responses })
    }

    async fn post(&self, channel: &Arc<str>, draft: &Draft) -> Result<Pending, Fault> {
        let options = self.options(channel)?;
        let event = checked(options.format, &draft.data, draft.is_json)?;
        let request = |asker, hash| Request {
            channel: channel.clone(),
            hash,
            data: draft.data.clone(),
            event,
            delta: draft.delta || options.delta_publish,
            extra: draft.extra.clone(),
            skip_history: draft.skip_history,
            guard: draft.guard.clone(),
            asker,
        };
        Ok(self.link.publish(channel, request).await?)
    }
}

async fn settle(pending: Result<Pending, Fault>) -> Result<PublishResult, Fault> {
    Ok(pending?.published().await?.into())
}
