//! The files of a run: summary.json, one .hgrm and .hlog a series, plot.svg.
//!
//! Owns the directory `<results>/<YYYY-MM-DD>-<commit>/<scenario>/` and the formats in it. Never
//! computes a result. Invariant: summary.json is written last and whole, so a directory without
//! one is an unfinished run, and readers say so.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::grid::Grid;
use crate::latency::{
    Deliveries, Percentiles, Recorder, SIGNIFICANT_DIGITS, TICKS_PER_HALF_DISTANCE,
};
use crate::plot::{Plot, Series};
use crate::rows::{self, Row};

/// Name of the summary in a run's directory.
pub const SUMMARY: &str = "summary.json";
/// Name of the drawing in a run's directory.
pub const PLOT: &str = "plot.svg";
/// The version of summary.json that this code writes and reads.
const FORMAT: u32 = 1;
/// Nanoseconds in the unit of the .hgrm files, which their names state.
const HGRM_UNIT_NS: f64 = 1000.0;

/// Everything that is told about one run of one scenario: summary.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    format: u32,
    /// Name of the scenario, as on the command line and in causes.toml.
    pub scenario: String,
    /// The scenario in words.
    pub title: String,
    /// The load in few words: `1,000,000 connections, 16,667 messages/s of 512 bytes`.
    pub load: String,
    /// Where, when and how.
    pub environment: Environment,
    /// Parameters of the scenario, as it names them.
    pub parameters: serde_json::Map<String, serde_json::Value>,
    /// The measured rows with their targets.
    pub rows: Vec<Row>,
    /// Targets beside each other, where a scenario measures several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Grid>,
    /// Latencies, one entry a series; empty for a scenario that measures none.
    pub latency: Vec<Latency>,
    /// Remarks on the whole run.
    pub notes: Vec<String>,
}

/// Latency of one series, and the files that hold it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Name of the series: the server, or the server and the rate.
    pub series: String,
    /// What became of the messages.
    pub deliveries: Deliveries,
    /// The distribution, in ns.
    pub percentiles: Percentiles,
    /// File with the percentile distribution, values in microseconds.
    pub hgrm: String,
    /// File with a histogram a second, values in ns, its maxima in ms.
    pub hlog: String,
}

impl Run {
    /// A run without rows yet.
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
            latency: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Refuses a run that could not be told honestly.
    pub fn check(&self) -> Result<()> {
        let scenario = &self.scenario;
        ensure!(self.format == FORMAT, "format {} instead of {FORMAT}", self.format);
        ensure!(is_name(scenario), "\"{scenario}\" is no name for a scenario (a-z, 0-9 and -)");
        rows::check(&self.rows).with_context(|| format!("scenario {scenario}"))?;
        for table in &self.tables {
            table.check().with_context(|| format!("scenario {scenario}"))?;
        }
        for entry in &self.latency {
            let told = || format!("scenario {scenario}, series {}", entry.series);
            entry.deliveries.check().with_context(told)?;
            ensure!(
                entry.percentiles.count == entry.deliveries.delivered,
                "{}: {} latencies of {} deliveries",
                told(),
                entry.percentiles.count,
                entry.deliveries.delivered
            );
        }
        Ok(())
    }

    /// Writes all files of the run below `results` and answers their directory. `series` are the
    /// recorders by name; their entries in [`Run::latency`] are made here.
    pub fn write(&mut self, results: &Path, series: &[(String, Recorder)]) -> Result<PathBuf> {
        let day = format!("{}-{}", self.environment.day(), self.environment.commit);
        let dir = results.join(day).join(&self.scenario);
        self.latency.clear();
        let mut files = Vec::new();
        for (name, recorder) in series {
            let entry = latency_entry(name, recorder)?;
            files.push((entry.hgrm.clone(), hgrm(recorder.total()?, HGRM_UNIT_NS)));
            files.push((entry.hlog.clone(), hlog(recorder)?));
            self.latency.push(entry);
        }
        let mut names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        ensure!(names.len() == files.len(), "two series share the name of their files");
        if !series.is_empty() {
            files.push((PLOT.to_owned(), self.plot(series)?.svg()?));
        }
        self.check()?;
        files.push((SUMMARY.to_owned(), serde_json::to_string_pretty(self)? + "\n"));
        write_files(&dir, &files)?;
        Ok(dir)
    }

