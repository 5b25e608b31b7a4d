//! Latency plots: latency by percentile, and the highest latency of each second.
//!
//! Owns the panels. Never smooths or drops a point. Invariant: x of the upper panel is
//! 1/(1-percentile) on a log axis, HdrHistogram's convention, and ends at the number of samples.

use std::fmt::Write;

use anyhow::{Result, ensure};

use self::axes::{PercentileAxis, TimeAxis, ValueAxis};
use self::panel::{AXIS, Panel, legend};
use self::svg::{LEFT, Svg, document, wrap};

mod axes;
mod bars;
mod over_time;
mod panel;
mod series;
mod svg;

pub use self::bars::{Bar, Quantity, chart};
pub use self::over_time::over_time;
pub use self::series::{Series, percentile_points};
pub use self::svg::escape;

const UPPER_HEIGHT: f64 = 330.0;
const LOWER_HEIGHT: f64 = 170.0;
/// Characters of the subtitle that fit on a line.
const SUBTITLE_CHARS: usize = 125;

/// A plot of latency series.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Heading; empty for a plot without one.
    pub title: String,
    /// Load, commit and kernel; may have several lines.
    pub subtitle: String,
    /// The lines, in the order of the legend.
    pub series: Vec<Series>,
}

impl Plot {
    /// The plot as an SVG document. An error if there is nothing to draw.
    pub fn svg(&self) -> Result<String> {
        stack(std::slice::from_ref(self))
    }

    /// Draws both panels, the lower only if a series has seconds; returns the height.
    fn draw(&self, svg: &mut Svg) -> Result<f64> {
        ensure!(!self.series.is_empty(), "a plot without series");
        let top = self.head(svg);
        let y = ValueAxis::of_latency(self.series.iter().flat_map(|s| &s.percentiles));
        let x = PercentileAxis::over(&self.series);
        let upper = Panel { top, height: UPPER_HEIGHT };
        upper.frame(svg, &y, &x.ticks(), "percentile");
        for (nth, series) in self.series.iter().enumerate() {
            upper.line(svg, (nth, &y), &series.percentiles, |v| x.at(v), |_, _| false);
        }
        if self.series.iter().all(|series| series.worst.is_empty()) {
            return Ok(top + UPPER_HEIGHT + AXIS);
        }
        let worst = || self.series.iter().flat_map(|s| &s.worst);
        let (y, x) = (ValueAxis::of_latency(worst()), TimeAxis::over(worst().map(|point| point.0)));
        let lower = Panel { top: top + UPPER_HEIGHT + AXIS + 22.0, height: LOWER_HEIGHT };
        svg.text(LEFT, lower.top - 10.0, "highest latency of each second", "class='b'");
        lower.frame(svg, &y, &x.ticks(), "seconds since the start");
        for at in x.cuts() {
            svg.line((at, lower.top), (at, lower.top + LOWER_HEIGHT), "axis d1");
        }
        for (nth, series) in self.series.iter().enumerate() {
            let gap = |a, b| b - a > 1.5 * series.step;
            lower.line(svg, (nth, &y), &series.worst, |v| x.at(v), gap);
        }
        Ok(lower.top + LOWER_HEIGHT + AXIS)
    }

    /// Draws title, subtitle and legend; returns the top of the upper panel.
    fn head(&self, svg: &mut Svg) -> f64 {
        let mut y = 0.0;
        if !self.title.is_empty() {
            svg.text(LEFT, 36.0, &self.title, "class='t'");
            y = 40.0;
        }
        for line in self.subtitle.lines().flat_map(|line| wrap(line, SUBTITLE_CHARS)) {
            y += 18.0;
            svg.text(LEFT, y, &line, "class='s'");
        }
        y += 26.0;
        y = legend(svg, y, self.series.iter().map(|series| series.name.as_str()));
        svg.text(LEFT, y + 28.0, "latency by percentile", "class='b'");
        y + 38.0
    }
}

/// Several plots below each other in one SVG document. An error if there is nothing to draw.
pub fn stack(plots: &[Plot]) -> Result<String> {
    ensure!(!plots.is_empty(), "nothing to draw");
    let (mut body, mut height) = (String::new(), 0.0);
    for plot in plots {
        let mut svg = Svg::default();
        let own = plot.draw(&mut svg)?;
        let _ = write!(body, "<g transform='translate(0 {height:.0})'>\n{}</g>\n", svg.body);
        height += own;
    }
    let mut titles: Vec<&str> = plots.iter().map(|plot| plot.title.as_str()).collect();
    titles.push("latency by percentile and the highest latency of each second");
    titles.retain(|title| !title.is_empty());
    Ok(document(&titles.join("; "), &body, height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Recorder;

    fn recorded(name: &str, recorder: &Recorder) -> Series {
        let seconds = recorder.seconds().unwrap();
        let worst = seconds.iter().map(|(second, h)| (*second as f64, h.max() as f64)).collect();
        let percentiles = percentile_points(recorder.total().unwrap());
        Series { name: name.to_owned(), percentiles, worst, step: 1.0 }
    }

    fn series(name: &str, worst: u64) -> Series {
        let mut r = Recorder::new(std::time::SystemTime::UNIX_EPOCH).unwrap();
        for i in 0..20_000u64 {
            let latency = if i % 5_000 == 77 { worst } else { 80_000 + i * 10 };
            r.record(i * 1_000_000, latency).unwrap();
        }
        recorded(name, &r)
    }

    #[test]
    fn a_percentile_line_ends_at_the_maximum_and_the_count() {
        let s = series("a", 48_000_000);
        let (x, y) = *s.percentiles.last().unwrap();
        assert!(x >= 20_000.0);
        assert!((y - 48e6).abs() < 48e3);
        assert_eq!(s.worst.len(), 20);
        assert!(s.percentiles.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
    }

    #[test]
    fn text_is_escaped_and_every_series_has_two_lines() {
        let plot = Plot {
            title: "a < b & c".into(),
            subtitle: "x ".repeat(100),
            series: vec![series("one", 1_000_000), series("two", 90_000_000)],
        };
        let svg = plot.svg().unwrap();
        assert!(svg.contains("a &lt; b &amp; c") && svg.matches("<polyline").count() == 4);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert!(Plot { series: Vec::new(), ..plot }.svg().is_err());
    }

    #[test]
    fn a_single_sample_is_a_dot() {
        let mut r = Recorder::new(std::time::SystemTime::UNIX_EPOCH).unwrap();
        r.record(0, 5).unwrap();
        let series = vec![recorded("one", &r)];
        let svg = Plot { title: String::new(), subtitle: String::new(), series }.svg().unwrap();
        assert!(svg.contains("<circle") && !svg.contains("NaN"));
    }
}
