//! Rows of a result: the measured value, its target, and the text of both.
//!
//! Owns the row, its target and the formatting of numbers. Never reads or writes a file.
//! Invariant: a verdict compares the measured number itself, never its rounded text.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The target of a row, in the row's unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Met when the measured value is this or less.
    AtMost(f64),
    /// Met when the measured value is this or more.
    AtLeast(f64),
}

/// The comparison of a measured value with its target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// The row has no target.
    NoTarget,
    /// The target is met.
    Met,
    /// Missed by this fraction of the target; `None` when the target is 0.
    Missed(Option<f64>),
}

/// One measured number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the quantity, unique within its scenario: causes.toml names rows by it.
    pub what: String,
    /// The measured value, in `unit`.
    pub measured: f64,
    /// `bytes`, `ns`, `percent`, `ratio` and `count` are scaled for reading; any other unit is
    /// printed unchanged after the number.
    pub unit: String,
    /// The target, if the row has one.
    pub target: Option<Bound>,
    /// A remark printed under the table.
    pub note: Option<String>,
}

impl Row {
    /// A row without target and note.
    pub fn new(what: impl Into<String>, measured: f64, unit: impl Into<String>) -> Self {
        let (what, unit) = (what.into(), unit.into());
        Row { what, measured, unit, target: None, note: None }
    }

    /// The same row, met when measured at `limit` or below, in the row's unit.
    pub fn at_most(mut self, limit: f64) -> Self {
        self.target = Some(Bound::AtMost(limit));
        self
    }

    /// The same row, met when measured at `limit` or above, in the row's unit.
    pub fn at_least(mut self, limit: f64) -> Self {
        self.target = Some(Bound::AtLeast(limit));
        self
    }

    /// The same row with a remark.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Refuses a row without a name, or whose value or target is not a number.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.what.trim().is_empty(), "a row without a name");
        ensure!(
            self.measured.is_finite(),
            "row \"{}\": the measured value is not a number",
            self.what
        );
        if let Some(Bound::AtMost(v) | Bound::AtLeast(v)) = self.target {
            ensure!(v.is_finite(), "row \"{}\": the target is not a number", self.what);
        }
        Ok(())
    }

    /// Compares the measured value with the target.
    pub fn verdict(&self) -> Verdict {
        let (miss, limit) = match self.target {
            None => return Verdict::NoTarget,
            Some(Bound::AtMost(limit)) => (self.measured - limit, limit),
            Some(Bound::AtLeast(limit)) => (limit - self.measured, limit),
        };
        if miss <= 0.0 {
            Verdict::Met
        } else {
            Verdict::Missed((limit != 0.0).then(|| miss / limit.abs()))
        }
    }

    /// The measured value as text: `13.1 us`.
    pub fn measured_text(&self) -> String {
        value(self.measured, &self.unit)
    }

    /// The target as text: `at most 200 bytes`, or a dash.
    pub fn target_text(&self) -> String {
        match self.target {
            None => "-".into(),
            Some(Bound::AtMost(v)) => format!("at most {}", value(v, &self.unit)),
            Some(Bound::AtLeast(v)) => format!("at least {}", value(v, &self.unit)),
        }
    }

    /// The verdict as text: `met`, `missed by 12.5%`, or a dash.
    pub fn verdict_text(&self) -> String {
        match self.verdict() {
            Verdict::NoTarget => "-".into(),
            Verdict::Met => "met".into(),
            Verdict::Missed(None) => format!("missed by {}", self.measured_text()),
            Verdict::Missed(Some(part)) if part < 0.001 => "missed by less than 0.1%".into(),
            Verdict::Missed(Some(part)) => {
                let text = format!("{:.1}", part * 100.0);
                format!("missed by {}%", text.trim_end_matches(".0"))
            }
        }
    }
}

/// Refuses an empty list of rows, an invalid row, and two rows of the same name.
pub fn check(rows: &[Row]) -> Result<()> {
    ensure!(!rows.is_empty(), "no rows: nothing was measured");
    for (i, row) in rows.iter().enumerate() {
        row.check()?;
        let twin = rows[..i].iter().any(|other| other.what == row.what);
        ensure!(!twin, "two rows are called \"{}\"", row.what);
    }
    Ok(())
}

/// A value with its unit, scaled to few digits (see [`Row::unit`]).
pub fn value(v: f64, unit: &str) -> String {
    match unit {
        "bytes" => bytes(v),
        "ns" => nanoseconds(v),
        "percent" => format!("{}%", number(v)),
        "ratio" => format!("{}x", number(v)),
        "count" | "" => number(v),
        other => format!("{} {other}", number(v)),
    }
}

