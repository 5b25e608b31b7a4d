//! One feed: what its messages need on their way to the node, and its log lines.
//!
//! Owns the parts that all sessions of a feed share. Never connects to a broker. The invariant: a
//! log line names the feed and shows no credentials.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tracing::Level;

use super::counters::Counters;
use super::decode::{Commands, Decoder, Work};
use super::message::{Refusal, Retry};
use crate::base::backoff::Backoff;
use crate::base::current::Current;
use crate::link::publishing::{self, Draft};
use crate::link::{Link, Wake};
use crate::model::namespaces::Namespaces;
use crate::wire::protocol::Error;

/// Pauses while the node is overloaded, as in Centrifugo.
const OVERLOAD: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

/// The node, as feeds use it.
#[derive(Clone)]
pub struct Destination {
    /// The way to the homes of the channels.
    pub link: Arc<Link>,
    /// What a reload can change.
    pub options: Arc<Current<DestinationOptions>>,
}

/// The part of a node that a reload can change, as feeds use it.
pub struct DestinationOptions {
    /// Options of the channels.
    pub namespaces: Arc<Namespaces>,
    /// Maximum size of a publication in bytes.
    pub publication_max: usize,
    /// API commands.
    pub commands: Arc<dyn Commands>,
}

/// Options that all kinds of feeds have.
#[derive(Clone, Debug)]
pub struct FeedOptions {
    /// How messages are read.
    pub decoder: Decoder,
    /// Number of attempts to publish a message that the node refuses.
    pub attempts: u16,
    /// Time between two of these attempts.
    pub delay: Duration,
}

/// Name and counters of a feed.
#[derive(Debug)]
pub struct FeedState {
    /// Name of the consumer.
    pub name: String,
    /// Its type.
    pub kind: &'static str,
    /// Its counters.
    pub counters: Counters,
}

/// A feed that publishes.
pub struct Feed {
    /// Name and counters.
    pub state: Arc<FeedState>,
    /// Options.
    pub options: FeedOptions,
    /// Where messages go.
    pub destination: Destination,
}

impl FeedState {
    /// The state of a feed before its first connection.
    pub fn new(name: &str, kind: &'static str) -> Self {
        FeedState { name: name.to_owned(), kind, counters: Counters::default() }
    }

    /// Logs what happened to the feed.
    pub fn log(&self, level: Level, what: impl Display) {
        let FeedState { name, kind, .. } = self;
        match level {
            Level::ERROR => tracing::error!(target: "feeds", "consumer {name:?} ({kind}): {what}"),
            Level::WARN => tracing::warn!(target: "feeds", "consumer {name:?} ({kind}): {what}"),
            _ => tracing::info!(target: "feeds", "consumer {name:?} ({kind}): {what}"),
        }
    }

    /// Logs what happened to a message. Such lines are a kind of their own, so that many of them
    /// suppress no other line of the feed.
    pub fn log_message(&self, what: impl Display) {
        let FeedState { name, kind, .. } = self;
        tracing::warn!(target: "feeds", "consumer {name:?} ({kind}): {what}");
    }
}

impl Feed {
    /// Publishes or runs what a message asks for. The caller must wake the shards of publications
    /// ([`Link::wake_batch`]) before it waits. Repeats it for as long as the node is overloaded,
    /// so the broker gets no acknowledgement and sends at most `prefetch` messages meanwhile.
    ///
    /// # Errors
    /// The node refuses it for another reason.
    pub async fn carry_out(&self, work: &Work) -> Result<(), Refusal> {
        match work {
            Work::Publish { channels, draft } => self.publish(channels, draft).await,
            Work::Command { method, request } => {
                let mut overload = Overload::default();
                loop {
                    let commands = self.destination.options.get().commands.clone();
                    match commands.run(method, request).await {
                        Err(refusal) if refusal.retry == Retry::Always => {
                            overload.wait(&self.state, &refusal.cause).await;
                        }
                        result => return result,
                    }
                }
            }
        }
    }

    async fn publish(&self, channels: &[Arc<str>], draft: &Draft) -> Result<(), Refusal> {
        let max = self.destination.options.get().publication_max;
        if draft.data.len() > max {
            let size = draft.data.len();
            return Err(Refusal::unreadable(format!(
                "its {size} bytes are more than client.queue_max_size ({max}), so no client could \
                 receive it"
            )));
        }
        // All channels get the publication at once, unless there is one.
        let mut refused = None;
        match channels {
            [channel] => refused = self.publish_to(channel, draft).await.err(),
            _ => {
                let all = channels.iter().map(|channel| self.publish_to(channel, draft));
                for result in futures_util::future::join_all(all).await {
                    refused = refused.or(result.err());
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    async fn publish_to(&self, channel: &Arc<str>, draft: &Draft) -> Result<(), Refusal> {
        let mut overload = Overload::default();
        loop {
            match self.attempt(channel, draft).await {
                Ok(()) => {
                    self.state.counters.published.add(1);
                    return Ok(());
                }
                Err(refused) if refused.temporary => {
                    overload.wait(&self.state, "the node is overloaded (error 100)").await;
                }
                Err(Error { code, message, .. }) => {
                    let cause = format!("channel {channel:?}: error {code} ({message})");
                    return Err(Refusal::of_code(code, cause));
                }
            }
        }
    }

    async fn attempt(&self, channel: &Arc<str>, draft: &Draft) -> Result<(), Error> {
        let Destination { link, options } = &self.destination;
        let namespaces = options.get().namespaces.clone();
        let options = namespaces.of(channel)?;
        let pending = publishing::post(link, channel, options, draft, Wake::WithBatch).await;
        publishing::settle(pending).await.map(drop)
    }
}

/// Pauses of one message while the node is overloaded.
struct Overload {
    backoff: Backoff,
    attempts: u32,
}

impl Default for Overload {
    fn default() -> Self {
        Overload { backoff: OVERLOAD, attempts: 0 }
    }
}

impl Overload {
    /// Attempts after which a message is worth a log line.
    const SILENT: u32 = 5;

    async fn wait(&mut self, state: &FeedState, cause: &str) {
        state.counters.retried.add(1);
        self.attempts += 1;
        if self.attempts == Self::SILENT {
            state.log_message(format_args!(
                "a message waits, and the broker gets no acknowledgement: {cause}; if this lasts, \
                 raise engine.backlog or spread the load"
            ));
        }
        tokio::time::sleep(self.backoff.pause()).await;
    }
}
