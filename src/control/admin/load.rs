//! The load of the node: a sample each second, kept for ten minutes, and sent to the open pages.
//!
//! Owns the samples. A sample reads the counters that shards write and asks no shard, so the page
//! keeps moving while the node is overloaded. Only while a page is open, a second task asks the
//! shards for their busiest channels and slowest consumers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::base::histogram::{DURATIONS, HistogramSnapshot};
use crate::base::memory::MemoryKind;
use crate::base::metrics::Metrics;
use crate::base::sys;
use crate::link::{Link, LinkBusy};
use crate::model::message::{Scope, Watched};

/// Time between two samples.
const PERIOD: Duration = Duration::from_secs(1);
/// Samples that are kept.
const KEPT: usize = 600;
/// Rows of the tables of channels and consumers.
const ROWS: usize = 12;

/// A moment of the node, as the charts show it.
#[derive(Clone, Debug, Serialize)]
struct Point {
    /// Unix time in milliseconds.
    at: u64,
    clients: u64,
    subscriptions: u64,
    channels: u64,
    users: u64,
    /// Publications per second.
    published: f64,
    /// Deliveries per second.
    delivered: f64,
    /// Processor time in percent of one processor.
    cpu: f64,
    /// Time from publish to write in seconds that a half, 95 and 99 percent of the deliveries of
    /// the last second did not exceed; `None`: there were no deliveries.
    latency: [Option<f64>; 3],
}

/// The load of a shard.
#[derive(Debug, Serialize)]
struct ShardLoad {
    clients: u64,
    subscriptions: u64,
    channels: u64,
    published: f64,
    delivered: f64,
    outbox_bytes: u64,
    backlog_bytes: u64,
    longest_pass_micros: u64,
}

/// A row of the busiest channels. A number is absent if the channel is not among the busiest by it.
#[derive(Clone, Debug, Default, Serialize)]
struct ChannelLoad {
    channel: Box<str>,
    subscribers: Option<u32>,
    published: Option<f64>,
    delivered: Option<f64>,
}

/// A row of the slowest consumers.
#[derive(Clone, Debug, Serialize)]
struct ConsumerLoad {
    client: Box<str>,
    user: Box<str>,
    unsent: usize,
    subscriptions: u16,
}

/// What the shards have answered last.
#[derive(Clone, Debug, Default, Serialize)]
struct Details {
    channels: Vec<ChannelLoad>,
    consumers: Vec<ConsumerLoad>,
    /// Whether a shard did not answer in time.
    late: bool,
}

/// Counters of all shards at one moment.
struct Totals {
    at: Instant,
    processor: Duration,
    shards: Vec<(u64, u64)>,
    latency: HistogramSnapshot,
}

impl Totals {
    fn take(link: &Link) -> Self {
        let counted = |shard: &Arc<Metrics>| (shard.publications.get(), shard.deliveries.get());
        let shards = link.metrics().iter().map(counted).collect();
        let latency = link.metrics().iter().map(|shard| &shard.by.publish_to_write);
        let latency = HistogramSnapshot::of(&DURATIONS, latency);
        Totals { at: Instant::now(), processor: sys::processor_time(), shards, latency }
    }
}

/// The load of a node.
pub(super) struct Monitor {
    link: Arc<Link>,
    points: Mutex<VecDeque<Point>>,
    details: Mutex<Details>,
    /// The latest sample as JSON. Its receivers are the open pages.
    latest: watch::Sender<Arc<str>>,
}

impl Monitor {
    /// Starts to sample, as long as the runtime runs.
    pub(super) fn start(link: Arc<Link>) -> Arc<Self> {
        let monitor = Arc::new(Monitor {
            link,
            points: Mutex::default(),
            details: Mutex::default(),
            latest: watch::Sender::new("".into()),
        });
        tokio::spawn(monitor.clone().sample());
        tokio::spawn(monitor.clone().ask_shards());
        monitor
    }

