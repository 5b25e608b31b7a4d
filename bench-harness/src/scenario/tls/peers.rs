//! Drumline and other servers with TLS in turn, under the same load from the same client.
//!
//! Owns the rows of `peers-tls`. Never starts a target by itself: its adapter does. Invariant: all
//! targets have the same certificate, and clients offer TLS 1.3 with AES-128-GCM and X25519 alone.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::account::per_connection;
use crate::dense::{Dense, Mode, Plan, Ramp};
use crate::grid::{Better, Column, Grid, Spread};
use crate::rows::Row;
use crate::scenario::peers::beside;
use crate::scenario::{Bench, Burst, Common, all};
use crate::target::{Adapter, Peer, Target, TargetOptions, TlsFiles};
use crate::tls::{Client, Identity};
use crate::wire::Data;

/// Names of the targets, Drumline first.
const TARGETS: [&str; 4] = [DRUMLINE, NCHAN, CENTRIFUGO, "uwebsockets"];
const DRUMLINE: &str = "drumline";
const NCHAN: &str = "nchan";
const CENTRIFUGO: &str = "centrifugo";
/// Bytes of data in a publication.
const BYTES: usize = 128;
/// Publications of a measurement, one at a time, and the time for each delivery in the schedule.
const PUBLICATIONS: u64 = 10;
const ROOM_NS: u64 = 60_000;
/// Time after which the work of the last connection is done.
const SETTLE: Duration = Duration::from_secs(1);
/// Time without a delivery after which the missing deliveries count as lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Highest ratios of Drumline's numbers to those of peers.
const MEMORY_RATIO: f64 = 0.02;
const DELIVERY_RATIO: f64 = 0.6;
const HANDSHAKE_RATIO: f64 = 0.5;

/// Flags of `peers-tls`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Targets beside Drumline. By default all.
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// Number of rounds. In each, every target has a turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Directory of the peers that `scripts/peers.sh setup` built. By default `peers` in this
    /// program's build folder.
    #[arg(long)]
    peers: Option<PathBuf>,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    /// User memory per subscribed connection, in bytes.
    memory: f64,
    /// Server CPU per delivery, in ns.
    delivery: f64,
    /// Server CPU per full handshake, in ns.
    handshake: f64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds must be 1 or more");
    let title = "Drumline and its peers with TLS";
    let mut bench = Bench::new(&options.common, "peers-tls", title, (10_000, 1))?;
    let identity = Identity::new()?;
    let client = Client::new(identity.certificate())?;
    let peers = std::path::absolute(options.peers.clone().map_or_else(beside, Ok)?)?;
    let chosen = |name: &&str| {
        *name == DRUMLINE || options.targets.is_empty() || options.targets.iter().any(|t| t == name)
    };
    let names: Vec<&str> = TARGETS.into_iter().filter(chosen).collect();
    bench.parameter("rounds", options.rounds as u64);
    bench.parameter("targets", names.join(","));
    let mut turns: Vec<(&str, Vec<Measured>)> = names.iter().map(|n| (*n, Vec::new())).collect();
    let mut remarks = Vec::new();
    for round in 1..=options.rounds {
        for (name, values) in &mut turns {
            eprintln!("round {round}, {name}");
            let Target::Server(adapter) = Target::named(name)? else { bail!("{name}: no server") };
            match turn(&mut bench, adapter, (&identity, &client), &peers) {
                Ok(measured) => values.push(measured),
                Err(error) => {
                    let told = format!("failed in round {round}: {error:#}");
                    bench.fault(format!("{name} {told}"));
                    remarks.push((*name, told));
                }
            }
        }
    }
    bench.tables(vec![table(&turns, remarks)]);
    rows(&turns).into_iter().for_each(|row| bench.row(row));
    bench.finish()
}