/// A number as text: whole numbers and numbers from 1,000 up with grouped thousands, others with
/// three digits.
pub fn number(v: f64) -> String {
    let magnitude = v.abs();
    let text = if magnitude >= 999.5 || (v.fract() == 0.0 && magnitude < 1e15) {
        group(&format!("{magnitude:.0}"))
    } else if magnitude == 0.0 {
        "0".into()
    } else {
        three_digits(magnitude)
    };
    if v < 0.0 && text != "0" { format!("-{text}") } else { text }
}

/// Three significant digits of a positive number below 999.5.
fn three_digits(v: f64) -> String {
    // log10 of the number as it will be rounded, so that 9.996 reads 10.0 and not 10.00.
    let exponent = format!("{v:.2e}").split_once('e').and_then(|(_, e)| e.parse::<i32>().ok());
    let decimals = usize::try_from(2 - exponent.unwrap_or(0)).unwrap_or(0);
    format!("{v:.decimals$}")
}

fn group(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes below 10,000, then KiB, MiB and GiB.
fn bytes(v: f64) -> String {
    let mut scaled = v;
    let mut unit = "bytes";
    if v.abs() >= 10_000.0 {
        for next in ["KiB", "MiB", "GiB", "TiB"] {
            scaled /= 1024.0;
            unit = next;
            if scaled.abs() < 999.5 {
                break;
            }
        }
    }
    format!("{} {unit}", number(scaled))
}

/// A time in ns, us, ms or s, whichever leaves a number below 1,000.
fn nanoseconds(v: f64) -> String {
    let mut scaled = v;
    let mut unit = "ns";
    for next in ["us", "ms", "s"] {
        if scaled.abs() < 999.5 {
            break;
        }
        scaled /= 1000.0;
        unit = next;
    }
    format!("{} {unit}", number(scaled))
}

/// The names of the rows that miss their targets.
#[cfg(test)]
pub(crate) fn missed(rows: &[Row]) -> Vec<String> {
    let misses = |row: &&Row| matches!(row.verdict(), Verdict::Missed(_));
    rows.iter().filter(misses).map(|row| row.what.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_scaled_and_grouped() {
        for (v, unit, text) in [
            (200.0, "bytes", "200 bytes"),
            (6_800.0, "bytes", "6,800 bytes"),
            (203.46, "bytes", "203 bytes"),
            (67_108_864.0, "bytes", "64 MiB"),
            (1_048_575.0, "bytes", "1.00 MiB"),
            (11_300_000_000.0, "bytes", "10.5 GiB"),
            (-4096.0, "bytes", "-4,096 bytes"),
            (13_100.0, "ns", "13.1 us"),
            (850.0, "ns", "850 ns"),
            (999.9, "ns", "1.00 us"),
            (5_512_345.0, "ns", "5.51 ms"),
            (54e9, "ns", "54 s"),
            (1_234e9, "ns", "1,234 s"),
            (1e6, "connections", "1,000,000 connections"),
            (999_999.7, "count", "1,000,000"),
            (0.0, "count", "0"),
            (0.0123456, "cores", "0.0123 cores"),
            (2.33, "cores", "2.33 cores"),
            (9.996, "ratio", "10.0x"),
            (12.5, "percent", "12.5%"),
        ] {
            assert_eq!(value(v, unit), text, "{v} {unit}");
        }
    }

    #[test]
    fn a_verdict_says_by_how_much_a_target_is_missed() {
        let row = Row::new("memory", 225.0, "bytes");
        assert_eq!(row.verdict(), Verdict::NoTarget);
        assert_eq!(row.clone().at_most(225.0).verdict_text(), "met");
        assert_eq!(row.clone().at_most(200.0).verdict_text(), "missed by 12.5%");
        assert_eq!(row.clone().at_most(200.0).target_text(), "at most 200 bytes");
        assert_eq!(row.clone().at_least(200.0).verdict_text(), "met");
        assert_eq!(row.clone().at_least(300.0).verdict_text(), "missed by 25%");
        assert_eq!(row.clone().at_most(224.99).verdict_text(), "missed by less than 0.1%");
        assert_eq!(Row::new("lost", 3.0, "count").at_most(0.0).verdict_text(), "missed by 3");
    }

    #[test]
    fn invalid_rows_are_refused() {
        let good = Row::new("a", 1.0, "count");
        assert!(check(std::slice::from_ref(&good)).is_ok());
        assert!(check(&[]).is_err());
        assert!(check(&[good.clone(), good.clone()]).is_err());
        assert!(check(&[Row::new("a", f64::NAN, "ns")]).is_err());
        assert!(check(&[Row::new(" ", 1.0, "ns")]).is_err());
        assert!(check(&[good.at_most(f64::INFINITY)]).is_err());
    }

    #[test]
    fn a_target_survives_json() {
        let row = Row::new("a", 1.0, "count").at_most(2.0);
        let text = serde_json::to_string(&row).unwrap();
        assert!(text.contains(r#""target":{"at_most":2.0}"#), "{text}");
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }
}
