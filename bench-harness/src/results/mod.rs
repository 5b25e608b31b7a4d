//! RESULTS.md and its plots, written from the result files.
//!
//! Owns the command `report`. Invariant: the same result files give the same text and plots.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use self::inputs::{
    CAUSES, CLIFFS, Causes, Cliffs, Found, by_hand, check_causes, entries, find, has_extension,
    latest,
};
use crate::export;

mod charts;
mod inputs;
mod markdown;

/// Folder of the plots of the latest runs, in the results folder.
const PLOTS: &str = "plots";

/// Writes `out` (RESULTS.md) and the plots from all result files below `results`. An error if there
/// is none, if one cannot be read, or if causes.toml explains a row that no run has.
pub fn write(results: &Path, out: &Path) -> Result<()> {
    let all = find(results)?;
    let causes: Causes = by_hand(&results.join(CAUSES))?;
    check_causes(&causes, &all)?;
    let cliffs: Cliffs = by_hand(&results.join(CLIFFS))?;
    let mut latest = latest(all);
    draw(&mut latest, &results.join(PLOTS))?;
    let text = markdown::render(&latest, &causes, &cliffs, &|path| link(out, path))?;
    fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))
}

/// Replaces the plots in `folder` by those of these runs.
fn draw(runs: &mut [Found], folder: &Path) -> Result<()> {
    let context = || format!("cannot write the plots to {}", folder.display());
    fs::create_dir_all(folder).with_context(context)?;
    for old in entries(folder)?.iter().filter(|path| has_extension(path, "svg")) {
        fs::remove_file(old).with_context(context)?;
    }
    for found in runs.iter_mut().filter(|found| !found.run.latency.is_empty()) {
        let plot = export::svg(&found.run);
        let plot = plot.with_context(|| format!("cannot draw {}", found.path.display()))?;
        let path = folder.join(format!("{}.svg", found.run.scenario));
        fs::write(&path, plot).with_context(context)?;
        found.plot = Some(path);
    }
    for found in runs.iter_mut().filter(|found| !found.run.timelines.is_empty()) {
        let chart = export::over_time(&found.run);
        let chart = chart.with_context(|| format!("cannot draw {}", found.path.display()))?;
        let path = folder.join(format!("{}-over-time.svg", found.run.scenario));
        fs::write(&path, chart).with_context(context)?;
        found.over_time = Some(path);
    }
    for found in runs.iter_mut() {
        for table in &found.run.tables {
            let drawn = charts::of(&found.run, table);
            let drawn = drawn.with_context(|| format!("cannot draw {}", found.path.display()))?;
            let name = format!("{} {}", found.run.scenario, table.name);
            let path = folder.join(format!("{}.svg", export::file_name(&name)));
            if let Some(drawn) = &drawn {
                fs::write(&path, drawn).with_context(context)?;
            }
            found.charts.push(drawn.map(|_| path));
        }
    }
    Ok(())
}

/// The path relative to the folder of `out`, if it is below that folder.
fn link(out: &Path, path: &Path) -> Option<String> {
    let base = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (base, path) = (base.canonicalize().ok()?, path.canonicalize().ok()?);
    Some(path.strip_prefix(base).ok()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Recorder;
    use crate::rows::Row;
    use crate::run::Run;
    use crate::run::tests::environment;

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
        at("[idle.json](bench/2026-11-21-71965af00/idle.json)");
        at("![idle: in words](bench/plots/idle.svg)");
        let plots = entries(&bench.join(PLOTS)).unwrap();
        assert_eq!(plots, [bench.join("plots/idle.svg")], "storm records no latency");
        assert_eq!(text, report(root.path()).unwrap());
    }

    #[test]
    fn tables_hold_every_target_and_remark() {
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
        let mut showdown = super::tests::run("showdown", "2026-11-22T10:00:00Z", 225.0);
        showdown.write(&root.path().join("bench"), &[]).unwrap();
        let text = report(root.path()).unwrap();
        for part in [
            "**fanout**: one to many\n\n| target | CPU per delivery |\n|---|--:|\n",
            "| other | 1 us; 0.500x |\n| dead | - |\n\n- dead: ended with 1",
            "![fanout](bench/plots/peers-fanout.svg)",
        ] {
            assert!(text.contains(part), "{part} not in\n{text}");
        }
        let at = |part: &str| text.find(part).unwrap();
        assert!(at("**fanout**") < at("targets are met"), "the tables come first");
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert!(lines[0].contains("peers") && lines[1].contains("showdown"), "{lines:?}");
        let chart = fs::read_to_string(root.path().join("bench/plots/peers-fanout.svg")).unwrap();
        for part in ["CPU per delivery (less is better)", ">500 ns<", ">1 us<", ">no value<"] {
            assert!(chart.contains(part), "{part} not in {chart}");
        }
    }

    #[test]
    fn values_over_time_have_a_chart_of_their_own() {
        use crate::timeline::{Timeline, TimelineLine};
        let root = tempfile::tempdir().unwrap();
        let mut run = run("soak", "2026-11-21T10:00:00Z", 150.0);
        let (values, name) = (vec![60.0, 61.0], "RssAnon".to_owned());
        let lines = vec![TimelineLine { name, first: 0.0, step: 1.0, values }];
        run.timelines = vec![Timeline { title: "memory".into(), unit: "MiB".into(), lines }];
        run.write(&root.path().join("bench"), &[]).unwrap();
        let text = report(root.path()).unwrap();
        let link = "![soak: in words, over time](bench/plots/soak-over-time.svg)";
        assert!(text.contains(link), "{text}");
        let chart = fs::read_to_string(root.path().join("bench/plots/soak-over-time.svg"));
        assert!(chart.unwrap().contains(">memory<"));
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
            let error = format!("{:#}", report(root.path()).unwrap_err());
            assert!(error.contains(part), "{error}");
        };
        error("cannot list");
        fs::create_dir(&bench).unwrap();
        error("no result files in the folders of");
        let path = run("idle", "2026-11-21T10:00:00Z", 1.0).write(&bench, &[]).unwrap();
        fs::write(bench.join(CAUSES), "[idle]\n\"memry\" = \"x\"\n").unwrap();
        error("[idle] \"memry\", which no run has");
        fs::write(bench.join(CAUSES), "[idle\n").unwrap();
        error("causes.toml");
        fs::remove_file(bench.join(CAUSES)).unwrap();
        let broken = path.with_file_name("broken.json");
        fs::write(&broken, "{}").unwrap();
        error("broken.json");
        fs::copy(path, broken).unwrap();
        error("holds a run of idle");
        assert!(!root.path().join("RESULTS.md").exists());
    }
}
