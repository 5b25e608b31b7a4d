//! Drumline and other servers in turn, under the same load from the same client.
//!
//! Owns the flags, the scenarios as data and the order of the turns. Never starts a target by
//! itself: its adapter does. Invariant: every requested target has a line in every table, with
//! values or with the reason for their absence. A failure or a loss of a target is a fault.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::{Bench, Burst, Common, SECOND_NS, all};
use crate::account::KernelSample;
use crate::dense::Channels;
use crate::grid::{Better, Column};
use crate::publish::Api;
use crate::rows::number;
use crate::target::{ALL, Target};
use crate::wire::Data;

mod idle;
mod measure;
mod storm;
mod tables;
mod turn;
mod verdicts;

use tables::Tables;

/// Bytes of data in every message.
pub(super) const BYTES: usize = 128;
/// Time per delivery in the schedule of fan-outs, in ns: each ends before the next is due.
const ROOM_NS: u64 = 60_000;
/// Members of a room, and publications per second in all rooms together.
const ROOM: u64 = 100;
const ROOMS_PER_SECOND: u64 = 50;
/// Kept-alive connections that publish at a rate.
const PUBLISHERS: u64 = 8;
/// Fan-outs of a turn, one after the other.
pub(super) const FANOUTS: u64 = 8;
/// Publications of a burst.
const BURST: u64 = 100;
/// Keep-alive interval where pings are measured, in seconds.
pub(super) const PING_SECONDS: u64 = 5;
/// Descriptors that a target's process needs in addition to its connections.
const SPARE: u64 = 1_000;

/// Flags of `peers`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Targets, in the order of their turns. Drumline is always included. By default all.
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// Scenarios to run.
    #[arg(long, value_enum, value_delimiter = ',')]
    #[arg(default_values_t = Scenario::value_variants().to_vec())]
    scenarios: Vec<Scenario>,
    /// Number of rounds. In each, every target has a turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Publications per second in the unicast scenario, below the knee of the slowest target.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Directory of the peers that `scripts/peers.sh setup` built. By default `peers` in this
    /// program's build folder.
    #[arg(long)]
    peers: Option<PathBuf>,
}

/// The scenarios, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// All connections idle on one channel: memory, connects per second, and cost of pings.
    Idle,
    /// Repeated publications to all connections.
    Fanout,
    /// A hundred publications at once to all.
    Burst,
    /// Rooms of a hundred at a rate.
    Rooms,
    /// A channel each, at a rate.
    Unicast,
    /// All connections are cut and reconnect at once, without and with missed publications.
    Storm,
}

/// The channels of the connections. Scenarios of the same stage share their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// All to one channel.
    Shared,
    /// The same where the server pings.
    Pinged,
    /// Rooms.
    Rooms,
    /// A channel each.
    Distinct,
    /// All connections on one channel, with recovery after a reconnect.
    Storm,
}

/// Quantities of the tables.
pub(super) const USER: &str = "user memory per connection";
pub(super) const SLOPE: &str = "user memory per connection, slope";
pub(super) const KERNEL: &str = "kernel memory per connection, both ends";
pub(super) const FIXED: &str = "memory without connections";
pub(super) const CONNECTS: &str = "connects per second";
pub(super) const CPU_PINGS: &str = "CPU of pings";
pub(super) const PINGS: &str = "pings per connection";
pub(super) const CPU: &str = "CPU per delivery";
pub(super) const CPU_BOTH: &str = "CPU per publish and delivery";
pub(super) const CPU_UNHEARD: &str = "CPU per publish without subscribers";
pub(super) const CLIENT_CPU: &str = "client's CPU per delivery";
pub(super) const SPEED: &str = "deliveries per second";
pub(super) const BUSY: &str = "processors busy, both ends";
pub(super) const P50: &str = "p50";
pub(super) const P99: &str = "p99";
pub(super) const P999: &str = "p99.9";
pub(super) const LATE: &str = "publishers' lateness, p99";
pub(super) const BACK: &str = "back";
pub(super) const WHOLE: &str = "whole";
pub(super) const LOST: &str = "lost";

