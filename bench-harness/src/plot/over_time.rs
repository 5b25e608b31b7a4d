//! Charts of values over time: one panel per unit, below each other.
//!
//! Owns the layout. Never smooths or drops a value. Invariant: the values of every panel start at
//! zero, so growth is in proportion to the whole, and all panels have the same time axis.

use anyhow::{Result, ensure};

use super::axes::{TimeAxis, ValueAxis};
use super::panel::{AXIS, Panel, legend};
use super::svg::{LEFT, Svg, document, wrap};
use crate::timeline::Timeline;

const HEIGHT: f64 = 190.0;
/// Characters of the subtitle that fit on a line.
const SUBTITLE_CHARS: usize = 125;

/// The chart as an SVG document. An error if there is nothing to draw.
pub fn over_time(title: &str, subtitle: &str, timelines: &[Timeline]) -> Result<String> {
    ensure!(!timelines.is_empty(), "no timelines to draw");
    let mut svg = Svg::default();
    svg.text(LEFT, 36.0, title, "class='t'");
    let mut y = 40.0;
    for line in subtitle.lines().flat_map(|line| wrap(line, SUBTITLE_CHARS)) {
        y += 18.0;
        svg.text(LEFT, y, &line, "class='s'");
    }
    let lines = timelines.iter().flat_map(|timeline| &timeline.lines);
    let x = TimeAxis::over(lines.flat_map(|line| line.points()).map(|(second, _)| second));
    for timeline in timelines {
        y = panel(&mut svg, y + 32.0, timeline, &x);
    }
    Ok(document(title, &svg.body, y))
}

/// Draws a panel with its heading at `y`; returns its bottom.
fn panel(svg: &mut Svg, y: f64, timeline: &Timeline, x: &TimeAxis) -> f64 {
    svg.text(LEFT, y, &timeline.title, "class='b'");
    let names = timeline.lines.iter().map(|line| line.name.as_str());
    let panel = Panel { top: legend(svg, y + 24.0, names) + 16.0, height: HEIGHT };
    let values = timeline.lines.iter().flat_map(|line| line.values.iter().copied());
    let scale = ValueAxis::from_zero(values, &timeline.unit);
    panel.frame(svg, &scale, &x.ticks(), "seconds since the start");
    for (nth, line) in timeline.lines.iter().enumerate() {
        panel.line(svg, (nth, &scale), &line.points(), |second| x.at(second), |_, _| false);
    }
    panel.top + panel.height + AXIS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::TimelineLine;

    #[test]
    fn every_line_is_drawn_and_panels_share_the_time_axis() {
        let timeline = |title: &str, unit: &str, values: Vec<f64>| Timeline {
            title: title.to_owned(),
            unit: unit.to_owned(),
            lines: vec![TimelineLine { name: "server".to_owned(), first: 1.0, step: 1.0, values }],
        };
        let all = [
            timeline("RssAnon", "MiB", vec![60.0, 61.0, 60.5]),
            timeline("inboxes < limit", "messages", vec![0.0; 60]),
        ];
        let text = over_time("soak", "some load\ncommit a", &all).unwrap();
        for part in [">MiB<", ">messages<", ">80<", ">60<", "inboxes &lt; limit", ">commit a<"] {
            assert!(text.contains(part), "{part} not in {text}");
        }
        assert_eq!(text.matches("<polyline").count(), 2);
        assert!(!text.contains("NaN") && !text.contains("inf"));
        assert!(over_time("soak", "", &[]).is_err());
    }
}
