//! Power cuts at random points: what the store keeps when unsynced writes are dropped or torn.
//!
//! Owns the rows of `durable-power`. Never cuts: tests/system/power_cut does, and this scenario
//! starts it. Invariant: a run counts only if the same test found a server whose syncs do nothing.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::namespace;
use crate::rows::Row;
use crate::scenario::{Bench, Common};

/// The test, from the root of the repository.
const TEST: &str = "tests/system/power_cut";

/// Flags of `durable-power`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Number of power cuts.
    #[arg(long, default_value_t = 1_000)]
    cuts: u64,
    /// Seed of the load and of the cuts. By default a new one, which the result names.
    #[arg(long)]
    seed: Option<u64>,
}

/// What the test counted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Counts {
    cuts: u64,
    lost: u64,
    publications: u64,
    bytes: u64,
    records: u64,
    sessions: u64,
    cuts_without_syncs: u64,
    lost_without_syncs: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.cuts > 0, "--cuts must be 1 or more");
    let title = "Power cuts at random points";
    let mut bench = Bench::new(&options.common, "durable-power", title, (1, 1))?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    bench.parameter("cuts", options.cuts);
    bench.parameter("seed", seed);
    bench.note(namespace::enter_if_permitted());
    let counts = count(options, seed)?;
    ensure!(counts.cuts > 0, "{TEST} made no cut");
    if counts.lost > 0 {
        bench.fault(format!("{} of {} power cuts broke a promise", counts.lost, counts.cuts));
    }
    rows(&counts).into_iter().for_each(|row| bench.row(row));
    bench.finish()
}

/// Starts the test and reads what it counted. Its progress goes to standard error.
fn count(options: &Options, seed: u64) -> Result<Counts> {
    let folder = tempfile::tempdir().context("cannot make a folder for the report")?;
    let report = folder.path().join("report.json");
    let mut child = Command::new("python3")
        .arg(TEST)
        .arg(&options.common.server)
        .args(["--cuts", &options.cuts.to_string(), "--seed", &seed.to_string(), "--report"])
        .arg(&report)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start python3; install it")?;
    if let Some(mut progress) = child.stdout.take() {
        io::copy(&mut progress, &mut io::stderr()).context("cannot read from the test")?;
    }
    let status = child.wait().context("cannot wait for the test")?;
    // A test that lost something has written its report and ends with a status of its own.
    let text = fs::read_to_string(&report)
        .with_context(|| format!("{TEST} ended with {status} and without a report"))?;
    serde_json::from_str(&text).with_context(|| format!("the report of {TEST} reads {text}"))
}

fn rows(counts: &Counts) -> Vec<Row> {
    let count = |what: &str, value: u64| Row::new(what, value as f64, "count");
    let control = format!("of {} cuts of a smaller load", counts.cuts_without_syncs);
    vec![
        count("power cuts that broke a promise", counts.lost).at_most(0.0).note(
            "a promise: an acknowledged or delivered publication keeps its epoch and offset, an \
             unacknowledged one is stored wholly or not at all, and no offset is used twice",
        ),
        count("power cuts", counts.cuts),
        count(
            "control, syncs do nothing: power cuts that broke a promise",
            counts.lost_without_syncs,
        )
        .at_least(1.0)
        .note(control),
        count("publications acknowledged", counts.publications),
        Row::new("data of the publications", counts.bytes as f64, "bytes"),
        count("writes, syncs and changes of names recorded", counts.records),
        count("lives of the server that were recorded", counts.sessions),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    const REPORT: &str = "{\"seed\": 1, \"cuts\": 20, \"lost\": 0, \"publications\": 5, \
        \"bytes\": 6, \"records\": 7, \"sessions\": 2, \"cuts_without_syncs\": 8, \
        \"lost_without_syncs\": 6}";

    #[test]
    fn a_broken_promise_and_a_control_without_one_are_misses() {
        let counts: Counts = serde_json::from_str(REPORT).unwrap();
        assert!(missed(&rows(&counts)).is_empty());
        let lost = Counts { lost: 1, ..counts.clone() };
        assert_eq!(missed(&rows(&lost)), ["power cuts that broke a promise"]);
        let blind = Counts { lost_without_syncs: 0, ..counts };
        assert_eq!(
            missed(&rows(&blind)),
            ["control, syncs do nothing: power cuts that broke a promise"]
        );
    }
}
