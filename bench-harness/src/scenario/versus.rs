//! Two builds of the server in turn: tests whether the newer one is slower or larger.
//!
//! Owns the rows of `versus` and the rule that ends the pairs. Never runs both builds at the same
//! time. Invariant: a higher value of every quantity is worse, and one client measures both builds
//! of a pair under the same load.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::pairs::{INTERVAL_MAX, PAIRS_MIN, interval, unicast};
use super::{Bench, Burst, Common, all};
use crate::account::per_connection;
use crate::dense::{Channels, Mode};
use crate::grid::{Better, Column, Grid, Spread};
use crate::publish::{Api, Post};
use crate::rows::Row;
use crate::server::{API_KEY, Server};
use crate::wire::Data;

/// Names of the two builds in the table; the newer one first.
const BUILDS: [&str; 2] = ["new", "before"];
/// The newer build is not slower if the interval of its ratio begins at or below this.
const LOWER_END_MAX: f64 = 1.02;
/// Bytes of data in a publication.
const BYTES: usize = 128;
/// Publications of a fan-out, and the time for each delivery in the schedule, in ns.
const FANOUTS: u64 = 4;
const ROOM_NS: u64 = 30_000;
/// Kept-alive connections that carry publications to one subscriber each.
const UNICAST_PUBLISHERS: u64 = 8;
/// Publications that nobody receives, and the kept-alive connections that carry them.
const UNHEARD: u64 = 40_000;
const UNHEARD_PUBLISHERS: u64 = 64;

/// Measured quantities of a build, with their units.
const QUANTITIES: [(&str, &str); 7] = [
    ("CPU per connect and subscribe", "ns"),
    ("user memory per connection, shared channel", "bytes"),
    ("CPU per delivery, fan-out", "ns"),
    ("user memory per connection, a channel each", "bytes"),
    ("CPU per publish and delivery, 1:1 by HTTP", "ns"),
    ("p50, 1:1 by HTTP", "ns"),
    ("CPU per HTTP publish, no subscriber", "ns"),
];

/// Flags of `versus`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// The program of the older build. The program of the newer one is --server.
    #[arg(long)]
    before: PathBuf,
    /// Highest median of a ratio.
    #[arg(long, default_value_t = 1.05)]
    median_max: f64,
    /// Maximum number of pairs.
    #[arg(long, default_value_t = 40)]
    pairs: usize,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.pairs >= PAIRS_MIN, "--pairs must be {PAIRS_MIN} or more");
    let title = "Two builds of the server in turn";
    let mut bench = Bench::new(&options.common, "versus", title, (15_000, 3))?;
    let builds = [Build::new(&options.common.server)?, Build::new(&options.before)?];
    for (name, build) in BUILDS.into_iter().zip(&builds) {
        bench.parameter(name, build.version.as_str());
    }
    let mut table = table(&bench);
    for pair in 1..=options.pairs {
        // Each build comes first in every other pair.
        for nth in if pair % 2 == 0 { [0, 1] } else { [1, 0] } {
            eprintln!("pair {pair}, {}", BUILDS[nth]);
            let values = measure(&mut bench, &builds[nth])?;
            note(&mut table, BUILDS[nth], values)?;
        }
        if pair >= PAIRS_MIN && widest(&table)? < INTERVAL_MAX {
            break;
        }
    }
    for (what, _) in QUANTITIES {
        verdict(&mut bench, &table, what, options.median_max)?;
    }
    bench.tables(vec![table]);
    bench.finish()
}

/// A build of the server.
struct Build {
    program: PathBuf,
    version: String,
}

impl Build {
    /// Asks the program for its version.
    fn new(program: &Path) -> Result<Self> {
        let told = || format!("cannot run {}: build it, or name another", program.display());
        let output = Command::new(program).arg("--version").output().with_context(told)?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Build { program: program.to_owned(), version })
    }

    fn start(&self, bench: &mut Bench) -> Result<Server> {
        bench.common.server.clone_from(&self.program);
        bench.server(false)
    }
}

/// All quantities of one build, in the order of [`QUANTITIES`].
fn measure(bench: &mut Bench, build: &Build) -> Result<[f64; 7]> {
    let [connect, shared, delivery] = share_a_channel(bench, build)?;
    let [distinct, unicast, p50, publish] = have_a_channel_each(bench, build)?;
    Ok([connect, shared, delivery, distinct, unicast, p50, publish])
}

