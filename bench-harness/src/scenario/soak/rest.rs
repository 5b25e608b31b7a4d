//! The server at rest: what it holds when no client is left.
//!
//! Owns the list of what must return to its starting value. Never ends a connection. Invariant: a
//! value above its starting value is left over, whatever the server says about the cause.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::scene::Scene;
use crate::account::{KernelSample, descriptors_beside};
use crate::server::metric;

/// From one look to the next, and from one line about what is left to the next.
const EVERY: Duration = Duration::from_millis(250);
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Gauge of the memory that is charged to a budget, by kind of data, and gauge of the limits.
/// Shards charge in steps and keep some when they rest, at most this part of a limit.
const BUDGETS: &str = "drumline_memory_used_bytes";
const LIMITS: &str = "drumline_memory_limit_bytes";
const CHARGED_AT_REST: f64 = 0.05;

/// A kind of resource, and the gauges that count it.
pub(super) struct Resource {
    /// Name of its row.
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    gauges: &'static [&'static str],
}

/// What must return to its starting value, by the server's own gauges.
pub(super) const RESOURCES: [Resource; 7] = [
    Resource { what: "slots leaked", unit: "count", gauges: &["drumline_sockets"] },
    Resource {
        what: "clients, users and subscriptions left",
        unit: "count",
        gauges: &[
            "drumline_clients",
            "drumline_client_connections_inflight",
            "drumline_users",
            "drumline_subscriptions",
            "drumline_client_subscriptions_inflight",
        ],
    },
    Resource {
        what: "channels and streams left",
        unit: "count",
        gauges: &["drumline_channels", "drumline_streams"],
    },
    Resource {
        what: "outboxes, unread input and TLS handshakes left",
        unit: "count",
        gauges: &["drumline_outboxes", "drumline_unread", "drumline_tls_handshakes_open"],
    },
    Resource {
        what: "bytes of history, output and input left",
        unit: "bytes",
        gauges: &[
            "drumline_history_bytes",
            "drumline_outbox_bytes",
            "drumline_unread_bytes",
            "drumline_backlog_bytes",
        ],
    },
    Resource { what: "memory of budgets left", unit: "bytes", gauges: &[BUDGETS] },
    Resource {
        what: "messages left in inboxes",
        unit: "count",
        gauges: &["drumline_inbox_messages"],
    },
];

/// What the server holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Holding {
    /// Text of the metrics.
    pub(super) metrics: String,
    /// Open descriptors of the process, without the files of its store: how many tables the store
    /// has follows from its content.
    pub(super) descriptors: f64,
    /// TCP sockets of the network namespace, which has no other server.
    pub(super) sockets: f64,
}

/// The series of a text of metrics: name with labels, and value.
fn series(metrics: &str) -> impl Iterator<Item = (&str, f64)> {
    let parts = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    parts.filter_map(|(name, value)| Some((name, value.parse().ok()?)))
}

/// The sum of a metric over its labels.
pub(super) fn sum(metrics: &str, name: &str) -> f64 {
    metric(metrics, name, "").unwrap_or_default()
}

impl Holding {
    /// What the server holds now.
    pub(super) fn now(scene: &Scene<'_>) -> Result<Self> {
        let metrics = scene.server.get("/metrics")?;
        // The scrape's own connection is closed a little after its answer.
        std::thread::sleep(EVERY);
        Ok(Holding {
            metrics,
            descriptors: descriptors_beside(scene.server.pid(), scene.store)? as f64,
            sockets: KernelSample::now()?.tcp_in_use as f64,
        })
    }

    /// What is left of a resource beyond `start`: each series of its gauges that is higher.
    fn series_left(&self, resource: &Resource, start: &Holding) -> Vec<(String, f64)> {
        let higher = |(name, value): (&str, f64)| {
            let gauge = name.split('{').next().unwrap_or_default();
            let before = series(&start.metrics).find(|(known, _)| *known == name);
            let left = value - before.map_or(0.0, |(_, value)| value) - self.spared(name);
            (resource.gauges.contains(&gauge) && left > 0.0).then(|| (name.to_owned(), left))
        };
        series(&self.metrics).filter_map(higher).collect()
    }

    /// What a series may have more at rest than before the first client.
    fn spared(&self, name: &str) -> f64 {
        let Some(kind) = name.strip_prefix(BUDGETS) else { return 0.0 };
        metric(&self.metrics, LIMITS, kind).unwrap_or_default() * CHARGED_AT_REST
    }

    /// How much is left of a resource beyond `start`.
    pub(super) fn left(&self, resource: &Resource, start: &Holding) -> f64 {
        self.series_left(resource, start).iter().map(|(_, left)| left).sum()
    }

    /// What is left beyond `start`, in words; empty: nothing.
    pub(super) fn told(&self, start: &Holding) -> String {
        let resources = RESOURCES.iter().flat_map(|one| self.series_left(one, start));
        let system = [
            ("descriptors".to_owned(), self.descriptors - start.descriptors),
            ("TCP sockets".to_owned(), self.sockets - start.sockets),
        ];
        let left = resources.chain(system).filter(|(_, left)| *left > 0.0);
        left.map(|(what, left)| format!("{what}: {left}")).collect::<Vec<_>>().join(", ")
    }

    /// Waits until nothing is left beyond `start`, or for `patience`. Returns the last look.
    pub(super) fn at_rest(
        scene: &Scene<'_>,
        start: &Holding,
        patience: Duration,
    ) -> Result<Holding> {
        let (begun, mut told) = (Instant::now(), Instant::now());
        loop {
            let now = Holding::now(scene)?;
            let left = now.told(start);
            if left.is_empty() || begun.elapsed() > patience {
                return Ok(now);
            }
            if told.elapsed() > TOLD_EVERY {
                told = Instant::now();
                eprintln!("  left after {} s of rest: {left}", begun.elapsed().as_secs());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(metrics: &str) -> Holding {
        Holding { metrics: metrics.to_owned(), descriptors: 40.0, sockets: 3.0 }
    }

    #[test]
    fn what_is_above_its_starting_value_is_left() {
        let start = holding("drumline_sockets 2\ndrumline_memory_used_bytes{kind=\"a\"} 5\n");
        assert_eq!(start.told(&start), "");
        let text = "drumline_sockets 3\ndrumline_clients 1\ndrumline_channels 4\n\
            drumline_memory_limit_bytes{kind=\"a\"} 100\n\
            drumline_memory_limit_bytes{kind=\"b\"} 100\n\
            drumline_memory_used_bytes{kind=\"a\"} 10\n\
            drumline_memory_used_bytes{kind=\"b\"} 9\n\
            drumline_inbox_messages{rank=\"request\"} 7\n";
        let now = Holding { descriptors: 41.0, ..holding(text) };
        let told = now.told(&start);
        assert_eq!(
            told,
            "drumline_sockets: 1, drumline_clients: 1, drumline_channels: 4, \
             drumline_memory_used_bytes{kind=\"b\"}: 4, \
             drumline_inbox_messages{rank=\"request\"}: 7, descriptors: 1"
        );
        let fewer = Holding { sockets: 1.0, ..holding("drumline_sockets 0\n") };
        assert_eq!(fewer.told(&start), "", "less than before is no leak");
    }
}
