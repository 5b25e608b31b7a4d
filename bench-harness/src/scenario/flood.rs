//! Thousands of clients connect at once, each with a signature to verify, beside established
//! clients.
//!
//! Owns the rows of `flood`. Never sends a token twice to a server. Invariant: in every round the
//! server and each control verify the same tokens once, and the established clients are measured in
//! windows of the same length.

use std::time::Duration;

use anyhow::Result;

use super::{Bench, Common, SECOND_NS, median};
use crate::account::ProcessSample;
use crate::dense::{Channels, Dense, Mode, Ramp};
use crate::dialect::Bearer;
use crate::latency::Recorder;
use crate::publish::{ProbePlan, probe};
use crate::rows::{Row, number};
use crate::server::Server;
use crate::signer::Signer;
use crate::verifier::Control;

/// Rounds of the flood and its controls.
const ROUNDS: usize = 9;
/// Pairs of established clients, their messages per second, and bytes of each.
const PAIRS: u64 = 64;
const PER_SECOND: u64 = 2_000;
const BYTES: usize = 128;
/// Highest ratio of the established clients' latency in the flood to that in a control.
const RATIO: f64 = 2.0;
/// Highest share of the publishers' lateness in a control's latency. Above it the ratio would
/// measure the publishers.
const LATE: f64 = 0.5;
/// Time between the start of the established clients and their first message, in ns. They connect
/// one after the other, and a late one would look like an effect of the flood.
const LEAD_NS: u64 = 2 * SECOND_NS;
/// Pause in which the server gets rid of one flood before the next.
const PAUSE: Duration = Duration::from_secs(2);
/// Lifetime of a token, in seconds.
const TOKEN_SECONDS: u64 = 86_400;

/// The load beside the established clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// Another process verifies; no client connects.
    Verifications,
    /// Another process verifies, and as many clients connect without a token.
    VerificationsAndConnects,
    /// The clients connect, and the server verifies.
    Flood,
}

impl Beside {
    const ALL: [Beside; 3] =
        [Beside::Verifications, Beside::VerificationsAndConnects, Beside::Flood];

    fn name(self) -> &'static str {
        match self {
            Beside::Verifications => "control",
            Beside::VerificationsAndConnects => "control with connects",
            Beside::Flood => "flood",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Beside::Verifications => "another process verifies the same tokens, no client connects",
            Beside::VerificationsAndConnects => {
                "another process verifies the same tokens, and as many clients connect without a \
                 token"
            }
            Beside::Flood => "all clients connect at once, and the server verifies their tokens",
        }
    }
}

/// What was measured beside one of them.
struct FloodMeasurement {
    beside: Beside,
    p99: Vec<f64>,
    /// The publishers' share of it: they share the processors with the server.
    late: Vec<f64>,
    /// Time until all were connected or verified, in ns.
    took: Vec<f64>,
    recorder: Recorder,
}

struct FloodRun {
    server: Server,
    control: Control,
    sides: Vec<FloodMeasurement>,
}

/// Runs it.
pub fn run(common: &Common) -> Result<()> {
    let title = "A flood of connects with ES256 tokens";
    let mut bench = Bench::new(common, "flood", title, (5_000, 1))?;
    bench.common.in_flight = bench.connections as u32;
    let mut signer = Signer::new()?;
    let key = signer.public_key()?;
    let server = bench.server_with(false, &[format!("--client.token.ecdsa_public_key={key}")])?;
    // Warms up: the server starts its verifying threads only on demand.
    let first = tokens(&mut bench, &mut signer)?;
    let (dense, _) = flood(&mut bench, &server, first)?;
    dense.stop()?;
    let nice = ProcessSample::niceness(server.pid())?;
    // Like the server, which uses half of the processors.
    let threads = (drumline::base::sys::processors() / 2).max(1);
    bench.note(format!("the control verifies on {threads} threads of niceness {nice}"));
    let control = Control::start(&key, threads, nice)?;
    let fresh = |beside| -> Result<FloodMeasurement> {
        let recorder = Recorder::new(bench.clock.started())?;
        Ok(FloodMeasurement {
            beside,
            p99: Vec::new(),
            late: Vec::new(),
            took: Vec::new(),
            recorder,
        })
    };
    let sides = Beside::ALL.into_iter().map(fresh).collect::<Result<_>>()?;
    let mut sides = FloodRun { server, control, sides };
    for _ in 0..ROUNDS {
        let tokens = tokens(&mut bench, &mut signer)?;
        sides.control.load(&tokens)?;
        round(&mut bench, &mut sides, &tokens)?;
    }
    sides.control.stop()?;
    sides.server.stop()?;
    tell(&mut bench, sides.sides)?;
    bench.finish()
}

