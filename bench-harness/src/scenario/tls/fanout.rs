//! One publication to many over TLS, against the same without TLS in the same run.
//!
//! Owns the rows of `tls-fanout`. Never compares across runs. Invariant: both servers run all the
//! time, each with its subscribers, and take turns.

use anyhow::Result;

use super::Secured;
use crate::dense::{Dense, Mode};
use crate::latency::Recorder;
use crate::rows::Row;
use crate::scenario::rounds::InRounds;
use crate::scenario::{Bench, Burst, all, median};
use crate::server::Server;
use crate::tls::Identity;
use crate::wire::Data;

/// Bytes of data in a publication.
const BYTES: usize = 128;
/// Turns of each side.
const PAIRS: usize = 10;
/// Publications of each turn, one at a time.
const ROUNDS: u64 = 4;
/// Time per delivery in the schedule, in ns: each publication is delivered before the next is due.
const ROOM_NS: u64 = 30_000;
/// Highest ratio of the cost over TLS to the cost without.
const RATIO: f64 = 1.15;

struct Side {
    server: Server,
    dense: Dense,
    /// CPU per delivery of each turn, in ns.
    costs: Vec<f64>,
    sum: Option<Recorder>,
}

/// Runs it.
pub fn run(options: &InRounds) -> Result<()> {
    let title = "One publication to many over TLS, against plain";
    let mut bench = Bench::new(&options.common, "tls-fanout", title, (15_000, 1))?;
    let identity = Identity::new()?;
    let (connections, mode) = (bench.connections, || Mode::Subscribe(all()));
    let server = bench.server_apart(&[])?;
    let (dense, _) = bench.connect(connections, server.address().port(), mode())?;
    let mut plain = Side { server, dense, costs: Vec::new(), sum: None };
    let Secured { server, client } = Secured::start(&mut bench, &identity)?;
    let port = server.address().port();
    let (dense, _) = bench.connect_over(Some(&client), connections, port, mode())?;
    let mut tls = Side { server, dense, costs: Vec::new(), sum: None };
    // Warms both sides up: first sends grow buffers.
    turn(&mut bench, &mut plain)?;
    turn(&mut bench, &mut tls)?;
    (plain.costs, tls.costs) = (Vec::new(), Vec::new());
    for pair in 0..options.or(PAIRS)? {
        // Each side comes first in every other pair.
        let sides = if pair % 2 == 0 { [&mut plain, &mut tls] } else { [&mut tls, &mut plain] };
        for side in sides {
            turn(&mut bench, side)?;
        }
    }
    rows(&plain.costs, &tls.costs)?.into_iter().for_each(|row| bench.row(row));
    for (name, side) in [("plain", plain), ("TLS", tls)] {
        bench.check_standing(&side.dense, &format!("during the fan-outs, {name}"));
        if let Some(sum) = side.sum {
            bench.series(name, sum);
        }
        side.server.stop()?;
        side.dense.stop()?;
    }
    bench.finish()
}

fn turn(bench: &mut Bench, side: &mut Side) -> Result<()> {
    let burst = Burst::to_all(ROUNDS, Data::Filled(BYTES), bench.connections * ROOM_NS);
    let before = side.server.sample()?;
    let delivered = bench.deliver(&side.server, &side.dense, burst)?;
    let used = side.server.sample()?.since(&before)?;
    side.costs.push(used.cpu_ns_per(delivered.recorder.deliveries.delivered)?);
    match &mut side.sum {
        Some(sum) => sum.merge(delivered.recorder)?,
        None => side.sum = Some(delivered.recorder),
    }
    Ok(())
}

fn rows(plain: &[f64], tls: &[f64]) -> Result<Vec<Row>> {
    let ratios: Vec<f64> = tls.iter().zip(plain).map(|(tls, plain)| tls / plain).collect();
    let note = format!("median of {} pairs: {ratios:.3?}", ratios.len());
    Ok(vec![
        Row::new("CPU per delivery, plain", median(plain.to_vec())?, "ns"),
        Row::new("CPU per delivery, TLS", median(tls.to_vec())?, "ns"),
        Row::new("CPU per delivery, TLS against plain", median(ratios)?, "ratio")
            .at_most(RATIO)
            .note(note),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    #[test]
    fn the_ratio_is_that_of_pairs_and_has_a_verdict() {
        let plain = [10.0, 20.0, 10.0];
        assert!(missed(&rows(&plain, &[11.0, 22.0, 11.5]).unwrap()).is_empty());
        let slow = rows(&plain, &[11.6, 23.2, 10.0]).unwrap();
        assert_eq!(missed(&slow), ["CPU per delivery, TLS against plain"]);
        assert!(rows(&[], &[]).is_err());
    }
}