    /// The drawing of the run.
    fn plot(&self, series: &[(String, Recorder)]) -> Result<Plot> {
        let Environment { commit, kernel, .. } = &self.environment;
        let lines = series.iter().map(|(name, recorder)| Series::new(name, recorder));
        Ok(Plot {
            title: self.title.clone(),
            subtitle: format!("{}\ncommit {commit} · {kernel}", self.load),
            series: lines.collect::<Result<_>>()?,
        })
    }

    /// Reads a summary.json back. An error names the file.
    pub fn read(path: &Path) -> Result<Self> {
        let told = || format!("{} is no complete summary of a run", path.display());
        let text = fs::read_to_string(path).with_context(told)?;
        let run: Run = serde_json::from_str(&text).with_context(told)?;
        run.check().with_context(told)?;
        Ok(run)
    }
}

fn latency_entry(name: &str, recorder: &Recorder) -> Result<Latency> {
    let file = file_name(name);
    Ok(Latency {
        series: name.to_owned(),
        deliveries: recorder.deliveries,
        percentiles: recorder.percentiles().with_context(|| format!("series {name}"))?,
        hgrm: format!("{file}-us.hgrm"),
        hlog: format!("{file}.hlog"),
    })
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.chars().all(plain)
}

/// A series' name as a file's: what is neither letter, digit nor dot becomes one dash.
fn file_name(series: &str) -> String {
    let mut out = String::new();
    for c in series.chars() {
        if c.is_ascii_alphanumeric() || c == '.' {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    let trimmed = out.trim_matches(['-', '.']);
    if trimmed.is_empty() { "latency".to_owned() } else { trimmed.to_owned() }
}

/// Replaces the directory's files. An old summary goes first, so a broken run leaves none.
fn write_files(dir: &Path, files: &[(String, String)]) -> Result<()> {
    let told = || format!("cannot write {}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(told)?;
    }
    fs::create_dir_all(dir).with_context(told)?;
    for (name, text) in files {
        let unfinished = dir.join(format!("{name}.part"));
        fs::write(&unfinished, text).with_context(told)?;
        fs::rename(&unfinished, dir.join(name)).with_context(told)?;
    }
    Ok(())
}

/// HdrHistogram's percentile text, values divided by `unit_ns`.
fn hgrm(h: &Histogram<u64>, unit_ns: f64) -> String {
    let digits = usize::from(SIGNIFICANT_DIGITS);
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    // Writing to a string cannot fail.
    for step in h.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / unit_ns;
        let quantile = step.quantile_iterated_to();
        let _ = write!(out, "{value:12.digits$} {quantile:2.12} {count:10}");
        if quantile < 1.0 {
            let _ = write!(out, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        out.push('\n');
    }
    let (mean, stdev, max) = (h.mean() / unit_ns, h.stdev() / unit_ns, h.max() as f64 / unit_ns);
    let _ = write!(
        out,
        "#[Mean    = {mean:12.digits$}, StdDeviation   = {stdev:12.digits$}]\n\
         #[Max     = {max:12.digits$}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        h.len(),
        h.buckets(),
        sub_buckets(h.sigfig()),
    );
    out
}

/// HdrHistogram's sub-buckets for so many significant digits.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10u64.pow(u32::from(digits))).next_power_of_two()
}

/// HdrHistogram's interval log, one line a second.
fn hlog(recorder: &Recorder) -> Result<String> {
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    IntervalLogWriterBuilder::new()
        .add_comment("[Latency from the scheduled time of sending; values in ns, maxima in ms]")
        .add_comment("[Histogram log format version 1.3]")
        .with_start_time(recorder.started())
        .with_base_time(recorder.started())
        .begin_log_with(&mut out, &mut serializer)?;
    out.extend(b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",");
    out.extend(b"\"Interval_Compressed_Histogram\"\n");
    let mut builder = IntervalLogWriterBuilder::new();
    builder.with_max_value_divisor(1e6);
    let mut log = builder.begin_log_with(&mut out, &mut serializer)?;
    for (second, histogram) in recorder.seconds()? {
        let start = Duration::from_secs(second);
        log.write_histogram(&histogram, start, Duration::from_secs(1), None)
            .map_err(|error| anyhow!("second {second} of the interval log: {error}"))?;
    }
    Ok(String::from_utf8(out)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use base64::Engine;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
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

    /// A long tail over five seconds, one of them silent.
    fn recorder(scale: u64) -> Recorder {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut r = Recorder::new(started).unwrap();
        let mut x = 88172645463325252u64;
        for i in 0..50_000u64 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let tail = if x.is_multiple_of(1000) { x % 48_000_000 } else { x % 90_000 };
            let second = [0, 1, 2, 4][(i / 12_500) as usize];
            r.expect(1);
            r.record(second * 1_000_000_000 + i, (40_000 + tail) * scale).unwrap();
        }
        r
    }

    fn run() -> Run {
        let environment = environment("2026-11-22T10:00:00Z", "71965af00");
        let mut run = Run::new("unicast", "Unicast", "1,000 connections, 10,000/s", environment);
        run.rows.push(Row::new("p99", 5.5e6, "ns").at_most(25e6));
        run
    }

    fn decode(text: &str) -> Histogram<u64> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        Deserializer::new().deserialize(&mut &bytes[..]).unwrap()
    }

    #[test]
    fn hlog_reads_back() {
        let r = recorder(1);
        let text = hlog(&r).unwrap();
        assert!(text.contains("\n#[Histogram log format version 1.3]\n"), "{}", &text[..300]);
        let mut sum = Histogram::<u64>::new(SIGNIFICANT_DIGITS).unwrap();
        let mut seconds = Vec::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            match entry.unwrap() {
                LogEntry::Interval(i) => {
                    let h = decode(i.encoded_histogram());
                    assert!((i.max() - h.max() as f64 / 1e6).abs() < 0.001);
                    seconds.push((i.start_timestamp().as_secs(), h.len()));
                    sum.add(h).unwrap();
                }
                LogEntry::StartTime(at) | LogEntry::BaseTime(at) => {
                    assert_eq!(at.as_secs(), 1_700_000_000);
                }
            }
        }
        assert_eq!(seconds, [(0, 12_500), (1, 12_500), (2, 12_500), (3, 0), (4, 12_500)]);
        let total = r.total().unwrap();
        assert_eq!((sum.len(), sum.max()), (total.len(), total.max()));
        assert_eq!(sum.value_at_quantile(0.999), total.value_at_quantile(0.999));
    }

    #[test]
    fn hgrm_is_the_percentile_text() {
        let mut h = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        [1000, 1000, 2000, 3000].iter().for_each(|v| h.record(*v).unwrap());
        let wanted = "       Value     Percentile TotalCount 1/(1-Percentile)

       1.000 0.000000000000          2           1.00
       1.000 0.100000000000          2           1.11
       1.000 0.200000000000          2           1.25
       1.000 0.300000000000          2           1.43
       1.000 0.400000000000          2           1.67
       1.000 0.500000000000          2           2.00
       2.000 0.550000000000          3           2.22
";
        let text = hgrm(&h, 1000.0);
        assert!(text.starts_with(wanted), "{text}");
        assert!(text.contains("\n       3.001 1.000000000000          4\n#[Mean    ="), "{text}");
        assert!(text.ends_with("SubBuckets     =         2048]\n"), "{text}");
        let rows = text.lines().skip(2).filter(|line| !line.starts_with('#'));
        let values: Vec<f64> =
            rows.map(|l| l.split_whitespace().next().unwrap().parse().unwrap()).collect();
        assert!(values.is_sorted());
    }

    #[test]
    fn a_run_is_written_and_read() {
        let root = tempfile::tempdir().unwrap();
        let mut run = run();
        let series =
            [("Drumline, 10k/s".to_owned(), recorder(1)), ("peer".to_owned(), recorder(3))];
        let dir = run.write(root.path(), &series).unwrap();
        assert!(dir.ends_with("2026-11-22-71965af00/unicast"));
        let mut names: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let wanted = ["drumline-10k-s-us.hgrm", "drumline-10k-s.hlog", "peer-us.hgrm", "peer.hlog"];
        assert_eq!(names[..4], wanted);
        assert_eq!(names[4..], [PLOT, SUMMARY]);
        assert_eq!(Run::read(&dir.join(SUMMARY)).unwrap(), run);
        assert_eq!(run.write(root.path(), &series).unwrap(), dir, "the same run again");
    }

    #[test]
    fn dishonest_runs_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let empty = Recorder::new(SystemTime::UNIX_EPOCH).unwrap();
        assert!(run().write(root.path(), &[("a".into(), empty)]).is_err());
        let twins = [("a b".to_owned(), recorder(1)), ("a-b".to_owned(), recorder(1))];
        assert!(run().write(root.path(), &twins).is_err());
        assert!(Run { rows: Vec::new(), ..run() }.write(root.path(), &[]).is_err());
        assert!(Run { scenario: "../x".into(), ..run() }.write(root.path(), &[]).is_err());
        assert!(fs::read_dir(root.path()).unwrap().next().is_none(), "nothing was written");
    }

    #[test]
    fn a_truncated_summary_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = run().write(root.path(), &[]).unwrap().join(SUMMARY);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        let error = format!("{:#}", Run::read(&path).unwrap_err());
        assert!(error.contains("summary.json is no complete summary"), "{error}");
        fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
        assert!(format!("{:#}", Run::read(&path).unwrap_err()).contains("format 2"));
        let hollow = text.replace("\"rows\": [", "\"rows\": [], \"old\": [");
        fs::write(&path, hollow).unwrap();
        assert!(Run::read(&path).is_err());
    }

    const PYTHON: &str = r##"
