//! Interval logs: .hlog files with one V2 compressed histogram per line.
//!
//! Owns the lines, the decoding and the sum of the intervals of each tag. Never trusts a length in
//! the file. Invariant: a line that cannot be read is an error; no line is skipped.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

use super::measured::{Distribution, Unit};

const COMPRESSED: u32 = 0x1c84_9314;
const PLAIN: u32 = 0x1c84_9313;
/// First words of HdrHistogram's other encodings: V0, V1 and histograms of doubles.
const OTHERS: [u32; 6] =
    [0x1c84_9301, 0x1c84_9302, 0x1c84_9308, 0x1c84_9309, 0x0c72_124e, 0x0c72_124f];
/// Bytes of the head of a plain histogram, before its counts.
const HEAD: usize = 40;
/// Largest decompressed histogram. A longer one is damaged or hostile.
const INFLATED_MAX: u64 = 64 << 20;
/// Times above this number of seconds count from 1970, smaller ones from the start of the log.
const EPOCH_LIKE: f64 = 1e8;

/// A log, tag by tag in order of appearance.
#[derive(Debug)]
pub struct Log {
    /// The unit of the values, if a comment in the file states one.
    pub unit: Option<Unit>,
    /// The tags; one without a name if the log has none.
    pub tags: Vec<Tag>,
}

/// Intervals of one tag.
#[derive(Debug)]
pub struct Tag {
    /// Name of the tag; `None` for lines without a tag.
    pub name: Option<String>,
    total: Histogram<u64>,
    /// (start in seconds, largest value) of each interval with samples.
    worst: Vec<(f64, f64)>,
    /// Length of the longest interval, in seconds.
    longest: f64,
}

/// Returns whether only interval logs have such a line.
pub fn is_log_line(line: &str) -> bool {
    line.starts_with("#[Histogram log format")
        || line.starts_with("\"StartTimestamp\"")
        || line.contains(",HIST")
}

/// Reads a whole log.
pub fn read(text: &str) -> Result<Log> {
    let mut log = Log { unit: None, tags: Vec::new() };
    let mut start = None;
    let mut divisors = Divisors::default();
    for (number, line) in text.lines().enumerate() {
        let context = || format!("line {} cannot be read", number + 1);
        if let Some(remark) = line.strip_prefix('#') {
            log.unit = log.unit.or(unit_in(remark));
            start = start.or(start_in(remark));
        } else if !line.trim().is_empty() && !line.starts_with("\"StartTimestamp\"") {
            let interval = interval(line).with_context(context)?;
            divisors.take(&interval).with_context(context)?;
            log.take(interval).with_context(context)?;
        }
    }
    ensure!(
        !log.tags.is_empty(),
        "is cut off or empty: the log has no interval; write the file again"
    );
    log.tags.iter_mut().for_each(|tag| tag.count_from(start));
    Ok(log)
}

/// Parses the unit of `[...; values in ns, ...]`.
fn unit_in(remark: &str) -> Option<Unit> {
    let (_, rest) = remark.split_once("values in ")?;
    let name = rest.split(|c: char| !c.is_ascii_alphabetic()).next()?;
    Unit::named(name).ok()
}

/// Parses the time of `[StartTime: 1441812279.474 (seconds since epoch), ...`.
fn start_in(remark: &str) -> Option<f64> {
    let (_, rest) = remark.split_once("[StartTime:")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// A line of the log.
struct Interval<'a> {
    tag: Option<&'a str>,
    start: f64,
    length: f64,
    /// The largest value as stated in the line, divided by a divisor of the writer's choice.
    max: f64,
    histogram: Histogram<u64>,
}

fn interval(line: &str) -> Result<Interval<'_>> {
    let (tag, rest) = match line.strip_prefix("Tag=") {
        Some(tagged) => tagged.split_once(',').map(|(tag, rest)| (Some(tag), rest)),
        None => Some((None, line)),
    }
    .context("the line ends in its tag: the log is cut off; write it again")?;
    let fields: Vec<&str> = rest.split(',').map(str::trim).collect();
    let [start, length, max, encoded] = fields[..] else {
        bail!(
            "it is not \"start,length,maximum,histogram\": the log is cut off, or this is no log"
        );
    };
    Ok(Interval {
        tag,
        start: number(start)?,
        length: number(length)?,
        max: number(max)?,
        histogram: decode(encoded)?,
    })
}

fn number(text: &str) -> Result<f64> {
    let number: f64 =
        text.parse().with_context(|| format!("\"{text}\" is not a number; write the log again"))?;
    ensure!(
        number.is_finite() && number >= 0.0,
        "\"{text}\" is neither a time nor a latency; write the log again"
    );
    Ok(number)
}

/// The divisor of the stated maxima. A log whose lines have different divisors mixes units.
#[derive(Default)]
struct Divisors {
    first: Option<f64>,
}

