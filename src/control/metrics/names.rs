//! Names of metrics: the prefix that the configuration chooses, and what it switches on.
//!
//! Owns the prefix. Never changes after the start.

use super::family::Family;
use crate::base::metrics::MetricKind;
use crate::config::Config;

/// Prefix unless the configuration chooses another one.
const DEFAULT_PREFIX: &str = "drumline";

/// A metric of the control plane without labels.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name without the prefix and the suffix `_total`.
    pub name: &'static str,
    /// Help text.
    pub help: &'static str,
    /// Kind.
    pub kind: MetricKind,
    /// Current value.
    pub value: u64,
}

/// How the metrics of a node are named.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
    has_recovered_publications: bool,
    native_only: bool,
}

impl Names {
    /// The names that a configuration chooses.
    pub fn new(config: &Config) -> Self {
        let prefix = match config.prometheus.namespace.as_str() {
            "" => DEFAULT_PREFIX,
            chosen => chosen,
        };
        Names {
            prefix: prefix.to_owned(),
            has_recovered_publications: config.prometheus.recovered_publications_histogram,
            native_only: config.prometheus.native_histograms,
        }
    }

    /// The full name of a metric.
    pub fn full(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }

    /// Whether the number of recovered publications is shown.
    pub fn has_recovered_publications(&self) -> bool {
        self.has_recovered_publications
    }

    /// Whether histograms have native buckets only, and no summaries stand beside them.
    pub fn native_only(&self) -> bool {
        self.native_only
    }

    /// The families of numbers without labels.
    pub fn families(&self, metrics: &[Metric]) -> Vec<Family> {
        let family = |Metric { name, help, kind, value }: &Metric| {
            let suffix = if *kind == MetricKind::Total { "_total" } else { "" };
            let name = self.full(&format!("{name}{suffix}"));
            Family::new(name, help, (*kind).into(), &[]).with_number(*value as f64)
        };
        metrics.iter().map(family).collect()
    }
}
