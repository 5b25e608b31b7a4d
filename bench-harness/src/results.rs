//! RESULTS.md, written from the summary.json files.
//!
//! Owns finding the runs, choosing the latest of each scenario and the text. Never edits a
//! number, and never leaves a run out: one that cannot be read stops the report. Invariant: the
//! same files give the same text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::files::{PLOT, Run, SUMMARY};
pub use crate::rows::{Row, Target, Verdict};
use crate::rows::{number, value};
use crate::{headlines, names};

/// Name of the hand-written reasons of missed rows, in the results directory.
pub const CAUSES: &str = "causes.toml";

/// Name of the hand-written list of our own performance cliffs, beside it.
pub const CLIFFS: &str = "cliffs.toml";

/// Rows that tell where our own performance ends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cliffs {
    #[serde(default)]
    cliff: Vec<Cliff>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cliff {
    scenario: String,
    row: String,
    /// What happens there, and what to do about it.
    why: String,
}

/// Reasons of missed rows: scenario, then row, then the reason.
type Causes = BTreeMap<String, BTreeMap<String, String>>;

/// A run and where its files are.
struct Found {
    dir: PathBuf,
    run: Run,
}

/// Writes `out` (RESULTS.md) from all runs below `results`. An error if there are none, if one
/// cannot be read whole, or if causes.toml explains what no run has.
pub fn write(results: &Path, out: &Path) -> Result<()> {
    let all = find(results)?;
    let causes: Causes = by_hand(&results.join(CAUSES))?;
    check_causes(&causes, &all)?;
    let cliffs: Cliffs = by_hand(&results.join(CLIFFS))?;
    let text = render(&latest(all), &causes, &cliffs, &|dir| link(out, dir))?;
    fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))
}

/// Every run, in the order of the directories' names.
fn find(results: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for day in directories(results)? {
        for dir in directories(&day)? {
            let mut run = Run::read(&dir.join(SUMMARY))?;
            names::update(&mut run);
            let named = dir.file_name().is_some_and(|name| name == run.scenario.as_str());
            ensure!(named, "{} holds a run of {}", dir.display(), run.scenario);
            found.push(Found { dir, run });
        }
    }
    ensure!(!found.is_empty(), "no runs below {}: nothing to report", results.display());
    Ok(found)
}

