//! Metrics in the text format of Prometheus: shards, control plane, memory budgets and process.
//!
//! Owns the time of the start. Never asks a shard: it reads the counters that shards write.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::http::header;
use axum::routing::get;

use crate::base::log;
use crate::base::memory::{MemoryBudget, MemoryBudgets, MemoryKind};
use crate::base::metrics::{self, Metrics};
use crate::base::sys;
use crate::config::Config;
use crate::feeds::feed::FeedState;
use crate::link::Link;

/// Route of the metrics.
pub fn router(
    config: &Config,
    link: &Arc<Link>,
    own_metrics: impl Fn() -> Vec<Metric> + Clone + Send + Sync + 'static,
    consumers: Vec<Arc<FeedState>>,
) -> Router {
    if !config.prometheus.enabled {
        return Router::new();
    }
    let (link, started) = (link.clone(), Instant::now());
    let consumers: Arc<[Arc<FeedState>]> = consumers.into();
    let serve = move || async move {
        let (shards, own) = (shards(link.metrics()), own(&own_metrics()));
        let own = own + &feeds(&consumers);
        let text = format!("{shards}{own}{}{}", memory(link.budgets()), process(started));
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
    };
    Router::new().route(&config.prometheus.handler_prefix, get(serve))
}

/// A metric of the control plane.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name without the prefix `drumline_` and the suffix `_total`.
    pub name: &'static str,
    /// Help text.
    pub help: &'static str,
    /// Kind.
    pub kind: metrics::MetricKind,
    /// Current value.
    pub value: u64,
}

/// Suffix of the name and type in Prometheus of a kind.
fn kind_of(kind: metrics::MetricKind) -> (&'static str, &'static str) {
    match kind {
        metrics::MetricKind::Total => ("_total", "counter"),
        metrics::MetricKind::Gauge => ("", "gauge"),
    }
}

/// Metrics of the control plane.
fn own(own_metrics: &[Metric]) -> String {
    let mut text = String::new();
    for Metric { name, help, kind, value } in own_metrics {
        let (suffix, kind) = kind_of(*kind);
        head(&mut text, &format!("drumline_{name}{suffix}"), help, kind);
        _ = writeln!(text, "drumline_{name}{suffix} {value}");
    }
    text
}

/// Metrics of the shards.
fn shards(metrics: &[Arc<Metrics>]) -> String {
    let lists: Vec<_> = metrics.iter().map(|metrics| metrics.list()).collect();
    let mut text = String::new();
    for at in 0..lists.first().map_or(0, Vec::len) {
        let (name, help, kind, _) = lists[0][at];
        let (suffix, kind) = kind_of(kind);
        head(&mut text, &format!("drumline_{name}{suffix}"), help, kind);
        for (shard, list) in lists.iter().enumerate() {
            _ = writeln!(text, "drumline_{name}{suffix}{{shard=\"{shard}\"}} {}", list[at].3);
        }
    }
    text
}

/// Metrics of the feeds, with Centrifugo's label.
fn feeds(states: &[Arc<FeedState>]) -> String {
    let lists: Vec<_> = states.iter().map(|state| state.counters.list()).collect();
    let mut text = String::new();
    for at in 0..lists.first().map_or(0, Vec::len) {
        let (name, help, kind, _) = lists[0][at];
        let (suffix, kind) = kind_of(kind);
        head(&mut text, &format!("drumline_{name}{suffix}"), help, kind);
        for (state, list) in states.iter().zip(&lists) {
            let label = format!("{{consumer_name=\"{}\"}}", state.name);
            _ = writeln!(text, "drumline_{name}{suffix}{label} {}", list[at].3);
        }
    }
    text
}

/// Memory budgets, and how much of each is used.
fn memory(budgets: &MemoryBudgets) -> String {
    let mut text = String::new();
    let name = "drumline_memory_budget_bytes";
    head(&mut text, name, "Sum of all memory budgets of the node in bytes.", "gauge");
    _ = writeln!(text, "{name} {}", budgets.limit());
    let mut each = |name: &str, help: &str, number: fn(&MemoryBudget) -> usize| {
        head(&mut text, name, help, "gauge");
        for kind in MemoryKind::ALL {
            _ = writeln!(text, "{name}{{kind=\"{}\"}} {}", kind.name(), number(&budgets[kind]));
        }
    };
    each(
        "drumline_memory_limit_bytes",
        "Memory budget per kind of data, in bytes.",
        MemoryBudget::limit,
    );
    each(
        "drumline_memory_used_bytes",
        "Used memory per kind of data, in bytes.",
        MemoryBudget::used,
    );
    text
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// Metrics of the process: memory, descriptors, uptime, version.
fn process(started: Instant) -> String {
    let descriptors = std::fs::read_dir("/proc/self/fd").map(|found| found.count() as u64).ok();
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory in bytes.", sys::memory("VmRSS:")),
        (
            "drumline_anonymous_memory_bytes",
            "Resident memory that is not backed by files, in bytes.",
            sys::memory("RssAnon:"),
        ),
        (
            "process_open_fds",
            "Open file descriptors, without the sockets in the tables of the rings.",
            descriptors,
        ),
        (
            "drumline_uptime_seconds",
            "Seconds since the process started.",
            Some(started.elapsed().as_secs()),
        ),
    ];
    let mut text = own(&[Metric {
        name: "log_lines_dropped",
        help: "Log lines dropped because the output was full, slow or closed.",
        kind: metrics::MetricKind::Total,
        value: log::dropped(),
    }]);
    for (name, help, value) in gauges {
        if let Some(value) = value {
            head(&mut text, name, help, "gauge");
            _ = writeln!(text, "{name} {value}");
        }
    }
    head(&mut text, "drumline_build_info", "Version of the running server, as a label.", "gauge");
    _ = writeln!(text, "drumline_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::memory::MemoryLimits;

    #[test]
    fn every_metric_has_help_and_one_value_per_shard() {
        let metrics = [Arc::new(Metrics::default()), Arc::new(Metrics::default())];
        metrics[1].accepted.add(7);
        let text = shards(&metrics);
        let expected = "# HELP drumline_accepted_total Accepted sockets.\n\
            # TYPE drumline_accepted_total counter\n\
            drumline_accepted_total{shard=\"0\"} 0\ndrumline_accepted_total{shard=\"1\"} 7\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("\ndrumline_clients{shard=\"0\"} 0\n"));
        let budgets = MemoryBudgets::new(&MemoryLimits::all(100).with(MemoryKind::Unread, 50), 1);
        let _charge = budgets[MemoryKind::Unread].charge(7);
        let text = memory(&budgets);
        assert!(text.contains("\ndrumline_memory_budget_bytes 750\n"), "{text}");
        assert!(text.contains("\ndrumline_memory_used_bytes{kind=\"unread\"} 7\n"), "{text}");
        let states = ["prices", "news"].map(|name| Arc::new(FeedState::new(name, "rabbitmq")));
        states[1].counters.processed.add(3);
        let expected = "# TYPE drumline_consumers_messages_processed_total counter\n\
            drumline_consumers_messages_processed_total{consumer_name=\"prices\"} 0\n\
            drumline_consumers_messages_processed_total{consumer_name=\"news\"} 3\n";
        assert!(feeds(&states).contains(expected), "{}", feeds(&states));
        assert!(process(Instant::now()).contains("\nprocess_resident_memory_bytes "));
    }
}
