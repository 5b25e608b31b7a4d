//! The table of a comparison, on a terminal.
//!
//! Owns the columns, the ratios and their text. Never leaves out a series or a column. Invariant:
//! an unknown value reads "not known", and a ratio with an unknown value is a dash.

use super::comparison::{Group, Line};
use super::measured::PERCENTILES;
use crate::rows::{number, value};

/// Text of a value that the file does not hold.
pub const UNKNOWN: &str = "not known";

/// A value and its ratio to the value of the first line.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The value as text: `1.54 ms`.
    pub value: String,
    /// `1.20x`; a dash if a value is unknown, empty in the first line.
    pub ratio: String,
}

/// Names of the columns.
pub fn columns() -> Vec<&'static str> {
    let percentiles = PERCENTILES.iter().map(|(name, _)| *name);
    percentiles.chain(["max", "count", "lost"]).collect()
}

/// The cells of a line, in the order of [`columns`].
pub fn cells(line: &Line<'_>, group: &Group<'_>) -> Vec<Cell> {
    let first = group.lines.first().map_or_else(Vec::new, numbers);
    let is_first = group.lines.first().is_some_and(|first| std::ptr::eq(first, line));
    let own = numbers(line);
    let texts = texts(line);
    let pairs = own.into_iter().zip(first);
    let ratios = pairs.map(|(own, first)| if is_first { String::new() } else { ratio(own, first) });
    texts.into_iter().zip(ratios).map(|(value, ratio)| Cell { value, ratio }).collect()
}

fn numbers(line: &Line<'_>) -> Vec<Option<f64>> {
    let distribution = &line.measured.distribution;
    let percentiles =
        distribution.percentiles.iter().map(|reading| reading.map(|reading| reading.ns));
    let lost = line.measured.lost.map(|lost| lost as f64);
    percentiles.chain([Some(distribution.max_ns), Some(distribution.count as f64), lost]).collect()
}

fn texts(line: &Line<'_>) -> Vec<String> {
    let distribution = &line.measured.distribution;
    let percentiles = distribution.percentiles.iter().map(|reading| match reading {
        Some(reading) if reading.estimated => format!("~{}", value(reading.ns, "ns")),
        Some(reading) => value(reading.ns, "ns"),
        None => UNKNOWN.to_owned(),
    });
    let lost = line.measured.lost.map_or(UNKNOWN.to_owned(), |lost| number(lost as f64));
    percentiles
        .chain([value(distribution.max_ns, "ns"), number(distribution.count as f64), lost])
        .collect()
}

fn ratio(own: Option<f64>, first: Option<f64>) -> String {
    match (own, first) {
        (Some(own), Some(first)) if first != 0.0 => {
            let ratio = own / first;
            let plain = (0.1..999.5).contains(&ratio);
            if plain { format!("{ratio:.2}x") } else { value(ratio, "ratio") }
        }
        _ => "-".to_owned(),
    }
}

/// The aligned table of a group, with the ratios below each line except the first.
pub fn render(group: &Group<'_>) -> String {
    let mut head = vec![String::new()];
    head.extend(columns().into_iter().map(str::to_owned));
    let mut rows = vec![head];
    for line in &group.lines {
        let cells = cells(line, group);
        rows.push(with_name(&line.label, cells.iter().map(|cell| &cell.value)));
        if cells.iter().any(|cell| !cell.ratio.is_empty()) {
            rows.push(with_name("", cells.iter().map(|cell| &cell.ratio)));
        }
    }
    let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..rows[0].len()).map(|column| wide(column).unwrap_or(0)).collect();
    let mut out = group.name.map_or(String::new(), |name| format!("{name}\n"));
    for row in &rows {
        let mut line = format!("  {:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn with_name<'a>(name: &str, cells: impl Iterator<Item = &'a String>) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(cells.cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::measured::{Distribution, Measured, Reading};

    fn measured(ns: [Option<f64>; 5], estimated: bool, lost: Option<u64>) -> Measured {
        let percentiles = ns.map(|ns| ns.map(|ns| Reading { ns, estimated }));
        let distribution = Distribution {
            percentiles,
            max_ns: 40e6,
            count: 60_000,
            curve: Vec::new(),
            worst: Vec::new(),
            step: 1.0,
        };
        Measured { name: String::new(), distribution, lost }
    }

    #[test]
    fn columns_are_aligned_and_unknown_values_say_so() {
        let old = measured([300e3, 1.5e6, 9e6, 20e6, 33e6].map(Some), false, Some(0));
        let new = [Some(150e3), Some(1.8e6), Some(9.01e6), None, None];
        let new = measured(new, true, None);
        let line = |label: &str, measured| Line { label: label.to_owned(), measured };
        let lines = vec![line("old", &old), line("newer", &new)];
        let wanted = "\
probes
            p50       p90       p99      p99.9     p99.99    max   count       lost
  old    300 us   1.50 ms      9 ms      20 ms      33 ms  40 ms  60,000          0
  newer ~150 us  ~1.80 ms  ~9.01 ms  not known  not known  40 ms  60,000  not known
          0.50x     1.20x     1.00x          -          -  1.00x   1.00x          -
";
        let table = render(&Group { name: Some("probes"), lines });
        let words = |text: &str| -> Vec<Vec<String>> {
            let line = |line: &str| line.split_whitespace().map(str::to_owned).collect();
            text.lines().map(line).collect()
        };
        assert_eq!(words(&table), words(wanted), "{table}");
        let ends: Vec<usize> = table.lines().skip(1).map(str::len).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "{table}");
    }

    #[test]
    fn a_ratio_needs_both_values() {
        for (own, first, text) in [
            (Some(3.0), Some(2.0), "1.50x"),
            (Some(2.0), Some(2000.0), "0.00100x"),
            (Some(5e6), Some(2.0), "2,500,000x"),
            (Some(3.0), Some(0.0), "-"),
            (None, Some(2.0), "-"),
        ] {
            assert_eq!(ratio(own, first), text);
        }
    }
}
