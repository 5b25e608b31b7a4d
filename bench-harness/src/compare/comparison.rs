//! The comparison: which series are compared, and the notes on them.
//!
//! Owns the grouping of series. Never formats a number. Invariant: every series of every input is
//! in one group.

use anyhow::{Result, ensure};

use super::input::Input;
use super::load;
use super::measured::Measured;
use crate::plot::{Plot, Series};

/// One line of a table.
#[derive(Debug)]
pub struct Line<'a> {
    /// Name of the line.
    pub label: String,
    /// The series.
    pub measured: &'a Measured,
}

/// Series that are compared with the first of them.
#[derive(Debug)]
pub struct Group<'a> {
    /// Common name of the series, if there are several groups.
    pub name: Option<&'a str>,
    /// The series; at least one.
    pub lines: Vec<Line<'a>>,
}

/// A comparison: groups of series, and notes.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The inputs.
    pub inputs: &'a [Input],
    /// Every series of every input, once.
    pub groups: Vec<Group<'a>>,
    /// Remarks on the numbers.
    pub notes: Vec<String>,
}

/// Compares all series. An error if the loads differ, unless `despite_load`.
pub fn compare(inputs: &[Input], despite_load: bool) -> Result<Comparison<'_>> {
    let series: usize = inputs.iter().map(|input| input.series.len()).sum();
    ensure!(series > 1, "there is only one series: give a second input to compare it with");
    let differences = load::differences(inputs);
    ensure!(
        differences.is_empty() || despite_load,
        "the loads differ, so the latencies cannot be compared; add --despite-load to compare them \
         anyway\n  {}",
        differences.join("\n  ")
    );
    let groups = groups(inputs);
    let mut notes: Vec<String> =
        differences.iter().map(|line| format!("The loads differ: {line}")).collect();
    notes.extend(remarks(inputs, &groups));
    Ok(Comparison { inputs, groups, notes })
}

/// Groups by name of the series if at least two inputs have several series; otherwise one group.
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
        notes.push(format!("The load of these inputs is unknown: {of}."));
    }
    let lines = || groups.iter().flat_map(|group| &group.lines);
    let readings = |line: &Line<'_>| line.measured.distribution.percentiles;
    if lines().any(|line| readings(line).iter().flatten().any(|reading| reading.estimated)) {
        notes.push(
            "~ marks a latency that was interpolated between two rows of a percentile table."
                .to_owned(),
        );
    }
    if lines().any(|line| readings(line).contains(&None)) {
        notes
            .push("A percentile is not known if the table of the input ends before it.".to_owned());
    }
    for line in lines().filter(|line| line.measured.distribution.step > 1.5) {
        let (label, step) = (&line.label, line.measured.distribution.step);
        notes
            .push(format!("{label}: the highest latencies are those of intervals of {step:.0} s."));
    }
    notes
}

/// The plot of a group. Each series counts seconds from its own first delivery, because runs reach
/// the same phase at different times.
pub fn plot_of(group: &Group<'_>, title: &str) -> Plot {
    let series = group.lines.iter().map(|line| {
        let distribution = &line.measured.distribution;
        let first = distribution.worst.first().map_or(0.0, |point| point.0);
        let worst = distribution.worst.iter().map(|(second, ns)| (second - first, *ns)).collect();
        Series {
            name: line.label.clone(),
            percentiles: distribution.curve.clone(),
            worst,
            step: distribution.step,
        }
    });
    Plot { title: title.to_owned(), subtitle: String::new(), series: series.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::input::tests::{inputs, result_file};

    #[test]
    fn different_loads_are_refused_unless_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let folders = [7, 8].map(|load| result_file(root.path(), "latency", load, &["drumline"]));
        let inputs = inputs(&[&folders[0], &folders[1]]);
        let error = compare(&inputs, false).unwrap_err().to_string();
        assert!(error.contains("connections: 7 (") && error.contains("--despite-load"), "{error}");
        let comparison = compare(&inputs, true).unwrap();
        assert!(
            comparison.notes[0].starts_with("The loads differ: connections: 7 ("),
            "{comparison:?}"
        );
    }

    #[test]
    fn one_series_alone_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = result_file(root.path(), "latency", 7, &["drumline"]);
        let error = compare(&inputs(&[&folder]), false).unwrap_err().to_string();
        assert!(error.contains("give a second input"), "{error}");
    }

    #[test]
    fn series_are_compared_with_series_of_the_same_name() {
        let root = tempfile::tempdir().unwrap();
        let old = result_file(&root.path().join("old"), "slow", 7, &["readers", "probes"]);
        let new = result_file(&root.path().join("new"), "slow", 7, &["probes", "readers", "more"]);
        let inputs = inputs(&[&old, &new]);
        let comparison = compare(&inputs, false).unwrap();
        let groups: Vec<(Option<&str>, usize)> =
            comparison.groups.iter().map(|group| (group.name, group.lines.len())).collect();
        assert_eq!(groups, [(Some("readers"), 2), (Some("probes"), 2), (Some("more"), 1)]);
        assert!(
            comparison.notes.iter().any(|note| note.contains("has a series \"more\"")),
            "{comparison:?}"
        );
        let one = compare(&inputs[..1], false).unwrap();
        assert_eq!(one.groups.len(), 1, "the series of one run, against the first");
        assert_eq!(one.groups[0].lines[1].label, format!("{}: probes", inputs[0].label));
    }
}
