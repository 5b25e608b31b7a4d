//! What is in channels: who is there, what was published, and which there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::node::Api;
use super::reading::object;
use super::reply::{ApiError, EmptyResult};
use crate::model::message::{ChannelAnswer, ChannelQuery, HistoryRange};
use crate::model::publication::{Encoding, Publication};
use crate::wire::protocol::{Epoch, Error, Position, Wire, json};

macro_rules! only_a_channel {
    ($(#[doc = $doc:literal] $name:ident;)*) => {
        $(#[doc = $doc]
        #[derive(Debug, Deserialize, JsonSchema)]
        pub(super) struct $name {
            /// The channel.
            #[schemars(required, length(min = 1))]
            channel: Option<Arc<str>>,
        })*
    };
}

only_a_channel! {
    /// Asks who is there.
    Presence;
    /// Asks how many are there.
    PresenceStats;
    /// Forgets what was published.
    HistoryRemove;
}

/// Asks for a part of what was published.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct History {
    /// The channel.
    #[schemars(required, length(min = 1))]
    channel: Option<Arc<str>>,
    /// Publications at most: none without it, all if it is negative.
    limit: Option<i32>,
    /// From behind this position on, or in front of it.
    #[serde(default, deserialize_with = "object")]
    since: Option<HistoryPosition>,
    /// Newest first.
    reverse: Option<bool>,
}

/// A position in a channel's stream.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "StreamPosition")]
pub(super) struct HistoryPosition {
    /// Offset of a publication; 0: in front of the first.
    offset: Option<u64>,
    /// Which life of the stream; empty: whichever there is.
    epoch: Option<String>,
}

/// Who is in a channel.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PresenceResult {
    /// By the id of the client.
    presence: BTreeMap<Box<str>, ClientInfo>,
}

/// A client, as others see it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ClientInfo {
    /// Its user; empty: nobody in particular.
    user: Box<str>,
    /// Its id.
    client: Box<str>,
    /// What its connection's token says about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<Box<RawValue>>,
    /// What its subscription says about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<Box<RawValue>>,
}

/// How many are in a channel.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PresenceStatsResult {
    /// Clients.
    num_clients: u32,
    /// Different users among them.
    num_users: u32,
}

/// A part of what was published, and where the channel stands.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct HistoryResult {
    /// In the order that was asked for.
    publications: Vec<PastPublication>,
    /// Which life of the stream.
    epoch: String,
    /// Offset of the newest publication; 0: there was none yet.
    offset: u64,
}

/// Something that was published.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Publication")]
struct PastPublication {
    /// What.
    data: Box<RawValue>,
    /// By which client, if by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<ClientInfo>,
    /// Its place in the stream.
    offset: u64,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<Box<str>, Box<str>>,
}

impl HistoryPosition {
    pub(super) fn position(&self) -> Position {
        let epoch = self.epoch.as_deref().unwrap_or_default();
        Position { offset: self.offset.unwrap_or_default(), epoch: Epoch::parse(epoch) }
    }
}

impl Api {
    async fn ask(
        &self,
        channel: &Arc<str>,
        about: ChannelQuery,
    ) -> Result<ChannelAnswer, ApiError> {
        Ok(self.link.ask_home(channel, about).await?.channel_answer().await??)
    }

    /// Asks about who is in a channel, if it is known.
    async fn ask_presence(
        &self,
        channel: Option<Arc<str>>,
        about: ChannelQuery,
    ) -> Result<ChannelAnswer, ApiError> {
        let channel = channel.unwrap_or_default();
        if !self.options(&channel)?.presence {
            return Err(Error::NOT_AVAILABLE.into());
        }
        self.ask(&channel, about).await
    }

    pub(super) async fn presence(&self, request: Presence) -> Result<PresenceResult, ApiError> {
        let about = ChannelQuery::Presence(Wire::Json);
        let ChannelAnswer::Presence(roll) = self.ask_presence(request.channel, about).await? else {
            return Err(Error::INTERNAL.into());
        };
        let mut text = Vec::new();
        json::write_presence(&roll, &mut text);
        serde_json::from_slice(&text).map_err(|_| Error::INTERNAL.into())
    }

    pub(super) async fn presence_stats(
        &self,
        request: PresenceStats,
    ) -> Result<PresenceStatsResult, ApiError> {
        let ChannelAnswer::Stats(stats) =
            self.ask_presence(request.channel, ChannelQuery::Stats).await?
        else {
            return Err(Error::INTERNAL.into());
        };
        Ok(PresenceStatsResult { num_clients: stats.clients, num_users: stats.users })
    }

    pub(super) async fn history(&self, request: History) -> Result<HistoryResult, ApiError> {
        let History { channel, limit, since, reverse } = request;
        let channel = channel.unwrap_or_default();
        if self.options(&channel)?.retention.is_none() {
            return Err(Error::NOT_AVAILABLE.into());
        }
        let reverse = reverse.unwrap_or_default();
        let since = since.as_ref().map(HistoryPosition::position);
        if reverse && since.is_some_and(|since| since.offset == 0) {
            return Err(ApiError::bad_request());
        }
        // A negative limit: all there is.
        let limit = usize::try_from(limit.unwrap_or_default()).unwrap_or(usize::MAX);
        let excerpt = HistoryRange { limit, since, reverse };
        let ChannelAnswer::History(publications, position) =
            self.ask(&channel, ChannelQuery::History(excerpt)).await?
        else {
            return Err(Error::INTERNAL.into());
        };
        let past = |publication: &Publication| {
            let object = publication.object(Encoding::default()).ok_or(Error::NOT_AVAILABLE)?;
            serde_json::from_slice(&object).map_err(|_| Error::INTERNAL.into())
        };
        let publications = publications.iter().map(past).collect::<Result<_, ApiError>>()?;
        let epoch = position.epoch.as_str().to_owned();
        Ok(HistoryResult { publications, epoch, offset: position.offset })
    }

    pub(super) async fn history_remove(
        &self,
        request: HistoryRemove,
    ) -> Result<EmptyResult, ApiError> {
        let channel = request.channel.unwrap_or_default();
        if self.options(&channel)?.retention.is_none() {
            return Err(Error::NOT_AVAILABLE.into());
        }
        self.ask(&channel, ChannelQuery::RemoveHistory).await?;
        Ok(EmptyResult {})
    }
}

/// Asks for channels by name.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Channels {
    /// Those target names match this glob, in which `*` stands for any run of characters; all
    /// without it.
    pattern: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ChannelsResult {
    /// By name.
    channels: BTreeMap<Arc<str>, ChannelInfo>,
}

/// A channel.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ChannelInfo {
    /// Its subscribers.
    num_clients: u32,
}

impl Api {
    pub(super) async fn channels(&self, request: Channels) -> Result<ChannelsResult, ApiError> {
        let pattern = request.pattern.filter(|pattern| !pattern.is_empty());
        let mut asked = Vec::new();
        for shard in self.link.shards() {
            asked.push(self.link.survey_shard(shard, pattern.clone()).await?);
        }
        let mut channels: BTreeMap<Arc<str>, ChannelInfo> = BTreeMap::new();
        for pending in asked {
            // A channel that went and came again meanwhile may be told twice.
            let told: BTreeMap<_, _> = pending.surveyed().await?.channels.into_iter().collect();
            for (channel, subscribers) in told {
                channels.entry(channel).or_default().num_clients += subscribers;
            }
        }
        Ok(ChannelsResult { channels })
    }
}
