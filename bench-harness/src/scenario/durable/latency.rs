//! What durability adds to the time from a publication to its subscriber.
//!
//! Owns the rows of `durable-latency`. Never measures two of its parts at the same time. Invariant:
//! durable and other channels belong to one server, have the same load (open loop), and are
//! compared with the disk in the same round.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::bare_log;
use super::data::BYTES;
use super::node::StoreFlags;
use crate::dense::{Channels, Dense, Mode};
use crate::grid::{Better, Column, Grid};
use crate::latency::Recorder;
use crate::namespace;
use crate::publish::Api;
use crate::rows::{Row, value};
use crate::scenario::{Bench, Burst, SECOND_NS, median};
use crate::server::Server;
use crate::wire::Data;

/// Publications that a channel keeps.
const KEPT: u64 = 100;
/// Publications per second, and connections that publish.
const RATE: u64 = 1_000;
const PUBLISHERS: u64 = 64;
/// Time between two publications.
const PACE: Duration = Duration::from_nanos(SECOND_NS / RATE);
/// The namespace of durable channels.
const DURABLE_CHANNELS: &str = "kept";
/// Highest ratio of the added p99 to the disk's own p99.
const RATIO: f64 = 2.0;

const DURABLE: &str = "durable channels";
const OTHER: &str = "channels in memory";
const DISK: &str = "fdatasync of 128 bytes";
/// The disk with the pauses of the publications; it has no target.
const PACED_DISK: &str = "fdatasync of 128 bytes, 1 ms apart";
const P99: &str = "p99";

/// Flags of `durable-latency`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    store: StoreFlags,
    /// Number of rounds. In each, every measurement has a turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds must be 1 or more");
    let title = "Latency that durability adds to a publication";
    let mut bench = Bench::new(&options.store.common, "durable-latency", title, (100, 10))?;
    bench.parameter("rounds", options.rounds as u64);
    bench.parameter("in_memory", options.store.in_memory);
    bench.note(namespace::enter_if_permitted());
    let folder = options.store.folder()?;
    let store = folder.sub("store")?;
    let arguments = options.store.namespace_arguments(DURABLE_CHANNELS, &store, KEPT);
    let server = bench.server_with(false, &arguments)?;
    let port = server.address().port();
    let sides = [(DURABLE, Channels::DistinctIn(DURABLE_CHANNELS)), (OTHER, Channels::Distinct)];
    let mut subscribed = Vec::new();
    for (name, channels) in sides {
        let mode = Mode::Subscribe(channels.clone());
        let (dense, _) = bench.connect(bench.connections, port, mode)?;
        subscribed.push((name, channels, dense, None::<Recorder>));
    }
    let mut table = empty(&bench);
    let lasts = Duration::from_secs(bench.seconds);
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        let bare = folder.path().join("bare");
        let probe = bare_log::append(&bare, 1.0, lasts / 2, bench.clock)?;
        note(&mut table, DISK, &probe.recorder)?;
        let probe = bare_log::append_with_pauses(&bare, 1.0, lasts, PACE, bench.clock)?;
        note(&mut table, PACED_DISK, &probe.recorder)?;
        for (name, channels, dense, sum) in &mut subscribed {
            let recorder = turn(&mut bench, &server, dense, channels)?;
            bench.account(name, &recorder);
            note(&mut table, name, &recorder)?;
            match sum {
                Some(sum) => sum.merge(recorder)?,
                None => *sum = Some(recorder),
            }
        }
    }
    rows(&table)?.into_iter().for_each(|row| bench.row(row));
    bench.tables(vec![table]);
    for (name, _, dense, sum) in subscribed {
        bench.check_standing(&dense, "during the run");
        dense.stop()?;
        if let Some(recorder) = sum {
            bench.keep(name, recorder);
        }
    }
    server.stop()?;
    bench.finish()
}

