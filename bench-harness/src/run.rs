//! A run of one scenario and its result file: `<results>/<YYYY-MM-DD>-<commit>/<scenario>.json`.
//!
//! Owns the result file: its place and its format. Never computes a result. Invariant: a result
//! file appears whole under its name, and holds everything that the run measured.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::grid::Grid;
use crate::histogram_text;
use crate::latency::{Deliveries, Percentiles, Recorder};
use crate::rows::{self, Row};
use crate::timeline::Timeline;

/// Extension of result files.
pub const EXTENSION: &str = "json";
/// The version of the format that this code writes and reads.
const FORMAT: u32 = 2;

/// A run of one scenario, as its result file holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    format: u32,
    /// Name of the scenario, as on the command line and in causes.toml.
    pub scenario: String,
    /// The scenario in words.
    pub title: String,
    /// The load in few words: `1,000,000 connections, 16,667 messages/s of 512 bytes`.
    pub load: String,
    /// Machine, commit, time and command of the run.
    pub environment: Environment,
    /// Parameters of the scenario, under the scenario's own names.
    pub parameters: serde_json::Map<String, serde_json::Value>,
    /// The measured rows with their targets.
    pub rows: Vec<Row>,
    /// One table per load, for a scenario that measures several servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Grid>,
    /// Values over time, for a scenario that samples the server while it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timelines: Vec<Timeline>,
    /// One entry per latency series; empty for a scenario that measures no latency.
    pub latency: Vec<Latency>,
    /// Remarks on the whole run.
    pub notes: Vec<String>,
}

/// One latency series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Name of the series: the server, or the server and the rate.
    pub series: String,
    /// Counts of expected, delivered, reordered and duplicate messages.
    pub deliveries: Deliveries,
    /// The distribution, in ns.
    pub percentiles: Percentiles,
    /// Interval log in HdrHistogram's format, one string per line: a histogram per second, values
    /// in ns, maxima in ms.
    pub hlog: Vec<String>,
}

impl Latency {
    fn new(series: &str, recorder: &Recorder) -> Result<Self> {
        Ok(Latency {
            series: series.to_owned(),
            deliveries: recorder.deliveries,
            percentiles: recorder.percentiles().with_context(|| format!("series {series}"))?,
            hlog: histogram_text::hlog(recorder)?.lines().map(str::to_owned).collect(),
        })
    }

