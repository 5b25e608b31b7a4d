//! plot.svg: latency by percentile, and the worst of every second.
//!
//! Owns the drawing, by hand: two panels need no library. Never smooths, cuts or drops a point.
//! Invariant: x of the upper panel is 1/(1-percentile) on a log axis, HdrHistogram's convention,
//! and ends where the run's own count of samples ends.

use std::fmt::Write;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use crate::latency::{Recorder, TICKS_PER_HALF_DISTANCE};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 44.0;
const UPPER_HEIGHT: f64 = 330.0;
const LOWER_HEIGHT: f64 = 170.0;
/// Room below a panel for its ticks and the name of its axis.
const AXIS: f64 = 62.0;
/// Characters of the subtitle and legend that fit a line at their font sizes.
const SUBTITLE_CHARS: usize = 125;
/// Of each line on a light ground and on a dark one.
const COLOURS: [(&str, &str); 8] = [
    ("#0b62a4", "#5aa9e6"),
    ("#d1495b", "#ff7f8e"),
    ("#2e8b57", "#5fcf92"),
    ("#b86f00", "#f2b04a"),
    ("#7b4ea3", "#bb93e0"),
    ("#0f8080", "#4ecaca"),
    ("#8c5a3c", "#c99878"),
    ("#5a5a5a", "#b4b4b4"),
];
/// So that lines are told apart without their colours, too.
const DASHES: [&str; 4] = ["none", "9 3", "3 3", "9 3 3 3"];

/// One line in each panel.
#[derive(Debug, Clone)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// (1/(1-percentile), latency in ns), ascending; the last is the maximum.
    percentiles: Vec<(f64, f64)>,
    /// (second since the start, worst latency in ns); a second without a delivery is absent.
    worst: Vec<(f64, f64)>,
    /// Seconds that one point of `worst` stands for.
    step: f64,
}

impl Series {
    /// The series of everything recorded. An error if nothing was.
    pub fn new(name: impl Into<String>, recorder: &Recorder) -> Result<Self> {
        let seconds = recorder.seconds()?;
        let worst = seconds.iter().filter(|(_, h)| !h.is_empty());
        let worst = worst.map(|(second, h)| (*second as f64, h.max() as f64)).collect();
        let percentiles = percentile_points(recorder.total()?);
        Ok(Series { name: name.into(), percentiles, worst, step: 1.0 })
    }

    /// A series whose points were read from files: (1/(1-percentile), ns) and (second, ns), both
    /// ascending. A point of `worst` stands for `step` seconds; without any there is no line.
    pub fn of_points(
        name: impl Into<String>,
        percentiles: Vec<(f64, f64)>,
        worst: Vec<(f64, f64)>,
        step: f64,
    ) -> Self {
        Series { name: name.into(), percentiles, worst, step }
    }
}

/// The points of a histogram in the upper panel, (1/(1-percentile), value), up to its count of
/// samples and its maximum. The values keep the histogram's unit.
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

/// A drawing of one scenario.
#[derive(Debug, Clone)]
pub struct Plot {
    /// The scenario, in words; without one the head is left out.
    pub title: String,
    /// Load, commit and kernel; may have several lines.
    pub subtitle: String,
    /// The lines, in the order of the legend.
    pub series: Vec<Series>,
}

impl Plot {
    /// The drawing as an SVG document. An error if there is nothing to draw.
    pub fn svg(&self) -> Result<String> {
        stack(std::slice::from_ref(self))
    }

    /// Draws both panels, the lower only where a series knows its seconds; answers the height.
    fn draw(&self, svg: &mut Svg) -> Result<f64> {
        ensure!(!self.series.is_empty(), "a plot without series");
        let top = self.head(svg);
        let y = Latency::over(self.series.iter().flat_map(|s| &s.percentiles));
        let x = Percentile::over(&self.series);
        let upper = Panel { top, height: UPPER_HEIGHT };
        upper.frame(svg, &y, &x.ticks(), "percentile");
        upper.lines(svg, &y, &self.series, |s| &s.percentiles, |v| x.at(v), |_, _, _| false);
        if self.series.iter().all(|series| series.worst.is_empty()) {
            return Ok(top + UPPER_HEIGHT + AXIS);
        }
        let y = Latency::over(self.series.iter().flat_map(|s| &s.worst));
        let x = Seconds::over(&self.series);
        let lower = Panel { top: top + UPPER_HEIGHT + AXIS + 22.0, height: LOWER_HEIGHT };
        svg.text(LEFT, lower.top - 10.0, "worst of each second", "class='b'");
        lower.frame(svg, &y, &x.ticks(), "seconds since the start");
        let gap = |s: &Series, a: f64, b: f64| b - a > 1.5 * s.step;
        lower.lines(svg, &y, &self.series, |s| &s.worst, |v| x.at(v), gap);
        Ok(lower.top + LOWER_HEIGHT + AXIS)
    }

