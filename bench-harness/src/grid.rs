//! Targets beside each other: one table per scenario, one line per target, one column per quantity.
//!
//! Owns the values of all rounds, their median and spread, and the comparison by pairs. Never
//! measures. Invariant: a target without a value keeps its line with the reason, and a difference
//! inside the spread does not count as one.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::rows::value;

/// Name of the bare kernel among the targets.
pub const KERNEL_BASELINE: &str = "kernel-baseline";

/// Which direction of a quantity is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Less of it.
    Less,
    /// More of it.
    More,
    /// It is shown and not compared.
    Neither,
}

/// A quantity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its unit, as of [`crate::rows::Row::unit`].
    pub unit: String,
    /// Which direction is better.
    pub better: Better,
}

impl Column {
    /// A quantity.
    pub fn new(name: &str, unit: &str, better: Better) -> Self {
        Column { name: name.to_owned(), unit: unit.to_owned(), better }
    }
}

/// A target's values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The target.
    pub target: String,
    /// By column, then by round: the value in the column's unit, if there is one.
    pub values: Vec<Vec<Option<f64>>>,
    /// Remarks: a failure, a late client, a quantity that does not apply.
    pub remarks: Vec<String>,
}

/// A table of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// The scenario.
    pub name: String,
    /// Its load in words.
    pub load: String,
    /// The quantities.
    pub columns: Vec<Column>,
    /// The targets; the others are compared with the first.
    pub lines: Vec<Line>,
}

/// Median, minimum and maximum of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median; of an even number the mean of the middle two.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// How many there are.
    pub count: usize,
}

impl Spread {
    /// Of these values; `None` without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Some(Spread { median, low, high, count: values.len() })
    }

    /// Whether the spread of a ratio contains 1: then no difference is shown. A single value has no
    /// spread, so this is false.
    pub fn is_no_difference(&self) -> bool {
        self.count > 1 && self.low <= 1.0 && self.high >= 1.0
    }

    fn text(&self, unit: &str) -> String {
        let one = |v| value(v, unit);
        match self.count {
            1 => one(self.median),
            _ if self.low == self.high => one(self.median),
            _ => format!("{} [{}, {}]", one(self.median), one(self.low), one(self.high)),
        }
    }
}

impl Grid {
    /// A table without lines.
    pub fn new(name: &str, load: &str, columns: Vec<Column>) -> Self {
        Grid { name: name.to_owned(), load: load.to_owned(), columns, lines: Vec::new() }
    }

    /// Adds a target with no values yet.
    pub fn target(&mut self, name: &str) {
        let values = vec![Vec::new(); self.columns.len()];
        self.lines.push(Line { target: name.to_owned(), values, remarks: Vec::new() });
    }

