//! Kills at random moments, on one folder: nothing that a client was told may be lost.
//!
//! Owns the rows of `durable-kill`, and the moments of the kills. Never deletes anything of the
//! folder. Invariant: a seed repeats every choice of the run, though not the timing of the machine.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;

use self::crowd::{CHANNELS, Crowd, KEPT, channel};
use super::folder::Folder;
use super::ledger::Findings;
use super::node::{StoreFlags, spawn};
use super::stream::{read, read_first};
use super::talk::Talk;
use crate::latency::Recorder;
use crate::namespace;
use crate::progress::Progress;
use crate::rows::Row;
use crate::scenario::Bench;
use crate::server::{Server, ServerOptions};

mod crowd;

/// One kill in so many hits a start.
const STARTS: usize = 4;
/// Longest life of a server that has started.
const LIFE: Duration = Duration::from_millis(400);
/// From one attempt to reach a starting server to the next.
const STEP: Duration = Duration::from_millis(2);
/// Maximum time of a start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Flags of `durable-kill`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    store: StoreFlags,
    /// Number of kills.
    #[arg(long, default_value_t = 1_000)]
    kills: u64,
    /// Seed of the moments and of the load. By default a new one, which the result names.
    #[arg(long)]
    seed: Option<u64>,
    /// Use this folder and keep it. By default the run makes a folder and removes it.
    #[arg(long)]
    keep_folder: Option<PathBuf>,
}

/// The run between two kills.
struct Scene {
    options: ServerOptions,
    random: Rng,
    crowd: Option<Crowd>,
    /// Duration of the last start that was not killed.
    start: Duration,
    starts: Recorder,
    /// Kills of a start, and kills with publications outstanding.
    killed_starts: u64,
    killed_lives: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.kills > 0, "--kills must be 1 or more");
    let title = "Kills at random moments";
    let mut bench = Bench::new(&options.store.common, "durable-kill", title, (1, 1))?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    eprintln!("  seed {seed}");
    bench.parameter("kills", options.kills);
    bench.parameter("seed", seed);
    bench.parameter("in_memory", options.store.in_memory);
    bench.note(namespace::enter_if_permitted());
    let folder = match &options.keep_folder {
        Some(path) => Folder::kept(path)?,
        None => options.store.folder()?,
    };
    let arguments = options.store.arguments(&folder.sub("store")?, KEPT);
    let mut scene = Scene {
        options: bench.server_options(None, false, &arguments)?,
        random: Rng::with_seed(seed),
        crowd: Some(Crowd::new(seed)),
        start: Duration::from_millis(200),
        starts: Recorder::new(bench.clock.started())?,
        killed_starts: 0,
        killed_lives: 0,
    };
    let progress = Progress::new("kills", options.kills);
    for kill in 1..=options.kills {
        scene.kill_once(&bench)?;
        progress.set(kill);
    }
    progress.finish(options.kills);
    // A clean stop must keep as much, and the last kill is checked too.
    scene.check_after_start(&bench)?.stop()?;
    scene.check_after_start(&bench)?.stop()?;
    scene.rows(&mut bench)?;
    bench.finish()
}

impl Scene {
    /// Starts the server and kills it: while it starts, or while clients publish.
    fn kill_once(&mut self, bench: &Bench) -> Result<()> {
        if self.random.usize(..STARTS) == 0 {
            let server = spawn(&self.options)?;
            std::thread::sleep(self.start.mul_f64(self.random.f64() * 1.5));
            self.killed_starts += 1;
            return server.kill();
        }
        let server = self.check_after_start(bench)?;
        let life = LIFE.mul_f64(self.random.f64());
        let mut crowd = self.take_crowd()?;
        crowd.begin();
        let connections = crowd.connections();
        let mut talk = Talk::open(server.address(), &connections, crowd, bench.clock)?;
        let until_ns = bench.clock.now_ns() + life.as_nanos() as u64;
        while bench.clock.now_ns() < until_ns {
            talk.turn(bench.clock.until(until_ns))?;
            talk.send_idle()?;
        }
        talk.tolerate_ends();
        if talk.outstanding() > 0 {
            self.killed_lives += 1;
        }
        server.kill()?;
        // What the server sent before its end counts as told.
        let begun = Instant::now();
        while talk.standing() > 0 {
            talk.turn(STEP)?;
            ensure!(begun.elapsed() < PATIENCE, "connections outlive the server");
        }
        self.crowd = Some(talk.load);
        Ok(())
    }