    /// Title, subtitle and legend; answers where the upper panel begins.
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
        let mut x = LEFT;
        for (i, series) in self.series.iter().enumerate() {
            let wide = 44.0 + 7.6 * series.name.chars().count() as f64;
            if x > LEFT && x + wide > WIDTH - RIGHT {
                x = LEFT;
                y += 20.0;
            }
            svg.line((x, y - 4.0), (x + 30.0, y - 4.0), &line_class(i));
            svg.text(x + 36.0, y, &series.name, "");
            x += wide + 12.0;
        }
        svg.text(LEFT, y + 28.0, "latency by percentile", "class='b'");
        y + 38.0
    }
}

/// Several drawings as one SVG document, each below the one before. An error if there is nothing
/// to draw.
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
    titles.push("latency by percentile and the worst of each second");
    titles.retain(|title| !title.is_empty());
    Ok(document(&titles.join("; "), &body, height))
}

/// Classes of a series' line: its colour and its dashes.
fn line_class(i: usize) -> String {
    // Dashes move on when the colours begin again, so that no two lines look alike.
    let dash = (i + i / COLOURS.len()) % DASHES.len();
    format!("l c{} d{dash}", i % COLOURS.len())
}

/// A place for lines, from left to right margin.
struct Panel {
    top: f64,
    height: f64,
}

impl Panel {
    /// Grid, ticks and the name of the x axis.
    fn frame(&self, svg: &mut Svg, y: &Latency, x_ticks: &[(f64, String)], x_name: &str) {
        let bottom = self.top + self.height;
        for ns in &y.ticks {
            let at = self.y(y, *ns);
            svg.line((LEFT, at), (WIDTH - RIGHT, at), "grid");
            svg.text(LEFT - 8.0, at + 4.0, &milliseconds(*ns), "text-anchor='end'");
        }
        for (at, label) in x_ticks {
            svg.line((*at, self.top), (*at, bottom), "grid");
            svg.line((*at, bottom), (*at, bottom + 5.0), "axis");
            svg.text(*at, bottom + 20.0, label, "text-anchor='middle'");
        }
        svg.line((LEFT, bottom), (WIDTH - RIGHT, bottom), "axis");
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        svg.text(middle, bottom + 42.0, x_name, "class='s' text-anchor='middle'");
        let unit = if y.log { "ms (log)" } else { "ms" };
        let attributes = format!(
            "class='s' text-anchor='middle' transform='rotate(-90 22 {0:.1})'",
            self.top + self.height / 2.0
        );
        svg.text(22.0, self.top + self.height / 2.0, unit, &attributes);
    }

    /// One line a series, broken where `gap` says that points are missing between two.
    fn lines<'a>(
        &self,
        svg: &mut Svg,
        y: &Latency,
        series: &'a [Series],
        points: impl Fn(&'a Series) -> &'a [(f64, f64)],
        x: impl Fn(f64) -> f64,
        gap: impl Fn(&Series, f64, f64) -> bool,
    ) {
        for (i, one) in series.iter().enumerate() {
            for run in points(one).chunk_by(|a, b| !gap(one, a.0, b.0)) {
                let drawn: Vec<(f64, f64)> =
                    run.iter().map(|(px, ns)| (x(*px), self.y(y, *ns))).collect();
                svg.polyline(&drawn, i);
            }
        }
    }

    fn y(&self, scale: &Latency, ns: f64) -> f64 {
        self.top + self.height * (1.0 - scale.part(ns))
    }
}

