//! The shutdown: the node says that it is not ready, the feeds stop, the clients are closed, the
//! hook events are delivered, and the snapshot is written.
//!
//! Owns the order of the steps. The invariants: until `shutdown.delay` is over, the node serves as
//! before; all later steps together take at most `shutdown.timeout`; the listeners accept until the
//! last step.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::base::current::Current;
use crate::base::notify;
use crate::base::vitals::{LifeStage, Vitals};
use crate::config::Config;
use crate::control::backend::hooks::Hooks;
use crate::control::snapshot::SnapshotPlan;
use crate::feeds::start::Feeds;
use crate::link::Link;
use crate::model::message::Message;

/// Pause between two checks whether the connections are closed.
const CHECK_PAUSE: Duration = Duration::from_millis(50);
/// Maximum time for the answers to the last newcomers.
const LAST_REFUSALS: Duration = Duration::from_secs(1);

/// What the shutdown deals with.
pub struct Node<'a> {
    /// The configuration in force.
    pub config: &'a Current<Config>,
    /// The shards.
    pub link: &'a Link,
    /// The life of the node.
    pub vitals: &'a Vitals,
    /// The hooks.
    pub hooks: &'a Hooks,
    /// Where the snapshot is written.
    pub snapshot: &'a SnapshotPlan,
}

impl Node<'_> {
    /// Closes the node: returns when every connection of the shards is closed, or
    /// `shutdown.timeout` is over.
    pub async fn drain(&self, feeds: Feeds) {
        self.wait_for_balancers().await;
        let config = self.config.get();
        let shutdown = &config.shutdown;
        let end = Instant::now() + shutdown.timeout.0;
        let served = end.checked_sub(self.snapshot.time(&config)).unwrap_or(end);
        feeds.stop().await;
        self.close_clients(shutdown.spread.millis(), served).await;
        notify::status("Delivering hook events");
        let undelivered = self.hooks.wait_until_delivered(self.link, served).await;
        if undelivered > 0 {
            let cause = format!("{undelivered} hook events were not delivered before the timeout");
            let cure = match self.hooks.has_log() {
                true => "the next start delivers those that are in store.path",
                false => "raise shutdown.timeout",
            };
            tracing::warn!(target: "hooks", "{cause}; {cure}");
        }
        notify::status("Writing the snapshot");
        self.snapshot.write(self.link, &config.store, end).await;
        self.stop_shards(end).await;
        self.hooks.finish().await;
    }

    /// Serves for `shutdown.delay`, so that load balancers see that the node is not ready.
    async fn wait_for_balancers(&self) {
        self.vitals.enter(LifeStage::Unready);
        let delay = self.config.get().shutdown.delay.0;
        if !delay.is_zero() {
            let text = format!("not ready; the clients are closed in {} s", delay.as_secs_f64());
            tracing::info!(target: "control", "{text}");
            notify::status(text);
            sleep(delay).await;
        }
    }

    /// Tells every shard to refuse newcomers and to close its connections. Waits until they are
    /// closed, or until `end`.
    async fn close_clients(&self, spread: u64, end: Instant) {
        self.vitals.enter(LifeStage::Draining);
        let left = self.vitals.established();
        notify::status(format_args!("Closing {left} connections"));
        self.tell_shards(|| Message::Drain(spread), end).await;
        while self.vitals.established() > 0 && Instant::now() < end {
            sleep(CHECK_PAUSE).await;
        }
    }

    /// Tells every shard to stop accepting. Waits until the last newcomers have their answers.
    async fn stop_shards(&self, end: Instant) {
        self.vitals.enter(LifeStage::Stopping);
        self.tell_shards(|| Message::Stop, end).await;
        let end = end.min(Instant::now() + LAST_REFUSALS);
        while self.link.sum(|metrics| metrics.sockets.get()) > 0 && Instant::now() < end {
            sleep(CHECK_PAUSE).await;
        }
    }

    /// Sends a message to every shard, or gives up at `end`.
    async fn tell_shards(&self, message: impl Fn() -> Message, end: Instant) {
        for shard in self.link.shards() {
            while self.link.send(shard, message()).await.is_err() {
                if Instant::now() >= end {
                    return;
                }
            }
        }
    }
}
