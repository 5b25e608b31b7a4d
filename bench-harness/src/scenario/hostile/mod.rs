//! Hostile loads: longest pass, ping latency of other clients and memory of the server.
//!
//! Owns the rows of `hostile`. Never runs two loads on one server. Invariant: a server that exits,
//! fails a health or API request or uses more memory than its budgets is a fault.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use self::scene::{FULL, Scene, values};
use self::watch::Seen;
use super::{Bench, Common};
use crate::grid::{Better, Column, Grid};
use crate::latency::{Percentiles, Recorder};
use crate::rows::{Row, value};

mod client;
mod keys;
mod loads;
mod probe;
mod scene;
mod watch;

pub(super) use client::HostileClient;
pub(super) use loads::{filtered, fragment, short_frame};
pub(super) use probe::PingProbes;
pub(super) use watch::{answer, api_request, get, post_with};

/// Sizes: shards, and the bound on a pass in the thread's processor time, in us.
const SIZES: [(u32, f64); 2] = [(2, 5_000.0), (60, 10_000.0)];
/// The bound on the others' ping, in ns.
const PING_P99: f64 = 20e6;
/// With more shards than this each has slots for the load alone, and at least so many.
const SMALL_RINGS: u32 = 8;
const SLOTS_MIN: u64 = 500;
/// Probes for each shard, and the fewest.
const PROBES_PER_SHARD: u64 = 2;
const PROBES_MIN: u64 = 32;
/// Runs of a load under `--strict` while its longest pass exceeds the bound. Work of the kernel for
/// others counts as time of the thread that it interrupts, so one run shows no fault of the server.
const STRICT_RUNS: u32 = 3;
const COLUMNS: [(&str, &str); 9] = [
    ("pass, CPU", "ns"),
    ("pass, wall", "ns"),
    ("ping p50", "ns"),
    ("ping p99", "ns"),
    ("ping max", "ns"),
    ("RssAnon", "bytes"),
    ("of the budgets", "percent"),
    ("health failed", "count"),
    ("health, longest", "ns"),
];

/// Flags of `hostile`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Names of the loads to run, separated by commas. By default all.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<String>,
    /// Exit with status 1 if a pass takes more CPU time than its bound in each of three runs of a
    /// load.
    #[arg(long)]
    strict: bool,
}

impl Options {
    /// The longest pass, in us, if it is a fault: it exceeds the bound, under `--strict`.
    fn exceeding(&self, pass_cpu: Option<f64>, bound: f64) -> Option<f64> {
        pass_cpu.filter(|micros| self.strict && *micros > bound)
    }
}

/// What a load came to.
struct Outcome {
    /// The longest pass, in us of processor time; `None`: this server does not say.
    pass_cpu: Option<f64>,
    /// The longest pass or turn in us of wall time.
    pass_wall: Option<f64>,
    ping: Percentiles,
    recorder: Recorder,
    seen: Seen,
    /// Sum of the budgets of memory; `None`: this server does not say.
    budgets: Option<f64>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let title = "Hostile loads beside clients that ping";
    let mut bench = Bench::new(&options.common, "hostile", title, (FULL, 5))?;
    let columns = || COLUMNS.map(|(name, unit)| Column::new(name, unit, Better::Neither)).to_vec();
    let sizes = match options.common.shards {
        Some(shards) => vec![(shards, if shards > 2 { SIZES[1].1 } else { SIZES[0].1 })],
        None => SIZES.to_vec(),
    };
    let unknown = options.loads.iter().find(|name| loads::ALL.iter().all(|one| one.name != **name));
    if let Some(unknown) = unknown {
        let all: Vec<&str> = loads::ALL.iter().map(|load| load.name).collect();
        anyhow::bail!("no load is called {unknown}: there are {}", all.join(", "));
    }
    let mut grids = Vec::new();
    for (shards, bound) in sizes {
        bench.shards = shards;
        let name = format!("{shards} shards");
        let mut grid = Grid::new(&name, "each load on a server of its own", columns());
        for load in &loads::ALL {
            if !options.loads.is_empty() && !options.loads.iter().any(|name| name == load.name) {
                continue;
            }
            eprintln!("{name}: {}", load.name);
            grid.target(load.name);
            let told = format!("{name}, {}", load.name);
            match repeated(&mut bench, options, load, (bound, &mut grid)) {
                Ok(outcome) => tell(&mut bench, options, &told, outcome, (bound, &mut grid, load)),
                Err(error) => {
                    bench.fault(format!("{told}: {error:#}"));
                    if let Some(line) = grid.line(load.name) {
                        line.remarks.push(format!("failed: {error:#}"));
                    }
                }
            }
        }
        grids.push(grid);
    }
    bench.tables(grids);
    bench.finish()
}

