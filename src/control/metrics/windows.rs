//! Summaries of recent observations, under the names that Centrifugo still shows beside histograms.
//!
//! Owns earlier snapshots of each histogram, taken at scrapes. The invariant: per series there are
//! at most eleven.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::family::{Family, FamilyKind, Summary, Value};
use crate::base::histogram::HistogramSnapshot;

/// Observations older than this do not count, if there was a scrape since.
const WINDOW: Duration = Duration::from_mins(10);
/// Minimum time between two snapshots.
const STEP: Duration = Duration::from_mins(1);
/// Shares of the quantiles, as in Centrifugo.
const SHARES: [f64; 3] = [0.5, 0.99, 0.999];
/// End of the names of histograms that have a summary.
const SUFFIX: &str = "_seconds_histogram";

/// Name and labels of a series.
type Key = (String, Vec<String>);

/// Earlier snapshots of histograms.
#[derive(Debug, Default)]
pub struct Windows {
    earlier: HashMap<Key, VecDeque<(Instant, HistogramSnapshot)>>,
}

impl Windows {
    /// The summaries of those families whose name says that they have one.
    pub fn summaries(&mut self, families: &[Family], now: Instant) -> Vec<Family> {
        let with_summary = families.iter().filter(|family| family.name.ends_with(SUFFIX));
        with_summary.map(|family| self.summary(family, now)).collect()
    }

    fn summary(&mut self, family: &Family, now: Instant) -> Family {
        let name = family.name.trim_end_matches("_histogram");
        let help = format!("{} Quantiles of the last ten minutes.", family.help);
        let kind = FamilyKind::Summary;
        let mut summary = Family::new(name.to_owned(), &help, kind, family.labels);
        for (labels, value) in &family.series {
            let Value::Histogram(found) = value else { continue };
            let recent = self.recent((name.to_owned(), labels.clone()), found, now);
            let quantiles = SHARES.map(|share| (share, recent.quantile(share).unwrap_or(f64::NAN)));
            let (count, sum) = (found.count(), found.sum());
            let value = Value::Summary(Summary { quantiles: quantiles.to_vec(), count, sum });
            summary.series.push((labels.clone(), value));
        }
        summary
    }

    /// What was observed within the window.
    fn recent(&mut self, key: Key, found: &HistogramSnapshot, now: Instant) -> HistogramSnapshot {
        let earlier = self.earlier.entry(key).or_default();
        while earlier.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            earlier.pop_front();
        }
        let is_whole = earlier.front().is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW);
        let recent = match earlier.front() {
            Some((_, before)) if is_whole => found.since(before),
            _ => found.clone(),
        };
        if earlier.back().is_none_or(|(at, _)| now.duration_since(*at) >= STEP) {
            earlier.push_back((now, found.clone()));
        }
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::histogram::{COMMANDS, Histogram};

    #[test]
    fn a_summary_forgets_what_is_older_than_its_window() {
        let (histogram, mut windows) = (Histogram::default(), Windows::default());
        let start = Instant::now();
        let mut median = |minutes: u64, micros: u64| {
            histogram.observe(&COMMANDS, micros, 10);
            let family = Family::new("a_seconds_histogram".into(), "", FamilyKind::Histogram, &[]);
            let found = HistogramSnapshot::of(&COMMANDS, [&histogram]);
            let families = [family.with_histograms([(Vec::new(), found)])];
            let now = start + Duration::from_mins(minutes);
            let summaries = windows.summaries(&families, now);
            assert_eq!(summaries[0].name, "a_seconds");
            let kept = windows.earlier.values().next().map_or(0, VecDeque::len);
            assert!(kept <= 11, "{kept}");
            let Value::Summary(summary) = &summaries[0].series[0].1 else { panic!() };
            (summary.quantiles[0].1 * 1e6, summary.count)
        };
        let (first, _) = median(0, 1_000);
        assert!((first - 1_000.0).abs() < 100.0, "{first}");
        for minute in 1..=15 {
            median(minute, 1_000);
        }
        for minute in 16..=25 {
            median(minute, 8_000);
        }
        let (last, count) = median(26, 8_000);
        assert!(last > 7_000.0, "{last}");
        assert_eq!(count, 270);
    }
}
