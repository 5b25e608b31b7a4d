//! Histograms that one thread writes and others read, with the buckets of both formats of
//! Prometheus: classic buckets at chosen bounds, and native buckets, eight per power of two.
//!
//! Owns the cells. A cell lies between two neighbouring bounds of either kind, so each belongs to
//! one classic and to one native bucket, and both are exact sums of cells. Never allocates when it
//! counts: an observation is two relaxed writes, whatever number of equal values it stands for.

use std::sync::LazyLock;

use crate::base::counter::Counter;

/// Resolution of the native buckets: bounds grow by a factor of 2 to the power of 2^-3.
pub const SCHEMA: i32 = 3;
/// Native buckets per power of two.
const PER_OCTAVE: i32 = 1 << SCHEMA;
/// Cells of a histogram; a layout may need fewer.
const CELLS_MAX: usize = 232;

/// Where the cells of a kind of histogram begin and end.
#[derive(Debug)]
pub struct Layout {
    /// Value of one unit that is counted: 1e-6 for microseconds in seconds.
    unit: f64,
    /// Upper bounds of the classic buckets, in the unit of the metric.
    classic: &'static [f64],
    /// Largest value of each cell, in units; the last cell has no bound.
    bounds: Vec<u64>,
    /// Index of each cell's native bucket; that of the first is the zero bucket.
    native: Vec<i32>,
    /// Values up to this one are in the zero bucket.
    pub zero_threshold: f64,
}

impl Layout {
    /// Native buckets reach from 2 to the power of `octaves.0` to 2 to the power of `octaves.1`.
    fn new(unit: f64, octaves: (i32, i32), classic: &'static [f64]) -> Self {
        let native_bound = |index: i32| 2f64.powf(f64::from(index) / f64::from(PER_OCTAVE));
        // The small addition takes a decimal bound that has no exact representation as meant.
        let units = |bound: f64| (bound / unit * (1.0 + 1e-12)).floor() as u64;
        let first = octaves.0 * PER_OCTAVE;
        let indexes = first..=octaves.1 * PER_OCTAVE;
        let mut bounds: Vec<u64> = indexes.clone().map(native_bound).map(units).collect();
        bounds.extend(classic.iter().copied().map(units));
        bounds.sort_unstable();
        bounds.dedup();
        let ends: Vec<(u64, i32)> =
            indexes.map(|index| (units(native_bound(index)), index)).collect();
        let bucket = |bound: &u64| {
            let at = ends.partition_point(|(end, _)| end < bound);
            ends.get(at).map_or(octaves.1 * PER_OCTAVE + 1, |(_, index)| *index)
        };
        let mut native: Vec<i32> = bounds.iter().map(bucket).collect();
        native.push(octaves.1 * PER_OCTAVE + 1);
        Layout { unit, classic, bounds, native, zero_threshold: native_bound(first) }
    }

    fn cell(&self, value: u64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }
}

/// Durations in microseconds up to half a minute, with Centrifugo's bounds of short durations.
pub static DURATIONS: LazyLock<Layout> = LazyLock::new(|| {
    const BOUNDS: &[f64] = &[
        0.000_001, 0.000_005, 0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01,
        0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];
    Layout::new(1e-6, (-20, 5), BOUNDS)
});

/// Durations of commands and pings in microseconds, with Centrifugo's bounds.
pub static COMMANDS: LazyLock<Layout> = LazyLock::new(|| {
    const BOUNDS: &[f64] = &[
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        10.0,
    ];
    Layout::new(1e-6, (-20, 5), BOUNDS)
});

/// Durations of HTTP requests in microseconds, with the bounds that Prometheus calls its defaults.
pub static REQUESTS: LazyLock<Layout> = LazyLock::new(|| {
    const BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    Layout::new(1e-6, (-20, 5), BOUNDS)
});

/// Numbers of publications, with Centrifugo's bounds.
pub static NUMBERS: LazyLock<Layout> = LazyLock::new(|| {
    const BOUNDS: &[f64] = &[
        0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 5000.0,
        10_000.0,
    ];
    Layout::new(1.0, (0, 14), BOUNDS)
});

