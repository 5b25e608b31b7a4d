//! The axes of a plot: scale, ticks and labels.
//!
//! Owns where a value is drawn. Invariant: every point of a series lies inside its axes.

use super::series::Series;
use super::svg::{LEFT, RIGHT, WIDTH};
use crate::rows::number;

/// The axis of values.
pub struct ValueAxis {
    /// Whether the scale is logarithmic.
    log: bool,
    low: f64,
    high: f64,
    /// Values of the grid lines.
    pub ticks: Vec<f64>,
    /// Its name: the unit of the labels.
    pub name: String,
    label: fn(f64) -> String,
}

impl ValueAxis {
    /// The axis that fits the latencies of these points, in ns: linear from zero, or logarithmic if
    /// the points span more than two decades.
    pub fn of_latency<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Self {
        let (low, high) = points.fold((f64::MAX, 1.0_f64), |(low, high), (_, ns)| {
            (low.min(ns.max(1.0)), high.max(*ns))
        });
        let low = low.min(high);
        let axis = if high / low > 100.0 { Self::log(low, high) } else { Self::linear(high) };
        let name = if axis.log { "ms (log scale)" } else { "ms" };
        ValueAxis { name: name.to_owned(), label: milliseconds, ..axis }
    }

    /// The linear axis from zero that fits these values of this unit.
    pub fn from_zero(values: impl Iterator<Item = f64>, unit: &str) -> Self {
        let high = values.fold(0.0, f64::max);
        let axis = Self::linear(if high > 0.0 { high } else { 1.0 });
        ValueAxis { name: unit.to_owned(), ..axis }
    }

    fn linear(high: f64) -> Self {
        let step = round_step(high / 5.0, &[1.0, 2.0, 2.5, 5.0]);
        let count = (high / step).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|i| f64::from(i) * step).collect();
        Self::scaled(false, (0.0, count * step), ticks)
    }

    fn scaled(log: bool, (low, high): (f64, f64), ticks: Vec<f64>) -> Self {
        ValueAxis { log, low, high, ticks, name: String::new(), label: number }
    }

    fn log(low: f64, high: f64) -> Self {
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let within = |e: i32| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(e));
        let all: Vec<f64> = (first..=last).flat_map(within).collect();
        let low = all.iter().copied().rfind(|t| *t <= low).unwrap_or(low);
        let high = all.iter().copied().find(|t| *t >= high).unwrap_or(high);
        // Few decades leave room for 2 and 5 between the powers of ten.
        let room = high / low <= 2e3;
        let ticks = all.iter().enumerate().filter(|(i, _)| room || i.is_multiple_of(3));
        let ticks = ticks.map(|(_, t)| *t).filter(|t| (low..=high).contains(t)).collect();
        Self::scaled(true, (low, high), ticks)
    }

    /// Label of a tick.
    pub fn label(&self, value: f64) -> String {
        (self.label)(value)
    }

    /// Position of a value between bottom (0) and top (1).
    pub fn part(&self, value: f64) -> f64 {
        if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            value / self.high
        }
    }
}

/// The smallest of `multiples` times a power of ten that is at least `raw`.
fn round_step(raw: f64, multiples: &[f64]) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    let mut steps = multiples.iter().map(|m| m * power);
    steps.find(|step| *step >= raw * 0.999).unwrap_or(10.0 * power)
}

