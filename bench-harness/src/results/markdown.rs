//! The text of RESULTS.md.
//!
//! Owns the order of the page. Never chooses a run, and never changes a number.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::inputs::{CLIFFS, Causes, Cliff, Cliffs, Found};
use crate::headlines;
use crate::rows::{Row, Verdict, number, value};
use crate::run::Run;

/// Starts of the names of the runs that compare servers or transports. Their tables come first, in
/// this order.
const COMPARING: [&str; 2] = ["peers", "showdown"];

/// The place of a run among those that compare.
fn place(run: &Run) -> Option<usize> {
    COMPARING.iter().position(|start| run.scenario.starts_with(start))
}

/// Makes a path relative to RESULTS.md, if it is below its folder.
type Link<'a> = dyn Fn(&Path) -> Option<String> + 'a;

/// Renders RESULTS.md. `link` makes a path relative to it. Writing to a string cannot fail, so this
/// file drops the results of `write!`.
pub fn render(runs: &[Found], causes: &Causes, cliffs: &Cliffs, link: &Link<'_>) -> Result<String> {
    let mut out = String::from(
        "# Results\n\n\
         `drumline-bench report` writes this file from the latest result file of each scenario in \
         `bench-harness/results`. The reasons of missed targets come from `causes.toml` in that \
         folder, the known limits from `cliffs.toml`. \
         Don't edit this file by hand. \"Kernel baseline\" means the bare kernel, which accepts \
         the same connections and sends the same bytes without a server.\n",
    );
    let reason = |scenario: &str, what: &str| Some(causes.get(scenario)?.get(what)?.as_str());
    let every: Vec<&Run> = runs.iter().map(|found| &found.run).collect();
    let (mut peers, others): (Vec<&Found>, Vec<&Found>) =
        runs.iter().partition(|found| place(&found.run).is_some());
    peers.sort_by_key(|found| place(&found.run));
    let write = |out: &mut String, found: &Found| {
        scenario(out, found, causes.get(&found.run.scenario), link);
    };
    peers.into_iter().for_each(|found| write(&mut out, found));
    headlines::write(&mut out, &every, &reason, &cell);
    write_cliffs(&mut out, runs, cliffs)?;
    targets(&mut out, runs);
    others.into_iter().for_each(|found| write(&mut out, found));
    Ok(out)
}

/// The table of performance limits. An error if no run has the row of a limit.
fn write_cliffs(out: &mut String, runs: &[Found], cliffs: &Cliffs) -> Result<()> {
    if cliffs.cliff.is_empty() {
        return Ok(());
    }
    out.push_str("\n## Where performance ends\n\n");
    out.push_str(
        "| limit | measured | what happens, and what to do | command |\n|---|--:|---|---|\n",
    );
    for Cliff { scenario, row, why } in &cliffs.cliff {
        let of = |found: &&Found| found.run.scenario == *scenario;
        let run = runs.iter().find(of).map(|found| &found.run);
        let found = run.and_then(|run| Some((run, run.rows.iter().find(|one| one.what == *row)?)));
        let (run, found) = found
            .with_context(|| format!("{CLIFFS} names [{scenario}] \"{row}\", which no run has"))?;
        let _ = writeln!(
            out,
            "| {} | {} | {} | `{}` |",
            cell(row),
            cell(&found.measured_text()),
            cell(why),
            cell(&command(run))
        );
    }
    Ok(())
}

/// The table of all targets.
fn targets(out: &mut String, runs: &[Found]) {
    let with_target: Vec<(&Run, &Row)> = runs
        .iter()
        .flat_map(|found| found.run.rows.iter().map(move |row| (&found.run, row)))
        .filter(|(_, row)| row.target.is_some())
        .collect();
    out.push_str("\n## All targets\n\n");
    if with_target.is_empty() {
        out.push_str("No scenario has a target.\n");
        return;
    }
    let _ = writeln!(out, "<details><summary>{} targets</summary>\n", with_target.len());
    out.push_str("| scenario | what | measured | target | verdict |\n|---|---|--:|--:|---|\n");
    for (run, row) in with_target {
        let anchor = anchor(&run.title);
        let _ = writeln!(
            out,
            "| [{}](#{anchor}) | {} | {} | {} | {} |",
            cell(&run.scenario),
            cell(&row.what),
            cell(&row.measured_text()),
            cell(&row.target_text()),
            verdict_cell(row)
        );
    }
    out.push_str("\n</details>\n");
}

