//! The dense client: holds as many connections to a server as the machine allows, in the process of
//! the harness.
//!
//! Owns the ring threads. Never publishes. Invariant: a connection counts as up
//! only when the server has answered all its requests; every refused or lost connection is counted
//! with its cause.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::clock::RunClock;
use crate::latency::Recorder;
use crate::progress::Progress;

mod book;
mod counters;
mod lane;
mod options;
mod pings;
mod secured;
mod state;
mod unpack;
mod worker;

pub use counters::Counters;
use counters::read;
use lane::{Command, Lane};
pub use options::{Channels, GREETING_BYTES, Mode, Plan};
pub use pings::{PingTally, PingWindow};
use worker::Start;

/// File descriptors reserved for files outside the rings' tables.
const SPARE_DESCRIPTORS: u64 = 500;
/// The ramp-up is aborted when no connection comes up or is refused for this long.
const RAMP_STALL: Duration = Duration::from_secs(30);

/// Result of a ramp-up.
#[derive(Debug, Clone, Copy)]
pub struct Ramp {
    /// Connections that came up.
    pub up: u64,
    /// Connections that did not come up.
    pub refused: u64,
    /// Connections that came up and ended before the ramp-up was complete.
    pub lost: u64,
    /// Time from the first connect to the last connection that came up or was refused.
    pub took: Duration,
}

/// The running dense client.
pub struct Dense {
    plan: Arc<Plan>,
    counters: Arc<Counters>,
    lanes: Vec<Lane>,
    threads: Vec<JoinHandle<Result<()>>>,
    /// Connections requested so far, without those held back.
    asked: u64,
    begun: Instant,
}

impl Dense {
    /// Starts to open all connections. [`Dense::ramp`] waits until they are up.
    pub fn start(plan: Plan, clock: RunClock) -> Result<Self> {
        Self::start_part(plan, clock, 1)
    }

