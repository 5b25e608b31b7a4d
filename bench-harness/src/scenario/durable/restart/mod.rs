//! Restarts of a server with millions of stored publications, after a clean stop and after a kill.
//!
//! Owns the rows of `durable-restart`. Never measures with a warm page cache. Invariant: a restart
//! counts until a client has read a history that holds publications, and until a durable
//! publication is acknowledged; then the histories are compared with what was acknowledged before.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::channels::channel;
use self::fill::fill;
use self::visitors::{VISITORS, Visitors};
use super::folder::{Folder, files};
use super::ledger::Findings;
use super::node::{StoreFlags, spawn};
use super::stream::{read, read_first};
use super::talk::{Interface, Talk};
use crate::grid::{Better, Column, Grid};
use crate::namespace;
use crate::rows::{Row, number};
use crate::scenario::Bench;
use crate::scenario::hostile::post_with;
use crate::server::{API_KEY, Server, ServerOptions};

mod channels;
mod fill;
mod visitors;

/// Longest time from exec to the first history and to the first acknowledgement, in ns.
const RESTART: f64 = 3e9;
/// From one attempt to reach a starting server to the next.
const STEP: Duration = Duration::from_millis(1);
/// Maximum time of a start.
const PATIENCE: Duration = Duration::from_secs(120);
/// Histories that are compared after a restart.
const COMPARED: usize = 1_000;
/// File that says what the folder holds.
const FILLED: &str = "filled";

/// How the server ends before a restart.
const ENDS: [(&str, bool); 2] = [("after a clean stop", false), ("after kill -9", true)];
const HISTORY: &str = "first history read";
const ACKNOWLEDGED: &str = "first durable acknowledgement";
const COLUMNS: [(&str, &str); 5] = [
    ("listens", "ns"),
    (HISTORY, "ns"),
    (ACKNOWLEDGED, "ns"),
    ("end of the process before", "ns"),
    ("RssAnon after the restart", "bytes"),
];

/// Flags of `durable-restart`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    store: StoreFlags,
    /// Stored publications.
    #[arg(long, default_value_t = 10_000_000)]
    publications: u64,
    /// Channels, each with the same number of publications.
    #[arg(long, default_value_t = 100_000)]
    channels: u64,
    /// Number of rounds. In each, the server is stopped once and killed once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Use this folder and keep it. A folder that an earlier run filled is not filled again.
    #[arg(long)]
    keep_folder: Option<PathBuf>,
}

/// The run between two restarts.
struct Scene {
    folder: Folder,
    options: ServerOptions,
    channels: u64,
    kept: u32,
    lasts: Duration,
    visitors: Option<Visitors>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let Options { publications, channels, rounds, .. } = *options;
    ensure!(rounds > 0, "--rounds must be 1 or more");
    ensure!(channels > 0, "--channels must be 1 or more");
    let kept = publications / channels;
    ensure!(
        kept > 0 && kept * channels == publications,
        "--publications must be a multiple of --channels"
    );
    let title = "Restarts with millions of stored publications";
    let mut bench = Bench::new(&options.store.common, "durable-restart", title, (1, 3))?;
    bench.parameter("publications", publications);
    bench.parameter("channels", channels);
    bench.parameter("rounds", rounds as u64);
    bench.parameter("in_memory", options.store.in_memory);
    bench.note(namespace::enter_if_permitted());
    let folder = match &options.keep_folder {
        Some(path) => Folder::kept(path)?,
        None => options.store.folder()?,
    };
    let arguments = options.store.arguments(&folder.sub("store")?, kept);
    let mut scene = Scene {
        options: bench.server_options(None, false, &arguments)?,
        folder,
        channels,
        kept: u32::try_from(kept).context("too many publications per channel")?,
        lasts: Duration::from_secs(bench.seconds),
        visitors: Some(Visitors::new(channels, kept)),
    };
    scene.fill(&mut bench)?;
    let mut table = empty(&scene, publications);
    for round in 1..=rounds {
        for (name, kill) in ENDS {
            eprintln!("round {round} of {rounds}, {name}");
            let values = scene.restart(&mut bench, kill)?;
            let line = table.line(name).with_context(|| format!("no line {name}"))?;
            line.values.iter_mut().zip(values).for_each(|(all, value)| all.push(Some(value)));
        }
    }
    scene.finish(&mut bench, table)?;
    bench.finish()
}