/// CPU per connect, memory per connection and CPU per delivery of a fan-out.
fn share_a_channel(bench: &mut Bench, build: &Build) -> Result<[f64; 3]> {
    let server = build.start(bench)?;
    let empty = server.sample()?;
    let port = server.address().port();
    let (dense, ramp) = bench.connect(bench.connections, port, Mode::Subscribe(all()))?;
    let full = server.sample()?.since(&empty)?;
    let (connect, bytes) = (full.cpu_ns_per(ramp.up)?, per_connection(full.rss_anon, ramp.up)?);
    let fan_out = |count| Burst::to_all(count, Data::Filled(BYTES), ramp.up * ROOM_NS);
    // The first sends grow the sockets' buffers.
    bench.deliver(&server, &dense, fan_out(1))?;
    let before = server.sample()?;
    let delivered = bench.deliver(&server, &dense, fan_out(FANOUTS))?;
    bench.account("fan-out", &delivered.recorder);
    let deliveries = delivered.recorder.deliveries.delivered;
    let delivery = server.sample()?.since(&before)?.cpu_ns_per(deliveries)?;
    bench.check_standing(&dense, "during the fan-outs");
    server.stop()?;
    dense.stop()?;
    Ok([connect, bytes, delivery])
}

/// Memory per connection, CPU and median latency of publications to one subscriber each, and CPU
/// of publications without subscribers.
fn have_a_channel_each(bench: &mut Bench, build: &Build) -> Result<[f64; 4]> {
    let server = build.start(bench)?;
    let empty = server.sample()?;
    let port = server.address().port();
    let mode = Mode::Subscribe(Channels::Distinct);
    let (dense, ramp) = bench.connect(bench.connections, port, mode)?;
    let bytes = per_connection(server.sample()?.since(&empty)?.rss_anon, ramp.up)?;
    bench.deliver(&server, &dense, unicast(1, UNICAST_PUBLISHERS, Channels::Distinct))?;
    let burst = unicast(bench.seconds, UNICAST_PUBLISHERS, Channels::Distinct);
    let before = server.sample()?;
    let delivered = bench.deliver(&server, &dense, burst)?;
    bench.account("1:1", &delivered.recorder);
    let deliveries = delivered.recorder.deliveries.delivered;
    let cost = server.sample()?.since(&before)?.cpu_ns_per(deliveries)?;
    let p50 = delivered.recorder.percentiles()?.p50 as f64;
    let before = server.sample()?;
    bench.publish_unheard(server.address(), unheard())?;
    let publish = server.sample()?.since(&before)?.cpu_ns_per(UNHEARD)?;
    bench.check_standing(&dense, "during the publications");
    server.stop()?;
    dense.stop()?;
    Ok([bytes, cost, p50, publish])
}

fn unheard() -> Burst {
    Burst {
        api: Api::Http(Post::drumline(API_KEY)),
        publishers: UNHEARD_PUBLISHERS,
        channels: Channels::Shared("nobodys".to_owned()),
        data: Data::Filled(BYTES),
        messages: UNHEARD,
        // All are due at once, so each goes when the one before it is answered.
        interval_ns: 0,
        per_frame: 1,
    }
}

fn table(bench: &Bench) -> Grid {
    let column = |(name, unit)| Column::new(name, unit, Better::Less);
    let load = format!("{} connections, both builds in turn in every pair", bench.connections);
    let mut table = Grid::new("builds", &load, QUANTITIES.into_iter().map(column).collect());
    BUILDS.into_iter().for_each(|name| table.target(name));
    table
}

fn note(table: &mut Grid, build: &str, values: [f64; 7]) -> Result<()> {
    let line = table.line(build).with_context(|| format!("the table has no {build}"))?;
    for (column, value) in line.values.iter_mut().zip(values) {
        column.push(Some(value));
    }
    Ok(())
}

/// The ratios of the newer build to the older one in a quantity.
fn ratios(table: &Grid, what: &str) -> Vec<f64> {
    table.ratios(BUILDS[0], BUILDS[1], what)
}

/// The widest interval of all quantities.
fn widest(table: &Grid) -> Result<f64> {
    let mut widest: f64 = 0.0;
    for (what, _) in QUANTITIES {
        let (low, high) = interval(ratios(table, what))?;
        widest = widest.max(high - low);
    }
    Ok(widest)
}

/// Adds the rows of one quantity: the median ratio and the lower end of its interval.
fn verdict(bench: &mut Bench, table: &Grid, what: &str, median_max: f64) -> Result<()> {
    let ratios = ratios(table, what);
    let told = || format!("{what}: no pairs");
    let median = Spread::of(ratios.iter().copied()).with_context(told)?.median;
    let (low, high) = interval(ratios.clone())?;
    let spread = format!("{} pairs, 95% interval {low:.3} to {high:.3}", ratios.len());
    let row = Row::new(format!("{what}: median ratio"), median, "ratio");
    bench.row(row.at_most(median_max).note(spread));
    let row = Row::new(format!("{what}: lower end of the interval"), low, "ratio");
    bench.row(row.at_most(LOWER_END_MAX));
    Ok(())
}
