//! Compares latencies: tables on the terminal, a drawing and a page in a folder.
//!
//! Owns the flags, what is held against what, and the refusals. Never measures. Invariant: every
//! series that was given is told, or nothing is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use self::arguments::Units;
use self::input::Input;
use self::measured::Measured;
use crate::plot::{self, Plot, Series};

mod arguments;
mod hgrm;
mod hlog;
mod input;
mod load;
mod measured;
mod page;
pub(crate) mod recorded;
mod table;

/// Names of what is written with `--out`.
const DRAWING: &str = "compare.svg";
const PAGE: &str = "compare.html";

/// Flags of `compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Results folders of scenarios, .hgrm or .hlog files, outputs of wrk2 --latency; the first is
    /// what the others are held against. `PATH:SERIES` takes one series of several (or one tag of a
    /// .hlog), `NAME=PATH` names it.
    #[arg(required = true)]
    pub inputs: Vec<String>,
    /// Folder for compare.svg and compare.html.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Unit of files that don't state theirs: ns, us, ms or s; FILE=UNIT for one of several.
    #[arg(long)]
    pub unit: Vec<String>,
    /// Compare although the loads differ.
    #[arg(long)]
    pub despite_load: bool,
}

/// One line of a table.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its name in the group.
    pub label: String,
    /// The series.
    pub measured: &'a Measured,
}

/// Series that are held against the first of them.
#[derive(Debug)]
pub struct Group<'a> {
    /// What they have in common, if there is more than one group.
    pub name: Option<&'a str>,
    /// At least one.
    pub lines: Vec<Line<'a>>,
}

/// A comparison, ready to be told.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// What was given.
    pub inputs: &'a [Input],
    /// Every series of every input, once.
    pub groups: Vec<Group<'a>>,
    /// What a reader must know beside the numbers.
    pub notes: Vec<String>,
}

/// Compares, prints the tables and writes the files.
pub fn run(options: &Options) -> Result<()> {
    let inputs = input::read_all(&options.inputs, &Units::parse(&options.unit)?)?;
    let comparison = compare(&inputs, options.despite_load)?;
    if let Some(out) = &options.out {
        write(&comparison, out)?;
    }
    print!("{}", text(&comparison));
    if let Some(out) = &options.out {
        println!("\nwritten: {0}/{DRAWING}, {0}/{PAGE}", out.display());
    }
    Ok(())
}

/// Holds series against one another. An error if their loads differ, unless `despite_load`.
pub fn compare(inputs: &[Input], despite_load: bool) -> Result<Comparison<'_>> {
    let series: usize = inputs.iter().map(|input| input.series.len()).sum();
    ensure!(series > 1, "one series alone cannot be compared: give a second input");
    let differences = load::differences(inputs);
    ensure!(
        differences.is_empty() || despite_load,
        "the loads differ, so the latencies say nothing about each other; --despite-load compares \
         them all the same\n  {}",
        differences.join("\n  ")
    );
    let groups = groups(inputs);
    let mut notes: Vec<String> =
        differences.iter().map(|line| format!("The loads differ: {line}")).collect();
    notes.extend(remarks(inputs, &groups));
    Ok(Comparison { inputs, groups, notes })
}

/// By name of the series where two inputs have several; else all in one.
fn groups(inputs: &[Input]) -> Vec<Group<'_>> {
    if inputs.iter().filter(|input| input.series.len() > 1).count() < 2 {
        let lines = inputs.iter().flat_map(|input| {
            input
                .series
                .iter()
                .map(|measured| Line { label: full_label(input, measured), measured })
        });
        return vec![Group { name: None, lines: lines.collect() }];
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    for input in inputs {
        for measured in &input.series {
            let name = measured.name.as_str();
            let line = Line { label: input.label.clone(), measured };
            match groups.iter_mut().find(|group| group.name == Some(name)) {
                Some(group) => group.lines.push(line),
                None => groups.push(Group { name: Some(name), lines: vec![line] }),
            }
        }
    }
    groups
}

fn full_label(input: &Input, measured: &Measured) -> String {
    if input.series.len() > 1 {
        format!("{}: {}", input.label, measured.name)
    } else {
        input.label.clone()
    }
}

