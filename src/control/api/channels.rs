//! What is in channels: who is there, what was published, and which there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Api, Empty, Fault};
use crate::message::{About, Excerpt, Told};
use crate::protocol::reply::History;
use crate::protocol::{Epoch, Error, Position, json};
use crate::publication::Encoding;

/// A request that only names a channel.
#[derive(Debug, Deserialize)]
pub(super) struct Channel {
    #[serde(default)]
    channel: Arc<str>,
}

/// A part of what was published in a channel.
#[derive(Debug, Deserialize)]
pub(super) struct HistoryRequest {
    #[serde(default)]
    channel: Arc<str>,
    #[serde(default)]
    limit: i32,
    #[serde(default)]
    since: Option<Since>,
    #[serde(default)]
    reverse: bool,
}

/// A position as backends name it.
#[derive(Debug, Deserialize)]
pub(super) struct Since {
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    epoch: String,
}

impl Since {
    pub(super) fn position(&self) -> Position {
        Position { offset: self.offset, epoch: Epoch::parse(&self.epoch) }
    }
}

/// What was written as JSON, to be embedded.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> Result<Box<RawValue>, Fault> {
    let mut text = Vec::new();
    write(&mut text);
    serde_json::from_slice(&text).map_err(|_| Error::INTERNAL.into())
}

impl Api {
    async fn ask(&self, channel: &Arc<str>, about: About) -> Result<Told, Fault> {
        Ok(self.link.question(channel, about).await?.told().await??)
    }

    /// Asks about who is in a channel, if it is known.
    async fn ask_presence(&self, channel: &Arc<str>, about: About) -> Result<Told, Fault> {
        if !self.options(channel)?.presence {
            return Err(Error::NOT_AVAILABLE.into());
        }
        self.ask(channel, about).await
    }

    pub(super) async fn presence(&self, request: Channel) -> Result<Box<RawValue>, Fault> {
        match self.ask_presence(&request.channel, About::Presence).await? {
            Told::Presence(members) => written(|out| json::write_presence(&members, out)),
            _ => Err(Error::INTERNAL.into()),
        }
    }

    pub(super) async fn presence_stats(&self, request: Channel) -> Result<Box<RawValue>, Fault> {
        match self.ask_presence(&request.channel, About::Stats).await? {
            Told::Stats(stats) => written(|out| json::write_stats(stats, out)),
            _ => Err(Error::INTERNAL.into()),
        }
    }

    pub(super) async fn history(&self, request: HistoryRequest) -> Result<Box<RawValue>, Fault> {
        let HistoryRequest { channel, limit, since, reverse } = request;
        if self.options(&channel)?.retention.is_none() {
            return Err(Error::NOT_AVAILABLE.into());
        }
        let since = since.as_ref().map(Since::position);
        if reverse && since.is_some_and(|since| since.offset == 0) {
            return Err(Fault::bad_request());
        }
        // A negative limit: all there is.
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let excerpt = Excerpt { limit, since, reverse };
        let Told::History(publications, position) =
            self.ask(&channel, About::History(excerpt)).await?
        else {
            return Err(Error::INTERNAL.into());
        };
        let objects =
            publications.iter().map(|publication| publication.object(Encoding::default()));
        let publications = objects.collect::<Option<_>>().ok_or(Error::NOT_AVAILABLE)?;
        written(|out| json::write_history(&History { publications, position }, out))
    }

    pub(super) async fn history_remove(&self, request: Channel) -> Result<Empty, Fault> {
        if self.options(&request.channel)?.retention.is_none() {
            return Err(Error::NOT_AVAILABLE.into());
        }
        self.ask(&request.channel, About::Oblivion).await?;
        Ok(Empty {})
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Channels {
    #[serde(default)]
    pattern: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ChannelsResult {
    channels: BTreeMap<Arc<str>, ChannelInfo>,
}

#[derive(Debug, Default, Serialize)]
struct ChannelInfo {
    num_clients: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Info {}

#[derive(Debug, Serialize)]
pub(super) struct InfoResult {
    nodes: [NodeInfo; 1],
}

#[derive(Debug, Serialize)]
struct NodeInfo {
    uid: String,
    name: String,
    version: &'static str,
    num_clients: u64,
    num_users: u64,
    num_channels: u64,
    num_subs: u64,
    uptime: u64,
}

impl Api {
    pub(super) async fn channels(&self, request: Channels) -> Result<ChannelsResult, Fault> {
        let pattern = Some(request.pattern).filter(|pattern| !pattern.is_empty());
        let mut asked = Vec::new();
        for shard in self.link.shards() {
            asked.push(self.link.survey(shard, pattern.clone()).await?);
        }
        let mut channels: BTreeMap<Arc<str>, ChannelInfo> = BTreeMap::new();
        for pending in asked {
            for (channel, subscribers) in pending.surveyed().await?.channels {
                channels.entry(channel).or_default().num_clients += subscribers;
            }
        }
        Ok(ChannelsResult { channels })
    }

    pub(super) fn info(&self, _: Info) -> Result<InfoResult, Fault> {
        let node = NodeInfo {
            uid: self.uid.clone(),
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            num_clients: self.link.sum(|metrics| metrics.clients.get()),
            num_users: self.link.sum(|metrics| metrics.users.get()),
            num_channels: self.link.sum(|metrics| metrics.channels.get()),
            num_subs: self.link.sum(|metrics| metrics.subscriptions.get()),
            uptime: self.started.elapsed().as_secs(),
        };
        Ok(InfoResult { nodes: [node] })
    }
}
