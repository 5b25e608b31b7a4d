//! The methods about channels: presence, history and the list of channels.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::node::Api;
use super::reading::object;
use super::reply::{ApiError, EmptyResult};
use crate::model::glob::is_glob;
use crate::model::message::{ChannelAnswer, ChannelQuery, HistoryRange, Scope};
use crate::model::publication::{Encoding, Publication};
use crate::wire::protocol::{Epoch, Error, Position, Wire, json};

macro_rules! only_a_channel {
    ($(#[doc = $doc:literal] $name:ident;)*) => {
        $(#[doc = $doc]
        #[derive(Debug, Deserialize, JsonSchema)]
        pub(super) struct $name {
            /// Name of the channel.
            #[schemars(required, length(min = 1))]
            channel: Option<Arc<str>>,
        })*
    };
}

only_a_channel! {
    /// Request for the clients of a channel.
    Presence;
    /// Request for the numbers of clients and users of a channel.
    PresenceStats;
    /// Removes the history of a channel.
    HistoryRemove;
}

/// Request for publications of a channel.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct History {
    /// Name of the channel.
    #[schemars(required, length(min = 1))]
    channel: Option<Arc<str>>,
    /// Maximum number of publications; 0 or absent: none, only the position; negative: all.
    limit: Option<i32>,
    /// Return publications after this position; with `reverse`, before it.
    #[serde(default, deserialize_with = "object")]
    since: Option<HistoryPosition>,
    /// Return the newest publication first.
    reverse: Option<bool>,
}

/// Position in a channel's stream.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "StreamPosition")]
pub(super) struct HistoryPosition {
    /// Offset of a publication; 0: before the first.
    offset: Option<u64>,
    /// Epoch of the stream; empty: the current one.
    epoch: Option<String>,
}

/// Clients of a channel.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PresenceResult {
    /// Clients by client ID.
    presence: BTreeMap<Box<str>, ClientInfo>,
}

/// Information about a client.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ClientInfo {
    /// ID of the user; empty: anonymous.
    user: Box<str>,
    /// ID of the client.
    client: Box<str>,
    /// Information from the connection token or the connect proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<Box<RawValue>>,
    /// Information from the subscription token or the subscribe proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<Box<RawValue>>,
}

/// Numbers of clients and users of a channel.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PresenceStatsResult {
    /// Number of clients.
    num_clients: u32,
    /// Number of distinct users.
    num_users: u32,
}

/// Publications of a channel, and the position of its stream.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct HistoryResult {
    /// Publications, oldest first unless `reverse` is set.
    publications: Vec<PastPublication>,
    /// Epoch of the stream.
    epoch: String,
    /// Offset of the newest publication; 0: the stream has none.
    offset: u64,
}

/// A publication.
// As in Centrifugo, the API leaves out the epoch and the version, which clients get.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(rename = "Publication")]
struct PastPublication {
    /// Payload.
    data: Box<RawValue>,
    /// Client that published it; absent: the HTTP API published it.
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<ClientInfo>,
    /// Offset in the channel's stream.
    offset: u64,
    /// Tags of the publication.
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
        let durable = self.options(channel)?.is_durable();
        Ok(self.link.ask_home((channel, durable), about).await?.channel_answer().await??)
    }

    /// Asks for the presence of a channel, if the channel has presence.
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
        // A negative limit means all publications.
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

/// Request for the channels that have subscribers.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Channels {
    /// Glob that the names must match (`*` matches any characters); empty: all channels.
    pattern: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ChannelsResult {
    /// Channels by name.
    channels: BTreeMap<Arc<str>, ChannelInfo>,
}

/// Information about a channel.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ChannelInfo {
    /// Number of subscribers.
    num_clients: u32,
}

impl Api {
    pub(super) async fn channels(&self, request: Channels) -> Result<ChannelsResult, ApiError> {
        let pattern = request.pattern.filter(|pattern| !pattern.is_empty());
        if pattern.as_deref().is_some_and(|pattern| !is_glob(pattern)) {
            return Err(ApiError::bad_request());
        }
        let mut asked = Vec::new();
        for shard in self.link.shards() {
            let scope = Scope::Matching { pattern: pattern.clone(), most: usize::MAX };
            asked.push(self.link.survey(shard, scope).await?);
        }
        let mut channels: BTreeMap<Arc<str>, ChannelInfo> = BTreeMap::new();
        for pending in asked {
            // A channel that ended and began again during the survey can appear twice.
            let surveyed: BTreeMap<_, _> = pending.surveyed().await?.channels.into_iter().collect();
            for (channel, subscribers) in surveyed {
                channels.entry(channel).or_default().num_clients += subscribers;
            }
        }
        Ok(ChannelsResult { channels })
    }
}