    /// Starts to open one in `of` connections. [`Dense::open_rest`] opens the others.
    pub fn start_part(plan: Plan, clock: RunClock, of: u32) -> Result<Self> {
        ensure!(plan.connections > 0, "no connections to make: --connections is 0");
        let plan = Arc::new(plan);
        let counters = Arc::new(Counters::default());
        let begun = Instant::now();
        let shares = shares(plan.connections)?;
        let crews = shares.len().min(drumline::base::sys::processors());
        let bells: Vec<OwnedFd> = (0..crews)
            .map(|_| drumline::base::sys::doorbell().context("cannot make an eventfd"))
            .collect::<Result<_>>()?;
        let mut starts: Vec<Vec<Start>> = (0..crews).map(|_| Vec::new()).collect();
        let (mut lanes, mut asked) = (Vec::new(), 0);
        for (nth, (first, count)) in shares.into_iter().enumerate() {
            let (sender, commands) = channel();
            let bell = bells[nth % crews].try_clone().context("cannot copy an eventfd")?;
            lanes.push(Lane { commands: sender, bell });
            let (plan, counters) = (plan.clone(), counters.clone());
            let early = count.div_ceil(of);
            asked += u64::from(early);
            let start = Start { plan, counters, clock, first, count, early, commands };
            starts[nth % crews].push(start);
        }
        let threads = starts
            .into_iter()
            .zip(bells)
            .enumerate()
            .map(|(nth, (starts, bell))| {
                let counters = counters.clone();
                std::thread::Builder::new()
                    .name(format!("dense-{nth}"))
                    .spawn(move || {
                        worker::run(starts, bell).inspect_err(|error| counters.die(error))
                    })
                    .context("cannot start a thread of the dense client")
            })
            .collect::<Result<_>>()?;
        Ok(Dense { plan, counters, lanes, threads, asked, begun })
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Total number of connections.
    pub fn connections(&self) -> u64 {
        self.plan.connections
    }

    /// Waits until every requested connection is up or refused.
    pub fn ramp(&self) -> Result<Ramp> {
        let progress = (!self.plan.quiet).then(|| Progress::new("connections", self.asked));
        let mut last = (0, Instant::now());
        loop {
            let (up, refused) = (read(&self.counters.up), read(&self.counters.refused));
            progress.iter().for_each(|progress| progress.set(up));
            let done = up + refused >= self.asked;
            if up + refused > last.0 {
                last = (up + refused, Instant::now());
            }
            if done || last.1.elapsed() > RAMP_STALL {
                progress.iter().for_each(|progress| progress.finish(up));
                if !done {
                    self.all_answer(Command::GiveUp)?;
                }
                self.alive()?;
                let took = last.1 - self.begun;
                let lost = self.counters.lost();
                return Ok(Ramp { up, refused: self.asked - up, lost, took });
            }
            self.alive()?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Opens the connections that were held back. [`Dense::ramp`] then waits for all connections.
    pub fn open_rest(&mut self) -> Result<()> {
        self.begun = Instant::now();
        self.asked = self.plan.connections;
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::OpenRest))
    }

    /// Returns an error if a thread has ended, because its connections are closed then.
    fn alive(&self) -> Result<()> {
        let alive = self.threads.iter().all(|thread| !thread.is_finished());
        if alive { Ok(()) } else { Err(self.counters.dead()) }
    }

    /// Begins a phase: deliveries with its number are recorded. Returns when all lanes have begun
    /// the phase.
    pub fn begin(&self, phase: u16) -> Result<()> {
        self.counters.delivered.store(0, Ordering::Relaxed);
        self.all_answer(|done| Command::Begin(phase, done))
    }

    fn tell(&self, lane: &Lane, command: Command) -> Result<()> {
        if lane.tell(command) { Ok(()) } else { Err(self.counters.dead()) }
    }

    /// Sends a command to all lanes and waits until each lane has executed it.
    fn all_answer(&self, command: impl Fn(Sender<()>) -> Command) -> Result<()> {
        let (done, dones) = channel();
        for lane in &self.lanes {
            self.tell(lane, command(done.clone()))?;
        }
        drop(done);
        for _ in &self.lanes {
            dones.recv().map_err(|_| self.counters.dead())?;
        }
        Ok(())
    }

    /// Waits for `expected` deliveries of the phase, or until none arrives for `patience`. Returns
    /// the number of deliveries received.
    pub fn await_delivered(&self, expected: u64, patience: Duration) -> u64 {
        await_count(&self.counters.delivered, expected, patience)
    }

    /// Waits for `expected` bytes in raw mode, counted from the start, or until none arrives for
    /// `patience`. Returns the number of bytes received.
    pub fn await_bytes(&self, expected: u64, patience: Duration) -> u64 {
        await_count(&self.counters.bytes, expected, patience)
    }

    /// Ends the phase and returns its merged recorder, with `expected` expected deliveries.
    pub fn finish(&self, expected: u64) -> Result<Recorder> {
        let (out, outs) = channel();
        for lane in &self.lanes {
            self.tell(lane, Command::Finish(out.clone()))?;
        }
        drop(out);
        let mut sum: Option<Recorder> = None;
        for _ in &self.lanes {
            let one = outs.recv().map_err(|_| self.counters.dead())?;
            match &mut sum {
                Some(sum) => sum.merge(one)?,
                None => sum = Some(one),
            }
        }
        let mut sum = sum.context("the dense client has no threads")?;
        sum.expect(expected);
        Ok(sum)
    }

    /// Opens a window of pings with this interval.
    pub fn begin_pings(&self, interval_ms: u64) -> Result<()> {
        self.all_answer(|done| Command::BeginPings(interval_ms, done))
    }

    /// The pings of the window until `now_ms`.
    pub fn count_pings(&self, window: PingWindow, now_ms: u64) -> Result<PingTally> {
        let (out, outs) = channel();
        for lane in &self.lanes {
            self.tell(lane, Command::CountPings(window, now_ms, out.clone()))?;
        }
        drop(out);
        let mut sum = PingTally::default();
        for _ in &self.lanes {
            sum += outs.recv().map_err(|_| self.counters.dead())?;
        }
        Ok(sum)
    }

    /// Closes the window of pings.
    pub fn end_pings(&self) -> Result<()> {
        self.all_answer(Command::EndPings)
    }

    /// Lets stalled connections read again.
    pub fn resume(&self) -> Result<()> {
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::Resume))
    }

    /// Prolongs the heads of [`Mode::HalfHead`] by a line each.
    pub fn drip(&self) -> Result<()> {
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::Drip))
    }

    /// Starts to track the position of the shared channel. Call it before the connections are
    /// opened, so that no publication is missed.
    pub fn track(&self) -> Result<()> {
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::Track))
    }

    /// Lets every connection ask for the items of its channel, as many at the same time as may
    /// connect at the same time. Returns the number of answers, which is too small only if none
    /// arrives for `patience`, and the number of their items.
    pub fn ask(&self, patience: Duration) -> Result<(u64, u64)> {
        let (answers, items) = (read(&self.counters.answers), read(&self.counters.items));
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::Ask))?;
        let expected = answers + self.counters.standing();
        let now = await_count(&self.counters.answers, expected, patience);
        self.alive()?;
        Ok((now - answers, read(&self.counters.items) - items))
    }

    /// Waits for `expected` items since the start, or until none arrives for `patience`. Returns
    /// the number of items.
    pub fn await_items(&self, expected: u64, patience: Duration) -> u64 {
        await_count(&self.counters.items, expected, patience)
    }

    /// Cuts all connections at the same time and waits until every socket is closed. Connections
    /// that the server has ended stay ended.
    pub fn cut(&self) -> Result<()> {
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::Cut))?;
        let begun = Instant::now();
        while self.counters.standing() > 0 {
            let left = self.counters.standing();
            ensure!(begun.elapsed() < RAMP_STALL, "{left} connections could not be cut");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Reconnects all cut connections at the same time and waits for them as [`Dense::ramp`] does.
    pub fn come_back(&mut self, recovers: bool) -> Result<Ramp> {
        self.begun = Instant::now();
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::ComeBack(recovers)))?;
        self.ramp()
    }

    /// Closes all connections and waits for the threads.
    pub fn stop(self) -> Result<()> {
        for lane in &self.lanes {
            // The join below returns the error of a lane that has already ended.
            lane.tell(Command::Stop);
        }
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a thread of the dense client panicked"))??;
        }
        Ok(())
    }
}

