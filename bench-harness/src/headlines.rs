//! The first screen of RESULTS.md: the machine, five numbers, and the missed targets with their
//! reasons.
//!
//! Owns the choice of the five rows. Never measures, and never changes a number.

use std::fmt::Write as _;

use crate::rows::{Row, Verdict};
use crate::run::Run;

/// The chosen rows: scenario, row, what the number says.
const CHOSEN: [(&str, &str, &str); 5] = [
    (
        "million",
        "shared: user memory per connection",
        "user memory per connection, at a million connections",
    ),
    ("fanout", "CPU per delivery", "CPU per delivery, one publication to many"),
    ("latency", "delivery: p99", "p99 latency, one publication to one subscriber"),
    (
        "latency-sweep",
        "knee",
        "HTTP publications per second, one publisher to one subscriber, with p99 within 20 ms",
    ),
    (
        "storm",
        "time to reconnect and recover 10 publications",
        "time until 100,000 clients are reconnected and have recovered 10 publications each",
    ),
];

/// Writes the first screen. `reason` finds the hand-written reason of a missed row.
pub fn write<'a>(
    out: &mut String,
    runs: &[&Run],
    reason: &dyn Fn(&str, &str) -> Option<&'a str>,
    cell: &dyn Fn(&str) -> String,
) {
    if let Some(run) = runs.first() {
        let e = &run.environment;
        let _ = writeln!(out, "\n**Machine**: {}; {}.", e.machine(), e.kernel);
    }
    let find = |scenario: &str, what: &str| {
        let run = runs.iter().find(|run| run.scenario == scenario)?;
        Some((run, run.rows.iter().find(|row| row.what == what)?))
    };
    let rows = CHOSEN.iter().filter_map(|(scenario, what, text)| {
        let (run, row) = find(scenario, what)?;
        let (value, e) = (row.measured_text(), &run.environment);
        Some(format!("| {text} | {} | `{}` | {} |\n", cell(&value), cell(&e.command), e.commit))
    });
    let rows: String = rows.collect();
    if !rows.is_empty() {
        out.push_str("\n| what | measured | command | commit |\n|---|--:|---|---|\n");
        out.push_str(&rows);
    }
    let all = || runs.iter().flat_map(|run| run.rows.iter().map(move |row| (run, row)));
    let count = |wanted: &dyn Fn(&Row) -> bool| all().filter(|(_, row)| wanted(row)).count();
    let targets = count(&|row| row.target.is_some());
    let met = count(&|row| row.verdict() == Verdict::Met);
    let _ = writeln!(out, "\n## Missed targets\n\n{met} of {targets} targets are met.");
    for (run, row) in all().filter(|(_, row)| matches!(row.verdict(), Verdict::Missed(_))) {
        let why = reason(&run.scenario, &row.what).unwrap_or("not yet explained").trim();
        let _ = write!(
            out,
            "\n- **{}, {}**: {}, target {}. {}",
            run.scenario,
            row.what,
            row.measured_text(),
            row.target_text(),
            why.replace('\n', " ")
        );
    }
    out.push('\n');
}
