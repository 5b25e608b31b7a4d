//! Metrics for Prometheus: shards, control plane, memory budgets and process, in the text format
//! or, if the request prefers it, in the protobuf format.
//!
//! Owns the sources of a scrape. Never asks a shard: it reads the counters that shards write.

pub mod api_calls;
pub mod family;
pub mod names;
mod process;
mod protobuf;
mod shards;
pub mod store;
mod text;
mod windows;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use self::family::{Family, FamilyKind};
pub use self::names::Metric;
use self::names::Names;
use self::process::Started;
use self::shards::Shards;
use self::windows::Windows;
use crate::base::metrics::MetricKind;
use crate::config::Config;
use crate::feeds::feed::FeedState;
use crate::link::Link;

/// Makes families of one part of the control plane.
pub type Source = Box<dyn Fn(&Names) -> Vec<Family> + Send + Sync>;

/// Route of the metrics.
pub fn router(config: &Config, link: &Arc<Link>, sources: Vec<Source>) -> Router {
    if !config.prometheus.enabled {
        return Router::new();
    }
    let exporter = Arc::new(Exporter {
        link: link.clone(),
        names: Names::new(config),
        sources,
        started: Started::now(),
        windows: Mutex::default(),
    });
    let serve = move |headers: HeaderMap| {
        let exporter = exporter.clone();
        async move { exporter.serve(&headers) }
    };
    Router::new().route(&config.prometheus.handler_prefix, get(serve))
}

struct Exporter {
    link: Arc<Link>,
    names: Names,
    sources: Vec<Source>,
    started: Started,
    windows: Mutex<Windows>,
}

impl Exporter {
    fn serve(&self, headers: &HeaderMap) -> Response {
        let accepted = headers.get_all(header::ACCEPT).iter();
        let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
        let (families, classic) = (self.families(), !self.names.native_only());
        if prefers_protobuf(&accepted.join(",")) {
            let bytes = protobuf::write(&families, classic);
            ([(header::CONTENT_TYPE, protobuf::CONTENT_TYPE)], bytes).into_response()
        } else {
            let text = text::write(&families, classic);
            ([(header::CONTENT_TYPE, text::CONTENT_TYPE)], text).into_response()
        }
    }

    fn families(&self) -> Vec<Family> {
        let (link, names) = (&self.link, &self.names);
        let shards = Shards { metrics: link.metrics(), names };
        let mut families = [shards.of_centrifugo(), shards.own(), shards.plain()].concat();
        families.push(inboxes(&link.inbox_depths(), names));
        families.extend(self.sources.iter().flat_map(|source| source(names)));
        families.extend(process::memory(link.budgets(), names));
        families.extend(process::process(self.started, names));
        if !names.native_only() {
            let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            families.extend(windows.summaries(&families, Instant::now()));
        }
        families
    }
}

/// Messages that wait in the inboxes of the shards.
fn inboxes(depths: &[(&str, usize)], names: &Names) -> Family {
    let help = "Messages that wait in the inboxes of the shards, by rank.";
    let family = Family::new(names.full("inbox_messages"), help, FamilyKind::Gauge, &["rank"]);
    let numbers = depths.iter().map(|(rank, depth)| (vec![(*rank).to_owned()], *depth as f64));
    family.with_numbers(numbers)
}

/// Metrics of the feeds, with Centrifugo's label.
pub fn feeds(states: &[Arc<FeedState>], names: &Names) -> Vec<Family> {
    let lists: Vec<_> = states.iter().map(|state| state.counters.list()).collect();
    let none = crate::feeds::counters::Counters::default().list();
    let family = |(at, (name, help, kind, _)): (usize, &(&str, &str, MetricKind, u64))| {
        let suffix = if *kind == MetricKind::Total { "_total" } else { "" };
        let name = names.full(&format!("{name}{suffix}"));
        let values = states.iter().zip(&lists).filter_map(|(state, list)| {
            list.get(at).map(|(.., value)| (vec![state.name.to_string()], *value as f64))
        });
        Family::new(name, help, (*kind).into(), &["consumer_name"]).with_numbers(values)
    };
    none.iter().enumerate().map(family).collect()
}