/// The last run of a load: the first one, or under `--strict` the first within the bound on a pass.
fn repeated(
    bench: &mut Bench,
    options: &Options,
    load: &loads::HostileLoad,
    (bound, grid): (f64, &mut Grid),
) -> Result<Outcome> {
    let mut outcome = one(bench, load, grid)?;
    for _ in 1..STRICT_RUNS {
        let Some(micros) = options.exceeding(outcome.pass_cpu, bound) else { break };
        eprintln!("{}: a pass of {micros} us; the load runs again", load.name);
        outcome = one(bench, load, grid)?;
    }
    Ok(outcome)
}

/// One load against a server of its own.
fn one(bench: &mut Bench, load: &loads::HostileLoad, grid: &mut Grid) -> Result<Outcome> {
    let mut arguments = (load.flags)(bench.connections);
    if bench.shards > SMALL_RINGS {
        // Tables for all that a process may hold, of so many rings, are memory that no load needs.
        let slots = SLOTS_MIN + 4 * bench.connections / u64::from(bench.shards);
        arguments.push(format!("--engine.slots_per_shard={slots}"));
    }
    let mut control = None;
    if load.internal {
        let port = bench.free_port()?;
        arguments.push(format!("--http_server.internal_port={port}"));
        control = Some(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let keys = load.keys.then(keys::KeySets::start).transpose()?;
    if let Some(keys) = &keys {
        arguments.push(format!("--client.token.jwks_public_endpoint={}", keys.endpoint()));
    }
    let server = bench.server_with(false, &arguments)?;
    let address = server.address();
    let mut scene = Scene {
        server,
        address,
        control: control.unwrap_or(address),
        connections: bench.connections,
        lasts: Duration::from_secs(bench.seconds.max(load.seconds_min)),
        probes: (PROBES_PER_SHARD * u64::from(bench.shards)).max(PROBES_MIN),
        clock: bench.clock,
        running: None,
        faults: Vec::new(),
        remarks: Vec::new(),
    };
    scene.await_health()?;
    (load.run)(&mut scene, keys.as_ref())?;
    let (probes, watch, _) = scene.running.take().context("the load has not begun")?;
    let (recorder, seen) = (probes.stop()?, watch.stop()?);
    let pass_cpu = scene.metric("drumline_longest_pass_cpu_micros")?;
    let pass_wall = scene.metric("drumline_longest_pass_micros")?;
    let pass_wall = pass_wall.or(scene.metric("drumline_longest_turn_micros")?);
    let text = watch::get(scene.control, "/metrics")?;
    let budgets: Vec<f64> = values(&text, "drumline_memory_budget_bytes").collect();
    let budgets = (!budgets.is_empty()).then(|| budgets.iter().sum());
    for fault in scene.faults {
        bench.fault(format!("{} shards, {}: {fault}", bench.shards, load.name));
    }
    if let Some(line) = grid.line(load.name) {
        line.remarks.extend(scene.remarks);
    }
    scene.server.stop()?;
    Ok(Outcome { pass_cpu, pass_wall, ping: recorder.percentiles()?, recorder, seen, budgets })
}

/// Adds the rows and the line of a load.
fn tell(
    bench: &mut Bench,
    options: &Options,
    told: &str,
    outcome: Outcome,
    (bound, grid, load): (f64, &mut Grid, &loads::HostileLoad),
) {
    let Outcome { pass_cpu, pass_wall, ping, recorder, seen, budgets } = outcome;
    let rss = seen.rss_anon as f64;
    if let Some(micros) = pass_cpu {
        let row = Row::new(format!("{told}: longest pass, CPU time"), micros * 1e3, "ns");
        bench.row(row.at_most(bound * 1e3));
    }
    if let Some(micros) = options.exceeding(pass_cpu, bound) {
        bench.fault(format!("{told}: a pass of {micros} us of processor time"));
    }
    let row = Row::new(format!("{told}: ping p99 of other clients"), ping.p99 as f64, "ns");
    bench.row(row.at_most(PING_P99));
    if let Some(budgets) = budgets {
        let row = Row::new(format!("{told}: RssAnon, against all budgets"), rss, "bytes");
        bench.row(row.at_most(budgets));
        if rss > budgets {
            let (rss, budgets) = (value(rss, "bytes"), value(budgets, "bytes"));
            bench.fault(format!("{told}: RssAnon {rss} of budgets of {budgets}"));
        }
    }
    if seen.failed > 0 {
        let Seen { failed, asked, cause, .. } = &seen;
        let cause = cause.as_deref().unwrap_or_default();
        bench.fault(format!("{told}: {failed} of {asked} health and API requests failed: {cause}"));
    }
    let micros = |value: Option<f64>| value.map(|micros| micros * 1e3);
    let cells = [
        micros(pass_cpu),
        micros(pass_wall),
        Some(ping.p50 as f64),
        Some(ping.p99 as f64),
        Some(ping.max as f64),
        Some(rss),
        budgets.map(|budgets| 100.0 * rss / budgets),
        Some(seen.failed as f64),
        Some(seen.longest.as_nanos() as f64),
    ];
    if let Some(line) = grid.line(load.name) {
        line.values.iter_mut().zip(cells).for_each(|(values, cell)| values.push(cell));
    }
    bench.series(told, recorder);
}