fn empty(scene: &Scene, publications: u64) -> Grid {
    let columns = COLUMNS.map(|(name, unit)| Column::new(name, unit, Better::Neither));
    let load = format!(
        "{} stored publications in {} channels; before each end {VISITORS} publishers publish to \
         random channels for {} s; the page cache is dropped; time from exec",
        number(publications as f64),
        number(scene.channels as f64),
        scene.lasts.as_secs()
    );
    let mut table = Grid::new("durable-restart", &load, columns.to_vec());
    ENDS.iter().for_each(|(name, _)| table.target(name));
    table
}

impl Scene {
    /// Fills the store, unless an earlier run has.
    fn fill(&self, bench: &mut Bench) -> Result<()> {
        let marker = self.folder.path().join(FILLED);
        let wanted = format!("{} publications in each of {} channels", self.kept, self.channels);
        if let Ok(found) = fs::read_to_string(&marker) {
            ensure!(found == wanted, "{} holds {found}; choose another", marker.display());
            return Ok(());
        }
        let server = self.start()?;
        let begun = Instant::now();
        let refused = fill(server.control(), self.channels, self.kept, bench.clock)?;
        let rate = (self.channels * u64::from(self.kept)) as f64 / begun.elapsed().as_secs_f64();
        bench.row(Row::new("publications stored per second by broadcasts", rate, "count"));
        bench.row(Row::new("publications refused and sent again", refused as f64, "count"));
        server.stop()?;
        fs::write(&marker, wanted).with_context(|| format!("cannot write {}", marker.display()))
    }

    fn start(&self) -> Result<Server> {
        let mut server = spawn(&self.options)?;
        server.await_port(STEP)?;
        read_first(server.control(), &channel(0), PATIENCE)?;
        Ok(server)
    }

    /// Publishes, ends the server, and measures its restart: the values of [`COLUMNS`].
    fn restart(&mut self, bench: &mut Bench, kill: bool) -> Result<[f64; 5]> {
        let ended = self.end(bench, kill)?;
        let how = self.folder.drop_cache()?;
        let begun = Instant::now();
        let mut server = spawn(&self.options)?;
        server.await_port(STEP)?;
        let listens = begun.elapsed();
        let first = channel(fastrand::u64(..self.channels));
        let history = read_first(server.control(), &first, PATIENCE)?;
        let read = begun.elapsed();
        ensure!(!history.publications.is_empty(), "the history of {first} is empty");
        acknowledge(&server, begun)?;
        let acknowledged = begun.elapsed();
        let rss = server.sample()?.rss_anon;
        self.compare(&server)?;
        server.stop()?;
        bench.parameter("page_cache", how);
        let times = [listens, read, acknowledged, ended].map(|time| time.as_nanos() as f64);
        let [listens, read, acknowledged, ended] = times;
        Ok([listens, read, acknowledged, ended, rss as f64])
    }

    /// Publishes to random channels, and ends the server: while it publishes, or after. Returns
    /// how long the end took.
    fn end(&mut self, bench: &Bench, kill: bool) -> Result<Duration> {
        let server = self.start()?;
        let visitors = self.visitors.take().context("the publishers are at work")?;
        let interfaces = [Interface::Http; VISITORS];
        let mut talk = Talk::open(server.address(), &interfaces, visitors, bench.clock)?;
        talk.run_until(bench.clock.now_ns() + self.lasts.as_nanos() as u64)?;
        let begun = Instant::now();
        if kill {
            talk.tolerate_ends();
            server.kill()?;
            while talk.standing() > 0 {
                talk.turn(STEP)?;
            }
        } else {
            talk.rest()?;
            server.stop()?;
        }
        self.visitors = Some(talk.load);
        Ok(begun.elapsed())
    }

