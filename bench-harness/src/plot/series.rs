//! The points of a line in a plot.
//!
//! Owns the conversion from histograms to points. Never smooths or drops a point.

use hdrhistogram::Histogram;

use crate::latency::TICKS_PER_HALF_DISTANCE;

/// One line in each panel.
#[derive(Debug, Clone)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// (1/(1-percentile), latency in ns), ascending; the last is the maximum.
    pub percentiles: Vec<(f64, f64)>,
    /// (second since the start, highest latency in ns), ascending; a second without a delivery is
    /// absent, and the list is empty if only the whole run is known.
    pub worst: Vec<(f64, f64)>,
    /// Seconds per point of `worst`.
    pub step: f64,
}

/// The points of a histogram in the upper panel: (1/(1-percentile), value in the histogram's unit),
/// up to the number of samples and the maximum.
pub fn percentile_points(total: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps = total.iter_quantiles(TICKS_PER_HALF_DISTANCE);
    let mut points: Vec<(f64, f64)> = steps
        .filter(|step| step.quantile_iterated_to() < 1.0)
        .map(|step| (1.0 / (1.0 - step.quantile_iterated_to()), step.value_iterated_to() as f64))
        .collect();
    let last = points.last().map_or(1.0, |point| point.0);
    points.push((last.max(total.len() as f64), total.max() as f64));
    points
}
