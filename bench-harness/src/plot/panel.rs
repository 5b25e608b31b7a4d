//! A panel of a plot: grid, axes, lines, and the legend above it.
//!
//! Owns where lines are drawn. Never chooses a scale. Invariant: every point of a line is drawn.

use super::axes::ValueAxis;
use super::svg::{LEFT, RIGHT, Svg, WIDTH, line_class};

/// Height below a panel for its ticks and the name of its axis.
pub const AXIS: f64 = 62.0;

/// An area for lines, from the left to the right margin.
pub struct Panel {
    /// Its upper edge.
    pub top: f64,
    /// Its height.
    pub height: f64,
}

impl Panel {
    /// Draws grid, ticks and axis names.
    pub fn frame(&self, svg: &mut Svg, y: &ValueAxis, x_ticks: &[(f64, String)], x_name: &str) {
        let bottom = self.top + self.height;
        for value in &y.ticks {
            let at = self.y(y, *value);
            svg.line((LEFT, at), (WIDTH - RIGHT, at), "grid");
            svg.text(LEFT - 8.0, at + 4.0, &y.label(*value), "text-anchor='end'");
        }
        for (at, label) in x_ticks {
            svg.line((*at, self.top), (*at, bottom), "grid");
            svg.line((*at, bottom), (*at, bottom + 5.0), "axis");
            svg.text(*at, bottom + 20.0, label, "text-anchor='middle'");
        }
        svg.line((LEFT, bottom), (WIDTH - RIGHT, bottom), "axis");
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        svg.text(middle, bottom + 42.0, x_name, "class='s' text-anchor='middle'");
        let attributes = format!(
            "class='s' text-anchor='middle' transform='rotate(-90 22 {0:.1})'",
            self.top + self.height / 2.0
        );
        svg.text(22.0, self.top + self.height / 2.0, &y.name, &attributes);
    }

    /// Draws one line. It is interrupted where `gap` says that points are missing between two.
    pub fn line(
        &self,
        svg: &mut Svg,
        (nth, y): (usize, &ValueAxis),
        points: &[(f64, f64)],
        x: impl Fn(f64) -> f64,
        gap: impl Fn(f64, f64) -> bool,
    ) {
        for run in points.chunk_by(|a, b| !gap(a.0, b.0)) {
            let drawn: Vec<(f64, f64)> =
                run.iter().map(|(at, value)| (x(*at), self.y(y, *value))).collect();
            svg.polyline(&drawn, nth);
        }
    }

    fn y(&self, scale: &ValueAxis, value: f64) -> f64 {
        self.top + self.height * (1.0 - scale.part(value))
    }
}

/// Draws the names of lines side by side, each with its line, and returns the baseline of the last
/// row of names.
pub fn legend<'a>(svg: &mut Svg, mut y: f64, names: impl Iterator<Item = &'a str> + Clone) -> f64 {
    let widest = names.clone().map(|name| name.chars().count()).max().unwrap_or(0);
    let width = 60.0 + 7.6 * widest as f64;
    let columns = (((WIDTH - RIGHT - LEFT) / width) as usize).max(1);
    for (nth, name) in names.enumerate() {
        if nth > 0 && nth.is_multiple_of(columns) {
            y += 20.0;
        }
        let x = LEFT + width * (nth % columns) as f64;
        svg.line((x, y - 4.0), (x + 30.0, y - 4.0), &line_class(nth));
        svg.text(x + 36.0, y, name, "");
    }
    y
}
