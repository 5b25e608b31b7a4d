//! HdrHistogram's text formats: percentile table (.hgrm) and interval log (.hlog).
//!
//! Owns writing both. Never opens a file.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::latency::{Recorder, SIGNIFICANT_DIGITS, TICKS_PER_HALF_DISTANCE};

/// The percentile table of a histogram in ns, with values divided by `unit_ns`.
pub fn hgrm(h: &Histogram<u64>, unit_ns: f64) -> String {
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

/// HdrHistogram's number of sub-buckets for a number of significant digits.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10u64.pow(u32::from(digits))).next_power_of_two()
}

/// The interval log of a recorder, with one line per second.
pub fn hlog(recorder: &Recorder) -> Result<String> {
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

    /// Latencies with a long tail over five seconds, one of them without deliveries.
    pub(crate) fn recorder(scale: u64) -> Recorder {
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

    fn decode(text: &str) -> Histogram<u64> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        Deserializer::new().deserialize(&mut &bytes[..]).unwrap()
    }

    #[test]
    fn an_interval_log_reads_back_second_by_second() {
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
    fn a_percentile_table_has_the_layout_of_hdrhistogram() {
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

    /// Compares both formats line by line with HdrHistogram's Python port. `DRUMLINE_TEST_PYTHON`
    /// names an interpreter that can import the port; without it the test prints that it did not
    /// run.
    #[test]
    fn python_agrees() {
        let Ok(python) = std::env::var("DRUMLINE_TEST_PYTHON") else {
            // Straight to the descriptor, past the capture of the test runner.
            let message = b"python_agrees NOT RUN: DRUMLINE_TEST_PYTHON names no interpreter\n";
            std::io::Write::write_all(&mut std::io::stderr(), message).unwrap();
            return;
        };
        let root = tempfile::tempdir().unwrap();
        let mut r = recorder(1);
        // An odd count: no tick falls on a whole number of samples, where rounding would decide.
        r.expect(1);
        r.record(4_900_000_000, 50_000).unwrap();
        let (table, log) = (root.path().join("one-us.hgrm"), root.path().join("one.hlog"));
        std::fs::write(&table, hgrm(r.total().unwrap(), 1000.0)).unwrap();
        std::fs::write(&log, hlog(&r).unwrap()).unwrap();
        let output = std::process::Command::new(python)
            .args(["-c", PYTHON])
            .args([table, log])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(output.stdout.starts_with(b"agreed on"), "{stderr}");
    }
}