/// New tokens, one per connecting client.
fn tokens(bench: &mut Bench, signer: &mut Signer) -> Result<Vec<String>> {
    let expires = bench.clock.unix_seconds() + TOKEN_SECONDS;
    (0..bench.connections).map(|_| signer.token(expires)).collect()
}

/// Every side's turn with these tokens.
fn round(bench: &mut Bench, sides: &mut FloodRun, tokens: &[String]) -> Result<()> {
    let FloodRun { server, control, sides } = sides;
    for side in sides {
        std::thread::sleep(PAUSE);
        let first_ns = bench.clock.now_ns() + LEAD_NS;
        let probes = ProbePlan {
            server: server.address(),
            pairs: PAIRS,
            first_ns,
            per_second: PER_SECOND,
            for_ns: bench.seconds * SECOND_NS,
            bytes: BYTES,
        };
        let bring = match side.beside {
            Beside::Verifications => None,
            Beside::VerificationsAndConnects => Some(Vec::new()),
            Beside::Flood => Some(tokens.to_vec()),
        };
        let running = probe(probes, bench.clock)?;
        std::thread::sleep(bench.clock.until(first_ns));
        let mut took = Duration::ZERO;
        if side.beside != Beside::Flood {
            control.begin()?;
        }
        let connected = bring.map(|tokens| flood(bench, server, tokens)).transpose()?;
        if side.beside != Beside::Flood {
            took = control.finish()?;
        }
        let probed = running.join()?;
        // They stay while the others are measured: their end costs the server time too.
        if let Some((dense, ramp)) = connected {
            bench.check_standing(&dense, "in the flood");
            dense.stop()?;
            took = took.max(ramp.took);
        }
        side.p99.push(probed.recorder.percentiles()?.p99 as f64);
        side.late.push(probed.published.lateness.percentiles()?.p99 as f64);
        side.took.push(took.as_nanos() as f64);
        side.recorder.merge(probed.recorder)?;
    }
    Ok(())
}

/// Connects all clients at once, with these tokens or without any. They stay until stopped.
fn flood(bench: &mut Bench, server: &Server, tokens: Vec<String>) -> Result<(Dense, Ramp)> {
    // The clients' threads keep what they say; a run has few floods.
    let dialect: &'static Bearer = Box::leak(Box::new(Bearer { tokens }));
    let mode = Mode::Subscribe(Channels::Distinct);
    let port = server.address().port();
    bench.connect_as(dialect, bench.connections, port, mode)
}

fn tell(bench: &mut Bench, sides: Vec<FloodMeasurement>) -> Result<()> {
    let through = format!("time until all {} are done", number(bench.connections as f64));
    for side in &sides {
        let name = side.beside.name();
        let p99 = Row::new(format!("{name}: established p99"), median(side.p99.clone())?, "ns");
        bench.row(p99.note(side.beside.about()));
        for (what, times) in [("publishers' lateness, p99", &side.late), (&through, &side.took)] {
            bench.row(Row::new(format!("{name}: {what}"), median(times.clone())?, "ns"));
        }
    }
    let [controls @ .., flood] = &sides[..] else { return Ok(()) };
    for control in controls {
        let ratios: Vec<f64> =
            flood.p99.iter().zip(&control.p99).map(|(flood, control)| flood / control).collect();
        let what = format!("established p99, flood against {}", control.beside.name());
        let own = median(control.late.clone())? > LATE * median(control.p99.clone())?;
        let mark = if own { "the publishers were late by themselves: it is of them; " } else { "" };
        let spread = format!("{mark}median of {ROUNDS} pairs: {ratios:.3?}");
        bench.row(Row::new(what, median(ratios)?, "ratio").at_most(RATIO).note(spread));
    }
    for side in sides {
        bench.series(side.beside.name(), side.recorder);
    }
    Ok(())
}
