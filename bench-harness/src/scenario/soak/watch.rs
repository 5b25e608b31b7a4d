//! Looks at the server every second while a soak runs.
//!
//! Owns the samples and their windows. Never asks for more than one scrape a second. Invariant: the
//! windows are the same parts of the run, however long it is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::rest::sum;
use super::scene::Scene;
use crate::account::{descriptors, rss_anon};
use crate::progress::Progress;
use crate::timeline::{Timeline, TimelineLine};

/// From one sample to the next.
const EVERY: Duration = Duration::from_secs(1);
const MIB: f64 = 1_048_576.0;
/// The windows of memory as sixths of the run: minutes 10 to 20 of an hour, and its last ten.
const FIRST_SIXTH: usize = 1;
const LAST_SIXTH: usize = 5;
pub(super) const SIXTHS: usize = 6;

/// The server at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sample {
    /// Resident anonymous memory, in bytes.
    pub(super) rss_anon: f64,
    /// Open descriptors of the process.
    pub(super) descriptors: f64,
    /// Slots in use.
    pub(super) slots: f64,
    /// Messages that wait in the inboxes of the shards.
    pub(super) inboxes: f64,
}

impl Sample {
    /// Takes a sample, with this text of the metrics.
    pub(super) fn take(pid: u32, metrics: &str) -> Result<Self> {
        Ok(Sample {
            rss_anon: rss_anon(pid)? as f64,
            descriptors: descriptors(pid)? as f64,
            slots: sum(metrics, "drumline_sockets"),
            inboxes: sum(metrics, "drumline_inbox_messages"),
        })
    }
}

/// The samples of a run, one for each second.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Samples(pub(super) Vec<Sample>);

impl Samples {
    /// Takes samples until the soak ends.
    pub(super) fn collect(scene: &Scene<'_>) -> Result<Self> {
        let begun = Instant::now();
        let lasts = scene.ends.saturating_duration_since(begun).as_secs();
        let progress = Progress::new("seconds of the soak", lasts);
        let mut samples = Vec::new();
        loop {
            let due = begun + EVERY * samples.len() as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if due >= scene.ends {
                progress.finish(lasts);
                return Ok(Samples(samples));
            }
            let metrics = scene.server.get("/metrics").context("the server serves no metrics")?;
            samples.push(Sample::take(scene.server.pid(), &metrics)?);
            progress.set(samples.len() as u64);
        }
    }

    /// The samples of a sixth of the run.
    fn window(&self, sixth: usize) -> &[Sample] {
        let cut = |sixth: usize| self.0.len() * sixth / SIXTHS;
        self.0.get(cut(sixth)..cut(sixth + 1)).unwrap_or_default()
    }

    fn mean_rss(&self, sixth: usize) -> Result<f64> {
        ensure!(self.0.len() >= SIXTHS, "{} samples of memory are too few", self.0.len());
        let window = self.window(sixth);
        Ok(window.iter().map(|sample| sample.rss_anon).sum::<f64>() / window.len() as f64)
    }

    /// Mean RssAnon of the first and the last window, in bytes.
    pub(super) fn windows(&self) -> Result<[f64; 2]> {
        Ok([self.mean_rss(FIRST_SIXTH)?, self.mean_rss(LAST_SIXTH)?])
    }

    /// The largest values.
    pub(super) fn peak(&self) -> Sample {
        let most = |of: fn(&Sample) -> f64| self.0.iter().map(of).fold(0.0, f64::max);
        Sample {
            rss_anon: most(|sample| sample.rss_anon),
            descriptors: most(|sample| sample.descriptors),
            slots: most(|sample| sample.slots),
            inboxes: most(|sample| sample.inboxes),
        }
    }

    /// The values over time, with the means of the windows.
    pub(super) fn timelines(&self) -> Result<Vec<Timeline>> {
        let line = |name: &str, first: f64, step: f64, values: Vec<f64>| TimelineLine {
            name: name.to_owned(),
            first,
            step,
            values,
        };
        let every = |of: fn(&Sample) -> f64| -> Vec<f64> { self.0.iter().map(of).collect() };
        let length = self.0.len() / SIXTHS;
        let mean = |name: &str, sixth: usize| -> Result<TimelineLine> {
            let first = (self.0.len() * sixth / SIXTHS) as f64;
            Ok(line(name, first, length as f64, vec![self.mean_rss(sixth)? / MIB; 2]))
        };
        let one = |title: &str, unit: &str, lines: Vec<TimelineLine>| Timeline {
            title: title.to_owned(),
            unit: unit.to_owned(),
            lines,
        };
        let rss = line("RssAnon", 0.0, 1.0, every(|sample| sample.rss_anon / MIB));
        let windows =
            [mean("mean of the first window", FIRST_SIXTH)?, mean("of the last", LAST_SIXTH)?];
        let open = line("descriptors", 0.0, 1.0, every(|sample| sample.descriptors));
        let slots = line("slots in use", 0.0, 1.0, every(|sample| sample.slots));
        let inboxes = line("messages", 0.0, 1.0, every(|sample| sample.inboxes));
        Ok(vec![
            one(
                "resident anonymous memory of the server",
                "MiB",
                [vec![rss], windows.into()].concat(),
            ),
            one("open descriptors of the server, without slots", "descriptors", vec![open]),
            one("slots in use", "slots", vec![slots]),
            one("messages in the inboxes of the shards", "messages", vec![inboxes]),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_the_second_and_the_last_sixth() {
        let rss = |second: usize| if second < 600 { 9.0 } else { second as f64 };
        let sample = |second| Sample { rss_anon: rss(second), ..Sample::default() };
        let samples = Samples((0..3_600).map(sample).collect());
        let [first, last] = samples.windows().unwrap();
        assert_eq!((first, last), (899.5, 3_299.5), "seconds 600 to 1,199 and 3,000 to 3,599");
        let lines = &samples.timelines().unwrap()[0].lines;
        assert_eq!(lines[2].points(), [(3_000.0, 3_299.5 / MIB), (3_600.0, 3_299.5 / MIB)]);
        assert!(Samples(vec![sample(0); 5]).windows().is_err());
    }
}
