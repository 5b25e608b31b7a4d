//! Starts and stops the feeds of a node.
//!
//! Owns the tasks of the feeds. The invariants: a consumer whose configuration contradicts its
//! broker ends the start; a broker that cannot be reached does not. A stopped feed finishes the
//! messages that are on their way to the node.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::feed::{Destination, Feed, FeedOptions, FeedState};
use super::message::Fault;
use super::runner::run;
use super::session::Source;
use crate::base::failure::Failure;
use crate::config::{Config, Consumer};

/// Starts a feed that is prepared.
type Start = Box<dyn FnOnce(Destination, watch::Receiver<()>) -> JoinHandle<()> + Send>;

/// A feed after its first connect.
struct PreparedFeed {
    state: Arc<FeedState>,
    start: Start,
}

/// The feeds of a node, before the node runs.
#[derive(Default)]
pub struct PreparedFeeds(Vec<PreparedFeed>);

/// The feeds of a node that runs.
pub struct Feeds {
    states: Vec<Arc<FeedState>>,
    stop: watch::Sender<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl PreparedFeeds {
    /// Connects every consumer that is enabled, all at the same time. It takes at most the longest
    /// `connect_timeout`.
    ///
    /// # Errors
    /// The configuration of a consumer contradicts its broker.
    pub async fn new(config: &Config) -> Result<Self, Failure> {
        let feeds = join_all(config.enabled_consumers().map(prepare)).await;
        Ok(PreparedFeeds(feeds.into_iter().collect::<Result<_, _>>()?))
    }

    /// Starts to publish. Call it in the context of the runtime.
    pub fn start(self, destination: &Destination) -> Feeds {
        let (stop, stopped) = watch::channel(());
        let states = self.0.iter().map(|feed| feed.state.clone()).collect();
        let start = |feed: PreparedFeed| (feed.start)(destination.clone(), stopped.clone());
        Feeds { states, stop, tasks: self.0.into_iter().map(start).collect() }
    }
}

impl Feeds {
    /// Names and counters of the feeds.
    pub fn states(&self) -> Vec<Arc<FeedState>> {
        self.states.clone()
    }

    /// Stops every feed and waits until it has ended.
    pub async fn stop(self) {
        drop(self.stop);
        join_all(self.tasks).await;
    }
}

/// The feed of a consumer, connected. Each kind has one arm.
async fn prepare(consumer: &Consumer) -> Result<PreparedFeed, Failure> {
    match consumer.r#type.as_str() {
        #[cfg(feature = "rabbitmq")]
        "rabbitmq" => {
            let state = Arc::new(FeedState::new(&consumer.name, "rabbitmq"));
            let source = super::rabbitmq::source(&state, &consumer.rabbitmq);
            connect(state, source).await
        }
        // The check of the configuration refuses other types.
        kind => Err(Failure {
            cause: format!("consumer {:?}: type {kind:?} is unknown", consumer.name),
            cure: "set type to \"rabbitmq\"".to_owned(),
        }),
    }
}

/// Connects a feed for the first time.
async fn connect<S: Source>(
    state: Arc<FeedState>,
    source: Result<(S, FeedOptions), Fault>,
) -> Result<PreparedFeed, Failure> {
    let fatal = |fault: Fault| Failure {
        cause: format!("consumer {:?} ({}): {}", state.name, state.kind, fault.cause),
        cure: fault.cure,
    };
    let (source, options) = source.map_err(fatal)?;
    let first = source.open().await;
    if let Err(fault) = &first
        && fault.is_misconfigured
    {
        return Err(fatal(fault.clone()));
    }
    let feed = state.clone();
    let start: Start = Box::new(move |destination, stop| {
        let feed = Arc::new(Feed { state: feed, options, destination });
        tokio::spawn(run(feed, source, first, stop))
    });
    Ok(PreparedFeed { state, start })
}
