//! Request heads that do not end (slowloris), beside established clients.
//!
//! Owns the rows of `slowloris`. Never ends a head. Invariant: every head gets one more line a
//! second, so a server that waits while bytes come would wait forever.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::hostile::PingProbes;
use super::pairs::interval;
use super::rounds::InRounds;
use super::{Bench, median};
use crate::dense::{Dense, Mode};
use crate::latency::Recorder;
use crate::rows::Row;
use crate::server::Server;

/// Rounds without and beside the half-open heads.
const ROUNDS: usize = 9;
/// Established clients.
const PROBES: u64 = 64;
/// From one line of a head to the next.
const DRIP: Duration = Duration::from_secs(1);
/// Time that the server gives a client for its whole head, in seconds, and the time in which all
/// late ones must be closed after it.
const HEAD_SECONDS: u32 = 10;
const SPREAD_SECONDS: f64 = 2.0;
/// The established clients are not slower if the interval of the ratio of their p99 begins at or
/// below this.
const LOWER_END_MAX: f64 = 1.05;
/// Connections that an address may have, where the limit is on: enough for the established clients.
const PER_ADDRESS: u64 = 200;
/// Time in which a refused connection must be closed.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);

/// What was measured.
#[derive(Debug, Clone, Default)]
struct Measured {
    half_open: u64,
    /// p99 of the established clients in ns, by round.
    alone: Vec<f64>,
    beside: Vec<f64>,
    /// Closed by the server in time, and when the last of them was, in s.
    reaped: u64,
    reaped_after: f64,
    /// With the limit on: half-open connections that stand after a moment.
    admitted: u64,
}

/// Runs it.
pub fn run(options: &InRounds) -> Result<()> {
    let title = "Request heads that do not end, beside established clients";
    let mut bench = Bench::new(&options.common, "slowloris", title, (15_000, 2))?;
    let mut measured = Measured { half_open: bench.connections, ..Measured::default() };
    let server = bench.server(false)?;
    let mut sums = [None, None];
    for round in 0..options.or(ROUNDS)? {
        measured.alone.push(window(&mut bench, &server, None, &mut sums[0])?);
        let begun = Instant::now();
        let dense = half_open(&mut bench, &server)?;
        measured.beside.push(window(&mut bench, &server, Some(&dense), &mut sums[1])?);
        if round == 0 {
            reap(&dense, begun, &mut measured)?;
        }
        dense.stop()?;
    }
    server.stop()?;
    let limit = format!("--client.address_connection_limit={PER_ADDRESS}");
    let server = bench.server_with(false, &[limit])?;
    let probes = PingProbes::start(server.address(), PROBES, bench.clock)?;
    let dense = half_open(&mut bench, &server)?;
    std::thread::sleep(REFUSED_WITHIN);
    measured.admitted = dense.counters().standing();
    probes.stop()?;
    dense.stop()?;
    server.stop()?;
    rows(&measured)?.into_iter().for_each(|row| bench.row(row));
    for (name, sum) in ["established, alone", "established, beside"].into_iter().zip(sums) {
        if let Some(sum) = sum {
            bench.series(name, sum);
        }
    }
    bench.finish()
}

/// Connects, and begins a head on each connection.
fn half_open(bench: &mut Bench, server: &Server) -> Result<Dense> {
    let plan = bench.plan(bench.connections, server.address().port(), Mode::HalfHead);
    let dense = Dense::start(plan, bench.clock)?;
    // The server may close some during the ramp: that is measured, and is no fault.
    dense.ramp()?;
    Ok(dense)
}

/// The p99 of the established clients in a window, beside heads that go on.
fn window(
    bench: &mut Bench,
    server: &Server,
    dense: Option<&Dense>,
    sum: &mut Option<Recorder>,
) -> Result<f64> {
    let probes = PingProbes::start(server.address(), PROBES, bench.clock)?;
    for _ in 0..bench.seconds {
        if let Some(dense) = dense {
            dense.drip()?;
        }
        std::thread::sleep(DRIP);
    }
    let recorder = probes.stop()?;
    let p99 = recorder.percentiles()?.p99 as f64;
    match sum {
        Some(sum) => sum.merge(recorder)?,
        None => *sum = Some(recorder),
    }
    Ok(p99)
}

/// Waits until the server has closed all of them, while every head goes on.
fn reap(dense: &Dense, begun: Instant, measured: &mut Measured) -> Result<()> {
    let patience = Duration::from_secs(2 * u64::from(HEAD_SECONDS) + 5);
    let mut drip = Instant::now();
    while dense.counters().standing() > 0 && begun.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(20));
        if drip.elapsed() >= DRIP {
            dense.drip()?;
            drip = Instant::now();
        }
    }
    measured.reaped = dense.counters().lost();
    measured.reaped_after = begun.elapsed().as_secs_f64();
    Ok(())
}

fn rows(measured: &Measured) -> Result<Vec<Row>> {
    let Measured { half_open, alone, beside, .. } = measured;
    let ratios: Vec<f64> = beside.iter().zip(alone).map(|(beside, alone)| beside / alone).collect();
    // Too few rounds for an interval have only their extremes.
    let ends = || {
        ratios
            .iter()
            .copied()
            .min_by(f64::total_cmp)
            .zip(ratios.iter().copied().max_by(f64::total_cmp))
    };
    let (low, high) = interval(ratios.clone()).ok().or_else(ends).context("no rounds")?;
    let note = format!(
        "95% interval {low:.3} to {high:.3} of {} pairs, median {:.3}",
        ratios.len(),
        median(ratios.clone())?
    );
    let within = f64::from(HEAD_SECONDS) + SPREAD_SECONDS;
    Ok(vec![
        Row::new("established clients' p99, alone", median(alone.clone())?, "ns"),
        Row::new("established clients' p99, beside half-open heads", median(beside.clone())?, "ns"),
        Row::new("p99 beside against alone, lower end of the interval", low, "ratio")
            .at_most(LOWER_END_MAX)
            .note(note),
        Row::new("half-open connections closed", measured.reaped as f64, "count")
            .at_least(*half_open as f64),
        Row::new("time from the first connect to the last close", measured.reaped_after, "s")
            .at_most(within)
            .note(format!("a head has {HEAD_SECONDS} s; the ramp is included")),
        Row::new(
            "half-open connections with the limit per address",
            measured.admitted as f64,
            "count",
        )
        .at_most(PER_ADDRESS as f64)
        .note(format!("{half_open} came from one address, {PER_ADDRESS} may stay")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    #[test]
    fn slower_clients_a_late_close_and_too_many_connections_are_misses() {
        let good = Measured {
            half_open: 15_000,
            alone: vec![1e6; 9],
            beside: vec![1.05e6; 9],
            reaped: 15_000,
            reaped_after: 11.5,
            admitted: 136,
        };
        assert!(missed(&rows(&good).unwrap()).is_empty());
        let fault = |doctored: Measured| -> Vec<String> { missed(&rows(&doctored).unwrap()) };
        let slow = fault(Measured { beside: vec![1.1e6; 9], ..good.clone() });
        assert_eq!(slow, ["p99 beside against alone, lower end of the interval"]);
        let kept = fault(Measured { reaped: 14_999, ..good.clone() });
        assert_eq!(kept, ["half-open connections closed"]);
        let late = fault(Measured { reaped_after: 12.1, ..good.clone() });
        assert_eq!(late, ["time from the first connect to the last close"]);
        let many = fault(Measured { admitted: 201, ..good });
        assert_eq!(many, ["half-open connections with the limit per address"]);
    }
}