fn remarks(inputs: &[Input], groups: &[Group<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    for group in groups {
        if let (Some(name), [line]) = (group.name, &group.lines[..]) {
            notes.push(format!("Only {} has a series \"{name}\".", line.label));
        }
    }
    let unknown: Vec<&str> =
        inputs.iter().filter(|i| i.run.is_none()).map(|i| i.label.as_str()).collect();
    if !unknown.is_empty() {
        let of = unknown.join(", ");
        notes.push(format!("Nothing tells under which load these were measured: {of}."));
    }
    let lines = || groups.iter().flat_map(|group| &group.lines);
    let readings = |line: &Line<'_>| line.measured.distribution.percentiles;
    if lines().any(|line| readings(line).iter().flatten().any(|reading| reading.estimated)) {
        notes.push("~ was estimated between two rows of a percentile table.".to_owned());
    }
    if lines().any(|line| readings(line).contains(&None)) {
        notes.push("Where a percentile is not known, the table ends before it.".to_owned());
    }
    for line in lines().filter(|line| line.measured.distribution.step > 1.5) {
        let (label, step) = (&line.label, line.measured.distribution.step);
        notes.push(format!("{label}: the worst is that of intervals of {step:.0} s."));
    }
    notes
}

/// All tables and notes.
fn text(comparison: &Comparison<'_>) -> String {
    let tables: Vec<String> = comparison.groups.iter().map(table::render).collect();
    let mut out = tables.join("\n");
    for note in &comparison.notes {
        out.push_str(&format!("  {note}\n"));
    }
    out
}

/// The drawing of a group. Runs come to the same phase at different times, so each series counts
/// its seconds from its own first.
fn drawing(group: &Group<'_>, title: &str) -> Plot {
    let series = group.lines.iter().map(|line| {
        let told = &line.measured.distribution;
        let first = told.worst.first().map_or(0.0, |point| point.0);
        let worst = told.worst.iter().map(|(second, ns)| (second - first, *ns)).collect();
        Series { name: line.label.clone(), percentiles: told.curve.clone(), worst, step: told.step }
    });
    Plot { title: title.to_owned(), subtitle: String::new(), series: series.collect() }
}

fn write(comparison: &Comparison<'_>, out: &Path) -> Result<()> {
    let told = || format!("cannot write {}", out.display());
    let mut plots: Vec<Plot> = comparison
        .groups
        .iter()
        .map(|group| drawing(group, group.name.unwrap_or("Latencies compared")))
        .collect();
    if let Some(first) = plots.first_mut() {
        first.subtitle = comparison.notes.join("\n");
    }
    let files = [(DRAWING, plot::stack(&plots)?), (PAGE, page::render(comparison)?)];
    fs::create_dir_all(out).with_context(told)?;
    for (name, text) in files {
        fs::write(out.join(name), text).with_context(told)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::input::tests::{inputs, result_file};
    use super::*;
    use crate::histogram_text::hgrm;
    use crate::run::Run;

    #[test]
    fn different_loads_are_refused_unless_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let folders = [7, 8].map(|load| result_file(root.path(), "latency", load, &["drumline"]));
        let inputs = inputs(&[&folders[0], &folders[1]]);
        let error = compare(&inputs, false).unwrap_err().to_string();
        assert!(error.contains("connections: 7 (") && error.contains("--despite-load"), "{error}");
        let told = compare(&inputs, true).unwrap();
        assert!(told.notes[0].starts_with("The loads differ: connections: 7 ("), "{told:?}");
    }

    #[test]
    fn one_series_alone_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = result_file(root.path(), "latency", 7, &["drumline"]);
        let error = compare(&inputs(&[&folder]), false).unwrap_err().to_string();
        assert!(error.contains("give a second input"), "{error}");
    }

    #[test]
    fn several_series_are_held_against_their_namesakes() {
        let root = tempfile::tempdir().unwrap();
        let old = result_file(&root.path().join("old"), "slow", 7, &["readers", "probes"]);
        let new = result_file(&root.path().join("new"), "slow", 7, &["probes", "readers", "more"]);
        let inputs = inputs(&[&old, &new]);
        let told = compare(&inputs, false).unwrap();
        let groups: Vec<(Option<&str>, usize)> =
            told.groups.iter().map(|group| (group.name, group.lines.len())).collect();
        assert_eq!(groups, [(Some("readers"), 2), (Some("probes"), 2), (Some("more"), 1)]);
        assert!(told.notes.iter().any(|note| note.contains("has a series \"more\"")), "{told:?}");
        let one = compare(&inputs[..1], false).unwrap();
        assert_eq!(one.groups.len(), 1, "the series of one run, against the first");
        assert_eq!(one.groups[0].lines[1].label, format!("{}: probes", inputs[0].label));
    }

    #[test]
    fn the_page_stands_alone_and_tells_everything() {
        let root = tempfile::tempdir().unwrap();
        let path = result_file(root.path(), "slow", 7, &["readers", "probes <b>"]);
        let table = root.path().join("theirs-us.hgrm");
        let readers = recorded::histograms(&Run::read(&path).unwrap().latency[0]).unwrap();
        fs::write(&table, hgrm(readers.total(), 1000.0)).unwrap();
        let two = inputs(&[&path, &table]);
        let told = compare(&two, false).unwrap();
        assert!(told.notes.iter().any(|note| note.contains("under which load")), "{told:?}");
        let out = root.path().join("out");
        write(&told, &out).unwrap();
        let page = fs::read_to_string(out.join(PAGE)).unwrap();
        for part in ["src=", "href=", "url(", "@import", "<script", "<b>"] {
            assert!(!page.contains(part), "{part}");
        }
        for part in [
            "lang=\"en\"",
            "71965af00",
            "Linux 6.18.0",
            "Some CPU",
            "drumline-bench idle",
            "probes &lt;b&gt;",
            "not known",
            "prefers-color-scheme",
        ] {
            assert!(page.contains(part), "{part}");
        }
        let drawing = fs::read_to_string(out.join(DRAWING)).unwrap();
        assert_eq!(drawing.matches("<polyline").count(), 5, "a .hgrm has no seconds");
        assert!(page.contains("<svg") && !drawing.contains("NaN"));
        let text = text(&told);
        assert!(text.contains("theirs-us.hgrm") && text.contains("slow: probes <b>"), "{text}");
    }
}