fn scenario(
    out: &mut String,
    found: &Found,
    causes: Option<&BTreeMap<String, String>>,
    link: &Link<'_>,
) {
    let run = &found.run;
    let _ = writeln!(out, "\n## {}\n\n{}\n", run.title, run.load);
    let compares = place(run).is_some();
    if compares {
        run_notes(out, run);
        tables(out, found, link);
        out.push('\n');
    }
    out.push_str("| what | measured | target | verdict |\n|---|--:|--:|---|\n");
    for row in &run.rows {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            cell(&row.what),
            cell(&row.measured_text()),
            cell(&row.target_text()),
            verdict_cell(row)
        );
    }
    if !compares {
        tables(out, found, link);
    }
    misses(out, run, causes);
    let e = &run.environment;
    let _ = writeln!(out, "\n`{}` at commit {}, {}", command(run), e.commit, e.date);
    for (plot, more) in [(&found.plot, ""), (&found.over_time, ", over time")] {
        if let Some(plot) = plot.as_deref().and_then(link) {
            let title = run.title.replace(['[', ']'], "");
            let _ = writeln!(out, "\n![{title}{more}]({plot})");
        }
    }
    out.push_str("\n<details><summary>notes, deliveries, machine, file</summary>\n\n");
    notes(out, run);
    deliveries(out, run);
    let _ = writeln!(out, "- {}\n- {}", e.kernel, e.machine());
    if let Some(file) = link(&found.path) {
        let name = file.rsplit('/').next().unwrap_or(&file);
        let _ = writeln!(out, "- result file with the histograms: [{name}]({file})");
    }
    out.push_str("\n</details>\n");
}

/// The tables of targets, each with its chart.
fn tables(out: &mut String, found: &Found, link: &Link<'_>) {
    if let Some(first) = found.run.tables.iter().find(|table| table.compares()) {
        let _ = writeln!(out, "\n{}", first.legend());
    }
    for (nth, table) in found.run.tables.iter().enumerate() {
        let _ = write!(out, "\n{}", table.markdown());
        let chart = found.charts.get(nth).and_then(|chart| chart.as_deref());
        if let Some(chart) = chart.and_then(link) {
            let _ = writeln!(out, "\n![{}]({chart})", table.name);
        }
    }
}

fn command(run: &Run) -> String {
    run.environment.command.replace('`', "'")
}

/// The reasons of missed targets.
fn misses(out: &mut String, run: &Run, causes: Option<&BTreeMap<String, String>>) {
    let missed = run.rows.iter().filter(|row| matches!(row.verdict(), Verdict::Missed(_)));
    for (nth, row) in missed.enumerate() {
        let cause = causes.and_then(|rows| rows.get(&row.what));
        let cause = cause.map_or("not yet explained", |text| text.trim()).replace('\n', " ");
        let gap = if nth == 0 { "\n" } else { "" };
        let _ = writeln!(out, "{gap}- **{}** {}: {cause}", row.what, row.verdict_text());
    }
}

/// The notes of the rows, then those of the run.
fn notes(out: &mut String, run: &Run) {
    for row in &run.rows {
        if let Some(note) = &row.note {
            let _ = writeln!(out, "- {}: {}", row.what, note.replace('\n', " "));
        }
    }
    if place(run).is_none() {
        run_notes(out, run);
    }
}

/// The notes of the run, which name the targets where servers are compared.
fn run_notes(out: &mut String, run: &Run) {
    for note in &run.notes {
        let _ = writeln!(out, "- {}", note.replace('\n', " "));
    }
}

/// Counts of deliveries and the latency percentiles, one line per series.
fn deliveries(out: &mut String, run: &Run) {
    for entry in &run.latency {
        let (d, p) = (&entry.deliveries, &entry.percentiles);
        let count = |n: u64| number(n as f64);
        let time = |ns: u64| value(ns as f64, "ns");
        let _ = writeln!(
            out,
            "- {}: {} expected, {} delivered, {} lost, {} out of order, {} duplicates; p50 {}, \
             p90 {}, p99 {}, p99.9 {}, p99.99 {}, max {}",
            entry.series,
            count(d.expected),
            count(d.delivered),
            count(d.lost()),
            count(d.out_of_order),
            count(d.duplicates),
            time(p.p50),
            time(p.p90),
            time(p.p99),
            time(p.p99_9),
            time(p.p99_99),
            time(p.max),
        );
    }
}

fn verdict_cell(row: &Row) -> String {
    match row.verdict() {
        Verdict::Missed(_) => format!("**{}**", row.verdict_text()),
        _ => row.verdict_text(),
    }
}

/// Text without characters that would end its table cell.
fn cell(text: &str) -> String {
    text.replace('|', r"\|").replace('\n', " ")
}

/// The anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_those_of_github() {
        assert_eq!(anchor("Idle: 1,000,000 sockets (plain)"), "idle-1000000-sockets-plain");
    }
}
