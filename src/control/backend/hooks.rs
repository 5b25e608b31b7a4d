//! Hooks: delivers disconnect and unsubscribe events to the backend at least once, in order per
//! client.
//!
//! Owns the queue of events, in lanes. Never delays a shard. The invariants: all events of a client
//! go through one lane in order. `engine.hooks_max` bounds the waiting events, and dropped events
//! are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::base::backoff::Backoff;
use crate::base::current::Current;
use crate::base::metrics::MetricKind;
use crate::config::Config;
use crate::control::backend::targets::Backend;
use crate::control::metrics::Metric;
use crate::link::Link;
use crate::model::backend::ProxyRequest;
use crate::model::message::HookEvent;

/// Number of lanes, which is the maximum number of requests in progress. An event that the backend
/// does not accept delays only the events of its own lane.
const LANES: usize = 64;
/// Pauses between two attempts.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// Pause between two checks whether all events are delivered.
const CHECK_PAUSE: Duration = Duration::from_millis(20);

/// Delivers hook events to the backend.
pub struct Hooks {
    lanes: Vec<mpsc::UnboundedSender<WaitingEvent>>,
    delivery: Arc<Delivery>,
}

struct WaitingEvent {
    request: ProxyRequest,
    since: Instant,
}

struct Delivery {
    backend: Arc<Current<Backend>>,
    waiting_max: u64,
    lifetime: Duration,
    counters: HookCounters,
}

/// Counts of hook events.
#[derive(Debug, Default)]
pub struct HookCounters {
    waiting: AtomicU64,
    delivered: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
}

impl HookCounters {
    /// The metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let total = |name, help, count| Metric {
            name,
            help,
            kind: MetricKind::Total,
            value: number(count),
        };
        vec![
            total("hooks_delivered", "Hook events delivered to the backend.", &self.delivered),
            total(
                "hooks_retried",
                "Failed attempts to deliver a hook event that were repeated.",
                &self.retried,
            ),
            total(
                "hooks_dropped",
                "Hook events dropped because too many waited or they were too old.",
                &self.dropped,
            ),
            Metric {
                name: "hooks_waiting",
                help: "Hook events that wait for delivery.",
                kind: MetricKind::Gauge,
                value: number(&self.waiting),
            },
        ]
    }
}

impl Hooks {
    /// Starts a task for each lane. Call it in the context of the runtime.
    pub fn start(config: &Config, backend: Arc<Current<Backend>>) -> Self {
        let delivery = Arc::new(Delivery {
            backend,
            waiting_max: config.engine.hooks_max as u64,
            lifetime: config.engine.hook_ttl.0,
            counters: HookCounters::default(),
        });
        let lane = |_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(delivery.clone().serve(receiver));
            sender
        };
        Hooks { lanes: (0..LANES).map(lane).collect(), delivery }
    }

    /// Queues an event in its lane, or drops it if too many events wait.
    pub fn enqueue(&self, event: HookEvent) {
        let delivery = &self.delivery;
        // Only the dispatcher adds events, so the bound holds.
        if delivery.counters.waiting.load(Ordering::Acquire) >= delivery.waiting_max {
            delivery.counters.dropped.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let lane = event.address.slot as usize * 7 + usize::from(event.address.shard);
        delivery.counters.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = WaitingEvent { request: event.request, since: Instant::now() };
        // A lane ends only with the runtime.
        let _ = self.lanes[lane % LANES].send(waiting);
    }

    /// Waits until all events of the shards are delivered or dropped, or until `end`. Returns the
    /// number of events that are left.
    pub async fn wait_until_delivered(&self, link: &Link, end: Instant) -> u64 {
        loop {
            let done = self.delivery.counters.delivered.load(Ordering::Acquire)
                + self.delivery.counters.dropped.load(Ordering::Acquire)
                + link.sum(|metrics| metrics.hook_events_dropped.get());
            let left = link.sum(|metrics| metrics.hook_events.get()).saturating_sub(done);
            if left == 0 || Instant::now() >= end {
                return left;
            }
            sleep(CHECK_PAUSE).await;
        }
    }

    /// Metrics of the hooks.
    pub fn metrics(&self) -> Vec<Metric> {
        self.delivery.counters.metrics()
    }
}

impl Delivery {
    async fn serve(self: Arc<Self>, mut lane: mpsc::UnboundedReceiver<WaitingEvent>) {
        while let Some(waiting) = lane.recv().await {
            let count = if self.deliver(&waiting).await {
                &self.counters.delivered
            } else {
                &self.counters.dropped
            };
            count.fetch_add(1, Ordering::AcqRel);
            self.counters.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Repeats the request until the backend accepts it or the event is too old. Returns whether
    /// the backend accepted it.
    async fn deliver(&self, waiting: &WaitingEvent) -> bool {
        let end = waiting.since + self.lifetime;
        let mut pauses = PAUSES;
        while self.backend.get().post(&waiting.request).await.is_err() {
            let again = Instant::now() + pauses.pause();
            if again > end {
                return false;
            }
            self.counters.retried.fetch_add(1, Ordering::Relaxed);
            sleep_until(again).await;
        }
        true
    }
}