fn await_count(counter: &AtomicU64, expected: u64, patience: Duration) -> u64 {
    let mut last = (read(counter), Instant::now());
    loop {
        let now = read(counter);
        if now >= expected || last.1.elapsed() > patience {
            return now;
        }
        if now > last.0 {
            last = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// First index and number of connections of each lane.
fn shares(connections: u64) -> Result<Vec<(u64, u32)>> {
    let limit = drumline::base::sys::raise_open_files().context("cannot raise RLIMIT_NOFILE")?;
    ensure!(
        limit > SPARE_DESCRIPTORS + 100,
        "RLIMIT_NOFILE is {limit}: raise the hard limit (ulimit -Hn)"
    );
    let slots = (limit - SPARE_DESCRIPTORS).min(1 << 19);
    let processors = drumline::base::sys::processors() as u64;
    let rings = connections.div_ceil(slots).max(processors).min(connections);
    let cut = |ring: u64| connections * ring / rings;
    Ok((0..rings).map(|ring| (cut(ring), (cut(ring + 1) - cut(ring)) as u32)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_connections() {
        for connections in [1, 2, 19_500, 1_000_000] {
            let shares = shares(connections).unwrap();
            assert_eq!(shares.iter().map(|(_, count)| u64::from(*count)).sum::<u64>(), connections);
            assert_eq!(shares[0].0, 0);
        }
    }
}
