//! Latency: a histogram of the whole run, one per second, and an account of every delivery.
//!
//! Owns recording, merging and the percentiles. Never reads a clock: the caller counts latency from
//! the scheduled time of a message (open loop). Invariant: each delivery has one recorded latency,
//! and an expected delivery that did not come counts as lost.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Significant decimal digits kept of a latency.
pub const SIGNIFICANT_DIGITS: u8 = 3;
/// Steps of a .hgrm in each half of the remaining distance to 100%: HdrHistogram's default.
pub const TICKS_PER_HALF_DISTANCE: u32 = 5;
const SECOND_NS: u64 = 1_000_000_000;

/// Counts of expected and actual deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliveries {
    /// Deliveries that should have happened: messages times their subscribers.
    pub expected: u64,
    /// Distinct deliveries that happened.
    pub delivered: u64,
    /// Delivered after a later message of the same channel; counted in `delivered`.
    pub out_of_order: u64,
    /// Second and further copies; not counted in `delivered`.
    pub duplicates: u64,
}

impl Deliveries {
    /// Deliveries that were expected and never came.
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.delivered)
    }

    /// An error if the counts contradict each other.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.delivered <= self.expected,
            "{} deliveries, but only {} expected: the expectation was not recorded",
            self.delivered,
            self.expected
        );
        Ok(())
    }
}

/// A distribution in numbers, all in ns except the count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Latencies recorded.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation.
    pub stdev: f64,
    /// Median.
    pub p50: u64,
    /// 90%.
    pub p90: u64,
    /// 99%.
    pub p99: u64,
    /// 99.9%.
    pub p99_9: u64,
    /// 99.99%.
    pub p99_99: u64,
    /// Largest.
    pub max: u64,
}

/// Distinct latencies and their counts: a second seldom holds more than a few hundred.
type Sparse = Vec<(u64, u64)>;

/// Records latencies in ns. Each thread has one; they are merged at the end.
#[derive(Debug, Clone)]
pub struct Recorder {
    started: SystemTime,
    total: Histogram<u64>,
    second: u64,
    present: Histogram<u64>,
    past: BTreeMap<u64, Sparse>,
    /// The account of deliveries; `delivered` is kept by [`Recorder::record`].
    pub deliveries: Deliveries,
}

impl Recorder {
    /// A recorder of a run that started at `started`; all recorders of a run take the same.
    pub fn new(started: SystemTime) -> Result<Self> {
        Ok(Recorder {
            started,
            total: histogram()?,
            second: 0,
            present: histogram()?,
            past: BTreeMap::new(),
            deliveries: Deliveries::default(),
        })
    }

    /// Announces deliveries that should happen.
    pub fn expect(&mut self, deliveries: u64) {
        self.deliveries.expected += deliveries;
    }

    /// Records a delivery at `at_ns` after the start with `latency_ns` since it should have been
    /// sent. If the clock steps back, the delivery counts in the present second.
    pub fn record(&mut self, at_ns: u64, latency_ns: u64) -> Result<()> {
        let second = at_ns / SECOND_NS;
        if second > self.second {
            self.close_second();
            self.second = second;
        }
        // Zero has no place in a histogram of ns; nothing on a socket takes less than one.
        let latency_ns = latency_ns.max(1);
        self.total.record(latency_ns).context("latency out of range")?;
        self.present.record(latency_ns).context("latency out of range")?;
        self.deliveries.delivered += 1;
        Ok(())
    }

    /// Takes over everything `other` has recorded in the same run.
    pub fn merge(&mut self, mut other: Recorder) -> Result<()> {
        ensure!(self.started == other.started, "recorders of different runs cannot be merged");
        self.total.add(&other.total).context("merging latencies")?;
        self.close_second();
        other.close_second();
        for (second, counts) in other.past {
            self.past.entry(second).or_default().extend(counts);
        }
        self.deliveries.expected += other.deliveries.expected;
        self.deliveries.delivered += other.deliveries.delivered;
        self.deliveries.out_of_order += other.deliveries.out_of_order;
        self.deliveries.duplicates += other.deliveries.duplicates;
        Ok(())
    }

    /// Start of the run.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// The distribution of the whole run, in ns. An error if nothing was recorded.
    pub fn total(&self) -> Result<&Histogram<u64>> {
        ensure!(!self.total.is_empty(), "no latencies were recorded: an empty run has no numbers");
        Ok(&self.total)
    }

    /// The distribution in numbers. An error if nothing was recorded or the account is wrong.
    pub fn percentiles(&self) -> Result<Percentiles> {
        self.deliveries.check()?;
        let h = self.total()?;
        Ok(Percentiles {
            count: h.len(),
            mean: h.mean(),
            stdev: h.stdev(),
            p50: h.value_at_quantile(0.5),
            p90: h.value_at_quantile(0.9),
            p99: h.value_at_quantile(0.99),
            p99_9: h.value_at_quantile(0.999),
            p99_99: h.value_at_quantile(0.9999),
            max: h.max(),
        })
    }

