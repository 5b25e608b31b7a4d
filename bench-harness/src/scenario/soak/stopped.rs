//! A process of clients that is stopped by SIGSTOP for a while.
//!
//! Owns the process and what it is asked. Never stops the harness. Invariant: the kernel goes on to
//! acknowledge what the server sends to a stopped process, so only the missing pongs tell.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::activity::Tally;
use super::scene::{Scene, name, part};
use super::sizes::PING_SECONDS;
use crate::clock::RunClock;
use crate::dense::{Channels, Dense, Mode, Plan};
use crate::dialect::Drumline;
use crate::random::Random;
use crate::subprocess::{self, QUIT, Subprocess};

pub(super) const STOPS: &str = "stops";
pub(super) const LOST: &str = "clients closed while stopped";

/// Command that the process is started with.
const COMMAND: &str = "soak-clients";
/// Order that asks how many clients came up, and how many of them the server has closed.
const COUNT: &str = "count";
/// Time in which a process that runs again reads what has come.
const READING: Duration = Duration::from_millis(500);
/// Publications to the stopped clients, and bytes of each.
const PUBLICATIONS: u64 = 20;
const BYTES: usize = 2 << 10;

/// Flags of the process.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    port: u16,
    connections: u64,
    channel: String,
}

/// Connects the clients, then answers orders until it is told to end.
pub fn serve(arguments: &Arguments) -> Result<()> {
    // A stopped process does not notice that its input has ended.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask for a signal")?;
    let plan = Plan {
        connections: arguments.connections,
        port: arguments.port,
        one_address: false,
        dialect: &Drumline,
        in_flight: 64,
        mode: Mode::Subscribe(Channels::Shared(arguments.channel.clone())),
        tls: None,
        quiet: true,
    };
    let dense = Dense::start(plan, RunClock::start())?;
    dense.ramp()?;
    subprocess::ready()?;
    for line in std::io::stdin().lines() {
        match line.context("cannot read an order")?.as_str() {
            COUNT => {
                let (up, lost) = (dense.counters().standing(), dense.counters().lost());
                subprocess::answer(&format!("{} {lost}", up + lost))?;
            }
            QUIT => break,
            order => anyhow::bail!("unknown order `{order}`"),
        }
    }
    dense.stop()
}

/// Starts the process, stops it for a while, and lets it run again.
pub(super) fn episode(scene: &Scene<'_>, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let channel = name("stopped", random);
    let arguments =
        [scene.public.port().to_string(), scene.sizes.frozen.to_string(), channel.clone()];
    let mut clients = Subprocess::start(COMMAND, &arguments)?;
    clients.signal(Signal::STOP)?;
    for _ in 0..PUBLICATIONS {
        scene.publish(&channel, BYTES)?;
    }
    // From less than a ping interval to more than the longest time until the last pong is due.
    let stopped = random.within(1_000..=(2 * PING_SECONDS + 4) * 1_000);
    std::thread::sleep(Duration::from_millis(stopped));
    clients.signal(Signal::CONT)?;
    tally.add(STOPS, 1);
    std::thread::sleep(READING);
    clients.order(COUNT)?;
    let answer = clients.answer()?;
    let (up, lost) = answer.split_once(' ').context("a count of clients")?;
    let (up, lost): (u64, u64) = (up.parse()?, lost.parse()?);
    tally.add(LOST, lost);
    clients.stop()?;
    let late = stopped > (2 * PING_SECONDS + 1) * 1_000;
    ensure!(
        !late || lost == up,
        "the server has closed {} clients of a process that was stopped for {stopped} ms",
        part(lost, up)
    );
    Ok(())
}
