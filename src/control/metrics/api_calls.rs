//! Calls of the HTTP API: their durations and errors by method, with those that shards answered.
//!
//! Owns the histograms of the control plane. Never blocks a shard.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::family::{Family, FamilyKind};
use super::names::Names;
use crate::base::histogram::{Histogram, HistogramSnapshot, REQUESTS};
use crate::base::metrics::Metrics;

/// Durations and errors of API calls.
#[derive(Debug)]
pub struct ApiCalls {
    methods: &'static [&'static str],
    durations: Vec<Histogram>,
    /// Numbers of errors by method and code. The API itself chooses the codes, so they are few.
    errors: Mutex<BTreeMap<(usize, u32), u64>>,
}

impl ApiCalls {
    /// Counts calls of these methods.
    pub fn new(methods: &'static [&'static str]) -> Self {
        let durations = methods.iter().map(|_| Histogram::default()).collect();
        ApiCalls { methods, durations, errors: Mutex::default() }
    }

    /// Counts a call that began at this time, and its error code if it failed.
    pub fn ended(&self, method: &str, began: Instant, error: Option<u32>) {
        let Some(at) = self.methods.iter().position(|known| *known == method) else { return };
        if let Some(histogram) = self.durations.get(at) {
            histogram.observe_shared(&REQUESTS, began.elapsed().as_micros() as u64);
        }
        if let Some(code) = error {
            let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            *errors.entry((at, code)).or_default() += 1;
        }
    }

    /// The families, with Centrifugo's names and labels.
    pub fn families(&self, shards: &[Arc<Metrics>], names: &Names) -> Vec<Family> {
        let durations = self.methods.iter().zip(&self.durations).filter_map(|(method, own)| {
            let shards = shards.iter().map(|metrics| &metrics.by.api_publish);
            let shards = shards.filter(|_| *method == "publish");
            let found = HistogramSnapshot::of(&REQUESTS, shards.chain([own]));
            let labels = vec![(*method).to_owned(), "http".to_owned()];
            (found.count() > 0).then_some((labels, found))
        });
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let publish = self.methods.iter().position(|method| *method == "publish").unwrap_or(0);
        for metrics in shards {
            for (code, count) in metrics.by.api_publish_errors.list() {
                *errors.entry((publish, code.unwrap_or(0) as u32)).or_default() += count;
            }
        }
        let errors = errors.into_iter().filter_map(|((method, code), count)| {
            let method = self.methods.get(method)?;
            let labels = vec![code.to_string(), (*method).to_owned(), "http".to_owned()];
            Some((labels, count as f64))
        });
        let (histogram, counter) = (FamilyKind::Histogram, FamilyKind::Counter);
        vec![
            Family::new(
                names.full("api_command_duration_seconds_histogram"),
                "Time to answer calls of the HTTP API.",
                histogram,
                &["method", "protocol"],
            )
            .with_histograms(durations),
            Family::new(
                names.full("api_command_errors_total"),
                "Errors of calls of the HTTP API.",
                counter,
                &["error", "method", "protocol"],
            )
            .with_numbers(errors),
        ]
    }
}
