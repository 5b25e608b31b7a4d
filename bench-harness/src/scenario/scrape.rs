//! The cost of a scrape of the metrics, at a million connections.
//!
//! Owns the rows of `scrape`. Never scrapes while connections are made. Invariant: passes are
//! counted in windows of the same length, with and without scrapes in turn, so that pings which
//! grow more or fewer count on both sides.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Bench, Common, all, median};
use crate::dense::Mode;
use crate::namespace;
use crate::rows::Row;
use crate::server::{PING_SECONDS, Server};

/// Seconds of each window, windows of each side, and time from one scrape to the next.
const SECONDS: u64 = 2;
const PAIRS: u32 = 10;
const EVERY: Duration = Duration::from_millis(100);
/// Longest time of a scrape, in ns.
const LONGEST_NS: f64 = 20e6;
/// Name of the metric that counts passes of more than 1 ms of the thread's processor time.
const PASSES: &str = "drumline_slow_passes_total";

/// What was measured.
#[derive(Debug, Clone, Default)]
struct Measured {
    /// Times of the scrapes, in ns.
    times: Vec<f64>,
    bytes: u64,
    /// Passes above 1 ms in the windows without and with scrapes.
    quiet: f64,
    scraped: f64,
}

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let title = "Scrapes of the metrics at a million connections";
    let mut bench = Bench::new(common, "scrape", title, (1_000_000, SECONDS))?;
    let window = Duration::from_secs(bench.seconds);
    bench.note(namespace::enter_if_permitted());
    let server = bench.server(false)?;
    let port = server.address().port();
    let (dense, _) = bench.connect(bench.connections, port, Mode::Subscribe(all()))?;
    // Every connection's first ping comes within one interval.
    std::thread::sleep(Duration::from_secs(PING_SECONDS + 1));
    let mut measured = Measured::default();
    let mut last = passes(&server)?;
    let mut added = |server: &Server| {
        let now = passes(server)?;
        anyhow::Ok(now - std::mem::replace(&mut last, now))
    };
    for _ in 0..PAIRS {
        std::thread::sleep(window);
        measured.quiet += added(&server)?;
        scrape(&server, window, &mut measured)?;
        measured.scraped += added(&server)?;
    }
    rows(&measured)?.into_iter().for_each(|row| bench.row(row));
    bench.check_standing(&dense, "while scraped");
    dense.stop()?;
    server.stop()?;
    bench.finish()
}

/// Scrapes for the time of a window.
fn scrape(server: &Server, window: Duration, measured: &mut Measured) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < window {
        let asked = Instant::now();
        measured.bytes = server.get("/metrics")?.len() as u64;
        measured.times.push(asked.elapsed().as_nanos() as f64);
        std::thread::sleep(EVERY.saturating_sub(asked.elapsed()));
    }
    Ok(())
}

fn passes(server: &Server) -> Result<f64> {
    server.metric(PASSES, "")?.with_context(|| format!("the server has no metric {PASSES}"))
}

fn rows(measured: &Measured) -> Result<Vec<Row>> {
    let longest = measured.times.iter().copied().fold(0.0, f64::max);
    let added = (measured.scraped - measured.quiet).max(0.0);
    let windows = format!("{} without scrapes, {} with", measured.quiet, measured.scraped);
    Ok(vec![
        Row::new("scrape: median", median(measured.times.clone())?, "ns"),
        Row::new(format!("scrape: longest of {}", measured.times.len()), longest, "ns")
            .at_most(LONGEST_NS),
        Row::new("scrape: answer", measured.bytes as f64, "bytes"),
        Row::new("passes above 1 ms of thread time that scrapes add", added, "count")
            .at_most(0.0)
            .note(windows),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    #[test]
    fn a_long_scrape_and_a_long_pass_are_misses() {
        let good = Measured { times: vec![20e6, 1e6], bytes: 9, quiet: 3.0, scraped: 2.0 };
        assert!(missed(&rows(&good).unwrap()).is_empty());
        let slow = rows(&Measured { times: vec![21e6, 1e6], ..good.clone() }).unwrap();
        assert_eq!(missed(&slow), ["scrape: longest of 2"]);
        let long = rows(&Measured { scraped: 4.0, ..good }).unwrap();
        assert_eq!(missed(&long), ["passes above 1 ms of thread time that scrapes add"]);
    }
}
