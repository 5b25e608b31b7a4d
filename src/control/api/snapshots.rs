//! Snapshots of the node's counters, from which the method `info` computes rates.
//!
//! Owns two earlier snapshots. Never counts itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use crate::base::metrics::MetricKind;
use crate::base::sys;
use crate::link::Link;

/// Minimum interval of the totals, once the node has run that long.
const INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct MetricsInfo {
    /// Length of the interval in seconds.
    interval: f64,
    /// Metrics, summed over all shards: the increase during the interval for totals, the current
    /// value for gauges.
    items: BTreeMap<&'static str, f64>,
}

/// Values of all totals at one moment.
struct Snapshot {
    at: Instant,
    totals: BTreeMap<&'static str, u64>,
    busy: Duration,
}

impl Snapshot {
    fn take(link: &Link) -> Self {
        let mut totals = BTreeMap::new();
        for metrics in link.metrics().iter() {
            for (name, _, kind, value) in metrics.list() {
                if kind == MetricKind::Total {
                    *totals.entry(name).or_default() += value;
                }
            }
        }
        Snapshot { at: Instant::now(), totals, busy: sys::processor_time() }
    }
}

/// Two earlier snapshots. Values are compared with the older one. The newer one replaces it when it
/// is [`INTERVAL`] old.
pub(super) struct Snapshots(Mutex<[Snapshot; 2]>);

impl Snapshots {
    pub(super) fn new(link: &Link) -> Self {
        Snapshots(Mutex::new([Snapshot::take(link), Snapshot::take(link)]))
    }

    /// Current gauges, increases since the older snapshot, and CPU usage in percent.
    pub(super) fn compare(&self, link: &Link) -> (MetricsInfo, f64) {
        let now = Snapshot::take(link);
        let mut snapshots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = &snapshots[0];
        let interval = now.at.duration_since(before.at).as_secs_f64();
        let mut items = BTreeMap::new();
        for metrics in link.metrics().iter() {
            for (name, _, kind, value) in metrics.list() {
                if kind == MetricKind::Gauge {
                    *items.entry(name).or_default() += value as f64;
                }
            }
        }
        for (name, value) in &now.totals {
            let earlier = before.totals.get(name).copied().unwrap_or(0);
            items.insert(name, value.saturating_sub(earlier) as f64);
        }
        let busy = now.busy.saturating_sub(before.busy).as_secs_f64();
        let cpu = if interval > 0.0 { 100.0 * busy / interval } else { 0.0 };
        if now.at.duration_since(snapshots[1].at) >= INTERVAL {
            snapshots.swap(0, 1);
            snapshots[1] = now;
        }
        (MetricsInfo { interval, items }, cpu)
    }
}
