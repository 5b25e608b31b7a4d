//! The life of a feed: connects, handles messages, and reconnects with growing pauses.
//!
//! Owns the pauses. Never knows a broker. The invariant: between two connects there is always a
//! pause, and each end of a session is logged with cause and cure and counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::feed::Feed;
use super::message::Fault;
use super::pump::{End, pump};
use super::session::{Session, Source};
use crate::base::log::Level;

/// Pauses between two connects.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
/// Pauses while configuration and broker contradict each other.
const MISCONFIGURED: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(30));
/// A session of this length counts as success: the next pause is short.
const STABLE: Duration = Duration::from_secs(10);

/// Runs a feed until `stop` changes. `first` is the result of the first connect.
pub async fn run<S: Source>(
    feed: Arc<Feed>,
    source: S,
    first: Result<S::Session, Fault>,
    mut stop: watch::Receiver<()>,
) {
    let counters = &feed.state.counters;
    let mut backoff = RECONNECT;
    let mut opened = first;
    loop {
        let fault = match opened {
            Ok(mut session) => {
                counters.up.set(1);
                feed.state.log(Level::Info, "receives messages");
                let began = Instant::now();
                let end = pump(&feed, &mut session, &mut stop).await;
                counters.up.set(0);
                match end {
                    End::Stopped => return session.close().await,
                    End::Lost { fault, has_settled } => {
                        tokio::spawn(session.close());
                        if has_settled || began.elapsed() >= STABLE {
                            backoff.reset();
                        }
                        fault
                    }
                }
            }
            Err(fault) => fault,
        };
        counters.errors.add(1);
        let pause =
            if fault.is_misconfigured { MISCONFIGURED.clone().pause() } else { backoff.pause() };
        let millis = pause.as_millis();
        feed.state.log(Level::Warn, format_args!("{fault} (connecting again in {millis} ms)"));
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.changed() => return,
        }
        counters.reconnects.add(1);
        opened = tokio::select! {
            opened = source.open() => opened,
            _ = stop.changed() => return,
        };
    }
}