/// A histogram. The caller names its layout, and always the same one.
#[derive(Debug)]
pub struct Histogram {
    cells: [Counter; CELLS_MAX],
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { cells: std::array::from_fn(|_| Counter::default()), sum: Counter::default() }
    }
}

impl Histogram {
    /// Counts `times` observations of `value`, in units of the layout.
    pub fn observe(&self, layout: &Layout, value: u64, times: u64) {
        if let Some(cell) = self.cells.get(layout.cell(value)) {
            cell.add(times);
            self.sum.add(value.wrapping_mul(times));
        }
    }

    /// Counts observations with their numbers. The sum is written once.
    pub fn observe_all(&self, layout: &Layout, observed: impl Iterator<Item = (u64, u64)>) {
        let mut sum = 0u64;
        for (value, times) in observed {
            if let Some(cell) = self.cells.get(layout.cell(value)) {
                cell.add(times);
                sum = sum.wrapping_add(value.wrapping_mul(times));
            }
        }
        self.sum.add(sum);
    }

    /// Whether anything was counted.
    pub fn is_used(&self) -> bool {
        self.cells.iter().any(|cell| cell.get() > 0)
    }

    /// Counts one observation, for a histogram that several threads of the control plane write.
    pub fn observe_shared(&self, layout: &Layout, value: u64) {
        if let Some(cell) = self.cells.get(layout.cell(value)) {
            cell.add_shared(1);
            self.sum.add_shared(value);
        }
    }
}

/// Counts of one or several histograms of a layout at one moment.
#[derive(Clone, Debug)]
pub struct HistogramSnapshot {
    layout: &'static Layout,
    cells: Vec<u64>,
    sum: u64,
}

/// Native buckets: the first index, and the counts from there on without empty ones at the ends.
#[derive(Debug, PartialEq, Eq)]
pub struct NativeBuckets {
    /// Observations that are at most the zero threshold.
    pub zeros: u64,
    /// Each bucket with observations: its index, and their number. In ascending order.
    pub counts: Vec<(i32, u64)>,
}

