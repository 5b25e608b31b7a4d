//! Bar charts of the tables of targets.
//!
//! Owns which quantities a chart shows. Never measures. Invariant: a value of a chart is the median
//! that the table shows.

use anyhow::Result;

use crate::grid::{Better, Column, Grid};
use crate::plot::{Bar, Quantity, chart};
use crate::rows::value;
use crate::run::Run;

/// Quantities of a chart at most: the first of the table that are compared.
const QUANTITIES: usize = 3;

/// The chart of a table; `None` if no target has a value.
pub fn of(run: &Run, table: &Grid) -> Result<Option<String>> {
    let shown = |column: &&Column| {
        column.better != Better::Neither
            && table.lines.iter().any(|line| table.spread(&line.target, &column.name).is_some())
    };
    let columns = table.columns.iter().filter(shown).take(QUANTITIES);
    let quantities: Vec<Quantity> = columns.map(|column| quantity(table, column)).collect();
    if quantities.is_empty() {
        return Ok(None);
    }
    let load = format!("{}; commit {}", table.load, run.environment.commit);
    chart(&table.name, &load, &quantities).map(Some)
}

fn quantity(table: &Grid, column: &Column) -> Quantity {
    let bars = table.lines.iter().map(|line| {
        let median = table.spread(&line.target, &column.name).map(|spread| spread.median);
        let value = median.map(|median| (median, value(median, &column.unit)));
        Bar { name: line.target.clone(), value }
    });
    let better = if column.better == Better::Less { "less" } else { "more" };
    Quantity { title: format!("{} ({better} is better)", column.name), bars: bars.collect() }
}
