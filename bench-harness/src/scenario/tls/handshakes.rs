//! Full and resumed handshakes: the server's processor time, against a bare rustls accept loop.
//!
//! Owns the rows of `tls-handshakes`. Never compares across runs. Invariant: both servers have the
//! same certificate, suite and group, and the same clients connect to them in turn.

use std::time::Duration;

use anyhow::{Context, Result};

use super::arguments;
use crate::account::ProcessSample;
use crate::bare_tls::BareTls;
use crate::dense::Mode;
use crate::rows::Row;
use crate::scenario::rounds::InRounds;
use crate::scenario::{Bench, SECOND_NS, median};
use crate::server::Server;
use crate::tls::{Client, Identity};

/// Turns of each server.
const ROUNDS: usize = 5;
/// Least ratio of Drumline's handshakes per second and core to those of the bare loop.
const RATIO: f64 = 0.8;
/// Time after which the work of the last handshake is done.
const SETTLE: Duration = Duration::from_millis(200);
/// Threads of the bare loop: each blocks while its client is at work.
const BARE_THREADS: usize = 32;

/// A server in its turn.
enum Side {
    Bare(BareTls),
    Drumline(Server),
}

impl Side {
    fn sample(&self) -> Result<ProcessSample> {
        match self {
            Side::Bare(bare) => bare.sample(),
            Side::Drumline(server) => server.sample(),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Side::Bare(bare) => bare.port(),
            Side::Drumline(server) => server.address().port(),
        }
    }
}

/// Handshakes per second and core, in each turn.
#[derive(Debug, Clone, Default)]
struct Speeds {
    bare: Vec<f64>,
    drumline: Vec<f64>,
}

/// Runs it.
pub fn run(options: &InRounds) -> Result<()> {
    let rounds = options.or(ROUNDS)?;
    let title = "TLS handshakes, against a bare rustls accept loop";
    let mut bench = Bench::new(&options.common, "tls-handshakes", title, (10_000, 1))?;
    bench.note(format!("the bare loop accepts on {BARE_THREADS} blocking threads"));
    let identity = Identity::new()?;
    let port = bench.free_port()?;
    let bare = Side::Bare(BareTls::start(port, &identity, BARE_THREADS, 0)?);
    let drumline = Side::Drumline(bench.server_apart(&arguments(&identity))?);
    let mut sides = [bare, drumline];
    for resumes in [false, true] {
        let clients = [client(&identity, resumes)?, client(&identity, resumes)?];
        // Warms both up; where sessions are resumed it collects the first tickets.
        for (side, client) in sides.iter_mut().zip(&clients) {
            turn(&mut bench, side, client)?;
        }
        let mut speeds = Speeds::default();
        for _ in 0..rounds {
            let [bare, drumline] = &mut sides;
            speeds.bare.push(turn(&mut bench, bare, &clients[0])?);
            speeds.drumline.push(turn(&mut bench, drumline, &clients[1])?);
        }
        if resumes {
            let expected = bench.connections * rounds as u64;
            for (name, client) in ["bare loop", "Drumline"].into_iter().zip(&clients) {
                if let Some(fault) = unresumed(client.resumed(), expected) {
                    bench.fault(format!("{name}: {fault}"));
                }
            }
        }
        let kind = if resumes { "resumed" } else { "full" };
        rows(kind, &speeds)?.into_iter().for_each(|row| bench.row(row));
    }
    for side in sides {
        match side {
            Side::Bare(bare) => bare.stop()?,
            Side::Drumline(server) => server.stop()?,
        }
    }
    bench.finish()
}

fn client(identity: &Identity, resumes: bool) -> Result<Client> {
    if resumes {
        Client::resuming(identity.certificate())
    } else {
        Client::new(identity.certificate())
    }
}

/// Connects all clients and closes them. Returns handshakes per second and core of the server.
fn turn(bench: &mut Bench, side: &mut Side, client: &Client) -> Result<f64> {
    let before = side.sample()?;
    let (port, connections) = (side.port(), bench.connections);
    let (dense, ramp) = bench.connect_over(Some(client), connections, port, Mode::Handshake)?;
    std::thread::sleep(SETTLE);
    let cost = side.sample()?.since(&before)?.cpu_ns_per(ramp.up)?;
    dense.stop()?;
    if let Side::Bare(bare) = side {
        let made = bare.close()?;
        if made.failed > 0 {
            bench.fault(format!("the bare loop failed {} handshakes", made.failed));
        }
    }
    Ok(SECOND_NS as f64 / cost)
}

/// What is wrong if fewer sessions were resumed than expected.
fn unresumed(resumed: u64, expected: u64) -> Option<String> {
    (resumed < expected).then(|| format!("{resumed} of {expected} sessions were resumed"))
}

fn rows(kind: &str, speeds: &Speeds) -> Result<Vec<Row>> {
    let ratios: Vec<f64> =
        speeds.drumline.iter().zip(&speeds.bare).map(|(ours, bare)| ours / bare).collect();
    let note = format!("median of {} pairs: {ratios:.3?}", ratios.len());
    let each = format!("{kind} handshakes per second and core");
    let unit = "per second";
    let ratio = median(ratios).context("no rounds")?;
    Ok(vec![
        Row::new(format!("bare rustls: {each}"), median(speeds.bare.clone())?, unit),
        Row::new(format!("Drumline: {each}"), median(speeds.drumline.clone())?, unit),
        Row::new(format!("{each}, Drumline against bare rustls"), ratio, "ratio")
            .at_least(RATIO)
            .note(note),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    #[test]
    fn fewer_handshakes_than_the_bare_loop_are_a_miss() {
        let bare = vec![6_000.0, 7_000.0, 5_000.0];
        let good = Speeds { bare: bare.clone(), drumline: vec![4_800.0, 5_600.0, 6_000.0] };
        assert!(missed(&rows("full", &good).unwrap()).is_empty());
        let slow = Speeds { bare, drumline: vec![4_700.0, 5_500.0, 6_000.0] };
        let rows = rows("full", &slow).unwrap();
        assert_eq!(
            missed(&rows),
            ["full handshakes per second and core, Drumline against bare rustls"]
        );
    }

    #[test]
    fn a_session_that_was_not_resumed_is_told() {
        assert_eq!(unresumed(10, 10), None);
        assert!(unresumed(9, 10).is_some_and(|fault| fault.contains("9 of 10")));
    }
}
