//! The inputs of RESULTS.md: result files, causes.toml and cliffs.toml.
//!
//! Owns finding the runs and choosing the latest of each scenario. Never changes a number, and
//! never leaves a run out: a result file that cannot be read stops the report.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::run::{EXTENSION, Run};

/// File of the hand-written reasons of missed targets, in the results folder.
pub const CAUSES: &str = "causes.toml";

/// File of the hand-written list of performance limits, in the results folder.
pub const CLIFFS: &str = "cliffs.toml";

/// Rows that state where performance ends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cliffs {
    /// In the order of the table.
    #[serde(default)]
    pub cliff: Vec<Cliff>,
}

/// One such row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cliff {
    /// The scenario.
    pub scenario: String,
    /// Name of the row.
    pub row: String,
    /// What happens at this limit, and how to avoid it.
    pub why: String,
}

/// Reasons of missed targets: scenario, then row, then the reason.
pub type Causes = BTreeMap<String, BTreeMap<String, String>>;

/// A run, its result file and its plot.
pub struct Found {
    /// The result file.
    pub path: PathBuf,
    /// What the result file holds.
    pub run: Run,
    /// The plot, once it is drawn.
    pub plot: Option<PathBuf>,
    /// The chart of the values over time, once it is drawn.
    pub over_time: Option<PathBuf>,
    /// The chart of each table, once they are drawn; `None` for a table without values.
    pub charts: Vec<Option<PathBuf>>,
}

/// Every run, in the order of the paths.
pub fn find(results: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for day in entries(results)?.into_iter().filter(|path| path.is_dir()) {
        for path in entries(&day)?.into_iter().filter(|path| has_extension(path, EXTENSION)) {
            let run = Run::read(&path)?;
            let named = path.file_stem().is_some_and(|stem| stem == run.scenario.as_str());
            ensure!(named, "{} holds a run of {}; rename the file", path.display(), run.scenario);
            found.push(Found { path, run, plot: None, over_time: None, charts: Vec::new() });
        }
    }
    ensure!(
        !found.is_empty(),
        "no result files in the folders of {}: run a scenario first",
        results.display()
    );
    Ok(found)
}

pub fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}

/// The paths in a folder, sorted.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot list {}", folder.display());
    let entries = fs::read_dir(folder).with_context(context)?;
    let paths = entries.map(|entry| Ok(entry.with_context(context)?.path()));
    let mut paths = paths.collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Reads a hand-written file; empty if it does not exist.
pub fn by_hand<T: Default + DeserializeOwned>(path: &Path) -> Result<T> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).with_context(|| format!("in {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Refuses reasons of rows that no run has: the name is misspelt, or the row was renamed.
pub fn check_causes(causes: &Causes, all: &[Found]) -> Result<()> {
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
pub fn latest(all: Vec<Found>) -> Vec<Found> {
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
