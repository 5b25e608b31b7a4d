//! News for the backend: disconnects and unsubscribes, told at least once and in order for each
//! client.
//!
//! Owns the queue of them, in lanes. Never delays a shard. The invariants: what is said of one
//! client goes through one lane, where nothing overtakes; so much waits at most, and what is
//! dropped is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::base::metrics::Kind;
use crate::config::Config;
use crate::control::backend::Backend;
use crate::control::metrics::Sample;
use crate::link::Link;
use crate::model::backend::ProxyRequest;
use crate::model::message::HookEvent;

/// Lanes: as many requests are under way at most, and a client whose news the backend does not
/// take holds up those in its own lane alone.
const LANES: usize = 64;
/// Before the first attempt is repeated; twice as long after each further one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Between two attempts at most.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two looks at whether everything has been told.
const LOOK: Duration = Duration::from_millis(20);

/// Tells the backend.
pub struct Hooks {
    lanes: Vec<mpsc::UnboundedSender<Waiting>>,
    state: Arc<State>,
}

struct Waiting {
    request: ProxyRequest,
    since: Instant,
}

struct State {
    backend: Arc<Backend>,
    waiting_max: u64,
    lifetime: Duration,
    waiting: AtomicU64,
    delivered: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
}

impl Hooks {
    /// Lanes to the backend, each a task of the runtime that this is called in.
    pub fn start(config: &Config, backend: Arc<Backend>) -> Self {
        let state = Arc::new(State {
            backend,
            waiting_max: config.engine.hooks_max as u64,
            lifetime: config.engine.hook_ttl.0,
            waiting: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let lane = |_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(state.clone().serve(receiver));
            sender
        };
        Hooks { lanes: (0..LANES).map(lane).collect(), state }
    }

    /// Tells the backend as soon as its lane is free.
    pub fn tell(&self, notice: HookEvent) {
        let state = &self.state;
        // Only the dispatcher adds, so that the bound holds.
        if state.waiting.load(Ordering::Acquire) >= state.waiting_max {
            state.dropped.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let lane = notice.address.slot as usize * 7 + usize::from(notice.address.shard);
        state.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = Waiting { request: notice.request, since: Instant::now() };
        // A lane ends with the runtime alone.
        let _ = self.lanes[lane % LANES].send(waiting);
    }

    /// Waits until everything that the shards had to tell has been told or dropped, or until
    /// `end`; returns how much was left.
    pub async fn settled(&self, link: &Link, end: Instant) -> u64 {
        loop {
            let told = self.state.delivered.load(Ordering::Acquire)
                + self.state.dropped.load(Ordering::Acquire)
                + link.sum(|metrics| metrics.hook_events_dropped.get());
            let left = link.sum(|metrics| metrics.hook_events.get()).saturating_sub(told);
            if left == 0 || Instant::now() >= end {
                return left;
            }
            sleep(LOOK).await;
        }
    }

    /// How it goes.
    pub fn samples(&self) -> Vec<Sample> {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let total = |name, meaning, count| Sample {
            name,
            meaning,
            kind: Kind::Total,
            value: number(count),
        };
        let state = &self.state;
        vec![
            total("hooks_delivered", "Ends that the backend was told of.", &state.delivered),
            total("hooks_retried", "Attempts that failed and were repeated.", &state.retried),
            total("hooks_dropped", "Ends dropped: too many, or too old.", &state.dropped),
            Sample {
                name: "hooks_waiting",
                meaning: "Ends that the backend is still to be told of.",
                kind: Kind::Gauge,
                value: number(&state.waiting),
            },
        ]
    }
}

impl State {
    async fn serve(self: Arc<Self>, mut lane: mpsc::UnboundedReceiver<Waiting>) {
        while let Some(waiting) = lane.recv().await {
            let count = if self.deliver(&waiting).await { &self.delivered } else { &self.dropped };
            count.fetch_add(1, Ordering::AcqRel);
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Tries until the backend has taken it, or it is too old; returns whether it was taken.
    async fn deliver(&self, waiting: &Waiting) -> bool {
        let end = waiting.since + self.lifetime;
        let mut pause = PAUSE_MIN;
        while self.backend.post(&waiting.request).await.is_err() {
            let again = Instant::now() + pause;
            if again > end {
                return false;
            }
            self.retried.fetch_add(1, Ordering::Relaxed);
            sleep_until(again).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
        true
    }
}