    /// Compares the histories of channels that were published to with what was acknowledged.
    fn compare(&mut self, server: &Server) -> Result<()> {
        let visitors = self.visitors.as_mut().context("the publishers are at work")?;
        let mut numbers: Vec<u64> = visitors.visited.drain(..).rev().take(COMPARED).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let channel = channel(number);
            let history = read(server.control(), &channel)?;
            visitors.ledger.check(&channel, &history);
        }
        Ok(())
    }

    fn finish(mut self, bench: &mut Bench, table: Grid) -> Result<()> {
        let visitors = self.visitors.take().context("the publishers are at work")?;
        let findings = visitors.ledger.findings();
        findings.told.iter().for_each(|told| bench.fault(told.clone()));
        let stored = files(&self.folder.path().join("store"))?;
        let bytes = stored.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len()));
        bench.row(Row::new("bytes of the store", bytes.sum::<u64>() as f64, "bytes"));
        let acknowledged = visitors.ledger.acknowledged_count();
        rows(&table, findings, acknowledged)?.into_iter().for_each(|row| bench.row(row));
        bench.tables(vec![table]);
        Ok(())
    }
}

/// Publishes until the server acknowledges a publication.
fn acknowledge(server: &Server, begun: Instant) -> Result<()> {
    let body = "{\"channel\":\"after-the-restart\",\"data\":\"a durable publication\"}";
    loop {
        let answer = post_with(server.control(), "publish", body, API_KEY);
        if answer.as_ref().is_ok_and(|answer| !answer.contains("\"error\"")) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "no acknowledgement after {PATIENCE:?}: {answer:?}");
        std::thread::sleep(STEP);
    }
}

fn rows(table: &Grid, findings: &Findings, acknowledged: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (end, _) in ENDS {
        for what in [HISTORY, ACKNOWLEDGED] {
            let spread = table.spread(end, what).with_context(|| format!("{end}: no {what}"))?;
            let row = Row::new(format!("{end}: {what}, longest"), spread.high, "ns");
            rows.push(row.at_most(RESTART));
        }
    }
    let lost = findings.lost_acknowledged + findings.lost_seen;
    let others = findings.reused_offsets + findings.changed_epochs + findings.gaps;
    let others = others + findings.disordered;
    let count = |what: &str, count: u64| Row::new(what, count as f64, "count");
    rows.push(count("publications acknowledged before an end", acknowledged).at_least(1.0));
    rows.push(count("acknowledged publications lost", lost).at_most(0.0));
    rows.push(count("other breaches: offsets, epochs, order, gaps", others).at_most(0.0));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    fn table(history: f64, acknowledged: f64) -> Grid {
        let columns = COLUMNS.map(|(name, unit)| Column::new(name, unit, Better::Neither));
        let mut table = Grid::new("durable-restart", "", columns.to_vec());
        for (name, _) in ENDS {
            table.target(name);
            let values = [0.1, history, acknowledged, 1.0, 1.0];
            let values = values.map(|seconds| vec![Some(1e9), Some(seconds * 1e9)]);
            table.line(name).unwrap().values = values.to_vec();
        }
        table
    }

    #[test]
    fn a_slow_restart_and_a_loss_are_misses() {
        let none = Findings::default();
        assert!(missed(&rows(&table(2.9, 3.0), &none, 1).unwrap()).is_empty());
        let slow = rows(&table(3.1, 3.2), &none, 0).unwrap();
        assert_eq!(missed(&slow).len(), 5, "the slowest of the rounds counts");
        let lost = Findings { lost_acknowledged: 1, gaps: 1, ..none };
        assert_eq!(missed(&rows(&table(1.0, 1.0), &lost, 1).unwrap()).len(), 2);
    }
}
