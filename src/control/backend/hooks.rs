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

use crate::base::metrics::MetricKind;
use crate::config::Config;
use crate::control::backend::targets::Backend;
use crate::control::metrics::Metric;
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
const CHECK_PAUSE: Duration = Duration::from_millis(20);

/// Tells the backend.
pub struct Hooks {
    lanes: Vec<mpsc::UnboundedSender<WaitingEvent>>,
    delivery: Arc<Delivery>,
}

struct WaitingEvent {
    request: ProxyRequest,
    since: Instant,
}

struct Delivery {
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
        let delivery = Arc::new(Delivery {
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
            tokio::spawn(delivery.clone().serve(receiver));
            sender
        };
        Hooks { lanes: (0..LANES).map(lane).collect(), delivery }
    }

    /// Tells the backend as soon as its lane is free.
    pub fn enqueue(&self, event: HookEvent) {
        let delivery = &self.delivery;
        // Only the dispatcher adds, so that the bound holds.
        if delivery.waiting.load(Ordering::Acquire) >= delivery.waiting_max {
            delivery.dropped.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let lane = event.address.slot as usize * 7 + usize::from(event.address.shard);
        delivery.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = WaitingEvent { request: event.request, since: Instant::now() };
        // A lane ends with the runtime alone.
        let _ = self.lanes[lane % LANES].send(waiting);
    }

    /// Waits until everything that the shards had to enqueue has been told or dropped, or until
    /// `end`; returns how much was left.
    pub async fn wait_until_delivered(&self, link: &Link, end: Instant) -> u64 {
        loop {
            let told = self.delivery.delivered.load(Ordering::Acquire)
                + self.delivery.dropped.load(Ordering::Acquire)
                + link.sum(|metrics| metrics.hook_events_dropped.get());
            let left = link.sum(|metrics| metrics.hook_events.get()).saturating_sub(told);
            if left == 0 || Instant::now() >= end {
                return left;
            }
            sleep(CHECK_PAUSE).await;
        }
    }

    /// How it goes.
    pub fn metrics(&self) -> Vec<Metric> {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let total = |name, meaning, count| Metric {
            name,
            meaning,
            kind: MetricKind::Total,
            value: number(count),
        };
        let delivery = &self.delivery;
        vec![
            total("hooks_delivered", "Ends that the backend was told of.", &delivery.delivered),
            total("hooks_retried", "Attempts that failed and were repeated.", &delivery.retried),
            total("hooks_dropped", "Ends dropped: too many, or too old.", &delivery.dropped),
            Metric {
                name: "hooks_waiting",
                meaning: "Ends that the backend is still to be told of.",
                kind: MetricKind::Gauge,
                value: number(&delivery.waiting),
            },
        ]
    }
}

impl Delivery {
    async fn serve(self: Arc<Self>, mut lane: mpsc::UnboundedReceiver<WaitingEvent>) {
        while let Some(waiting) = lane.recv().await {
            let count = if self.deliver(&waiting).await { &self.delivered } else { &self.dropped };
            count.fetch_add(1, Ordering::AcqRel);
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Tries until the backend has taken it, or it is too old; returns whether it was taken.
    async fn deliver(&self, waiting: &WaitingEvent) -> bool {
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