    /// Receives a JSON text per sample. The shards count for the tables while a receiver exists.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<str>> {
        self.latest.subscribe()
    }

    /// The kept samples as JSON, oldest first.
    pub(super) fn history(&self) -> serde_json::Value {
        json!(*self.points())
    }

    fn points(&self) -> MutexGuard<'_, VecDeque<Point>> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn details(&self) -> MutexGuard<'_, Details> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sample(self: Arc<Self>) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = Totals::take(&self.link);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let now = Totals::take(&self.link);
            let (point, shards) = self.compare(&before, &now);
            let mut points = self.points();
            if points.len() >= KEPT {
                points.pop_front();
            }
            points.push_back(point.clone());
            drop(points);
            if self.latest.receiver_count() > 0 {
                self.latest.send_replace(self.text(&point, &shards).into());
            }
            before = now;
        }
    }

    fn compare(&self, before: &Totals, now: &Totals) -> (Point, Vec<ShardLoad>) {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| (now.saturating_sub(before)) as f64 / seconds;
        let rates: Vec<(f64, f64)> = now
            .shards
            .iter()
            .zip(&before.shards)
            .map(|(now, before)| (rate(now.0, before.0), rate(now.1, before.1)))
            .collect();
        let busy = now.processor.saturating_sub(before.processor).as_secs_f64();
        let latency = now.latency.since(&before.latency);
        let point = Point {
            at: sys::unix_millis(),
            clients: self.link.sum(|shard| shard.clients.get()),
            subscriptions: self.link.sum(|shard| shard.subscriptions.get()),
            channels: self.link.sum(|shard| shard.channels.get()),
            users: self.link.sum(|shard| shard.users.get()),
            published: rates.iter().map(|rate| rate.0).sum(),
            delivered: rates.iter().map(|rate| rate.1).sum(),
            cpu: 100.0 * busy / seconds,
            latency: [0.5, 0.95, 0.99].map(|share| latency.quantile(share)),
        };
        let load = |(shard, (published, delivered)): (&Arc<Metrics>, &(f64, f64))| ShardLoad {
            clients: shard.clients.get(),
            subscriptions: shard.subscriptions.get(),
            channels: shard.channels.get(),
            published: *published,
            delivered: *delivered,
            outbox_bytes: shard.outbox_bytes.get(),
            backlog_bytes: shard.backlog_bytes.get(),
            longest_pass_micros: shard.longest_pass_cpu_micros.get(),
        };
        (point, self.link.metrics().iter().zip(&rates).map(load).collect())
    }

    /// A sample as the page gets it.
    fn text(&self, point: &Point, shards: &[ShardLoad]) -> String {
        let budgets = self.link.budgets();
        let memory = MemoryKind::ALL.map(|kind| {
            let budget = &budgets[kind];
            json!({ "kind": kind.name(), "used": budget.used(), "limit": budget.limit() })
        });
        json!({
            "point": point,
            "shards": shards,
            "memory": memory,
            "resident": sys::memory("VmRSS:"),
            "details": *self.details(),
        })
        .to_string()
    }

    /// Asks the shards for details while a page is open, and tells them when the last one closes.
    async fn ask_shards(self: Arc<Self>) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = None;
        loop {
            ticks.tick().await;
            let goes_on = self.latest.receiver_count() > 0;
            if !goes_on && asked.is_none() {
                continue;
            }
            let now = Instant::now();
            let found = self.ask_all(goes_on).await;
            let seconds = asked.map(|asked| now.duration_since(asked).as_secs_f64().max(0.001));
            // If a shard has not been told of the end, it is told in the next second.
            asked = (goes_on || found.is_err()).then_some(now);
            let details = match (found, seconds) {
                (Ok(answers), Some(seconds)) if goes_on => self.join(answers, seconds).await,
                (Ok(_), _) => Details::default(),
                (Err(LinkBusy), _) => Details { late: true, ..self.details().clone() },
            };
            *self.details() = details;
        }
    }

    async fn ask_all(&self, goes_on: bool) -> Result<Vec<Watched>, LinkBusy> {
        let mut asked = Vec::new();
        for shard in self.link.shards() {
            asked.push(self.link.watch(shard, goes_on).await?);
        }
        let mut answers = Vec::new();
        for pending in asked {
            answers.push(pending.watched().await?);
        }
        Ok(answers)
    }

    /// Joins the answers of the shards, and asks for the subscribers of the channels in them.
    async fn join(&self, answers: Vec<Watched>, seconds: f64) -> Details {
        let mut channels: BTreeMap<Box<str>, ChannelLoad> = BTreeMap::new();
        let mut consumers = Vec::new();
        for Watched { published, delivered, slow, .. } in answers {
            for (channel, count) in published {
                let load = channels.entry(channel).or_default();
                *load.published.get_or_insert_default() += count as f64 / seconds;
            }
            for (channel, count) in delivered {
                let load = channels.entry(channel).or_default();
                *load.delivered.get_or_insert_default() += count as f64 / seconds;
            }
            consumers.extend(slow.into_iter().map(|slow| ConsumerLoad {
                client: slow.client,
                user: slow.user,
                unsent: slow.unsent,
                subscriptions: slow.subscriptions,
            }));
        }
        consumers.sort_by_key(|consumer| std::cmp::Reverse(consumer.unsent));
        consumers.truncate(ROWS);
        let mut channels: Vec<_> =
            channels.into_iter().map(|(channel, load)| ChannelLoad { channel, ..load }).collect();
        let traffic = |load: &ChannelLoad| {
            load.delivered.unwrap_or_default() + load.published.unwrap_or_default()
        };
        channels.sort_by(|one, other| traffic(other).total_cmp(&traffic(one)));
        channels.truncate(ROWS);
        let names: Vec<Arc<str>> = channels.iter().map(|load| (&*load.channel).into()).collect();
        let counted = subscribers(&self.link, Scope::Named(names.into())).await;
        let late = counted.is_err();
        if let Ok(counted) = counted {
            for load in &mut channels {
                load.subscribers = Some(counted.get(&*load.channel).copied().unwrap_or_default());
            }
        }
        Details { channels, consumers, late }
    }
}

/// Subscribers of the channels in the scope, over all shards.
pub(super) async fn subscribers(
    link: &Link,
    scope: Scope,
) -> Result<BTreeMap<Arc<str>, u32>, LinkBusy> {
    let mut asked = Vec::new();
    for shard in link.shards() {
        asked.push(link.survey(shard, scope.clone()).await?);
    }
    let mut channels = BTreeMap::new();
    for pending in asked {
        // A channel that ended and began again during the survey can appear twice.
        let surveyed: BTreeMap<_, _> = pending.surveyed().await?.channels.into_iter().collect();
        for (channel, subscribers) in surveyed {
            *channels.entry(channel).or_default() += subscribers;
        }
    }
    Ok(channels)
}