/// Whether an Accept header prefers the protobuf format to the text format.
fn prefers_protobuf(accept: &str) -> bool {
    let quality = |wanted: fn(&str) -> bool| {
        let ranges = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().filter(|kind| wanted(kind))?;
            let given = parts.clone().find_map(|part| part.strip_prefix("q="));
            let is_delimited = !kind.ends_with("protobuf")
                || (parts.clone().any(|part| part == "encoding=delimited")
                    && parts.any(|part| part == "proto=io.prometheus.client.MetricFamily"));
            is_delimited.then(|| given.and_then(|text| text.parse().ok()).unwrap_or(1.0))
        });
        ranges.fold(0.0, f64::max)
    };
    let protobuf = quality(|kind| kind == "application/vnd.google.protobuf");
    protobuf > 0.0 && protobuf >= quality(|kind| kind == "text/plain")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};
    use crate::base::metrics::Metrics;
    use crate::control::acme::AcmeCounters;
    use crate::control::backend::hooks::HookCounters;
    use crate::control::backend::proxy_calls::ProxyCalls;
    use crate::control::certificates;
    use crate::control::kept::KeptCounters;

    fn names() -> Names {
        Names::new(&Config::default())
    }

    #[test]
    fn counters_of_shards_are_summed_and_largest_values_are_kept() {
        let metrics: Vec<Arc<Metrics>> = (0..3).map(|_| Arc::default()).collect();
        metrics[0].accepted.add(3);
        metrics[1].accepted.add(4);
        metrics[1].longest_turn_micros.set(50);
        metrics[2].longest_turn_micros.set(20);
        let written = |shards: &[Arc<Metrics>]| {
            let (names, shards) = (names(), shards);
            let shards = Shards { metrics: shards, names: &names };
            let all = [shards.of_centrifugo(), shards.own(), shards.plain()].concat();
            text::write(&all, true)
        };
        let text = written(&metrics);
        let expected = "# HELP drumline_accepted_total Accepted sockets.\n\
            # TYPE drumline_accepted_total counter\ndrumline_accepted_total 7\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("\ndrumline_longest_turn_micros 50\n"), "{text}");
        assert_eq!(text.lines().count(), written(&metrics[2..]).lines().count());
    }

    /// Every family of the server.
    fn catalogue() -> Vec<Family> {
        let mut config = Config::default();
        config.prometheus.recovered_publications_histogram = true;
        let names = Names::new(&config);
        let shards = Shards { metrics: &[], names: &names };
        let budgets = MemoryBudgets::new(&MemoryLimits::all(1), 1);
        let mut all = [shards.of_centrifugo(), shards.own(), shards.plain()].concat();
        all.push(inboxes(&[], &names));
        all.extend(api_calls::ApiCalls::new(&["publish"]).families(&[], &names));
        all.extend(ProxyCalls::default().families(0, &names));
        all.extend(feeds(&[], &names));
        all.extend(names.families(&HookCounters::default().metrics()));
        all.extend(names.families(&KeptCounters::default().metrics()));
        all.extend(names.families(&AcmeCounters::default().metrics()));
        all.extend(store::source(Arc::default())(&names));
        all.extend(certificates::families(&[], &names));
        all.extend(process::memory(&budgets, &names));
        all.extend(process::process(Started::now(), &names));
        all.extend(Windows::default().summaries(&all, Instant::now()));
        all.sort_by(|one, two| one.name.cmp(&two.name));
        all
    }

    #[test]
    fn the_table_of_metrics_in_the_book_is_current() {
        let mut table = String::from("| name | type | labels | meaning |\n|---|---|---|---|\n");
        for Family { name, help, kind, labels, .. } in catalogue() {
            let labels = labels.join(", ");
            table += &format!("| `{name}` | {} | {labels} | {help} |\n", kind.name());
        }
        let page = include_str!("../../../docs/src/monitoring.md");
        let is_current = page.contains(&table);
        assert!(is_current, "put this table into docs/src/monitoring.md:\n{table}END");
    }

    #[test]
    fn the_dashboard_and_the_alerts_name_metrics_that_exist() {
        let texts = [
            include_str!("../../../packaging/prometheus/rules.yml"),
            include_str!("../../../packaging/grafana/dashboard.json"),
        ];
        let known: Vec<String> = catalogue().into_iter().map(|family| family.name).collect();
        let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
        let (mut named, mut unknown) = (0, Vec::new());
        for word in texts.iter().flat_map(|text| text.split(|byte| !is_name(byte))) {
            if !word.starts_with("drumline_") && !word.starts_with("process_") {
                continue;
            }
            named += 1;
            let series = ["_bucket", "_count", "_sum"].map(|end| word.strip_suffix(end));
            let exists = |name: &str| known.iter().any(|known| known == name);
            if !exists(word) && !series.iter().flatten().any(|name| exists(name)) {
                unknown.push(word);
            }
        }
        assert!(named > 50, "{named} names");
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn budgets_feeds_and_the_process_have_families() {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(100).with(MemoryKind::Unread, 50), 1);
        let _charge = budgets[MemoryKind::Unread].charge(7);
        let text = text::write(&process::memory(&budgets, &names()), true);
        assert!(text.contains("\ndrumline_memory_budget_bytes 850\n"), "{text}");
        assert!(text.contains("\ndrumline_memory_used_bytes{kind=\"unread\"} 7\n"), "{text}");
        let states = ["prices", "news"].map(|name| Arc::new(FeedState::new(name, "rabbitmq")));
        states[1].counters.processed.add(3);
        let expected = "# TYPE drumline_consumers_messages_processed_total counter\n\
            drumline_consumers_messages_processed_total{consumer_name=\"prices\"} 0\n\
            drumline_consumers_messages_processed_total{consumer_name=\"news\"} 3\n";
        let text = text::write(&feeds(&states, &names()), true);
        assert!(text.contains(expected), "{text}");
        let text = text::write(&process::process(Started::now(), &names()), true);
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(text.contains("\nprocess_max_fds "), "{text}");
    }

    #[test]
    fn the_protobuf_format_is_for_those_that_prefer_it() {
        let protobuf = "application/vnd.google.protobuf;\
            proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let cases = [
            (String::new(), false),
            ("*/*".to_owned(), false),
            (protobuf.to_owned(), true),
            (format!("{protobuf};q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"), true),
            (format!("text/plain;version=0.0.4;q=0.5, {protobuf};q=0.4"), false),
            (format!("{protobuf};q=0"), false),
            ("application/vnd.google.protobuf;encoding=text".to_owned(), false),
        ];
        for (accept, expected) in cases {
            assert_eq!(prefers_protobuf(&accept), expected, "{accept}");
        }
    }
}