impl Divisors {
    fn take(&mut self, interval: &Interval<'_>) -> Result<()> {
        // Three decimals of less than that say too little. Some writers cut off all decimals: a
        // divisor is off by up to a factor of two, and units by a thousand.
        if interval.max < 0.1 || interval.histogram.is_empty() {
            return Ok(());
        }
        let divisor = interval.histogram.max() as f64 / interval.max;
        let first = *self.first.get_or_insert(divisor);
        ensure!(
            (0.1..10.0).contains(&(divisor / first)),
            "its maximum is 1/{divisor:.0} of its histogram's and 1/{first:.0} in the lines \
             before: the log mixes units; keep each in a file of its own"
        );
        Ok(())
    }
}

/// Decodes a histogram from base64; the checksum of the compression detects damage.
fn decode(text: &str) -> Result<Histogram<u64>> {
    let cut = "the histogram is cut off or damaged; write the log again";
    let bytes = STANDARD.decode(text).context(cut)?;
    let compressed = word(&bytes, 0).context(cut)?;
    // The size of a count, in bytes, stands in the fifth to eighth bit of all but the newest.
    let older = |word: u32| OTHERS.contains(&word) || OTHERS.contains(&(word & 0xffff_ff0f));
    ensure!(
        !older(compressed),
        "its histogram is in an older encoding or of doubles: write the log again in the V2 \
         encoding"
    );
    ensure!(compressed == COMPRESSED, "it holds no histogram in HdrHistogram's V2 encoding");
    let length = word(&bytes, 4).context(cut)? as usize;
    let packed = bytes.get(8..8 + length).context(cut)?;
    let mut plain = Vec::new();
    ZlibDecoder::new(packed).take(INFLATED_MAX).read_to_end(&mut plain).context(cut)?;
    let counts = word(&plain, 4).context(cut)? as usize;
    ensure!(word(&plain, 0) == Some(PLAIN) && plain.len() == HEAD + counts, cut);
    Deserializer::new().deserialize(&mut plain.as_slice()).map_err(|error| {
        anyhow::anyhow!("the histogram cannot be decoded ({error}); write the log again")
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

impl Log {
    fn take(&mut self, interval: Interval<'_>) -> Result<()> {
        let known = self.tags.iter().position(|tag| tag.name.as_deref() == interval.tag);
        let i = match known {
            Some(i) => i,
            None => {
                self.tags.push(Tag::new(&interval)?);
                self.tags.len() - 1
            }
        };
        self.tags[i].take(&interval)
    }
}

impl Tag {
    fn new(first: &Interval<'_>) -> Result<Self> {
        let digits = first.histogram.sigfig();
        let mut total = Histogram::new(digits).context("creating a histogram")?;
        total.auto(true);
        let name = first.tag.map(str::to_owned);
        Ok(Tag { name, total, worst: Vec::new(), longest: 0.0 })
    }

    fn take(&mut self, interval: &Interval<'_>) -> Result<()> {
        self.longest = self.longest.max(interval.length);
        if !interval.histogram.is_empty() {
            self.total.add(&interval.histogram).context("adding up the intervals")?;
            self.worst.push((interval.start, interval.histogram.max() as f64));
        }
        Ok(())
    }

    /// Converts times since 1970 to times since the start of the log, which the log states as
    /// `start`.
    fn count_from(&mut self, start: Option<f64>) {
        self.worst.sort_by(|a, b| a.0.total_cmp(&b.0));
        let Some(&(first, _)) = self.worst.first() else { return };
        if first > EPOCH_LIKE {
            let start = start.unwrap_or(first).min(first);
            self.worst.iter_mut().for_each(|point| point.0 -= start);
        }
    }

    /// All values of the tag, in the unit of the log.
    pub fn total(&self) -> &Histogram<u64> {
        &self.total
    }

    /// The distribution, if the values of the log are in `unit`.
    pub fn distribution(&self, unit: Unit) -> Result<Distribution> {
        ensure!(
            !self.total.is_empty(),
            "is an empty run: no latency was recorded, so there is nothing to compare"
        );
        let (worst, step) = self.seconds();
        Ok(Distribution::of(&self.total, unit, worst, step))
    }

    /// The largest value of each second, or of each interval if intervals are longer.
    fn seconds(&self) -> (Vec<(f64, f64)>, f64) {
        if self.longest >= 0.75 {
            return (self.worst.clone(), self.longest);
        }
        let mut seconds: Vec<(f64, f64)> = Vec::new();
        for &(start, max) in &self.worst {
            match seconds.last_mut() {
                Some(last) if last.0 == start.floor() => last.1 = last.1.max(max),
                _ => seconds.push((start.floor(), max)),
            }
        }
        (seconds, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer, V2Serializer};

    fn encoded(values: &[u64]) -> String {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&histogram, &mut bytes).unwrap();
        STANDARD.encode(bytes)
    }

    fn line(start: &str, max: &str, values: &[u64]) -> String {
        format!("{start},1.000,{max},{}\n", encoded(values))
    }

    fn refused(text: &str, part: &str) {
        let error = match read(text) {
            Err(error) => format!("{error:#}"),
            Ok(log) => format!("{:#}", log.tags[0].distribution(Unit::Ns).unwrap_err()),
        };
        assert!(error.contains(part), "\"{part}\" not in: {error}");
    }

    #[test]
    fn intervals_are_added_up_by_tag() {
        let text = format!(
            "#[Histogram log format version 1.3]\n\
             #[StartTime: 1441812279.474 (seconds since epoch), Wed Sep 09 08:24:39 PDT 2015]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"x\"\n\
             Tag=read,{}Tag=write,{}\r\n{}Tag=read,{}",
            line("1441812279.474", "0.002", &[1000, 2000]),
            line("1441812279.474", "0.007", &[7000]),
            line("1441812281.474", "0.005", &[]),
            line("1441812281.474", "0.003", &[3000, 3000]),
        );
        let log = read(&text).unwrap();
        assert!(log.unit.is_none());
        let names: Vec<_> = log.tags.iter().map(|tag| tag.name.as_deref()).collect();
        assert_eq!(names, [Some("read"), Some("write"), None]);
        let found = log.tags[0].distribution(Unit::Ns).unwrap();
        assert_eq!((found.count, found.max_ns), (4, 3001.0));
        let seconds: Vec<f64> = found.worst.iter().map(|point| point.0.round()).collect();
        assert_eq!(seconds, [0.0, 2.0]);
        let found = log.tags[1].distribution(Unit::Us).unwrap();
        assert_eq!(found.percentiles[0].unwrap().ns, 7_003_000.0);
        assert!(log.tags[2].distribution(Unit::Ns).is_err(), "nothing but an empty interval");
    }

    #[test]
    fn short_intervals_are_merged_to_seconds() {
        let short: String = [("0.5", 10), ("0.75", 30), ("1.00", 20)]
            .map(|(start, value)| format!("{start},0.25,0.0,{}\n", encoded(&[value])))
            .concat();
        let found = read(&short).unwrap().tags[0].distribution(Unit::Ns).unwrap();
        assert_eq!((found.worst, found.step), (vec![(0.0, 30.0), (1.0, 20.0)], 1.0));
        let long = format!("5.0,10.0,0.0,{}\n", encoded(&[10]));
        let found = read(&long).unwrap().tags[0].distribution(Unit::Ns).unwrap();
        assert_eq!((found.worst, found.step), (vec![(5.0, 10.0)], 10.0));
    }

    #[test]
    fn the_unit_comes_from_a_comment() {
        let text = format!("#[Latency; values in ns, maxima in ms]\n{}", line("0.0", "0.0", &[5]));
        assert_eq!(read(&text).unwrap().unit, Some(Unit::Ns));
    }

    #[test]
    fn logs_that_are_cut_off_or_damaged_are_refused() {
        let whole = line("0.000", "0.001", &[1000; 50]);
        for length in [whole.len() - 4, whole.len() - 12, whole.len() / 2, 20, 12] {
            refused(&whole[..length], "line 1 cannot be read");
        }
        refused(&whole[..12], "cut off");
        refused("#[Histogram log format version 1.3]\n", "has no interval");
        refused("Tag=read", "ends in its tag");
        refused(&whole.replace("0.001", "max"), "\"max\" is not a number");
        refused(&line("0.0", "0.0", &[]), "is an empty run");
        let mut bytes = STANDARD.decode(encoded(&[1000, 2000, 3000])).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        refused(&format!("0.0,1.0,0.0,{}\n", STANDARD.encode(&bytes)), "cut off or damaged");
    }

    #[test]
    fn older_encodings_are_refused() {
        let first_word = |word: u32| {
            let mut bytes = STANDARD.decode(encoded(&[1])).unwrap();
            bytes[..4].copy_from_slice(&word.to_be_bytes());
            format!("0.0,1.0,0.0,{}\n", STANDARD.encode(bytes))
        };
        for old in [0x1c84_9308, 0x1c84_9309, 0x1c84_9312, 0x0c72_124f] {
            refused(&first_word(old), "older encoding");
        }
        refused(&first_word(0x1234_5678), "no histogram in HdrHistogram's V2");
        let mut plain = Vec::new();
        V2Serializer::new().serialize(&Histogram::<u64>::new(3).unwrap(), &mut plain).unwrap();
        refused(&format!("0.0,1.0,0.0,{}\n", STANDARD.encode(plain)), "no histogram in");
    }

    #[test]
    fn a_log_with_two_units_is_refused() {
        let text = line("0.0", "2.000", &[2_000_000]) + &line("1.0", "2.000", &[2_000]);
        refused(&text, "the log mixes units");
    }
}
