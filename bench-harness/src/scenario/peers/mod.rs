//! Drumline and other servers in turn, under the same load from the same client.
//!
//! Owns the flags and the order of the turns. Never starts a target by
//! itself: its adapter does. Invariant: every requested target has a line in every table, with
//! values or with the reason for their absence. A failure or a loss of a target is a fault.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::{Bench, Common, SECOND_NS};
use crate::account::KernelSample;
use crate::target::{ALL, Target};

mod asks;
mod idle;
mod measure;
mod quantities;
mod scenarios;
mod storm;
mod tables;
mod texts;
mod turn;
mod verdicts;

pub use scenarios::Scenario;
use scenarios::{Numbers, Stage};
use tables::Tables;

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
    /// Scenarios to run, by default all. The result file is `peers`, or `peers-state` if all of
    /// them are about what servers keep: storm, recovery, history, presence, members.
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

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let targets = chosen(&options.targets)?;
    ensure!(options.rounds > 0 && options.rate > 0, "--rounds and --rate must be 1 or more");
    let (name, title) = match options.scenarios.iter().all(|one| one.is_stateful()) {
        true => ("peers-state", "Drumline and its peers: recovery, history, members"),
        false => ("peers", "Drumline and its peers"),
    };
    let mut bench = Bench::new(&options.common, name, title, (10_000, 5))?;
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
        let seconds = bench.clock.now_ns() / SECOND_NS;
        eprintln!("round {}, {stage:?}, {name}, after {seconds} s", round + 1);
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
pub(super) fn beside() -> Result<PathBuf> {
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
}