impl Scenario {
    pub(super) fn name(self) -> &'static str {
        match self {
            Scenario::Idle => "idle",
            Scenario::Fanout => "fanout",
            Scenario::Burst => "burst",
            Scenario::Rooms => "rooms",
            Scenario::Unicast => "unicast",
            Scenario::Storm => "storm",
        }
    }

    pub(super) fn stages(self) -> &'static [Stage] {
        match self {
            Scenario::Idle => &[Stage::Shared, Stage::Pinged],
            Scenario::Fanout | Scenario::Burst => &[Stage::Shared],
            Scenario::Rooms => &[Stage::Rooms],
            Scenario::Unicast => &[Stage::Distinct],
            Scenario::Storm => &[Stage::Storm],
        }
    }

    /// Whether messages come at a steady rate. Only then is latency meaningful.
    pub(super) fn is_rated(self) -> bool {
        matches!(self, Scenario::Rooms | Scenario::Unicast)
    }

    /// The bursts of the warm-up and of the measurement; `None` if nothing is published.
    pub(super) fn loads(self, api: &Api, plan: &Numbers) -> Option<(Burst, Burst)> {
        let of = |publishers, channels, messages, interval_ns, per_frame| Burst {
            api: api.clone(),
            publishers,
            channels,
            data: Data::Filled(BYTES),
            messages,
            interval_ns,
            per_frame,
        };
        let fanout_ns = plan.connections * ROOM_NS;
        let (warm, measured) = match self {
            Scenario::Idle | Scenario::Storm => return None,
            Scenario::Fanout => {
                (of(1, all(), 2, fanout_ns, 1), of(1, all(), FANOUTS, fanout_ns, 1))
            }
            Scenario::Burst => {
                (of(1, all(), 10, fanout_ns, 10), of(1, all(), BURST, fanout_ns, BURST))
            }
            Scenario::Rooms => {
                let at = |seconds| {
                    let rooms = Stage::Rooms.channels(plan.connections);
                    let interval_ns = SECOND_NS / ROOMS_PER_SECOND;
                    of(PUBLISHERS, rooms, ROOMS_PER_SECOND * seconds, interval_ns, 1)
                };
                (at(1), at(plan.seconds))
            }
            Scenario::Unicast => {
                let at = |seconds| {
                    let interval_ns = SECOND_NS / plan.rate;
                    of(PUBLISHERS, Channels::Distinct, plan.rate * seconds, interval_ns, 1)
                };
                (at(1), at(plan.seconds))
            }
        };
        Some((warm, measured))
    }

    fn load_text(self, plan: &Numbers) -> String {
        let n = number(plan.connections as f64);
        let (rate, seconds) = (number(plan.rate as f64), plan.seconds);
        match self {
            Scenario::Idle => format!(
                "{n} connections subscribed to one channel, nothing sent; slope: growth from a \
                 third of the connections to all of them, which leaves out memory that is \
                 allocated once; {CPU_PINGS}: processor time of the server per ping and answer, \
                 in a separate launch with a ping about every {PING_SECONDS} s: all processor \
                 time of {} s divided by the pings received",
                idle::WINDOW.as_secs()
            ),
            Scenario::Fanout => {
                format!(
                    "one publication of {BYTES} bytes to {n} subscribers, {FANOUTS} times per round"
                )
            }
            Scenario::Burst => {
                format!(
                    "{BURST} publications of {BYTES} bytes at once to {n} subscribers, so the \
                     server is busy from the first to the last: {SPEED} are those at saturation"
                )
            }
            Scenario::Rooms => format!(
                "{n} connections in rooms of {ROOM}, {ROOMS_PER_SECOND} publications per second of \
                 {BYTES} bytes, {seconds} s per round"
            ),
            Scenario::Unicast => format!(
                "{n} connections with a channel each, {rate} publications per second of {BYTES} \
                 bytes, {seconds} s per round"
            ),
            Scenario::Storm => format!(
                "{n} connections of one channel are cut and reconnect at once; {BACK}: time until \
                 all are subscribed again; {WHOLE}: time until all also have the {} publications \
                 of {BYTES} bytes that they missed",
                storm::MISSED
            ),
        }
    }

    fn columns(self) -> Vec<Column> {
        use Better::{Less, More, Neither};
        let list: &[(&str, &str, Better)] = match self {
            Scenario::Idle => &[
                (USER, "bytes", Less),
                (SLOPE, "bytes", Less),
                (KERNEL, "bytes", Less),
                (CONNECTS, "count", More),
                (FIXED, "bytes", Neither),
                (CPU_PINGS, "ns", Less),
                (PINGS, "count", Neither),
            ],
            Scenario::Fanout => {
                &[(CPU, "ns", Less), (CLIENT_CPU, "ns", Neither), (LOST, "count", Neither)]
            }
            Scenario::Burst => &[
                (CPU, "ns", Less),
                (SPEED, "count", More),
                (BUSY, "count", Neither),
                (CLIENT_CPU, "ns", Neither),
                (LOST, "count", Neither),
            ],
            Scenario::Rooms => &[
                (CPU, "ns", Less),
                (P50, "ns", Less),
                (P99, "ns", Less),
                (P999, "ns", Less),
                (LATE, "ns", Neither),
                (LOST, "count", Neither),
            ],
            Scenario::Unicast => &[
                (CPU_BOTH, "ns", Less),
                (CPU_UNHEARD, "ns", Less),
                (P50, "ns", Less),
                (P99, "ns", Less),
                (P999, "ns", Less),
                (LATE, "ns", Neither),
                (LOST, "count", Neither),
            ],
            Scenario::Storm => &[(BACK, "ns", Less), (WHOLE, "ns", Less), (LOST, "count", Neither)],
        };
        list.iter().map(|(name, unit, better)| Column::new(name, unit, *better)).collect()
    }
}

impl Stage {
    const ALL: [Stage; 5] =
        [Stage::Shared, Stage::Pinged, Stage::Rooms, Stage::Distinct, Stage::Storm];

