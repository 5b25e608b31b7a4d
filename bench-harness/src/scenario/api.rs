//! Publications per second through the HTTP API at saturation: Drumline and nchan in turn.
//!
//! Owns the rows of `api`. Never loads both at the same time. Invariant: both have the same number
//! of workers and the same client, which waits for an answer before it sends the next request of a
//! connection. Each is compared at its own best number of connections.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Bench, Burst, Common, all};
use crate::account::ProcessSample;
use crate::dense::{Channels, Dense, Mode, Plan};
use crate::grid::{Better, Column, Grid};
use crate::publish::Published;
use crate::rows::Row;
use crate::target::{Adapter, Peer, Target};
use crate::wire::Data;

/// The measured targets, Drumline first.
const TARGETS: [&str; 2] = ["drumline", "nchan"];
/// Kept-alive connections that publish.
const PUBLISHERS: [u64; 3] = [1, 8, 64];
const BYTES: usize = 128;
/// Publications that estimate a target's speed, from which the length of a turn follows.
const GUESS: u64 = 1_000;
/// Least ratio of Drumline's publications per second to nchan's.
const RATIO: f64 = 2.0;
/// Time without a delivery after which the missing deliveries count as lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Flags of `api`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Number of rounds. In each, both targets have a turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// A target with its subscriber.
struct ComparedServer {
    name: &'static str,
    adapter: &'static dyn Adapter,
    peer: Peer,
    dense: Dense,
}

/// The result of one turn.
struct Turn {
    /// Publications per second.
    rate: f64,
    /// Processor time of the target and of the harness per publication, in ns.
    server: f64,
    client: f64,
    lost: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds must be 1 or more");
    let title = "Publications through the HTTP API";
    let mut bench = Bench::new(&options.common, "api", title, (1, 1))?;
    ensure!(bench.connections == 1, "one subscriber or none: --connections is of no use here");
    bench.parameter("rounds", options.rounds as u64);
    let sides: Vec<ComparedServer> =
        TARGETS.into_iter().map(|name| start(&mut bench, name)).collect::<Result<_>>()?;
    for side in &sides {
        bench.note(format!("{}: {}", side.name, side.adapter.about()));
    }
    let mut tables = Vec::new();
    for heard in [false, true] {
        let table = measure(&mut bench, &sides, heard, options.rounds)?;
        bench.row(best(&table)?);
        tables.push(table);
    }
    bench.tables(tables);
    for side in sides {
        bench.check_standing(&side.dense, &format!("at {}", side.name));
        side.peer.stop()?;
        side.dense.stop()?;
    }
    bench.finish()
}

/// Starts a target with one subscriber to the channel of [`all`].
fn start(bench: &mut Bench, name: &'static str) -> Result<ComparedServer> {
    let Target::Server(adapter) = Target::named(name)? else {
        anyhow::bail!("{name} takes no publications");
    };
    let options = bench.target_options()?;
    let port = options.port;
    let peer = Peer::start(adapter, options)?;
    let plan = Plan {
        connections: bench.connections,
        port,
        one_address: true,
        dialect: adapter.dialect(),
        in_flight: 1,
        mode: Mode::Subscribe(all()),
        tls: None,
        quiet: false,
    };
    let dense = Dense::start(plan, bench.clock)?;
    let ramp = dense.ramp()?;
    ensure!(ramp.up == 1, "{name}: the subscriber was refused: {:?}", dense.counters().causes());
    Ok(ComparedServer { name, adapter, peer, dense })
}

/// Measures both in turn for each number of connections: to the subscriber's channel, or to a
/// channel without subscribers.
fn measure(
    bench: &mut Bench,
    sides: &[ComparedServer],
    heard: bool,
    rounds: usize,
) -> Result<Grid> {
    let mut table = table(bench, heard);
    for side in sides {
        table.target(side.name);
    }
    for publishers in PUBLISHERS {
        let mut messages = Vec::new();
        for side in sides {
            let guess = turn(bench, side, (heard, publishers), GUESS)?;
            messages.push((guess.rate * bench.seconds as f64) as u64 + publishers);
        }
        for round in 0..rounds {
            for (side, messages) in sides.iter().zip(&messages) {
                eprintln!("round {}, {publishers} connections, {}", round + 1, side.name);
                let turn = turn(bench, side, (heard, publishers), *messages)?;
                note(&mut table, side.name, publishers, &turn)?;
            }
        }
    }
    Ok(table)
}