/// Label of a tick of the latency axis, in ms.
fn milliseconds(ns: f64) -> String {
    let ms = ns / 1e6;
    if ms >= 1000.0 {
        return number(ms);
    }
    // Ticks are short decimals; the rounding only hides the error of the division.
    let text = format!("{ms:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The percentile axis.
pub struct PercentileAxis {
    high: f64,
}

impl PercentileAxis {
    /// The axis that fits all points of the series.
    pub fn over(series: &[Series]) -> Self {
        let last = series.iter().filter_map(|s| s.percentiles.last());
        PercentileAxis { high: last.map(|p| p.0).fold(10.0, f64::max) }
    }

    /// Position of 1/(1-percentile).
    pub fn at(&self, x: f64) -> f64 {
        LEFT + (WIDTH - RIGHT - LEFT) * x.max(1.0).log10() / self.high.log10()
    }

    /// Positions and labels of the ticks.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let decades = (self.high.log10() + 1e-9).floor() as usize;
        let mut ticks = vec![(self.at(1.0), "0%".to_owned())];
        if decades < 4 {
            ticks.push((self.at(2.0), "50%".to_owned()));
        }
        for decade in 1..=decades {
            let label = match decade {
                1 => "90%".to_owned(),
                2 => "99%".to_owned(),
                more => format!("99.{}%", "9".repeat(more - 2)),
            };
            ticks.push((self.at(10f64.powi(decade as i32)), label));
        }
        ticks
    }
}

/// The time axis. Times at which no series has a point for long are cut out, because the phases of
/// a run may lie minutes apart.
pub struct TimeAxis {
    /// First and last second of each part between two cuts.
    parts: Vec<(f64, f64)>,
    /// Pixels per second.
    scale: f64,
}

/// Width of a cut, in pixels.
const CUT: f64 = 14.0;
/// Smallest distance of two labels, in pixels.
const LABEL: f64 = 52.0;

impl TimeAxis {
    /// The axis that fits these seconds.
    pub fn over(seconds: impl Iterator<Item = f64>) -> Self {
        let mut seconds: Vec<f64> = seconds.collect();
        seconds.sort_by(f64::total_cmp);
        let all = seconds.last().copied().unwrap_or(0.0) - seconds.first().copied().unwrap_or(0.0);
        let longest = (all / 20.0).max(10.0);
        let mut parts: Vec<(f64, f64)> = Vec::new();
        for second in seconds {
            match parts.last_mut() {
                Some(part) if second - part.1 <= longest => part.1 = second,
                _ => parts.push((second, second)),
            }
        }
        let length: f64 = parts.iter().map(|part| part.1 - part.0).sum();
        let cuts = CUT * parts.len().saturating_sub(1) as f64;
        TimeAxis { parts, scale: (WIDTH - RIGHT - LEFT - cuts) / length.max(1.0) }
    }

    /// Position of a second.
    pub fn at(&self, second: f64) -> f64 {
        let mut left = LEFT;
        for (first, last) in &self.parts {
            if second <= *last {
                return left + (second - first).max(0.0) * self.scale;
            }
            left += (last - first) * self.scale + CUT;
        }
        left - CUT
    }

    /// Positions of the middle of each cut.
    pub fn cuts(&self) -> Vec<f64> {
        self.parts.iter().skip(1).map(|part| self.at(part.0) - CUT / 2.0).collect()
    }

    /// Positions and labels of the ticks: the first second of each part, and round seconds.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let shown = (WIDTH - RIGHT - LEFT) / self.scale;
        let step = round_step(shown / 10.0, &[1.0, 2.0, 5.0]).max(1.0);
        let label = |second: f64| (self.at(second), number(second));
        let mut ticks: Vec<(f64, String)> = Vec::new();
        for (nth, (first, last)) in self.parts.iter().enumerate() {
            if nth > 0 {
                // The label of the first second replaces one that is too near.
                ticks.pop_if(|tick| self.at(*first) - tick.0 < LABEL);
            }
            if self.parts.len() > 1 {
                ticks.push(label(*first));
            }
            for round in (first / step).ceil() as u64..=(last / step).floor() as u64 {
                let tick = label(round as f64 * step);
                if ticks.last().is_none_or(|before| tick.0 - before.0 >= LABEL) {
                    ticks.push(tick);
                }
            }
        }
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_with_short_labels() {
        let linear = ValueAxis::of_latency([(1.0, 3e6), (2.0, 42e6)].iter());
        assert!(!linear.log);
        assert_eq!(linear.ticks, [0.0, 1e7, 2e7, 3e7, 4e7, 5e7]);
        let log = ValueAxis::of_latency([(1.0, 80e3), (2.0, 42e6)].iter());
        assert!(log.log && log.low == 50e3 && log.high == 50e6, "{} {}", log.low, log.high);
        assert!((log.part(50e6) - 1.0).abs() < 1e-9 && log.part(50e3) == 0.0);
        for (ns, text) in [(5e4, "0.05"), (1e7, "10"), (0.0, "0"), (1e3, "0.001"), (2e10, "20,000")]
        {
            assert_eq!(milliseconds(ns), text);
        }
        let labels: Vec<String> =
            PercentileAxis { high: 1e6 }.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(labels, ["0%", "90%", "99%", "99.9%", "99.99%", "99.999%", "99.9999%"]);
        for (raw, step) in [(1.0, 1.0), (1.3, 2.0), (3.0, 5.0), (70.0, 100.0)] {
            assert_eq!(round_step(raw, &[1.0, 2.0, 5.0]), step);
        }
    }

    #[test]
    fn values_are_drawn_from_zero_in_their_unit() {
        let axis = ValueAxis::from_zero([61.5, 64.0].into_iter(), "MiB");
        assert_eq!((axis.name.as_str(), axis.part(0.0), axis.part(axis.high)), ("MiB", 0.0, 1.0));
        assert_eq!(axis.ticks.iter().map(|tick| axis.label(*tick)).next_back().unwrap(), "80");
        let idle = ValueAxis::from_zero([0.0].into_iter(), "messages");
        assert!(idle.part(0.0) == 0.0 && idle.ticks.len() > 1, "a line at zero");
    }

    #[test]
    fn long_silences_are_cut_out_of_the_time_axis() {
        let axis = TimeAxis::over((100..161).chain(1000..1041).map(f64::from));
        let (first, last) = (LEFT, WIDTH - RIGHT);
        assert_eq!([axis.at(100.0), axis.at(1040.0)].map(f64::round), [first, last]);
        assert_eq!((axis.at(1000.0) - axis.at(160.0)).round(), CUT);
        assert_eq!(axis.cuts().len(), 1);
        let labels: Vec<String> = axis.ticks().into_iter().map(|tick| tick.1).collect();
        assert_eq!(labels, ["100", "120", "140", "1,000", "1,020", "1,040"]);
        let whole = TimeAxis::over((3..14).map(f64::from));
        assert!(whole.cuts().is_empty() && whole.at(3.0) == first && whole.at(13.0) == last);
    }
}