/// One target: subscribers and their memory, a fan-out, then handshakes alone.
fn turn(
    bench: &mut Bench,
    adapter: &'static dyn Adapter,
    (identity, client): (&Identity, &Client),
    peers: &std::path::Path,
) -> Result<Measured> {
    let options = bench.target_options()?;
    let (certificate, key) = (identity.certificate_file(), identity.key_file());
    let options = TargetOptions {
        peers: peers.to_owned(),
        publish_port: bench.free_port()?,
        tls: Some(TlsFiles { certificate, key }),
        ..options
    };
    let mut peer = Peer::start(adapter, options)?;
    let measured = measure(bench, &mut peer, client);
    let measured = measured.map_err(|error| peer.cause(error));
    let stopped = peer.stop();
    let measured = measured?;
    stopped?;
    Ok(measured)
}

fn measure(bench: &mut Bench, peer: &mut Peer, client: &Client) -> Result<Measured> {
    let empty = peer.sample()?;
    let (dense, ramp) = connect(bench, peer, client, Mode::Subscribe(all()))?;
    std::thread::sleep(SETTLE);
    let no_pss = "/proc/PID/smaps_rollup may not be read: run as root";
    let memory = peer.sample()?.since(&empty)?.pss.context(no_pss)?;
    let memory = per_connection(memory, ramp.up)?;
    let burst = |messages| Burst {
        api: peer.adapter().api(),
        ..Burst::to_all(messages, Data::Filled(BYTES), ramp.up * ROOM_NS)
    };
    let (warm, measured) = (burst(1), burst(PUBLICATIONS));
    bench.deliver_to(peer.publish_address(), &dense, warm, PATIENCE)?;
    let before = peer.sample()?;
    let delivered = bench.deliver_to(peer.publish_address(), &dense, measured, PATIENCE)?;
    let count = delivered.recorder.deliveries.delivered;
    let delivery = peer.sample()?.since(&before)?.cpu_ns_per(count)?;
    bench.account(peer.adapter().name(), &delivered.recorder);
    dense.stop()?;
    std::thread::sleep(SETTLE);
    let before = peer.sample()?;
    let (dense, ramp) = connect(bench, peer, client, Mode::Handshake)?;
    std::thread::sleep(SETTLE / 4);
    let handshake = peer.sample()?.since(&before)?.cpu_ns_per(ramp.up)?;
    dense.stop()?;
    Ok(Measured { memory, delivery, handshake })
}

fn connect(bench: &Bench, peer: &Peer, client: &Client, mode: Mode) -> Result<(Dense, Ramp)> {
    let plan = Plan {
        connections: bench.connections,
        port: peer.port(),
        one_address: true,
        dialect: peer.adapter().dialect(),
        in_flight: bench.common.in_flight,
        mode,
        tls: Some(client.clone()),
        quiet: false,
    };
    let dense = Dense::start(plan, bench.clock)?;
    let ramp = dense.ramp()?;
    let (causes, lost) = (dense.counters().causes(), dense.counters().lost());
    ensure!(ramp.refused == 0, "{} connections never came up: {causes:?}", ramp.refused);
    ensure!(lost == 0, "{lost} connections lost while connecting");
    Ok((dense, ramp))
}

fn quantities(measured: &Measured) -> [f64; 3] {
    [measured.memory, measured.delivery, measured.handshake]
}

const COLUMNS: [(&str, &str); 3] = [
    ("user memory per TLS connection", "bytes"),
    ("CPU per delivery", "ns"),
    ("CPU per full handshake", "ns"),
];

fn table(turns: &[(&str, Vec<Measured>)], remarks: Vec<(&str, String)>) -> Grid {
    let columns = COLUMNS.map(|(name, unit)| Column::new(name, unit, Better::Less)).to_vec();
    let about = "TLS 1.3, AES-128-GCM, X25519, P-256; all on one channel";
    let mut grid = Grid::new("TLS", about, columns);
    for (name, values) in turns {
        grid.target(name);
        let Some(line) = grid.line(name) else { continue };
        for measured in values {
            let cells = quantities(measured);
            line.values.iter_mut().zip(cells).for_each(|(all, cell)| all.push(Some(cell)));
        }
    }
    for (name, remark) in remarks {
        if let Some(line) = grid.line(name) {
            line.remarks.push(remark);
        }
    }
    grid
}

