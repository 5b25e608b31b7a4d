//! What a store does while it is under load: bytes written, files made and removed, its metrics.
//!
//! Owns the thread that looks, and the words for a moment. Never judges. Invariant: the words name
//! differences between two looks, one before the moment and one after it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use drumline::base::sys::processors;

use super::super::folder::{files, written_bytes};
use crate::account::busy_ns;
use crate::clock::RunClock;
use crate::rows::{number, value};
use crate::scenario::hostile::get;

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(50);
/// Prefix of the metrics of the store.
const METRICS: &str = "drumline_store_";
/// Ends of the names of metrics that say the same as another one.
const UNTOLD: [&str; 4] = ["batch_writes_sum", "_count", "store_bytes_total", "writes_total"];
/// Time around a moment that the words cover, in ns.
const AROUND_NS: u64 = 200_000_000;

/// A look at the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Look {
    /// When, in ns since the start of the run.
    pub at_ns: u64,
    written: u64,
    /// Time of all processes on all processors, in ns.
    busy_ns: u64,
    /// Sizes of the files by path below the folder.
    files: BTreeMap<PathBuf, u64>,
    metrics: BTreeMap<String, f64>,
}

/// The thread that looks.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    looks: JoinHandle<Result<Vec<Look>>>,
}

impl Watch {
    /// Starts to look.
    pub fn start(pid: u32, control: SocketAddr, store: &Path, clock: RunClock) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (too, store) = (stop.clone(), store.to_owned());
        let looks = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let mut looks = Vec::new();
            while !too.load(Ordering::Relaxed) {
                looks.push(look(pid, control, &store, clock)?);
                std::thread::sleep(EVERY);
            }
            Ok(looks)
        });
        Ok(Watch { stop, looks: looks.context("cannot start a thread")? })
    }

    /// All looks, in order.
    pub fn stop(self) -> Result<Vec<Look>> {
        self.stop.store(true, Ordering::Relaxed);
        self.looks.join().map_err(|_| anyhow!("the watcher panicked"))?
    }
}

fn look(pid: u32, control: SocketAddr, store: &Path, clock: RunClock) -> Result<Look> {
    let sized = files(store)?.into_iter().filter_map(|path| {
        // A file that was removed meanwhile has no size.
        let bytes = std::fs::metadata(&path).ok()?.len();
        Some((path.strip_prefix(store).ok()?.to_owned(), bytes))
    });
    Ok(Look {
        at_ns: clock.now_ns(),
        written: written_bytes(pid)?,
        busy_ns: busy_ns()?,
        files: sized.collect(),
        metrics: metrics(&get(control, "/metrics")?),
    })
}

/// The metrics of the store; histograms by their sum and count.
fn metrics(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| line.starts_with(METRICS) && !line.contains("_bucket{"));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

/// What the store did around a time without acknowledgements, in words.
pub(super) fn describe(looks: &[Look], from_ns: u64, to_ns: u64) -> Result<String> {
    let start = from_ns.saturating_sub(AROUND_NS);
    let before = looks.iter().rev().find(|look| look.at_ns <= start).or(looks.first());
    let after = looks.iter().find(|look| look.at_ns >= to_ns + AROUND_NS).or(looks.last());
    let (before, after) = before.zip(after).context("nobody looked at the store")?;
    let (first, last) = looks.first().zip(looks.last()).context("nobody looked at the store")?;
    let seconds = |from: &Look, to: &Look| to.at_ns.saturating_sub(from.at_ns) as f64 / 1e9;
    let written = after.written.saturating_sub(before.written) as f64;
    let spell = seconds(before, after);
    let whole = last.written.saturating_sub(first.written) as f64;
    let usual = whole / seconds(first, last).max(f64::EPSILON) * spell;
    let made = after.files.iter().filter(|(path, _)| !before.files.contains_key(*path));
    let made: Vec<u64> = made.map(|(_, bytes)| *bytes).collect();
    let removed = before.files.keys().filter(|path| !after.files.contains_key(*path)).count();
    let busy = after.busy_ns.saturating_sub(before.busy_ns) as f64 / 1e9;
    let mut told = format!(
        "in the {spell:.2} s around it the processors were busy for {:.0}%, {} were written to the \
         disk ({} is usual), {} files were made ({}) and {removed} removed",
        busy / (spell * processors() as f64).max(f64::EPSILON) * 100.0,
        value(written, "bytes"),
        value(usual, "bytes"),
        made.len(),
        value(made.iter().sum::<u64>() as f64, "bytes"),
    );
    for (name, now) in &after.metrics {
        let changed = now - before.metrics.get(name).unwrap_or(&0.0);
        if changed != 0.0 && UNTOLD.iter().all(|untold| !name.ends_with(untold)) {
            let name = name.trim_start_matches(METRICS);
            told.push_str(&format!("; {name} +{}", number(changed)));
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_described_by_the_looks_around_it() {
        let look = |ms: u64, written: u64, files: &[(&str, u64)], failures: f64| Look {
            at_ns: ms * 1_000_000,
            written,
            busy_ns: ms * 1_000_000 * processors() as u64 / 4,
            files: files.iter().map(|(name, bytes)| (PathBuf::from(name), *bytes)).collect(),
            metrics: ["failures_total", "commit_duration_seconds_count"]
                .map(|name| (format!("{METRICS}{name}"), failures))
                .into(),
        };
        let looks = [
            look(0, 0, &[("a", 1)], 0.0),
            look(1_000, 1_000, &[("a", 1)], 0.0),
            look(2_000, 9_000, &[("b", 5), ("c", 7)], 1.0),
            look(9_000, 9_000, &[("b", 5)], 1.0),
        ];
        let told = describe(&looks, 1_300_000_000, 1_500_000_000).unwrap();
        let wanted = "in the 1.00 s around it the processors were busy for 25%, 8,000 bytes were \
                      written to the disk (1,000 bytes is usual), 2 files were made (12 bytes) \
                      and 1 removed; failures_total +1";
        assert_eq!(told, wanted);
        assert!(describe(&looks, 8_900_000_000, 9_900_000_000).unwrap().contains("and 1 removed"));
        assert!(describe(&[], 0, 1).is_err());
    }

    #[test]
    fn only_metrics_of_the_store_are_taken() {
        let text = "# HELP x\ndrumline_store_a_total 3\ndrumline_store_b_bucket{le=\"1\"} 4\n\
                    drumline_store_b_sum 0.5\ndrumline_other 1\n";
        let found = metrics(text);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["drumline_store_a_total", "drumline_store_b_sum"]);
    }
}