    /// Every second from the first to the last with a delivery: its number and distribution in ns,
    /// empty if nothing came.
    pub fn seconds(&self) -> Result<Vec<(u64, Histogram<u64>)>> {
        let mut counts = self.past.clone();
        if !self.present.is_empty() {
            counts.entry(self.second).or_default().extend(sparse(&self.present));
        }
        let (Some(&first), Some(&last)) = (counts.keys().next(), counts.keys().next_back()) else {
            return Ok(Vec::new());
        };
        let mut seconds = Vec::new();
        for second in first..=last {
            let mut one = histogram()?;
            for &(value, count) in counts.get(&second).into_iter().flatten() {
                one.record_n(value, count).context("merging a second")?;
            }
            seconds.push((second, one));
        }
        Ok(seconds)
    }

    fn close_second(&mut self) {
        if !self.present.is_empty() {
            let counts = sparse(&self.present);
            self.past.entry(self.second).or_default().extend(counts);
            self.present.reset();
        }
    }
}

/// 1 ns to 10 minutes at once, and as far as needed after that.
fn histogram() -> Result<Histogram<u64>> {
    let mut h = Histogram::new_with_bounds(1, 600 * SECOND_NS, SIGNIFICANT_DIGITS)
        .context("creating a histogram")?;
    h.auto(true);
    Ok(h)
}

fn sparse(h: &Histogram<u64>) -> Sparse {
    h.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn recorder() -> Recorder {
        Recorder::new(SystemTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut r = recorder();
        r.expect(100_001);
        for i in 1..=100_000 {
            r.record(i * 10_000, i * 1000).unwrap();
        }
        let p = r.percentiles().unwrap();
        assert_eq!(p.count, 100_000);
        let wanted = [50, 90, 99].map(|q| q * 1_000_000);
        for (got, want) in [p.p50, p.p90, p.p99].into_iter().zip(wanted) {
            assert!(got.abs_diff(want) <= want / 1000, "{got} {want}");
        }
        assert!(p.p99_9 < p.p99_99 && p.p99_99 <= p.max && p.max.abs_diff(100 * MS) <= MS / 10);
        assert_eq!(r.deliveries.lost(), 1);
    }

    #[test]
    fn threads_merge_second_by_second() {
        let (mut a, mut b) = (recorder(), recorder());
        a.record(100 * MS, 3 * MS).unwrap();
        b.record(200 * MS, 5 * MS).unwrap();
        b.record(3_100 * MS, 7 * MS).unwrap();
        a.record(3_200 * MS, 2 * MS).unwrap();
        a.expect(3);
        b.expect(1);
        b.deliveries.duplicates = 2;
        b.deliveries.out_of_order = 1;
        a.merge(b).unwrap();
        let wanted = Deliveries { expected: 4, delivered: 4, out_of_order: 1, duplicates: 2 };
        assert_eq!(a.deliveries, wanted);
        let seconds = a.seconds().unwrap();
        let counts: Vec<_> = seconds.iter().map(|(s, h)| (*s, h.len(), h.max() / MS)).collect();
        assert_eq!(counts, [(0, 2, 5), (1, 0, 0), (2, 0, 0), (3, 2, 7)]);
        let mut sum = histogram().unwrap();
        seconds.iter().for_each(|(_, h)| sum.add(h).unwrap());
        assert_eq!(&sum, a.total().unwrap());
    }

    #[test]
    fn a_second_is_taken_up_again_after_a_merge() {
        let (mut a, b) = (recorder(), recorder());
        a.record(5, MS).unwrap();
        a.merge(b).unwrap();
        a.record(6, MS).unwrap();
        assert_eq!(a.seconds().unwrap()[0].1.len(), 2);
    }

    #[test]
    fn zero_latency_a_clock_that_steps_back_and_surplus_deliveries_are_handled() {
        let mut r = recorder();
        assert!(r.percentiles().is_err(), "an empty run");
        assert!(r.seconds().unwrap().is_empty());
        r.record(2 * SECOND_NS, 0).unwrap();
        r.record(SECOND_NS, 3_600 * SECOND_NS).unwrap();
        assert_eq!(r.seconds().unwrap().len(), 1, "a clock that steps back");
        assert!(r.percentiles().is_err(), "more delivered than expected");
        r.expect(2);
        assert!(r.percentiles().unwrap().max >= 3_600 * SECOND_NS, "an hour is kept");
        let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        assert!(r.merge(Recorder::new(later).unwrap()).is_err());
    }
}
