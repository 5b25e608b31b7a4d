//! What idle shards cost: a server with many shards against one with few, in turn.
//!
//! Owns the rows of `idle-shards`. Never runs both servers at the same time. Invariant: both carry
//! the same connections and loads in every pair; the load of one channel keeps at most two shards
//! busy, that of the channel and that of its subscriber.

use anyhow::{Context, Result, ensure};

use super::pairs::{INTERVAL_MAX, PAIRS_MIN, interval, unicast};
use super::{Bench, Common, all};
use crate::account::ProcessSample;
use crate::dense::{Channels, Dense, Mode};
use crate::grid::{Better, Column, Grid, Spread};
use crate::rows::Row;
use crate::server::Server;

/// Targets: CPU for an idle shard in a pass in ns, and the ratio of CPU per publication.
const IDLE_NS: f64 = 200.0;
const RATIO: f64 = 1.10;

/// Kept-alive connections that publish: enough that each worker has about half of them.
const PUBLISHERS: u64 = 64;
/// Measured quantities of a server, with their units.
const QUANTITIES: [(&str, &str); 4] = [
    ("CPU per publish and delivery, 1:1 by HTTP", "ns"),
    ("workers' CPU per publication to one busy channel", "ns"),
    ("looks of the workers per publication to one busy channel", "count"),
    ("calls of io_uring_enter per publish and delivery, 1:1 by HTTP", "count"),
];
/// Counters of the server that make up the looks: a worker looks at its shards in each pass, and
/// once more before it sleeps.
const LOOKS: [&str; 2] = ["drumline_passes_total", "drumline_sleeps_total"];
const ENTERS: &str = "drumline_enters_total";

/// Flags of `idle-shards`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Shards of the server without idle shards, one for each worker.
    #[arg(long, default_value_t = 2)]
    few: u32,
    /// Shards of the other server.
    #[arg(long, default_value_t = 60)]
    many: u32,
    /// Maximum number of pairs.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.pairs >= PAIRS_MIN, "--pairs must be {PAIRS_MIN} or more");
    ensure!(options.few >= 1 && options.many > options.few, "--many must be above --few");
    let title = "Many shards against few: what idle shards cost";
    let mut bench = Bench::new(&options.common, "idle-shards", title, (15_000, 3))?;
    let names = [options.few, options.many].map(|shards| format!("{shards} shards"));
    let mut table = table(&bench, &names);
    for pair in 1..=options.pairs {
        // Each comes first in every other pair.
        for nth in if pair % 2 == 0 { [0, 1] } else { [1, 0] } {
            eprintln!("pair {pair}, {}", names[nth]);
            bench.shards = [options.few, options.many][nth];
            let values = measure(&mut bench)?;
            let line = table.line(&names[nth]).context("the table lacks a server")?;
            line.values.iter_mut().zip(values).for_each(|(all, one)| all.push(Some(one)));
        }
        let (low, high) = match pair {
            PAIRS_MIN.. => interval(ratios(&table, &names))?,
            _ => continue,
        };
        if high - low < INTERVAL_MAX {
            break;
        }
    }
    report(&mut bench, &table, &names, options)?;
    bench.tables(vec![table]);
    bench.finish()
}

/// All quantities of one server, in the order of [`QUANTITIES`].
fn measure(bench: &mut Bench) -> Result<[f64; 4]> {
    let server = bench.server(false)?;
    let port = server.address().port();
    let mode = Mode::Subscribe(Channels::Distinct);
    let (dense, _) = bench.connect(bench.connections, port, mode)?;
    let (one, _) = bench.connect(1, port, Mode::Subscribe(all()))?;
    let each = Load { name: "1:1", dense: &dense, channels: Channels::Distinct };
    let busy = Load { name: "one busy channel", dense: &one, channels: all() };
    let [_, cost, _, enters] = each.measure(bench, &server)?;
    let [workers, _, looks, _] = busy.measure(bench, &server)?;
    bench.check_standing(&dense, "during the publications");
    server.stop()?;
    dense.stop()?;
    one.stop()?;
    Ok([cost, workers, looks, enters])
}