import io, math, sys
from hdrh.histogram import HdrHistogram
from hdrh.iterators import PercentileIterator
from hdrh.log import HistogramLogReader
hgrm, hlog = sys.argv[1:]

# The port lets its ticks shrink continuously; Java, C and Rust halve them at each half distance.
def increment(self):
    self.percentile_to_iterate_from = self.percentile_to_iterate_to
    gap = 100.0 - self.percentile_to_iterate_to
    if gap:
        halvings = int(math.log(100.0 / gap) / math.log(2)) + 1
        ticks = self.percentile_ticks_per_half_distance * 2 ** halvings
        self.percentile_to_iterate_to += 100.0 / ticks
PercentileIterator.increment_iteration_level = increment

total = HdrHistogram(1, 600_000_000_000, 3)
reader = HistogramLogReader(hlog, total)
rows = 0
while reader.add_next_interval_histogram():
    rows += 1
assert rows == 5, rows
assert reader.get_start_time_sec() == 1700000000.0
out = io.BytesIO()
total.output_percentile_distribution(out, 1000.0, 5)
want = [l for l in out.getvalue().decode().splitlines() if not l.startswith("#")]
text = open(hgrm).read().splitlines()
got = [l for l in text if not l.startswith("#")]
assert want[:2] == got[:2], got[:2]
for a, b in zip(want[2:], got[2:]):
    a, b = a.split(), b.split()
    # Value and count exactly; of the percentile the last digit may be rounded another way.
    assert (a[0], a[2], len(a)) == (b[0], b[2], len(b)), (a, b)
    assert abs(float(a[1]) - float(b[1])) < 2e-12, (a, b)
    assert len(a) == 3 or abs(float(a[3]) / float(b[3]) - 1) < 1e-4, (a, b)
