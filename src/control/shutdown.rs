//! The shutdown: the feeds stop, the clients are closed, and the hook events are delivered.
//!
//! Owns the order of the steps. The invariant: all steps together take at most
//! `shutdown.timeout`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::control::backend::hooks::Hooks;
use crate::feeds::start::Feeds;
use crate::link::Link;
use crate::model::message::Message;

/// Pause between two checks whether all sockets are closed.
const CHECK_PAUSE: Duration = Duration::from_millis(50);

/// Closes the node: returns when every connection of the shards is closed, or `shutdown.timeout` is
/// over.
pub async fn drain(config: &Config, link: &Link, feeds: Feeds, hooks: &Hooks) {
    let end = Instant::now() + config.shutdown.timeout.0;
    feeds.stop().await;
    close_clients(config, link, end).await;
    let undelivered = hooks.wait_until_delivered(link, end).await;
    if undelivered > 0 {
        let cause = format_args!("{undelivered} hook events were not delivered before the timeout");
        tracing::warn!(target: "hooks", "{cause}; raise shutdown.timeout");
    }
}

/// Tells every shard to close its connections. Waits until they are closed, or until `end`.
async fn close_clients(config: &Config, link: &Link, end: Instant) {
    for shard in link.shards() {
        let mut message = Message::Drain(config.shutdown.spread.millis());
        while let Err(refused) = link.send(shard, message).await {
            message = refused;
            if Instant::now() >= end {
                return;
            }
        }
    }
    while link.sum(|metrics| metrics.sockets.get()) > 0 && Instant::now() < end {
        sleep(CHECK_PAUSE).await;
    }
}