/// The latency axis: from zero, or on a log scale where one panel spans over two decades.
struct Latency {
    log: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Latency {
    fn over<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Self {
        let (low, high) = points.fold((f64::MAX, 1.0_f64), |(low, high), (_, ns)| {
            (low.min(ns.max(1.0)), high.max(*ns))
        });
        let low = low.min(high);
        if high / low > 100.0 { Self::log(low, high) } else { Self::linear(high) }
    }

    fn linear(high: f64) -> Self {
        let step = round_step(high / 5.0, &[1.0, 2.0, 2.5, 5.0]);
        let count = (high / step).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|i| f64::from(i) * step).collect();
        Latency { log: false, low: 0.0, high: count * step, ticks }
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
        Latency { log: true, low, high, ticks }
    }

    /// Where a latency stands between bottom (0) and top (1).
    fn part(&self, ns: f64) -> f64 {
        if self.log {
            (ns.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            ns / self.high
        }
    }
}

/// One of `multiples` times a power of ten, at least `raw`.
fn round_step(raw: f64, multiples: &[f64]) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    let mut steps = multiples.iter().map(|m| m * power);
    steps.find(|step| *step >= raw * 0.999).unwrap_or(10.0 * power)
}

/// A tick of the latency axis, in ms.
fn milliseconds(ns: f64) -> String {
    let ms = ns / 1e6;
    if ms >= 1000.0 {
        return crate::rows::number(ms);
    }
    // Ticks are short decimals; the rounding only hides the error of the division.
    let text = format!("{ms:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The percentile axis.
struct Percentile {
    high: f64,
}

impl Percentile {
    fn over(series: &[Series]) -> Self {
        let last = series.iter().filter_map(|s| s.percentiles.last());
        Percentile { high: last.map(|p| p.0).fold(10.0, f64::max) }
    }

    fn at(&self, x: f64) -> f64 {
        LEFT + (WIDTH - RIGHT - LEFT) * x.max(1.0).log10() / self.high.log10()
    }

    fn ticks(&self) -> Vec<(f64, String)> {
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

/// The time axis.
struct Seconds {
    low: f64,
    high: f64,
}

impl Seconds {
    fn over(series: &[Series]) -> Self {
        let all = series.iter().flat_map(|s| &s.worst).map(|p| p.0);
        let (low, high) = all.fold((f64::MAX, 0.0_f64), |(l, h), s| (l.min(s), h.max(s)));
        let low = low.min(high);
        Seconds { low, high: high.max(low + 1.0) }
    }

    fn at(&self, second: f64) -> f64 {
        LEFT + (WIDTH - RIGHT - LEFT) * (second - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let step = round_step((self.high - self.low) / 10.0, &[1.0, 2.0, 5.0]).max(1.0);
        let first = (self.low / step).ceil() as u64;
        let last = (self.high / step).floor() as u64;
        let label = |i: u64| i as f64 * step;
        (first..=last).map(|i| (self.at(label(i)), crate::rows::number(label(i)))).collect()
    }
}

/// Breaks a line at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines.last().is_some_and(|line| {
            !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width
        });
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// Elements of a document whose height is known last. Writing to a string cannot fail.
#[derive(Default)]
struct Svg {
    body: String,
}

impl Svg {
    fn text(&mut self, x: f64, y: f64, text: &str, attributes: &str) {
        let text = escape(text);
        let _ = writeln!(self.body, "<text x='{x:.1}' y='{y:.1}' {attributes}>{text}</text>");
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let _ = writeln!(
            self.body,
            "<line x1='{:.1}' y1='{:.1}' x2='{:.1}' y2='{:.1}' class='{class}'/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn polyline(&mut self, points: &[(f64, f64)], i: usize) {
        let class = line_class(i);
        if let [(x, y)] = points {
            let _ = writeln!(self.body, "<circle cx='{x:.1}' cy='{y:.1}' r='2' class='{class}'/>");
            return;
        }
        let mut list = String::new();
        for (x, y) in points {
            let _ = write!(list, "{x:.1},{y:.1} ");
        }
        let list = list.trim_end();
        let _ = writeln!(self.body, "<polyline points='{list}' class='{class}'/>");
    }
}

/// Text as it may stand in an element or in a quoted attribute of SVG and HTML.
pub fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&quot;")
}

/// The whole document: light by itself, dark where the reader's screen is.
fn document(title: &str, body: &str, height: f64) -> String {
    let mut light = String::from(
        ".plot text{fill:#2b2f36}.plot .t{font-size:20px;font-weight:600}\
         .plot .s{font-size:12px;fill:#5d6570}.plot .b{font-size:14px;font-weight:600}\
         .plot .ground{fill:#ffffff}.plot .grid{stroke:#e3e6ea}.plot .axis{stroke:#8a9099}\
         .plot .l{fill:none;stroke-width:2;stroke-linejoin:round}",
    );
    let mut dark = String::from(
        ".plot text{fill:#e4e7eb}.plot .s{fill:#a3abb6}.plot .ground{fill:#16191d}\
         .plot .grid{stroke:#2c3138}.plot .axis{stroke:#7d8590}",
    );
    for (i, (on_light, on_dark)) in COLOURS.iter().enumerate() {
        let _ = write!(light, ".plot .c{i}{{stroke:{on_light}}}");
        let _ = write!(dark, ".plot .c{i}{{stroke:{on_dark}}}");
    }
    for (i, dash) in DASHES.iter().enumerate() {
        let _ = write!(light, ".plot .d{i}{{stroke-dasharray:{dash}}}");
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' class='plot' role='img' aria-label='{}' \
         viewBox='0 0 {WIDTH} {height:.0}' width='{WIDTH}' height='{height:.0}' font-size='13' \
         font-family='system-ui, \"Segoe UI\", Roboto, \"DejaVu Sans\", sans-serif'>\n\
         <style>{light}\n@media (prefers-color-scheme: dark){{{dark}}}</style>\n\
         <rect width='100%' height='100%' class='ground'/>\n{body}</svg>\n",
        escape(title)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, worst: u64) -> Series {
        let mut r = Recorder::new(std::time::SystemTime::UNIX_EPOCH).unwrap();
        for i in 0..20_000u64 {
            let latency = if i % 5_000 == 77 { worst } else { 80_000 + i * 10 };
            r.record(i * 1_000_000, latency).unwrap();
        }
        Series::new(name, &r).unwrap()
    }

    #[test]
    fn ends_at_the_maximum_and_the_count() {
        let s = series("a", 48_000_000);
        let (x, y) = *s.percentiles.last().unwrap();
        assert!(x >= 20_000.0);
        assert!((y - 48e6).abs() < 48e3);
        assert_eq!(s.worst.len(), 20);
        assert!(s.percentiles.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
    }

    #[test]
    fn axes() {
        let linear = Latency::over([(1.0, 3e6), (2.0, 42e6)].iter());
        assert!(!linear.log);
        assert_eq!(linear.ticks, [0.0, 1e7, 2e7, 3e7, 4e7, 5e7]);
        let log = Latency::over([(1.0, 80e3), (2.0, 42e6)].iter());
        assert!(log.log && log.low == 50e3 && log.high == 50e6, "{} {}", log.low, log.high);
        assert!((log.part(50e6) - 1.0).abs() < 1e-9 && log.part(50e3) == 0.0);
        for (ns, text) in [(5e4, "0.05"), (1e7, "10"), (0.0, "0"), (1e3, "0.001"), (2e10, "20,000")]
        {
            assert_eq!(milliseconds(ns), text);
        }
        let labels: Vec<String> =
            Percentile { high: 1e6 }.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(labels, ["0%", "90%", "99%", "99.9%", "99.99%", "99.999%", "99.9999%"]);
        for (raw, step) in [(1.0, 1.0), (1.3, 2.0), (3.0, 5.0), (70.0, 100.0)] {
            assert_eq!(round_step(raw, &[1.0, 2.0, 5.0]), step);
        }
    }

    #[test]
    fn document() {
        let plot = Plot {
            title: "a < b & c".into(),
            subtitle: "x ".repeat(100),
            series: vec![series("one", 1_000_000), series("two", 90_000_000)],
        };
        let svg = plot.svg().unwrap();
        assert!(svg.contains("a &lt; b &amp; c") && svg.matches("<polyline").count() == 4);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert!(Plot { series: Vec::new(), ..plot }.svg().is_err());
        let empty = Recorder::new(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert!(Series::new("empty", &empty).is_err());
    }

    #[test]
    fn one_sample() {
        let mut r = Recorder::new(std::time::SystemTime::UNIX_EPOCH).unwrap();
        r.record(0, 5).unwrap();
        let series = vec![Series::new("one", &r).unwrap()];
        let svg = Plot { title: String::new(), subtitle: String::new(), series }.svg().unwrap();
        assert!(svg.contains("<circle") && !svg.contains("NaN"));
    }

    #[test]
    fn wrapping() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aaaaaaa b", 5), ["aaaaaaa", "b"]);
    }
}