/// Publications to the subscribers of a client.
struct Load<'a> {
    name: &'static str,
    dense: &'a Dense,
    channels: Channels,
}

impl Load<'_> {
    /// Per publication: CPU of the workers, CPU of the server, looks and calls of io_uring_enter.
    fn measure(&self, bench: &mut Bench, server: &Server) -> Result<[f64; 4]> {
        bench.deliver(server, self.dense, unicast(1, PUBLISHERS, self.channels.clone()))?;
        let workers = || ProcessSample::of_threads(server.pid(), "worker-");
        let (counted, spent, before) = (server.totals()?, workers()?, server.sample()?);
        let burst = unicast(bench.seconds, PUBLISHERS, self.channels.clone());
        let delivered = bench.deliver(server, self.dense, burst)?;
        let cost = server.sample()?.since(&before)?;
        let (spent, totals) = (workers()? - spent, server.totals()?);
        bench.account(self.name, &delivered.recorder);
        let count = delivered.recorder.deliveries.delivered.max(1);
        let grown = |name: &str| -> Result<f64> {
            let told = || format!("the server has no counter {name}: use a newer build");
            let [now, then] = [&totals, &counted].map(|all| all.get(name).copied());
            Ok(now.with_context(told)? - then.unwrap_or_default())
        };
        let looks = LOOKS.into_iter().map(grown).sum::<Result<f64>>()?;
        let each = |value: f64| value / count as f64;
        Ok([each(spent as f64), cost.cpu_ns_per(count)?, each(looks), each(grown(ENTERS)?)])
    }
}

fn table(bench: &Bench, names: &[String; 2]) -> Grid {
    let column = |(name, unit)| Column::new(name, unit, Better::Less);
    let load = format!("{} connections, both servers in turn in every pair", bench.connections);
    let mut table = Grid::new("shards", &load, QUANTITIES.into_iter().map(column).collect());
    names.iter().for_each(|name| table.target(name));
    table
}

/// The ratios of CPU per publication, many shards to few.
fn ratios(table: &Grid, names: &[String; 2]) -> Vec<f64> {
    table.ratios(&names[1], &names[0], QUANTITIES[0].0)
}

fn report(bench: &mut Bench, table: &Grid, names: &[String; 2], options: &Options) -> Result<()> {
    let ratios = ratios(table, names);
    let median = Spread::of(ratios.iter().copied()).context("no pairs")?.median;
    let (low, high) = interval(ratios.clone())?;
    let spread = format!("{} pairs, 95% interval {low:.3} to {high:.3}", ratios.len());
    let what = format!("CPU per 1:1 publication, {} against {}", names[1], names[0]);
    bench.row(Row::new(what, median, "ratio").at_most(RATIO).note(spread));
    let costs = idle_costs(table, names, options)?;
    let median = Spread::of(costs.iter().copied()).context("no pairs")?.median;
    let (low, high) = interval(costs)?;
    let note = format!(
        "what the workers' CPU per publication to one channel is more with {}, by idle shard and \
         look; 95% interval {low:.0} to {high:.0} ns",
        names[1]
    );
    bench.row(Row::new("CPU of an idle shard in a pass", median, "ns").at_most(IDLE_NS).note(note));
    Ok(())
}

/// By pair: the difference of the workers' CPU, for each look at each shard that one server has
/// more.
fn idle_costs(table: &Grid, names: &[String; 2], options: &Options) -> Result<Vec<f64>> {
    let workers = drumline::base::sys::processors() as f64;
    let more = f64::from(options.many - options.few) / workers;
    let of = |name: &str, column: usize| -> Result<Vec<f64>> {
        let values = table.lines.iter().find(|line| line.target == name);
        let values = values.and_then(|line| line.values.get(column)).context("no values")?;
        Ok(values.iter().flatten().copied().collect())
    };
    let (few, many, looks) = (of(&names[0], 1)?, of(&names[1], 1)?, of(&names[1], 2)?);
    let pairs = few.iter().zip(&many).zip(&looks);
    Ok(pairs.map(|((few, many), looks)| (many - few) / looks / more).collect())
}
