//! Drumline's targets in comparison with its peers, as rows.
//!
//! Owns the list. Never measures. Invariant: a row uses the pairs of one run, and a peer that was
//! not measured has no row.

use super::quantities::{
    CONNECTS, CPU, CPU_ANSWER, CPU_BOTH, CPU_CLIENT, CPU_PUBLISH, LOST, P50, P99, USER, WHOLE,
};
use super::scenarios::Scenario;
use super::tables::Tables;
use crate::grid::{Grid, KERNEL_BASELINE, Spread};
use crate::rows::Row;
use crate::scenario::Bench;

/// Highest ratio of Drumline's value to a target's: scenario, quantity, target, ratio.
const RATIOS: [(Scenario, &str, &str, f64); 22] = [
    (Scenario::Idle, USER, "centrifugo-tuned", 0.006),
    (Scenario::IdleDistinct, USER, "centrifugo-tuned", 0.012),
    (Scenario::Idle, USER, "uwebsockets", 0.5),
    (Scenario::Idle, USER, "nchan", 0.03),
    (Scenario::Idle, USER, "nats", 0.01),
    (Scenario::Fanout, CPU, "centrifugo", 0.42),
    (Scenario::Fanout, CPU, "sockudo", 1.0),
    (Scenario::Fanout, CPU, "nats", 1.0),
    (Scenario::Fanout, CPU, "uwebsockets", 1.0),
    (Scenario::Fanout, CPU, KERNEL_BASELINE, 1.05),
    (Scenario::Burst, CPU, "centrifugo", 0.15),
    (Scenario::Burst, CPU, "uwebsockets", 0.7),
    (Scenario::Unicast, CPU_BOTH, "centrifugo", 0.28),
    (Scenario::Unicast, P50, "centrifugo", 0.55),
    (Scenario::Unicast, P99, "centrifugo", 0.6),
    (Scenario::Unicast, CPU_BOTH, "nchan", 0.5),
    (Scenario::Publish, CPU_PUBLISH, "centrifugo", 0.42),
    (Scenario::Storm, WHOLE, "centrifugo", 0.4),
    (Scenario::Storm, CPU_CLIENT, "centrifugo", 0.25),
    (Scenario::Recovery, CPU_CLIENT, "centrifugo", 0.7),
    (Scenario::Recovery, WHOLE, "centrifugo", 0.8),
    (Scenario::History, CPU_ANSWER, "centrifugo", 0.5),
];

/// Lowest ratio of Drumline's connects per second, each with a subscribe, to Centrifugo's.
const CONNECTS_AT_LEAST: f64 = 2.0;

/// Scenarios in which Drumline may lose nothing.
const WHOLE_ONES: [Scenario; 3] = [Scenario::Storm, Scenario::Recovery, Scenario::History];

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
    let connects = tables.grid(Scenario::Idle);
    if let Some(row) = connects.and_then(|grid| ratio(grid, CONNECTS, "centrifugo")) {
        bench.row(row.at_least(CONNECTS_AT_LEAST));
    }
    for scenario in WHOLE_ONES {
        let Some(grid) = tables.grid(scenario) else { continue };
        if let Some(lost) = grid.spread("drumline", LOST) {
            let what = format!("{}: lost by drumline", grid.name);
            bench.row(Row::new(what, lost.high, "count").at_most(0.0).note("the worst round"));
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