/// Publishes `messages` publications as fast as the answers come.
fn turn(
    bench: &mut Bench,
    side: &ComparedServer,
    (heard, publishers): (bool, u64),
    messages: u64,
) -> Result<Turn> {
    let channels = if heard { all() } else { Channels::Shared("nobodys".to_owned()) };
    let burst = Burst {
        api: side.adapter.api(),
        publishers,
        channels,
        data: Data::Filled(BYTES),
        messages,
        // All are due at once, so each goes when the one before it is answered.
        interval_ns: 0,
        per_frame: 1,
    };
    let own = || ProcessSample::of_one(std::process::id());
    let (server, client) = (side.peer.sample()?, own()?);
    let address = side.peer.publish_address();
    let (published, lost): (Published, u64) = match heard {
        true => {
            let delivered = bench.deliver_to(address, &side.dense, burst, PATIENCE)?;
            (delivered.published, delivered.recorder.deliveries.lost())
        }
        false => (bench.publish_unheard(address, burst)?, 0),
    };
    let (server, client) = (side.peer.sample()?.since(&server)?, own()?.since(&client)?);
    let Published { confirmed, took, refusal, .. } = published;
    ensure!(confirmed == messages, "{}: a publication was refused: {refusal:?}", side.name);
    if lost > 0 {
        bench.fault(format!("{}: {lost} of {messages} deliveries lost", side.name));
    }
    Ok(Turn {
        rate: messages as f64 / took.as_secs_f64(),
        server: server.cpu_ns_per(messages)?,
        client: client.cpu_ns_per(messages)?,
        lost,
    })
}

const SERVER: &str = "CPU per publish";
const CLIENT: &str = "client's CPU per publish";
const LOST: &str = "lost";

fn rate_column(publishers: u64) -> String {
    let plural = if publishers == 1 { "" } else { "s" };
    format!("{publishers} connection{plural}")
}

fn table(bench: &Bench, heard: bool) -> Grid {
    let mut columns: Vec<Column> = PUBLISHERS
        .into_iter()
        .map(|publishers| Column::new(&rate_column(publishers), "count", Better::More))
        .collect();
    columns.push(Column::new(SERVER, "ns", Better::Less));
    columns.push(Column::new(CLIENT, "ns", Better::Neither));
    columns.push(Column::new(LOST, "count", Better::Neither));
    let name = if heard { "one subscriber" } else { "no subscriber" };
    let load = format!(
        "publications per second of {BYTES} bytes over the given number of kept-alive \
         connections, {} s per round; processor time over all of them",
        bench.seconds
    );
    Grid::new(name, &load, columns)
}

fn note(table: &mut Grid, target: &str, publishers: u64, turn: &Turn) -> Result<()> {
    let rate = rate_column(publishers);
    let values = [
        (rate.as_str(), turn.rate),
        (SERVER, turn.server),
        (CLIENT, turn.client),
        (LOST, turn.lost as f64),
    ];
    for (name, value) in values {
        let at = table.columns.iter().position(|column| column.name == name);
        let at = at.with_context(|| format!("the table has no column {name}"))?;
        let line = table.line(target).with_context(|| format!("the table has no {target}"))?;
        line.values[at].push(Some(value));
    }
    Ok(())
}

/// Drumline's value against nchan's, each at its number of connections with the highest median.
fn best(table: &Grid) -> Result<Row> {
    let best = |target: &str| {
        PUBLISHERS
            .into_iter()
            .filter_map(|publishers| {
                Some((table.spread(target, &rate_column(publishers))?.median, publishers))
            })
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .with_context(|| format!("{target} was not measured"))
    };
    let [(ours, at), (theirs, other_at)] = [best(TARGETS[0])?, best(TARGETS[1])?];
    let what = format!("publications per second, {}: drumline against nchan", table.name);
    let note = format!(
        "medians of {ours:.0} over {} and {theirs:.0} over {}",
        rate_column(at),
        rate_column(other_at)
    );
    Ok(Row::new(what, ours / theirs, "ratio").at_least(RATIO).note(note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_compared_at_its_best_number_of_connections() {
        let columns = PUBLISHERS.map(|n| Column::new(&rate_column(n), "count", Better::More));
        let mut table = Grid::new("no subscriber", "", columns.to_vec());
        for (name, rates) in [("drumline", [9e3, 30e3, 60e3]), ("nchan", [8e3, 40e3, 20e3])] {
            table.target(name);
            let line = table.line(name).unwrap();
            line.values = rates.map(|rate| vec![Some(rate)]).to_vec();
        }
        let row = best(&table).unwrap();
        assert_eq!(row.measured, 1.5);
        assert_eq!(
            row.note.unwrap(),
            "medians of 60000 over 64 connections and 40000 over 8 connections"
        );
        assert!(row.target.is_some());
        table.lines.pop();
        assert!(best(&table).is_err());
    }
}
