//! Calls of proxies: their durations, failures and number in progress, by proxy and kind of event.
//!
//! Owns the numbers. Never sends a request.

use std::sync::Arc;
use std::time::Instant;

use crate::base::counter::Counter;
use crate::base::histogram::{Histogram, HistogramSnapshot, REQUESTS};
use crate::control::metrics::family::{Family, FamilyKind};
use crate::control::metrics::names::Names;
use crate::model::backend::{ProxyRequest, Upstream};

/// Kinds of events that proxies ask about; Centrifugo's names.
const KINDS: [&str; 6] = ["connect", "publish", "refresh", "rpc", "sub_refresh", "subscribe"];
const LABELS: &[&str] = &["name", "protocol", "type"];

#[derive(Debug, Default)]
struct Calls {
    durations: Histogram,
    failures: Counter,
    in_progress: Counter,
}

/// The calls of a proxy, by kind.
type CallsByKind = [Calls; KINDS.len()];

/// The calls of each proxy, by number: the name of the proxy, and its counts.
#[derive(Debug, Default)]
pub struct ProxyCalls(Vec<(String, Arc<CallsByKind>)>);

/// A call in progress.
pub struct Call<'a> {
    calls: Option<&'a Calls>,
    began: Instant,
}

impl Call<'_> {
    /// Ends the call.
    pub fn end(self, failed: bool) {
        if let Some(calls) = self.calls {
            calls.durations.observe_shared(&REQUESTS, self.began.elapsed().as_micros() as u64);
            calls.failures.add_shared(u64::from(failed));
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(calls) = self.calls {
            calls.in_progress.subtract_shared(1);
        }
    }
}

impl ProxyCalls {
    /// Counts the calls of the proxies with these names, in the order of their numbers. A proxy
    /// that keeps its number and name keeps its counts.
    #[must_use]
    pub fn with_names(&self, names: Vec<String>) -> Self {
        let proxy = |(at, name): (usize, String)| {
            let known = self.0.get(at).filter(|(known, _)| *known == name);
            let calls = known.map(|(_, calls)| calls.clone());
            (name, calls.unwrap_or_default())
        };
        ProxyCalls(names.into_iter().enumerate().map(proxy).collect())
    }

    /// Begins a call.
    pub fn begin(&self, request: &ProxyRequest) -> Call<'_> {
        let Upstream(number) = request.upstream;
        let kind = KINDS.iter().position(|kind| *kind == request.event.name());
        let calls = self.0.get(usize::from(number)).zip(kind);
        let calls = calls.and_then(|((_, calls), kind)| calls.get(kind));
        if let Some(calls) = calls {
            calls.in_progress.add_shared(1);
        }
        Call { calls, began: Instant::now() }
    }

    fn used(&self) -> impl Iterator<Item = (Vec<String>, &Calls)> {
        let calls = self.0.iter().flat_map(|(name, calls)| {
            KINDS.iter().zip(&**calls).map(move |(kind, calls)| {
                let labels = [name.as_str(), "http", kind].map(str::to_owned).to_vec();
                (labels, calls)
            })
        });
        calls.filter(|(_, calls)| calls.in_progress.get() > 0 || calls.durations.is_used())
    }

    /// The families; `waiting` requests wait or are in progress.
    pub fn families(&self, waiting: usize, names: &Names) -> Vec<Family> {
        let family = |name, help, kind, labels| Family::new(names.full(name), help, kind, labels);
        let number = |of: fn(&Calls) -> &Counter| {
            self.used().map(move |(labels, calls)| (labels, of(calls).get() as f64))
        };
        let durations = self
            .used()
            .map(|(labels, calls)| (labels, HistogramSnapshot::of(&REQUESTS, [&calls.durations])));
        vec![
            family(
                "proxy_duration_seconds_histogram",
                "Time until the backend answered a proxy request.",
                FamilyKind::Histogram,
                LABELS,
            )
            .with_histograms(durations),
            family(
                "proxy_errors",
                "Proxy requests that got no valid answer from the backend.",
                FamilyKind::Counter,
                LABELS,
            )
            .with_numbers(number(|calls| &calls.failures)),
            family(
                "proxy_inflight_requests",
                "Proxy requests in progress.",
                FamilyKind::Gauge,
                LABELS,
            )
            .with_numbers(number(|calls| &calls.in_progress)),
            family(
                "proxy_waiting",
                "Proxy requests that wait or are in progress.",
                FamilyKind::Gauge,
                &[],
            )
            .with_number(waiting as f64),
        ]
    }
}