fn directories(of: &Path) -> Result<Vec<PathBuf>> {
    let told = || format!("cannot list {}", of.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(of).with_context(told)? {
        let path = entry.with_context(told)?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A file that people write; empty where there is none.
fn by_hand<T: Default + DeserializeOwned>(path: &Path) -> Result<T> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).with_context(|| format!("in {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A reason for a row that no run has is a slip of the pen, and its row would go unexplained.
fn check_causes(causes: &Causes, all: &[Found]) -> Result<()> {
    for (scenario, rows) in causes {
        for what in rows.keys() {
            let mut of = all.iter().filter(|found| found.run.scenario == *scenario);
            if !of.any(|found| found.run.rows.iter().any(|row| row.what == *what)) {
                bail!("{CAUSES} explains [{scenario}] \"{what}\", which no run has");
            }
        }
    }
    Ok(())
}

/// The latest run of each scenario, newest first.
fn latest(all: Vec<Found>) -> Vec<Found> {
    let mut by_scenario: BTreeMap<String, Found> = BTreeMap::new();
    for found in all {
        let kept = by_scenario.get(&found.run.scenario);
        if kept.is_none_or(|kept| kept.run.environment.date <= found.run.environment.date) {
            by_scenario.insert(found.run.scenario.clone(), found);
        }
    }
    let mut runs: Vec<Found> = by_scenario.into_values().collect();
    runs.sort_by(|a, b| b.run.environment.date.cmp(&a.run.environment.date));
    runs
}

/// The directory as seen from the file that links to it, if it is below.
fn link(out: &Path, dir: &Path) -> Option<String> {
    let base = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (base, dir) = (base.canonicalize().ok()?, dir.canonicalize().ok()?);
    Some(dir.strip_prefix(base).ok()?.to_str()?.to_owned())
}

/// The text. Writing to a string cannot fail, so its results are dropped here and below.
fn render(
    runs: &[Found],
    causes: &Causes,
    cliffs: &Cliffs,
    link: &dyn Fn(&Path) -> Option<String>,
) -> Result<String> {
    let mut out = String::from(
        "# Results\n\n\
         `drumline-bench report` writes this file from the `summary.json` of the latest run of \
         each scenario. The reasons of missed targets come from \
         `bench-harness/results/causes.toml`, the known limits from `cliffs.toml` beside it. \
         Don't edit this file by hand. \"Kernel baseline\" means the bare kernel, which accepts \
         the same connections and sends the same bytes without a server.\n",
    );
    let reason = |scenario: &str, what: &str| Some(causes.get(scenario)?.get(what)?.as_str());
    let every: Vec<&Run> = runs.iter().map(|found| &found.run).collect();
    headlines::write(&mut out, &every, &reason, &cell);
    targets(&mut out, runs);
    write_cliffs(&mut out, runs, cliffs)?;
    for found in runs {
        scenario(&mut out, found, causes.get(&found.run.scenario), link(&found.dir));
    }
    Ok(out)
}

/// Where our own performance ends. An error if no run has such a row: the cliff has moved.
fn write_cliffs(out: &mut String, runs: &[Found], cliffs: &Cliffs) -> Result<()> {
    if cliffs.cliff.is_empty() {
        return Ok(());
    }
    out.push_str("\n## Where performance ends\n\n");
    out.push_str("| where | measured | what happens | command |\n|---|--:|---|---|\n");
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

/// All targets in one table.
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
}

fn scenario(
    out: &mut String,
    found: &Found,
    causes: Option<&BTreeMap<String, String>>,
    link: Option<String>,
) {
    let run = &found.run;
    let _ = writeln!(out, "\n## {}\n\n{}\n", run.title, run.load);
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
    if let Some(first) = run.tables.first() {
        let _ = writeln!(out, "\n{}", first.legend());
    }
    for table in &run.tables {
        let _ = write!(out, "\n{}", table.markdown());
    }
    misses(out, run, causes);
    let e = &run.environment;
    let _ = writeln!(out, "\n`{}` at commit {}, {}", command(run), e.commit, e.date);
    if let Some(dir) = link.as_ref().filter(|_| !run.latency.is_empty()) {
        let _ = writeln!(out, "\n![{}]({dir}/{PLOT})", run.title.replace(['[', ']'], ""));
    }
    out.push_str("\n<details><summary>notes, deliveries, machine, files</summary>\n\n");
    notes(out, run);
    deliveries(out, run);
    let _ = writeln!(out, "- {}\n- {}", e.kernel, e.machine());
    if let Some(dir) = link {
        files(out, run, &dir);
    }
    out.push_str("\n</details>\n");
}

fn command(run: &Run) -> String {
    run.environment.command.replace('`', "'")
}

/// Why rows missed their targets.
fn misses(out: &mut String, run: &Run, causes: Option<&BTreeMap<String, String>>) {
    let missed = run.rows.iter().filter(|row| matches!(row.verdict(), Verdict::Missed(_)));
    for (nth, row) in missed.enumerate() {
        let cause = causes.and_then(|rows| rows.get(&row.what));
        let cause = cause.map_or("not yet explained", |text| text.trim()).replace('\n', " ");
        let gap = if nth == 0 { "\n" } else { "" };
        let _ = writeln!(out, "{gap}- **{}** {}: {cause}", row.what, row.verdict_text());
    }
}

/// Notes of rows, then those of the run.
fn notes(out: &mut String, run: &Run) {
    for row in &run.rows {
        if let Some(note) = &row.note {
            let _ = writeln!(out, "- {}: {}", row.what, note.replace('\n', " "));
        }
    }
    for note in &run.notes {
        let _ = writeln!(out, "- {}", note.replace('\n', " "));
    }
}

/// What became of the messages, and the distribution, a line a series.
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

fn files(out: &mut String, run: &Run, dir: &str) {
    let names = run.latency.iter().flat_map(|entry| [entry.hgrm.as_str(), entry.hlog.as_str()]);
    let links: Vec<String> =
        std::iter::once(SUMMARY).chain(names).map(|n| format!("[{n}]({dir}/{n})")).collect();
    let _ = writeln!(out, "- files: {}", links.join(", "));
}

fn verdict_cell(row: &Row) -> String {
    match row.verdict() {
        Verdict::Missed(_) => format!("**{}**", row.verdict_text()),
        _ => row.verdict_text(),
    }
}

/// Text that stays within its cell of a table.
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
    use crate::files::tests::environment;
    use crate::latency::Recorder;

    fn run(scenario: &str, date: &str, measured: f64) -> Run {
        let load = "1,000 connections, nothing sent";
        let title = format!("{scenario}: in words");
        let mut run = Run::new(scenario, &title, load, environment(date, "71965af00"));
        run.rows.push(Row::new("memory per connection", measured, "bytes").at_most(200.0));
        run.rows.push(Row::new("connections", 1e6, "count").note("none | refused"));
        run
    }

    fn report(root: &Path) -> Result<String> {
        let out = root.join("RESULTS.md");
        write(&root.join("bench"), &out)?;
        Ok(fs::read_to_string(out).unwrap())
    }

    fn one_series() -> [(String, Recorder); 1] {
        let mut r = Recorder::new(std::time::SystemTime::UNIX_EPOCH).unwrap();
        r.expect(3);
        r.record(0, 13_100).unwrap();
        r.record(1, 88_000).unwrap();
        [("drumline".to_owned(), r)]
    }

    #[test]
    fn latest_runs_newest_first() {
        let root = tempfile::tempdir().unwrap();
        let bench = root.path().join("bench");
        run("idle", "2026-11-20T10:00:00Z", 999.0).write(&bench, &[]).unwrap();
        run("idle", "2026-11-21T10:00:00Z", 225.0).write(&bench, &one_series()).unwrap();
        run("storm", "2026-11-22T10:00:00Z", 150.0).write(&bench, &[]).unwrap();
        let causes =
            "[idle]\n\"memory per connection\" = \"\"\"\nThe head buffer\nis kept.\"\"\"\n";
        fs::write(bench.join(CAUSES), causes).unwrap();
        let text = report(root.path()).unwrap();
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} not in\n{text}"));
        assert!(at("1 of 2 targets are met.") < at("## storm: in words"));
        assert!(at("## storm: in words") < at("## idle: in words"));
        assert!(!text.contains("999 bytes"));
        at(
            "| [idle](#idle-in-words) | memory per connection | 225 bytes | at most 200 bytes | **missed by 12.5%** |",
        );
        at("| memory per connection | 150 bytes | at most 200 bytes | met |");
        at("- **memory per connection** missed by 12.5%: The head buffer is kept.");
        at("3 expected, 2 delivered, 1 lost, 0 out of order, 0 duplicates; p50 13.1 us");
        at("RLIMIT_NOFILE 20,000 (hard 20,000)");
        at("`drumline-bench idle --connections 1000000` at commit");
        at("](bench/2026-11-21-71965af00/idle/drumline-us.hgrm)");
        at("![idle: in words](bench/2026-11-21-71965af00/idle/plot.svg)");
        assert_eq!(text, report(root.path()).unwrap());
    }

    #[test]
    fn tables_of_targets_are_told_whole() {
        use crate::grid::{Better, Column, Grid};
        let root = tempfile::tempdir().unwrap();
        let mut run = run("peers", "2026-11-21T10:00:00Z", 225.0);
        let columns = vec![Column::new("CPU per delivery", "ns", Better::Less)];
        let mut grid = Grid::new("fanout", "one to many", columns);
        for (name, values) in [("drumline", vec![Some(500.0)]), ("other", vec![Some(1000.0)])] {
            grid.target(name);
            grid.line(name).unwrap().values = vec![values];
        }
        grid.target("dead");
        grid.line("dead").unwrap().remarks.push("ended with 1".to_owned());
        run.tables.push(grid);
        run.write(&root.path().join("bench"), &[]).unwrap();
        let text = report(root.path()).unwrap();
        for part in [
            "**fanout**: one to many\n\n| target | CPU per delivery |\n|---|--:|\n",
            "| other | 1 us; 0.500x |\n| dead | - |\n\n- dead: ended with 1",
        ] {
            assert!(text.contains(part), "{part} not in\n{text}");
        }
    }

    #[test]
    fn a_miss_without_a_reason_says_so() {
        let root = tempfile::tempdir().unwrap();
        run("idle", "2026-11-21T10:00:00Z", 225.0).write(&root.path().join("bench"), &[]).unwrap();
        let text = report(root.path()).unwrap();
        assert!(text.contains("missed by 12.5%: not yet explained"), "{text}");
    }

    #[test]
    fn bad_input_stops_the_report() {
        let root = tempfile::tempdir().unwrap();
        let bench = root.path().join("bench");
        let error = |part: &str| {
            let told = format!("{:#}", report(root.path()).unwrap_err());
            assert!(told.contains(part), "{told}");
        };
        error("cannot list");
        fs::create_dir(&bench).unwrap();
        error("no runs below");
        let dir = run("idle", "2026-11-21T10:00:00Z", 1.0).write(&bench, &[]).unwrap();
        fs::write(bench.join(CAUSES), "[idle]\n\"memry\" = \"x\"\n").unwrap();
        error("[idle] \"memry\", which no run has");
        fs::write(bench.join(CAUSES), "[idle\n").unwrap();
        error("causes.toml");
        fs::remove_file(bench.join(CAUSES)).unwrap();
        let broken = dir.with_file_name("broken");
        fs::create_dir(&broken).unwrap();
        error("broken/summary.json is no complete summary");
        fs::copy(dir.join(SUMMARY), broken.join(SUMMARY)).unwrap();
        error("holds a run of idle");
        assert!(!root.path().join("RESULTS.md").exists());
    }

    #[test]
    fn anchors() {
        assert_eq!(anchor("Idle: 1,000,000 sockets (plain)"), "idle-1000000-sockets-plain");
    }
}
