//! The common form of all inputs: a distribution in ns.
//!
//! Owns the percentiles of the table and the units of time. Never reads a file. Invariant: a
//! distribution has samples, and a percentile that the file does not hold is `None`.

use std::fmt;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;

use crate::plot::percentile_points;

/// The percentiles of a comparison: names and quantiles.
pub const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// Unit of the latencies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

impl Unit {
    /// All units, the shortest first.
    pub const ALL: [Unit; 4] = [Unit::Ns, Unit::Us, Unit::Ms, Unit::S];

    /// The unit with the given name: `ns`, `us`, `ms` or `s`.
    pub fn named(name: &str) -> Result<Self> {
        match Unit::ALL.into_iter().find(|unit| unit.to_string() == name) {
            Some(unit) => Ok(unit),
            None => bail!("\"{name}\" is not a unit of time; use ns, us, ms or s"),
        }
    }

    /// Nanoseconds per unit.
    pub fn ns(self) -> f64 {
        match self {
            Unit::Ns => 1.0,
            Unit::Us => 1e3,
            Unit::Ms => 1e6,
            Unit::S => 1e9,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Unit::Ns => "ns",
            Unit::Us => "us",
            Unit::Ms => "ms",
            Unit::S => "s",
        })
    }
}

/// A latency as read from a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The latency, in ns.
    pub ns: f64,
    /// Whether the latency was interpolated between two rows of a percentile table.
    pub estimated: bool,
}

/// One series of an input.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The series, the tag, or the file.
    pub name: String,
    /// Latencies of the series.
    pub distribution: Distribution,
    /// Deliveries that were expected and did not arrive; `None` if the file does not count them.
    pub lost: Option<u64>,
}

/// Latencies of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// The latencies of [`PERCENTILES`]; `None` if the table ends before the percentile.
    pub percentiles: [Option<Reading>; PERCENTILES.len()],
    /// The largest latency, in ns.
    pub max_ns: f64,
    /// Number of recorded latencies.
    pub count: u64,
    /// (1/(1-percentile), ns), ascending.
    pub curve: Vec<(f64, f64)>,
    /// (second since the start, largest latency in ns), ascending; empty if the file has no times.
    pub worst: Vec<(f64, f64)>,
    /// Seconds per point of `worst`.
    pub step: f64,
}

impl Distribution {
    /// The distribution of a histogram with samples, whose values are in `unit`.
    pub fn of(histogram: &Histogram<u64>, unit: Unit, worst: Vec<(f64, f64)>, step: f64) -> Self {
        let ns = |value: f64| value * unit.ns();
        let read = |(_, quantile): (&str, f64)| {
            let ns = ns(histogram.value_at_quantile(quantile) as f64);
            Some(Reading { ns, estimated: false })
        };
        let scaled = |points: Vec<(f64, f64)>| points.into_iter().map(|(x, y)| (x, ns(y)));
        Distribution {
            percentiles: PERCENTILES.map(read),
            max_ns: ns(histogram.max() as f64),
            count: histogram.len(),
            curve: scaled(percentile_points(histogram)).collect(),
            worst: scaled(worst).collect(),
            step,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_names_and_factors() {
        for (name, ns) in [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)] {
            let unit = Unit::named(name).unwrap();
            assert_eq!((unit.to_string().as_str(), unit.ns()), (name, ns));
        }
        assert!(Unit::named("minutes").unwrap_err().to_string().contains("ns, us, ms or s"));
    }

    #[test]
    fn a_histogram_in_us_becomes_ns() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=1000).for_each(|value| histogram.record(value).unwrap());
        let found = Distribution::of(&histogram, Unit::Us, vec![(3.0, 1000.0)], 1.0);
        let p50 = found.percentiles[0].unwrap();
        assert_eq!((p50.ns, p50.estimated), (500e3, false));
        assert_eq!((found.max_ns, found.count), (1e6, 1000));
        assert_eq!(found.worst, [(3.0, 1e6)]);
        let (x, ns) = found.curve[found.curve.len() - 1];
        assert_eq!((x.round(), ns), (1024.0, 1e6));
    }
}
