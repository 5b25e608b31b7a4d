//! A family of metrics in the form that both formats are written from.
//!
//! Owns the values of one scrape. Never reads a counter.

use crate::base::histogram::HistogramSnapshot;
use crate::base::metrics::MetricKind;

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
    /// Quantiles of recent observations.
    Summary,
}

impl FamilyKind {
    /// The name of the type in the text format.
    pub fn name(self) -> &'static str {
        match self {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram => "histogram",
            FamilyKind::Summary => "summary",
        }
    }
}

impl From<MetricKind> for FamilyKind {
    fn from(kind: MetricKind) -> Self {
        match kind {
            MetricKind::Total => FamilyKind::Counter,
            MetricKind::Gauge | MetricKind::Largest => FamilyKind::Gauge,
        }
    }
}

/// Quantiles of recent observations, with the number and sum of all.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Each share with its quantile; not a number without recent observations.
    pub quantiles: Vec<(f64, f64)>,
    /// Number of observations since the start.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

/// Value of a series.
#[derive(Clone, Debug)]
pub enum Value {
    /// Of a counter or gauge.
    Number(f64),
    /// Of a histogram.
    Histogram(HistogramSnapshot),
    /// Of a summary.
    Summary(Summary),
}

/// One series: the values of the family's labels, in their order, and its value.
pub type Series = (Vec<String>, Value);

/// All series of one name.
#[derive(Clone, Debug)]
pub struct Family {
    /// Full name.
    pub name: String,
    /// Help text.
    pub help: String,
    /// Type.
    pub kind: FamilyKind,
    /// Names of the labels, in alphabetical order.
    pub labels: &'static [&'static str],
    /// The series.
    pub series: Vec<Series>,
}

impl Family {
    /// A family without series.
    pub fn new(
        name: String,
        help: &str,
        kind: FamilyKind,
        labels: &'static [&'static str],
    ) -> Self {
        Family { name, help: help.trim().to_owned(), kind, labels, series: Vec::new() }
    }

    /// Adds the only series of a family without labels.
    pub fn with_number(mut self, value: f64) -> Self {
        self.series.push((Vec::new(), Value::Number(value)));
        self
    }

    /// Adds series with a number each.
    pub fn with_numbers(mut self, numbers: impl IntoIterator<Item = (Vec<String>, f64)>) -> Self {
        let series = numbers.into_iter().map(|(labels, value)| (labels, Value::Number(value)));
        self.series.extend(series);
        self
    }

    /// Adds series with a histogram each.
    pub fn with_histograms(
        mut self,
        histograms: impl IntoIterator<Item = (Vec<String>, HistogramSnapshot)>,
    ) -> Self {
        let series = histograms.into_iter();
        self.series.extend(series.map(|(labels, found)| (labels, Value::Histogram(found))));
        self
    }
}
