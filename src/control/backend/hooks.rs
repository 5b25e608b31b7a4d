//! Hooks: delivers disconnect and unsubscribe events to the backend at least once, in order per
//! client.
//!
//! Owns the queue of events, in lanes. With a store, the events are also on disk until they are
//! delivered. Never delays a shard. The invariants: all events of a client
//! go through one lane in order. `engine.hooks_max` bounds the waiting events, and dropped events
//! are counted.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use crate::base::backoff::Backoff;
use crate::base::current::Current;
use crate::base::metrics::MetricKind;
use crate::base::sys;
use crate::config::Config;
use crate::control::backend::hook_log::{Entry, HookLog, RestoredEvent};
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
    /// Number of events that the start has found on disk.
    restored: u64,
}

struct WaitingEvent {
    request: ProxyRequest,
    since: Instant,
    /// The event on disk.
    entry: Option<Entry>,
}

struct Delivery {
    backend: Arc<Current<Backend>>,
    waiting_max: u64,
    lifetime: Duration,
    counters: HookCounters,
    /// `None`: there is no store.
    log: Option<HookLog>,
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
    /// Starts a task for each lane, and queues the events that the start has found on disk. Call it
    /// in the context of the runtime.
    pub fn start(
        config: &Config,
        backend: Arc<Current<Backend>>,
        kept: Option<(HookLog, Vec<RestoredEvent>)>,
    ) -> Self {
        let (log, restored) = kept.unzip();
        let restored = restored.unwrap_or_default();
        let delivery = Arc::new(Delivery {
            backend,
            waiting_max: config.engine.hooks_max as u64,
            lifetime: config.engine.hook_ttl.0,
            counters: HookCounters::default(),
            log,
        });
        let lane = |_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(delivery.clone().serve(receiver));
            sender
        };
        let lanes = (0..LANES).map(lane).collect();
        let hooks = Hooks { lanes, delivery, restored: restored.len() as u64 };
        restored.into_iter().for_each(|event| hooks.restore(event));
        hooks
    }

    /// Queues an event that is on disk already.
    fn restore(&self, event: RestoredEvent) {
        let RestoredEvent { entry, since, request } = event;
        let Some(request) = request else { return self.delivery.end(Some(entry), false) };
        let age = Duration::from_millis(sys::unix_millis().saturating_sub(since));
        let now = Instant::now();
        let since = now.checked_sub(age).unwrap_or(now);
        // All events of a client are in one lane.
        let mut hasher = DefaultHasher::new();
        request.client.hash(&mut hasher);
        self.send(hasher.finish() as usize, WaitingEvent { request, since, entry: Some(entry) });
    }

    fn send(&self, lane: usize, event: WaitingEvent) {
        self.delivery.counters.waiting.fetch_add(1, Ordering::AcqRel);
        // A lane ends only with the runtime.
        let _ = self.lanes[lane % LANES].send(event);
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
        let (request, since) = (event.request, Instant::now());
        let entry = delivery.log.as_ref().and_then(|log| log.add(&request, sys::unix_millis()));
        self.send(lane, WaitingEvent { request, since, entry });
    }

    /// Waits until all events of the shards are delivered or dropped, or until `end`. Returns the
    /// number of events that are left.
    pub async fn wait_until_delivered(&self, link: &Link, end: Instant) -> u64 {
        loop {
            let done = self.delivery.counters.delivered.load(Ordering::Acquire)
                + self.delivery.counters.dropped.load(Ordering::Acquire)
                + link.sum(|metrics| metrics.hook_events_dropped.get());
            let all = self.restored + link.sum(|metrics| metrics.hook_events.get());
            let left = all.saturating_sub(done);
            if left == 0 || Instant::now() >= end {
                return left;
            }
            sleep(CHECK_PAUSE).await;
        }
    }

    /// Whether events that are not delivered are on disk.
    pub fn has_log(&self) -> bool {
        self.delivery.log.is_some()
    }

    /// Finishes the log. Call it when no more events come.
    pub async fn finish(&self) {
        let delivery = self.delivery.clone();
        // It fails only when the runtime ends.
        let _ = spawn_blocking(move || delivery.log.as_ref().map(HookLog::finish)).await;
    }

    /// Metrics of the hooks.
    pub fn metrics(&self) -> Vec<Metric> {
        self.delivery.counters.metrics()
    }
}

impl Delivery {
    async fn serve(self: Arc<Self>, mut lane: mpsc::UnboundedReceiver<WaitingEvent>) {
        while let Some(waiting) = lane.recv().await {
            let is_delivered = self.deliver(&waiting).await;
            self.end(waiting.entry, is_delivered);
            self.counters.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Counts an event that is delivered or dropped, and removes it from disk.
    fn end(&self, entry: Option<Entry>, is_delivered: bool) {
        if let Some((log, entry)) = self.log.as_ref().zip(entry) {
            log.remove(entry);
        }
        let HookCounters { delivered, dropped, .. } = &self.counters;
        (if is_delivered { delivered } else { dropped }).fetch_add(1, Ordering::AcqRel);
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
