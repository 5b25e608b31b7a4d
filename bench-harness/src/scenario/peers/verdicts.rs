//! Drumline's targets in comparison with its peers, as rows.
//!
//! Owns the list. Never measures. Invariant: a row uses the pairs of one run, and a peer that was
//! not measured has no row.

use super::quantities::{CONNECTS, CPU, CPU_BOTH, P99, USER};
use super::scenarios::Scenario;
use super::tables::Tables;
use crate::grid::{Grid, KERNEL_BASELINE, Spread};
use crate::rows::Row;
use crate::scenario::Bench;

/// Highest ratio of Drumline's value to a target's: scenario, quantity, target, ratio.
const RATIOS: [(Scenario, &str, &str, f64); 7] = [
    (Scenario::Idle, USER, "uwebsockets", 0.5),
    (Scenario::Idle, USER, "nchan", 0.03),
    (Scenario::Idle, USER, "nats", 0.01),
    (Scenario::Fanout, CPU, "uwebsockets", 1.0),
    (Scenario::Fanout, CPU, KERNEL_BASELINE, 1.05),
    (Scenario::Burst, CPU, "uwebsockets", 0.7),
    (Scenario::Unicast, CPU_BOTH, "nchan", 0.5),
];

/// Scenarios and quantities in which no peer may be better beyond the spread.
const BEST: [(Scenario, &str); 3] =
    [(Scenario::Fanout, CPU), (Scenario::Unicast, P99), (Scenario::Idle, CONNECTS)];

/// Adds the rows.
pub(super) fn add(bench: &mut Bench, tables: &Tables) {
    for (scenario, quantity, target, limit) in RATIOS {
        if let Some(row) = tables.grid(scenario).and_then(|grid| ratio(grid, quantity, target)) {
            bench.row(row.at_most(limit));
        }
    }
    for (scenario, quantity) in BEST {
        let Some(grid) = tables.grid(scenario) else { continue };
        if grid.spread("drumline", quantity).is_none() {
            continue;
        }
        let better = grid.better("drumline", quantity);
        let what = format!("{}, {quantity}: peers that are better", grid.name);
        let row = Row::new(what, better.len() as f64, "count").at_most(0.0);
        let whose =
            if better.is_empty() { String::new() } else { format!("{}; ", better.join(", ")) };
        bench.row(row.note(format!(
            "{whose}a peer counts if it is better in every pair; the kernel baseline is not a peer"
        )));
    }
}

fn ratio(grid: &Grid, quantity: &str, target: &str) -> Option<Row> {
    let spread = Spread::of(grid.ratios("drumline", target, quantity))?;
    let what = format!("{}, {quantity}: drumline against {target}", grid.name);
    let unsure = if spread.is_no_difference() { "; no difference" } else { "" };
    let note = match spread.count {
        1 => "one pair: the spread is unknown".to_owned(),
        count => {
            format!("median of {count} pairs, {:.3} to {:.3}{unsure}", spread.low, spread.high)
        }
    };
    Some(Row::new(what, spread.median, "ratio").note(note))
}
