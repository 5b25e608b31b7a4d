//! Thousands of TLS handshakes at once beside established clients, against a control in which
//! another process takes the same handshakes.
//!
//! Owns the rows of `tls-storm`. Never resumes a session. Invariant: the established clients ping
//! in windows of the same length, and the handshakes begin at the same moment of each.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Secured, arguments};
use crate::account::ProcessSample;
use crate::bare_tls::BareTls;
use crate::dense::{Dense, Mode, Ramp};
use crate::latency::Recorder;
use crate::rows::{Row, number};
use crate::scenario::hostile::PingProbes;
use crate::scenario::rounds::InRounds;
use crate::scenario::{Bench, median};
use crate::tls::{Client, Identity};

/// Rounds of the storm and its control.
const ROUNDS: usize = 9;
/// Established clients of each kind.
const PROBES: u64 = 32;
/// Highest ratio of the established clients' latency in the storm to that in the control.
const RATIO: f64 = 2.0;
/// Time between the first ping and the first handshake.
const LEAD: Duration = Duration::from_millis(300);
/// Pause in which the server gets rid of one storm before the next.
const PAUSE: Duration = Duration::from_secs(1);
/// Threads of the control.
const CONTROL_THREADS: usize = 32;

/// The established clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Tls,
}

const KINDS: [Kind; 2] = [Kind::Plain, Kind::Tls];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Tls => "TLS",
        }
    }
}

/// Latency of the established clients beside one of both loads.
#[derive(Debug, Clone, Default)]
struct Side {
    /// p99 of each round in ns, by kind.
    p99: [Vec<f64>; 2],
    /// Time until all handshakes were done, in ns.
    took: Vec<f64>,
    sums: [Option<Recorder>; 2],
}

/// Runs it.
pub fn run(options: &InRounds) -> Result<()> {
    let title = "TLS handshakes at once, beside established clients";
    let mut bench = Bench::new(&options.common, "tls-storm", title, (5_000, 4))?;
    bench.common.in_flight = bench.connections as u32;
    let identity = Identity::new()?;
    let plain_port = bench.free_port()?;
    let listener = format!("[{{\"name\":\"plain\",\"port\":{plain_port}}}]");
    let mut flags = arguments(&identity);
    flags.push(format!("--http_server.listeners={listener}"));
    let server = bench.server_apart(&flags)?;
    let secured = Secured { server, client: Client::new(identity.certificate())? };
    let nice = ProcessSample::niceness(secured.server.pid())?;
    let port = bench.free_port()?;
    let mut control = BareTls::start(port, &identity, CONTROL_THREADS, nice)?;
    let (mut beside_control, mut beside_storm) = (Side::default(), Side::default());
    for _ in 0..options.or(ROUNDS)? {
        round(&mut bench, (&secured, plain_port), control.port(), &mut beside_control)?;
        let made = control.close()?;
        if made.failed > 0 {
            bench.fault(format!("the control failed {} handshakes", made.failed));
        }
        let port = secured.server.address().port();
        round(&mut bench, (&secured, plain_port), port, &mut beside_storm)?;
    }
    control.stop()?;
    secured.server.stop()?;
    let connections = bench.connections;
    rows(connections, &beside_control, &beside_storm)?.into_iter().for_each(|row| bench.row(row));
    for (name, side) in [("control", beside_control), ("storm", beside_storm)] {
        for (kind, sum) in KINDS.into_iter().zip(side.sums) {
            if let Some(sum) = sum {
                bench.series(&format!("{name}, established {}", kind.name()), sum);
            }
        }
    }
    bench.finish()
}

/// The established clients ping; meanwhile all handshakes are made with this port.
fn round(
    bench: &mut Bench,
    (secured, plain_port): (&Secured, u16),
    port: u16,
    side: &mut Side,
) -> Result<()> {
    std::thread::sleep(PAUSE);
    let tls = secured.server.address();
    let mut plain = tls;
    plain.set_port(plain_port);
    let probes = [
        PingProbes::start(plain, PROBES, bench.clock)?,
        PingProbes::start_over(tls, Some(&secured.client), PROBES, bench.clock)?,
    ];
    let begun = Instant::now();
    std::thread::sleep(LEAD);
    let connections = bench.connections;
    let (dense, ramp): (Dense, Ramp) =
        bench.connect_over(Some(&secured.client), connections, port, Mode::Handshake)?;
    let window = Duration::from_secs(bench.seconds);
    if begun.elapsed() > window {
        bench.fault("the handshakes took longer than the window; raise --seconds".to_owned());
    }
    std::thread::sleep(window.saturating_sub(begun.elapsed()));
    for (nth, probes) in probes.into_iter().enumerate() {
        let recorder = probes.stop()?;
        side.p99[nth].push(recorder.percentiles()?.p99 as f64);
        match &mut side.sums[nth] {
            Some(sum) => sum.merge(recorder)?,
            None => side.sums[nth] = Some(recorder),
        }
    }
    side.took.push(ramp.took.as_nanos() as f64);
    // They stayed while the others were measured: their end costs time too.
    dense.stop()
}

fn rows(connections: u64, control: &Side, storm: &Side) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, side) in [("control", control), ("storm", storm)] {
        let what = format!("{name}: time until {} handshakes", number(connections as f64));
        rows.push(Row::new(what, median(side.took.clone())?, "ns"));
    }
    for (nth, kind) in KINDS.into_iter().enumerate() {
        let kind = kind.name();
        let (control, storm) = (&control.p99[nth], &storm.p99[nth]);
        for (name, p99) in [("control", control), ("storm", storm)] {
            let what = format!("{name}: established {kind} clients' p99");
            rows.push(Row::new(what, median(p99.clone())?, "ns"));
        }
        let ratios: Vec<f64> =
            storm.iter().zip(control).map(|(storm, control)| storm / control).collect();
        let note = format!("median of {} pairs: {ratios:.3?}", ratios.len());
        let what = format!("established {kind} clients' p99, storm against control");
        rows.push(Row::new(what, median(ratios)?, "ratio").at_most(RATIO).note(note));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    #[test]
    fn each_kind_of_established_client_has_its_verdict() {
        let side = |plain: f64, tls: f64| Side {
            p99: [vec![plain; 3], vec![tls; 3]],
            took: vec![1e9; 3],
            ..Side::default()
        };
        let control = side(10e6, 12e6);
        assert!(missed(&rows(5, &control, &side(20e6, 24e6)).unwrap()).is_empty());
        let slow = rows(5, &control, &side(21e6, 24e6)).unwrap();
        assert_eq!(missed(&slow), ["established plain clients' p99, storm against control"]);
        let slow = rows(5, &control, &side(20e6, 25e6)).unwrap();
        assert_eq!(missed(&slow), ["established TLS clients' p99, storm against control"]);
    }
}
