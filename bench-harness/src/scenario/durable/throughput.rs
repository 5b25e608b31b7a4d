//! Durable publications acknowledged per second: Drumline, Redis Streams and the bare disk in turn.
//!
//! Owns the rows of `durable`. Never loads two of them at the same time. Invariant: each has the
//! same number of publishers with one publication outstanding, and the bare loop commits batches
//! as large as those of Drumline in the same round.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drumline::wire::protocol::Wire;

use super::bare_log;
use super::closed_loop::{Side, turn};
use super::data::BYTES;
use super::node::StoreFlags;
use super::redis::{ABOUT, Redis};
use super::talk::Interface;
use super::turn::{RATE, table};
use crate::grid::Grid;
use crate::latency::Recorder;
use crate::namespace;
use crate::rows::{Row, number};
use crate::scenario::{Bench, median};

/// Publications that a channel, and a stream of Redis, keeps.
const KEPT: u64 = 100;
/// Least ratio of Drumline's rate to that of Redis, and to that of the bare loop.
const REDIS_RATIO: f64 = 2.5;
const BARE_RATIO: f64 = 0.4;
/// Time between two turns, in which a store does what it has deferred.
const BREATH: Duration = Duration::from_secs(1);

const REDIS: &str = "Redis Streams";
const BARE: &str = "bare loop of write and fdatasync";
const PROBE: &str = "fdatasync of 128 bytes";
/// Drumline's interfaces.
const INTERFACES: [(&str, Interface); 3] = [
    ("Drumline, WebSocket, Protobuf", Interface::WebSocket(Wire::Protobuf)),
    ("Drumline, WebSocket, JSON", Interface::WebSocket(Wire::Json)),
    ("Drumline, HTTP API", Interface::Http),
];

/// Flags of `durable`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    store: StoreFlags,
    /// Number of rounds. In each, every measurement has a turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Publications per batch of the bare loop. By default the mean of the server's batches.
    #[arg(long)]
    batch: Option<f64>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds must be 1 or more");
    let title = "Durable publications per second, beside Redis Streams and the bare disk";
    let mut bench = Bench::new(&options.store.common, "durable", title, (64, 5))?;
    bench.parameter("rounds", options.rounds as u64);
    bench.parameter("bytes", BYTES as u64);
    bench.parameter("history_size", KEPT);
    bench.parameter("in_memory", options.store.in_memory);
    bench.note(namespace::enter_if_permitted());
    bench.note(ABOUT);
    bench.note("the bare loop writes records of 128 bytes without frames to the end of a file");
    let mut table = empty(&bench);
    let mut series = Vec::new();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        one_round(&mut bench, options, &mut table, &mut series)?;
    }
    let best = fastest(&table)?;
    rows(&table, best)?.into_iter().for_each(|row| bench.row(row));
    for (name, recorder) in series {
        bench.keep(&name, recorder);
    }
    bench.tables(vec![table]);
    bench.finish()
}

fn empty(bench: &Bench) -> Grid {
    let load = format!(
        "{} publishers with one publication of {BYTES} bytes outstanding and a channel each, which \
         keeps {KEPT}; {} s per turn; time from the request to its acknowledgement, of the bare \
         loop time of a batch",
        number(bench.connections as f64),
        bench.seconds
    );
    let names = INTERFACES.iter().map(|(name, _)| *name).chain([REDIS, BARE, PROBE]);
    table("durable", &load, &names.collect::<Vec<_>>())
}