    fn take_crowd(&mut self) -> Result<Crowd> {
        self.crowd.take().ok_or_else(|| anyhow::anyhow!("the crowd is at work"))
    }

    /// Starts the server and compares all histories with what the clients know.
    fn check_after_start(&mut self, bench: &Bench) -> Result<Server> {
        let begun = Instant::now();
        let mut server = spawn(&self.options)?;
        server.await_port(STEP)?;
        let mut crowd = self.take_crowd()?;
        for nth in 0..CHANNELS {
            let channel = channel(nth);
            let history = match nth {
                0 => read_first(server.control(), &channel, PATIENCE)?,
                _ => read(server.control(), &channel)?,
            };
            if nth == 0 {
                self.start = begun.elapsed();
                self.starts.expect(1);
                self.starts.record(bench.clock.now_ns(), self.start.as_nanos() as u64)?;
            }
            crowd.ledger.check(&channel, &history);
        }
        self.crowd = Some(crowd);
        Ok(server)
    }

    fn rows(mut self, bench: &mut Bench) -> Result<()> {
        let crowd = self.take_crowd()?;
        let findings = crowd.ledger.findings().clone();
        findings.told.iter().for_each(|told| bench.fault(told.clone()));
        if let Some(refusal) = crowd.refusal {
            bench
                .note(format!("{} publications were refused, the first: {refusal}", crowd.refused));
        }
        let told = [crowd.ledger.acknowledged_count(), crowd.ledger.seen_count()];
        let kills = [self.killed_starts, self.killed_lives];
        rows(&findings, told, kills).into_iter().for_each(|row| bench.row(row));
        bench.percentiles("start until the first history read", &self.starts, [0.0; 3])?;
        bench.keep("start until the first history read", self.starts);
        Ok(())
    }
}

fn rows(
    findings: &Findings,
    [acknowledged, seen]: [u64; 2],
    [starts, lives]: [u64; 2],
) -> Vec<Row> {
    let some = |what: &str, count: u64| Row::new(what, count as f64, "count").at_least(1.0);
    let none = |what: &str, count: u64| Row::new(what, count as f64, "count").at_most(0.0);
    vec![
        // Without these nothing was tested.
        some("publications acknowledged", acknowledged),
        some("publications that subscribers got", seen),
        some("kills while publications were outstanding", lives),
        Row::new("kills of a start", starts as f64, "count"),
        none("acknowledged publications lost", findings.lost_acknowledged),
        none("publications lost that a subscriber or an earlier history had", findings.lost_seen),
        none("offsets given to two publications", findings.reused_offsets),
        none("epochs changed", findings.changed_epochs),
        none("publications doubled or out of order", findings.disordered),
        none("offsets within a history that hold nothing", findings.gaps),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::missed;

    #[test]
    fn every_breach_and_an_empty_run_are_misses() {
        let none = Findings::default();
        assert!(missed(&rows(&none, [1, 1], [0, 1])).is_empty());
        assert_eq!(missed(&rows(&none, [0, 0], [5, 0])).len(), 3);
        let all = Findings {
            lost_acknowledged: 1,
            lost_seen: 1,
            reused_offsets: 1,
            changed_epochs: 1,
            disordered: 1,
            gaps: 1,
            told: Vec::new(),
        };
        assert_eq!(missed(&rows(&all, [1, 1], [0, 1])).len(), 6);
    }
}
