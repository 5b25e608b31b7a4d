//! Values over the time of a run, in steps of the same length.
//!
//! Owns the values of each panel of a chart. Never draws. Invariant: every value is a number, and
//! the time of a value follows from its place.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The lines of one panel, which share a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Heading of the panel.
    pub title: String,
    /// Unit of the values.
    pub unit: String,
    /// The lines, in the order of the legend.
    pub lines: Vec<TimelineLine>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineLine {
    /// Name in the legend.
    pub name: String,
    /// Time of the first value, in seconds since the start.
    pub first: f64,
    /// Seconds from one value to the next.
    pub step: f64,
    /// The values.
    pub values: Vec<f64>,
}

impl TimelineLine {
    /// Each value with its time, in seconds since the start.
    pub fn points(&self) -> Vec<(f64, f64)> {
        let at = |nth: usize| self.first + self.step * nth as f64;
        self.values.iter().enumerate().map(|(nth, value)| (at(nth), *value)).collect()
    }
}

impl Timeline {
    /// Refuses a timeline without values, and values and times that are not numbers.
    pub fn check(&self) -> Result<()> {
        let title = &self.title;
        ensure!(!self.lines.is_empty(), "timeline \"{title}\" has no lines");
        for TimelineLine { name, first, step, values } in &self.lines {
            ensure!(!values.is_empty(), "timeline \"{title}\": \"{name}\" has no values");
            let mut all = values.iter().chain([first, step]);
            ensure!(
                all.all(|value| value.is_finite()),
                "timeline \"{title}\": a value of \"{name}\" is not a number"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_from_the_places_of_values() {
        let values = vec![4.0, 5.0, 6.0];
        let mut line = TimelineLine { name: "a".to_owned(), first: 10.0, step: 0.5, values };
        assert_eq!(line.points(), [(10.0, 4.0), (10.5, 5.0), (11.0, 6.0)]);
        let timeline = |line: &TimelineLine| Timeline {
            title: "memory".to_owned(),
            unit: "MiB".to_owned(),
            lines: vec![line.clone()],
        };
        assert!(timeline(&line).check().is_ok());
        line.values[1] = f64::NAN;
        let error = timeline(&line).check().unwrap_err().to_string();
        assert_eq!(error, "timeline \"memory\": a value of \"a\" is not a number");
        assert!(Timeline { lines: Vec::new(), ..timeline(&line) }.check().is_err());
    }
}