/// Every measurement once, each server in an empty folder of its own.
fn one_round(
    bench: &mut Bench,
    options: &Options,
    table: &mut Grid,
    series: &mut Vec<(String, Recorder)>,
) -> Result<()> {
    let (lasts, publishers, clock) =
        (Duration::from_secs(bench.seconds), bench.connections, bench.clock);
    let folder = options.store.folder()?;
    let log = folder.path().join("bare");
    bare_log::append(&log, 1.0, lasts / 2, clock)?.note(table, PROBE)?;
    let redis = Redis::start(&folder.sub("redis")?, bench.free_port()?)?;
    let interface = Interface::Redis { kept: KEPT };
    let turned = turn(Side::Redis(&redis), interface, publishers, lasts, clock)?;
    turned.note(table, REDIS)?;
    add(series, REDIS, turned.recorder)?;
    drop(redis);
    let arguments = options.store.arguments(&folder.sub("store")?, KEPT);
    let server = bench.server_with(false, &arguments)?;
    let mut best: Option<(f64, Option<f64>)> = None;
    for (name, interface) in INTERFACES {
        std::thread::sleep(BREATH);
        let turned = turn(Side::Drumline(&server), interface, publishers, lasts, clock)?;
        turned.note(table, name)?;
        if best.is_none_or(|(rate, _)| turned.rate() > rate) {
            best = Some((turned.rate(), turned.batch));
        }
        add(series, name, turned.recorder)?;
    }
    server.stop()?;
    let batch = options.batch.or(best.and_then(|(_, batch)| batch));
    let batch =
        batch.context("the server counts no batches of the store; give their mean, --batch")?;
    bare_log::append(&log, batch, lasts, clock)?.note(table, BARE)
}

fn add(series: &mut Vec<(String, Recorder)>, name: &str, recorder: Recorder) -> Result<()> {
    match series.iter_mut().find(|(one, _)| one == name) {
        Some((_, sum)) => sum.merge(recorder),
        None => {
            series.push((name.to_owned(), recorder));
            Ok(())
        }
    }
}

/// The interface with the highest median rate.
fn fastest(table: &Grid) -> Result<&'static str> {
    let rates =
        INTERFACES.iter().filter_map(|(name, _)| Some((table.spread(name, RATE)?.median, *name)));
    let best = rates.max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, name)| name).context("no interface was measured")
}

fn rows(table: &Grid, best: &'static str) -> Result<Vec<Row>> {
    let rate = |target: &str| {
        let spread = table.spread(target, RATE);
        spread.map(|spread| spread.median).with_context(|| format!("{target} was not measured"))
    };
    let ratio = |what: &str, target: &str, least: f64| -> Result<Row> {
        let ratios = table.ratios(best, target, RATE);
        let note =
            format!("{best}; medians of {:.0} and {:.0} per second", rate(best)?, rate(target)?);
        let row =
            Row::new(format!("acknowledged per second, against {what}"), median(ratios)?, "ratio");
        Ok(row.at_least(least).note(note))
    };
    Ok(vec![
        Row::new("acknowledged per second, fastest interface", rate(best)?, "count").note(best),
        ratio(REDIS, REDIS, REDIS_RATIO)?,
        ratio(&format!("the {BARE} of the same batches"), BARE, BARE_RATIO)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    /// A table with these rates: the three interfaces, Redis, the bare loop.
    fn measured(rates: [f64; 5]) -> Grid {
        let names: Vec<&str> = INTERFACES.iter().map(|one| one.0).chain([REDIS, BARE]).collect();
        let mut table = table("durable", "", &names);
        for (name, rate) in names.iter().zip(rates) {
            table.line(name).unwrap().values[0].push(Some(rate));
        }
        table
    }

    #[test]
    fn the_fastest_interface_is_held_against_redis_and_the_bare_loop() {
        let good = measured([30e3, 50e3, 40e3, 20e3, 125e3]);
        let best = fastest(&good).unwrap();
        assert_eq!(best, INTERFACES[1].0);
        assert!(missed(&rows(&good, best).unwrap()).is_empty());
        let slow = measured([30e3, 49e3, 40e3, 20e3, 125e3]);
        assert_eq!(missed(&rows(&slow, best).unwrap()).len(), 2);
        let mut hollow = good.clone();
        hollow.lines.pop();
        assert!(rows(&hollow, best).is_err());
    }
}