    pub(super) fn channels(self, connections: u64) -> Channels {
        match self {
            Stage::Shared | Stage::Pinged | Stage::Storm => all(),
            Stage::Rooms => Channels::Rooms((connections / ROOM).max(1)),
            Stage::Distinct => Channels::Distinct,
        }
    }
}

/// The numbers of the run.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub(super) connections: u64,
    pub(super) seconds: u64,
    pub(super) rate: u64,
    pub(super) peers: PathBuf,
    /// Sockets on the machine before the run.
    pub(super) sockets: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let targets = chosen(&options.targets)?;
    ensure!(options.rounds > 0 && options.rate > 0, "--rounds and --rate must be 1 or more");
    let title = "Drumline and its peers";
    let mut bench = Bench::new(&options.common, "peers", title, (10_000, 5))?;
    let most = drumline::base::sys::raise_open_files()?.saturating_sub(SPARE);
    ensure!(
        bench.connections <= most,
        "{} connections exceed what a process can hold here ({most}); use fewer or raise \
         RLIMIT_NOFILE",
        bench.connections
    );
    let plan = Numbers {
        connections: bench.connections,
        seconds: bench.seconds,
        rate: options.rate,
        peers: options.peers.clone().map_or_else(beside, Ok)?,
        sockets: KernelSample::now()?.sockets_in_use,
    };
    let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
    bench.parameter("rounds", options.rounds as u64);
    bench.parameter("rate", options.rate);
    bench.parameter("targets", names.join(","));
    for target in &targets {
        bench.note(format!("{}: {}", target.name(), target.about()));
    }
    let mut tables = Tables::new(&options.scenarios, &targets, &plan);
    for round in 0..options.rounds {
        for stage in Stage::ALL {
            turns(&mut bench, &mut tables, (round, stage), &targets, &plan)?;
        }
    }
    tables.sum_up(&mut bench);
    verdicts::add(&mut bench, &tables);
    tables.finish(&mut bench)?;
    bench.finish()
}

/// Every target's turn in a stage.
fn turns(
    bench: &mut Bench,
    tables: &mut Tables,
    (round, stage): (usize, Stage),
    targets: &[Target],
    plan: &Numbers,
) -> Result<()> {
    let scenarios = tables.scenarios(stage);
    if scenarios.is_empty() {
        return Ok(());
    }
    for target in targets {
        let name = target.name();
        if tables.has_failed(name) {
            continue;
        }
        eprintln!("round {}, {stage:?}, {name}", round + 1);
        tables.turn(name, round);
        if let Err(error) = measure::stage(bench, tables, (*target, stage), &scenarios, plan) {
            let told = format!("failed in round {}: {error:#}", round + 1);
            bench.fault(format!("{name} {told}"));
            tables.fail(name, told);
        }
    }
    Ok(())
}

/// The targets by their names, Drumline first and each once; all without names.
fn chosen(names: &[String]) -> Result<Vec<Target>> {
    if names.is_empty() {
        return Ok(ALL.to_vec());
    }
    let mut targets: Vec<Target> = vec![ALL[0]];
    for name in names {
        let target = Target::named(name.trim())?;
        if !targets.iter().any(|one| one.name() == target.name()) {
            targets.push(target);
        }
    }
    Ok(targets)
}

/// `peers` in the build folder that this program lies in.
fn beside() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    match program.ancestors().nth(2) {
        Some(folder) => Ok(folder.join("peers")),
        None => bail!(
            "{} is not in a build folder; give the directory of the peers with --peers",
            program.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_chosen_once_and_drumline_comes_first() {
        let names = |given: &[&str]| -> Vec<&str> {
            let given: Vec<String> = given.iter().map(|name| (*name).to_owned()).collect();
            chosen(&given).unwrap().iter().map(|target| target.name()).collect()
        };
        assert_eq!(names(&["nchan", "drumline", "nchan"]), ["drumline", "nchan"]);
        assert_eq!(names(&[]).len(), ALL.len());
        assert!(chosen(&["nobody".to_owned()]).is_err());
    }

    #[test]
    fn the_text_of_a_scenario_matches_its_load() {
        let peers = PathBuf::from("/nowhere");
        let plan = Numbers { connections: 1_000, seconds: 3, rate: 50, peers, sockets: 0 };
        let of = |scenario: Scenario| scenario.loads(&Api::WebSocket, &plan);
        assert!(of(Scenario::Idle).is_none());
        let (_, burst) = of(Scenario::Burst).unwrap();
        assert_eq!((burst.messages, burst.per_frame), (100, 100));
        let (warm, unicast) = of(Scenario::Unicast).unwrap();
        assert_eq!((warm.messages, unicast.messages, unicast.interval_ns), (50, 150, 20_000_000));
        assert!(Scenario::Rooms.load_text(&plan).contains("1,000 connections in rooms of 100"));
        assert!(of(Scenario::Storm).is_none());
        assert!(Scenario::Storm.load_text(&plan).contains("the 10 publications of 128 bytes"));
        for scenario in Scenario::value_variants() {
            assert!(!scenario.columns().is_empty());
            assert!(scenario.stages().iter().all(|stage| Stage::ALL.contains(stage)));
        }
    }
}