/// The median of each quantity of a target; `None`: it has none.
fn medians(turns: &[(&str, Vec<Measured>)], name: &str) -> Option<[f64; 3]> {
    let (_, values) = turns.iter().find(|(one, _)| *one == name)?;
    let of =
        |nth: usize| Spread::of(values.iter().map(|one| quantities(one)[nth])).map(|s| s.median);
    Some([of(0)?, of(1)?, of(2)?])
}

fn rows(turns: &[(&str, Vec<Measured>)]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, _) in turns {
        let Some(values) = medians(turns, name) else { continue };
        for ((what, unit), value) in COLUMNS.into_iter().zip(values) {
            rows.push(Row::new(format!("{name}: {what}"), value, unit));
        }
    }
    // Its failure is a fault of the run already.
    let Some(ours) = medians(turns, DRUMLINE) else { return rows };
    let peer = |name| medians(turns, name);
    let others = || turns.iter().map(|(name, _)| *name).filter(|name| *name != DRUMLINE);
    let least = |names: &mut dyn Iterator<Item = &str>, nth: usize| {
        names.filter_map(|name| Some(medians(turns, name)?[nth])).min_by(f64::total_cmp)
    };
    let mut against = |nth: usize, whom: &str, theirs: Option<f64>, limit: f64| {
        let Some(theirs) = theirs else { return };
        let what = format!("{}, Drumline against {whom}", COLUMNS[nth].0);
        rows.push(Row::new(what, ours[nth] / theirs, "ratio").at_most(limit));
    };
    against(0, "the leanest peer", least(&mut others(), 0), MEMORY_RATIO);
    against(1, NCHAN, peer(NCHAN).map(|values| values[1]), DELIVERY_RATIO);
    let better = least(&mut [NCHAN, CENTRIFUGO].into_iter(), 2);
    against(2, "the better of nchan and Centrifugo", better, HANDSHAKE_RATIO);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    fn turns(ours: Measured) -> Vec<(&'static str, Vec<Measured>)> {
        let of = |memory, delivery, handshake| Measured { memory, delivery, handshake };
        vec![
            (DRUMLINE, vec![ours; 3]),
            (NCHAN, vec![of(40_000.0, 18e3, 400e3); 3]),
            (CENTRIFUGO, vec![of(45_000.0, 23e3, 350e3); 3]),
            ("uwebsockets", vec![of(30_000.0, 15e3, 200e3); 3]),
        ]
    }

    #[test]
    fn each_quantity_is_compared_with_the_right_peer() {
        let good = Measured { memory: 600.0, delivery: 10.8e3, handshake: 175e3 };
        assert!(missed(&rows(&turns(good))).is_empty());
        for (doctored, what) in [
            (
                Measured { memory: 601.0, ..good },
                "user memory per TLS connection, Drumline against the leanest peer",
            ),
            (Measured { delivery: 10.9e3, ..good }, "CPU per delivery, Drumline against nchan"),
            (
                Measured { handshake: 176e3, ..good },
                "CPU per full handshake, Drumline against the better of nchan and Centrifugo",
            ),
        ] {
            assert_eq!(missed(&rows(&turns(doctored))), [what]);
        }
    }

    #[test]
    fn a_peer_without_values_has_no_part_in_a_comparison() {
        let mut turns = turns(Measured { memory: 700.0, delivery: 9e3, handshake: 1e5 });
        turns[3].1.clear();
        assert!(missed(&rows(&turns)).is_empty());
        turns[0].1.clear();
        let without = rows(&turns);
        assert!(without.iter().all(|row| row.target.is_none()) && without.len() == 6);
    }
}