impl HistogramSnapshot {
    /// Sum of histograms of one layout.
    pub fn of<'a>(
        layout: &'static Layout,
        histograms: impl IntoIterator<Item = &'a Histogram>,
    ) -> Self {
        let mut all = HistogramSnapshot { layout, cells: vec![0; layout.native.len()], sum: 0 };
        for histogram in histograms {
            for (sum, cell) in all.cells.iter_mut().zip(&histogram.cells) {
                *sum += cell.get();
            }
            all.sum = all.sum.wrapping_add(histogram.sum.get());
        }
        all
    }

    /// What was counted since an earlier snapshot of the same histograms.
    pub fn since(&self, earlier: &HistogramSnapshot) -> Self {
        let mut all = self.clone();
        for (now, before) in all.cells.iter_mut().zip(&earlier.cells) {
            *now = now.saturating_sub(*before);
        }
        all.sum = self.sum.wrapping_sub(earlier.sum);
        all
    }

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.cells.iter().sum()
    }

    /// Sum of the observed values, in the unit of the metric.
    pub fn sum(&self) -> f64 {
        self.sum as f64 * self.layout.unit
    }

    /// Upper bound of the values of the zero bucket.
    pub fn zero_threshold(&self) -> f64 {
        self.layout.zero_threshold
    }

    /// Classic buckets: each upper bound with the number of observations up to it.
    pub fn classic(&self) -> impl Iterator<Item = (f64, u64)> {
        let (mut at, mut count) = (0, 0);
        self.layout.classic.iter().map(move |bound| {
            let most = (bound / self.layout.unit * (1.0 + 1e-12)).floor() as u64;
            while let (Some(end), Some(cell)) = (self.layout.bounds.get(at), self.cells.get(at))
                && *end <= most
            {
                count += cell;
                at += 1;
            }
            (*bound, count)
        })
    }

    /// Native buckets with observations.
    pub fn native(&self) -> NativeBuckets {
        let mut buckets = NativeBuckets { zeros: 0, counts: Vec::new() };
        let zero = self.layout.native.first().copied().unwrap_or_default();
        for (index, count) in self.layout.native.iter().zip(&self.cells) {
            match buckets.counts.last_mut() {
                _ if *count == 0 => {}
                _ if *index == zero => buckets.zeros += count,
                Some((last, sum)) if last == index => *sum += count,
                _ => buckets.counts.push((*index, *count)),
            }
        }
        buckets
    }

    /// The value that a share of the observations does not exceed, as the upper end of its cell;
    /// `None`: there are no observations.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        let found = self.cells.iter().position(|cell| {
            below += cell;
            below >= rank
        })?;
        let last = self.layout.bounds.last().copied().unwrap_or_default();
        let bound = self.layout.bounds.get(found).copied().unwrap_or(last);
        Some(bound as f64 * self.layout.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::counter::writes;

    fn filled(layout: &'static Layout, values: &[u64]) -> HistogramSnapshot {
        let histogram = Histogram::default();
        for value in values {
            histogram.observe(layout, *value, 1);
        }
        HistogramSnapshot::of(layout, [&histogram])
    }

    #[test]
    fn every_layout_fits_and_has_each_bound_once() {
        for layout in [&DURATIONS, &COMMANDS, &REQUESTS, &NUMBERS] {
            assert!(layout.native.len() <= CELLS_MAX, "{}", layout.native.len());
            assert!(layout.bounds.is_sorted_by(|one, two| one < two));
            assert!(layout.native.is_sorted());
        }
    }

    #[test]
    fn classic_buckets_count_values_up_to_their_bound() {
        let found = filled(&COMMANDS, &[0, 100, 101, 250, 10_000_000, 10_000_001, 90_000_000]);
        let counts: Vec<_> = found.classic().collect();
        assert_eq!(counts[..3], [(0.0001, 2), (0.00025, 4), (0.0005, 4)]);
        assert_eq!(counts.last(), Some(&(10.0, 5)));
        assert_eq!(found.count(), 7);
        assert!((found.sum() - 110.000_452).abs() < 1e-9, "{}", found.sum());
    }

    /// For values of every size, the native bucket is the one that its definition gives.
    #[test]
    fn native_buckets_hold_the_values_between_their_bounds() {
        for value in (1..2000).chain((0..14).map(|power| 3_000 << power)) {
            let seconds = value as f64 * 1e-6;
            let found = filled(&DURATIONS, &[value]).native();
            let expected = (seconds.log2() * 8.0 - 1e-9).ceil().min(41.0) as i32;
            assert_eq!(found.counts, [(expected, 1)], "{value}");
        }
        assert_eq!(filled(&DURATIONS, &[0, 0]).native().zeros, 2);
        let numbers = filled(&NUMBERS, &[0, 1, 2, 3]).native();
        assert_eq!((numbers.zeros, numbers.counts), (2, vec![(8, 1), (13, 1)]));
    }

    #[test]
    fn a_quantile_is_at_most_a_ninth_above_the_value() {
        let values: Vec<u64> = (1..=1000).map(|nth| nth * 10).collect();
        let found = filled(&DURATIONS, &values);
        for (share, value) in [(0.5, 0.005), (0.99, 0.0099), (1.0, 0.01)] {
            let quantile = found.quantile(share).unwrap();
            assert!(quantile >= value && quantile <= value * 1.1, "{share}: {quantile}");
        }
        assert_eq!(filled(&DURATIONS, &[]).quantile(0.5), None);
    }

    #[test]
    fn snapshots_sum_shards_and_subtract() {
        let (one, two) = (Histogram::default(), Histogram::default());
        one.observe(&DURATIONS, 10, 3);
        let earlier = HistogramSnapshot::of(&DURATIONS, [&one, &two]);
        two.observe(&DURATIONS, 20, 2);
        two.observe_shared(&DURATIONS, 30);
        let both = HistogramSnapshot::of(&DURATIONS, [&one, &two]);
        assert_eq!((earlier.count(), both.count()), (3, 6));
        let since = both.since(&earlier);
        assert_eq!(since.count(), 3);
        assert!((since.sum() - 70e-6).abs() < 1e-12);
    }

    #[test]
    fn an_observation_is_two_writes() {
        let histogram = Histogram::default();
        let before = writes();
        histogram.observe(&DURATIONS, 77, 1000);
        assert_eq!(writes() - before, 2);
    }
}