assert len(want) == len(got), (len(want), len(got))
mean = float(text[-3].split("=")[1].split(",")[0])
assert abs(mean * 1000 - total.get_mean_value()) < 1, mean
print("agreed on", len(got), "lines,", total.get_total_count(), "samples")
"##;

    /// HdrHistogram's Python port agrees line by line; `DRUMLINE_TEST_PYTHON` names an interpreter
    /// that can import it. Without that variable the test says that it did not run.
    #[test]
    fn python_agrees() {
        let Ok(python) = std::env::var("DRUMLINE_TEST_PYTHON") else {
            // Straight to the descriptor, past the capture of the test runner.
            let told = b"python_agrees NOT RUN: DRUMLINE_TEST_PYTHON names no interpreter\n";
            std::io::Write::write_all(&mut std::io::stderr(), told).unwrap();
            return;
        };
        let root = tempfile::tempdir().unwrap();
        let mut r = recorder(1);
        // An odd count: no tick falls on a whole number of samples, where rounding would decide.
        r.expect(1);
        r.record(4_900_000_000, 50_000).unwrap();
        let dir = run().write(root.path(), &[("one".into(), r)]).unwrap();
        let output = std::process::Command::new(python)
            .args(["-c", PYTHON])
            .args([dir.join("one-us.hgrm"), dir.join("one.hlog")])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(output.stdout.starts_with(b"agreed on"), "{told}");
    }
}