    /// The interval log as the text of a .hlog file.
    pub fn hlog_text(&self) -> String {
        self.hlog.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

impl Run {
    /// A run without rows.
    pub fn new(scenario: &str, title: &str, load: &str, environment: Environment) -> Self {
        Run {
            format: FORMAT,
            scenario: scenario.to_owned(),
            title: title.to_owned(),
            load: load.to_owned(),
            environment,
            parameters: serde_json::Map::new(),
            rows: Vec::new(),
            tables: Vec::new(),
            timelines: Vec::new(),
            latency: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Refuses a run with broken names, rows, tables or counts.
    pub fn check(&self) -> Result<()> {
        let scenario = &self.scenario;
        ensure!(self.format == FORMAT, "format {} instead of {FORMAT}", self.format);
        ensure!(
            is_name(scenario),
            "invalid scenario name \"{scenario}\": use the characters a-z, 0-9 and -"
        );
        rows::check(&self.rows).with_context(|| format!("scenario {scenario}"))?;
        for table in &self.tables {
            table.check().with_context(|| format!("scenario {scenario}"))?;
        }
        for timeline in &self.timelines {
            timeline.check().with_context(|| format!("scenario {scenario}"))?;
        }
        for (nth, entry) in self.latency.iter().enumerate() {
            let context = || format!("scenario {scenario}, series {}", entry.series);
            entry.deliveries.check().with_context(context)?;
            ensure!(
                entry.percentiles.count == entry.deliveries.delivered,
                "{}: {} latencies of {} deliveries",
                context(),
                entry.percentiles.count,
                entry.deliveries.delivered
            );
            let twin = self.latency[..nth].iter().any(|other| other.series == entry.series);
            ensure!(!twin, "{}: two series have this name", context());
        }
        Ok(())
    }

    /// Writes the result file below `results` and returns its path. `series` are the recorders by
    /// name; this function fills [`Run::latency`] from them.
    pub fn write(&mut self, results: &Path, series: &[(String, Recorder)]) -> Result<PathBuf> {
        let entries = series.iter().map(|(name, recorder)| Latency::new(name, recorder));
        self.latency = entries.collect::<Result<_>>()?;
        self.check()?;
        let folder = format!("{}-{}", self.environment.day(), self.environment.commit);
        let folder = results.join(folder);
        let path = folder.join(format!("{}.{EXTENSION}", self.scenario));
        let unfinished = path.with_extension("part");
        let context = || format!("cannot write {}", path.display());
        fs::create_dir_all(&folder).with_context(context)?;
        fs::write(&unfinished, serde_json::to_string_pretty(self)? + "\n").with_context(context)?;
        fs::rename(&unfinished, &path).with_context(context)?;
        Ok(path)
    }

    /// Reads a result file. An error names the file.
    pub fn read(path: &Path) -> Result<Self> {
        let context = || format!("cannot read the result file {}", path.display());
        let text = fs::read_to_string(path).with_context(context)?;
        let run: Run = serde_json::from_str(&text).with_context(context)?;
        run.check().with_context(context)?;
        Ok(run)
    }
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.chars().all(plain)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::histogram_text::tests::recorder;
    use std::time::SystemTime;

    pub(crate) fn environment(date: &str, commit: &str) -> Environment {
        Environment {
            commit: commit.into(),
            date: date.into(),
            kernel: "Linux 6.18.0 x86_64".into(),
            cpu: "Some CPU @ 2.80GHz".into(),
            cores: 2,
            memory_bytes: 24 << 30,
            nofile_soft: Some(20_000),
            nofile_hard: Some(20_000),
            held_awake: false,
            command: "drumline-bench idle --connections 1000000".into(),
        }
    }

    pub(crate) fn run() -> Run {
        let environment = environment("2026-11-22T10:00:00Z", "71965af00");
        let mut run = Run::new("unicast", "Unicast", "1,000 connections, 10,000/s", environment);
        run.rows.push(Row::new("p99", 5.5e6, "ns").at_most(25e6));
        run
    }

    #[test]
    fn a_run_is_one_file_that_reads_back() {
        let root = tempfile::tempdir().unwrap();
        let mut run = run();
        let series =
            [("Drumline, 10k/s".to_owned(), recorder(1)), ("peer".to_owned(), recorder(3))];
        let path = run.write(root.path(), &series).unwrap();
        assert_eq!(path, root.path().join("2026-11-22-71965af00/unicast.json"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_eq!(Run::read(&path).unwrap(), run);
        let log = histogram_text::hlog(&series[1].1).unwrap();
        assert_eq!(run.latency[1].hlog_text(), log, "the whole interval log");
        assert_eq!(run.write(root.path(), &series).unwrap(), path, "the same run again");
    }

    #[test]
    fn runs_with_missing_or_ambiguous_numbers_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let empty = Recorder::new(SystemTime::UNIX_EPOCH).unwrap();
        assert!(run().write(root.path(), &[("a".into(), empty)]).is_err());
        let twins = [("a".to_owned(), recorder(1)), ("a".to_owned(), recorder(1))];
        assert!(run().write(root.path(), &twins).is_err());
        assert!(Run { rows: Vec::new(), ..run() }.write(root.path(), &[]).is_err());
        assert!(Run { scenario: "../x".into(), ..run() }.write(root.path(), &[]).is_err());
        assert!(fs::read_dir(root.path()).unwrap().next().is_none(), "nothing was written");
    }

    #[test]
    fn an_error_names_the_truncated_result_file() {
        let root = tempfile::tempdir().unwrap();
        let path = run().write(root.path(), &[]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        let error = format!("{:#}", Run::read(&path).unwrap_err());
        assert!(error.contains("cannot read the result file") && error.contains("unicast.json"));
        fs::write(&path, text.replace("\"format\": 2", "\"format\": 1")).unwrap();
        assert!(format!("{:#}", Run::read(&path).unwrap_err()).contains("format 1"));
        let hollow = text.replace("\"rows\": [", "\"rows\": [], \"old\": [");
        fs::write(&path, hollow).unwrap();
        assert!(Run::read(&path).is_err());
    }
}