    /// The line of a target.
    pub fn line(&mut self, target: &str) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.target == target)
    }

    fn values(&self, target: &str, column: &str) -> Option<&[Option<f64>]> {
        let at = self.columns.iter().position(|one| one.name == column)?;
        let line = self.lines.iter().find(|line| line.target == target)?;
        Some(&line.values[at])
    }

    /// The values of a target in a column.
    pub fn spread(&self, target: &str, column: &str) -> Option<Spread> {
        Spread::of(self.values(target, column)?.iter().flatten().copied())
    }

    /// The ratios of one target's values to another's, round by round.
    pub fn ratios(&self, target: &str, to: &str, column: &str) -> Vec<f64> {
        let ours = self.values(target, column).unwrap_or_default();
        let theirs = self.values(to, column).unwrap_or_default();
        let both = ours.iter().zip(theirs).filter_map(|(ours, theirs)| ours.zip(*theirs));
        both.filter(|(_, theirs)| *theirs != 0.0).map(|(ours, theirs)| ours / theirs).collect()
    }

    /// Targets that are better than `target` by more than the spread, the kernel baseline aside.
    pub fn better(&self, target: &str, column: &str) -> Vec<String> {
        let Some(of) = self.columns.iter().find(|one| one.name == column) else {
            return Vec::new();
        };
        let beats = |line: &&Line| {
            let ratio = Spread::of(self.ratios(target, &line.target, column));
            ratio.is_some_and(|ratio| match of.better {
                Better::Less => ratio.low > 1.0,
                Better::More => ratio.high < 1.0,
                Better::Neither => false,
            })
        };
        let others = self.lines.iter().filter(|line| line.target != target);
        others
            .filter(|line| line.target != KERNEL_BASELINE)
            .filter(beats)
            .map(|l| l.target.clone())
            .collect()
    }

    /// An error if the table cannot be shown: it has no target, or a value that is not finite.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.lines.is_empty(), "table {}: no targets", self.name);
        for line in &self.lines {
            let told = || format!("table {}, {}", self.name, line.target);
            ensure!(line.values.len() == self.columns.len(), "{}: columns differ", told());
            let all = line.values.iter().flatten().flatten();
            ensure!(
                all.clone().all(|v| v.is_finite()),
                "{}: a value is not a finite number",
                told()
            );
            let empty = all.count() == 0;
            ensure!(
                !empty || !line.remarks.is_empty(),
                "{}: no values and no reason for it",
                told()
            );
        }
        Ok(())
    }

    /// The text of a cell: median, spread, and the ratio of the first target's value to this one's.
    fn cell(&self, line: &Line, at: usize) -> String {
        let column = &self.columns[at];
        let Some(spread) = Spread::of(line.values[at].iter().flatten().copied()) else {
            return "-".to_owned();
        };
        let mut text = spread.text(&column.unit);
        let first = &self.lines[0].target;
        if column.better != Better::Neither
            && line.target != *first
            && let Some(ratio) = Spread::of(self.ratios(first, &line.target, &column.name))
        {
            let told = match ratio.is_no_difference() {
                true => "no difference".to_owned(),
                false => value(ratio.median, "ratio"),
            };
            let _ = write!(text, "; {told}");
        }
        text
    }

    /// All cells with a heading, line by line.
    fn cells(&self) -> Vec<Vec<String>> {
        let mut out = vec![vec!["target".to_owned()]];
        out[0].extend(self.columns.iter().map(|column| column.name.clone()));
        for line in &self.lines {
            let mut cells = vec![line.target.clone()];
            cells.extend((0..self.columns.len()).map(|at| self.cell(line, at)));
            out.push(cells);
        }
        out
    }

    /// Remarks, a line each.
    fn remarks(&self) -> Vec<String> {
        let of = |line: &Line| -> Vec<String> {
            line.remarks.iter().map(|remark| format!("{}: {remark}", line.target)).collect()
        };
        self.lines.iter().flat_map(of).collect()
    }

    /// Whether a quantity of the table is compared.
    pub fn compares(&self) -> bool {
        self.columns.iter().any(|column| column.better != Better::Neither)
    }

    /// How to read a cell.
    pub fn legend(&self) -> String {
        let first = self.lines.first().map_or("", |line| line.target.as_str());
        format!(
            "A cell is the median of the rounds [lowest, highest]; then the ratio of the value of \
             {first} to the value of this line: the median of the rounds' ratios, or \"no \
             difference\" if the ratios lie on both sides of 1."
        )
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let cells = self.cells();
        let width =
            |at: usize| cells.iter().map(|line| line[at].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
        let mut out = format!("{}: {}\n", self.name, self.load);
        for line in &cells {
            for (cell, width) in line.iter().zip(&widths) {
                let _ = write!(out, "  {cell:<width$}");
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        for remark in self.remarks() {
            let _ = writeln!(out, "  {remark}");
        }
        out
    }

    /// For RESULTS.md.
    pub fn markdown(&self) -> String {
        let cells = self.cells();
        let escaped = |text: &String| text.replace('|', r"\|").replace('\n', " ");
        let row = |line: &Vec<String>| {
            let cells: Vec<String> = line.iter().map(escaped).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut out = format!("**{}**: {}\n\n", self.name, self.load);
        out.push_str(&row(&cells[0]));
        out.push_str(&format!("|---|{}\n", "--:|".repeat(self.columns.len())));
        cells[1..].iter().for_each(|line| out.push_str(&row(line)));
        let remarks = self.remarks();
        if !remarks.is_empty() {
            out.push('\n');
        }
        for remark in remarks {
            let _ = writeln!(out, "- {}", escaped(&remark));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let columns = vec![
            Column::new("CPU", "ns", Better::Less),
            Column::new("rate", "count", Better::More),
        ];
        let mut grid = Grid::new("fanout", "10 connections", columns);
        for (name, cpu, rate) in [
            ("drumline", vec![Some(100.0), Some(110.0), Some(90.0)], vec![Some(7.0); 3]),
            ("slow", vec![Some(200.0), Some(200.0), None], vec![Some(6.0); 3]),
            ("alike", vec![Some(110.0), Some(100.0), Some(91.0)], vec![Some(8.0); 3]),
        ] {
            grid.target(name);
            grid.line(name).unwrap().values = vec![cpu, rate];
        }
        grid
    }

    #[test]
    fn a_spread_has_median_ends_and_count() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        let three = spread(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((three.median, three.low, three.high), (2.0, 1.0, 3.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert!(spread(&[0.9, 1.1]).unwrap().is_no_difference());
        assert!(!spread(&[0.8, 0.9]).unwrap().is_no_difference());
        assert!(!spread(&[1.0]).unwrap().is_no_difference(), "a single pair has no spread");
    }

    #[test]
    fn ratios_pair_values_of_the_same_round() {
        let grid = grid();
        assert_eq!(grid.ratios("drumline", "slow", "CPU"), [0.5, 0.55]);
        assert!(grid.better("drumline", "CPU").is_empty());
        assert_eq!(grid.better("drumline", "rate"), ["alike"]);
        assert_eq!(grid.better("slow", "CPU"), ["drumline", "alike"]);
    }

    #[test]
    fn a_target_without_values_keeps_its_line_with_the_reason() {
        let mut grid = grid();
        grid.check().unwrap();
        grid.target("dead");
        assert!(grid.check().unwrap_err().to_string().contains("no values and no reason for it"));
        grid.line("dead").unwrap().remarks.push("ended with 1".to_owned());
        grid.check().unwrap();
        let text = grid.text();
        assert!(text.contains("  dead      -"), "{text}");
        assert!(text.contains("  dead: ended with 1\n"), "{text}");
        assert!(text.contains("200 ns; 0.525x"), "{text}");
        assert!(text.contains("no difference"), "{text}");
        let markdown = grid.markdown();
        assert!(markdown.contains("| drumline | 100 ns [90 ns, 110 ns] | 7 |"), "{markdown}");
        let again: Grid = serde_json::from_str(&serde_json::to_string(&grid).unwrap()).unwrap();
        assert_eq!(again, grid);
    }
}