/// Publishes to the channels of these subscribers.
fn turn(
    bench: &mut Bench,
    server: &Server,
    dense: &Dense,
    channels: &Channels,
) -> Result<Recorder> {
    let burst = Burst {
        api: Api::WebSocket,
        publishers: PUBLISHERS,
        channels: channels.clone(),
        data: Data::Filled(BYTES),
        messages: RATE * bench.seconds,
        interval_ns: SECOND_NS / RATE,
        per_frame: 1,
    };
    Ok(bench.deliver(server, dense, burst)?.recorder)
}

fn empty(bench: &Bench) -> Grid {
    let columns = ["p50", P99, "p99.9"].map(|name| Column::new(name, "ns", Better::Less));
    let load = format!(
        "{RATE} publications of {BYTES} bytes per second over {PUBLISHERS} WebSocket connections, \
         one subscriber each of {} channels, {} s per turn; time from when a publication is due to \
         its receipt",
        bench.connections, bench.seconds
    );
    let mut table = Grid::new("durable-latency", &load, columns.to_vec());
    [DURABLE, OTHER, DISK, PACED_DISK].iter().for_each(|target| table.target(target));
    table
}

fn note(table: &mut Grid, target: &str, recorder: &Recorder) -> Result<()> {
    let times = recorder.percentiles()?;
    let line = table.line(target).with_context(|| format!("no line {target}"))?;
    let values = [times.p50, times.p99, times.p99_9];
    line.values.iter_mut().zip(values).for_each(|(all, value)| all.push(Some(value as f64)));
    Ok(())
}

/// The p99 of each round.
fn p99(table: &Grid, target: &str) -> Result<Vec<f64>> {
    let column = table.columns.iter().position(|column| column.name == P99);
    let line = table.lines.iter().find(|line| line.target == target);
    let values = column.zip(line).and_then(|(column, line)| line.values.get(column));
    let values: Vec<f64> = values.into_iter().flatten().flatten().copied().collect();
    ensure!(!values.is_empty(), "{target} was not measured");
    Ok(values)
}

fn rows(table: &Grid) -> Result<Vec<Row>> {
    let (durable, other, disk) = (p99(table, DURABLE)?, p99(table, OTHER)?, p99(table, DISK)?);
    let paced = median(p99(table, PACED_DISK)?)?;
    let added = durable.iter().zip(&other).map(|(durable, other)| durable - other);
    let disk = median(disk)?;
    let added = Row::new("p99 that durability adds", median(added.collect())?, "ns");
    Ok(vec![
        Row::new(format!("{DURABLE}: p99"), median(durable)?, "ns"),
        Row::new(format!("{OTHER}: p99"), median(other)?, "ns"),
        Row::new(format!("{DISK}: p99"), disk, "ns"),
        Row::new(format!("{PACED_DISK}: p99"), paced, "ns"),
        added.at_most(RATIO * disk).note(format!(
            "median over the rounds; the target is {RATIO} x the p99 of {DISK} in the same folder, \
             {}",
            value(disk, "ns")
        )),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    fn table(durable: [f64; 3], other: [f64; 3], disk: [f64; 3]) -> Grid {
        let columns = vec![Column::new(P99, "ns", Better::Less)];
        let mut table = Grid::new("durable-latency", "", columns);
        let lines = [(DURABLE, durable), (OTHER, other), (DISK, disk), (PACED_DISK, disk)];
        for (name, values) in lines {
            table.target(name);
            table.line(name).unwrap().values[0] = values.map(|us| Some(us * 1e3)).to_vec();
        }
        table
    }

    #[test]
    fn the_added_p99_is_held_against_the_disk_of_the_same_run() {
        let good = table([700.0, 900.0, 650.0], [300.0; 3], [200.0, 200.0, 900.0]);
        assert!(missed(&rows(&good).unwrap()).is_empty());
        let slow = table([710.0, 900.0, 650.0], [300.0; 3], [200.0, 200.0, 100.0]);
        assert_eq!(missed(&rows(&slow).unwrap()), ["p99 that durability adds"]);
        assert!(rows(&Grid { lines: Vec::new(), ..slow }).is_err());
    }
}
