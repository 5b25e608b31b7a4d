//! The dense client: as many WebSocket connections as the machine holds, in this one process.
//!
//! Owns the ring threads and what they count. Never publishes. Invariant: a connection counts as
//! up only when the server has answered everything it was asked, and every one that is refused or
//! lost is counted with its cause.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::clock::RunClock;
use crate::dialect::Dialect;
use crate::latency::Recorder;
use crate::progress::Progress;

mod book;
mod unpack;
mod worker;

use worker::Start;

/// Connections toward one loopback address: the search for a free local port gets slow past half
/// of the range.
const PER_ADDRESS: u64 = 12_500;
/// Direct descriptors that a ring's table leaves to the process's ordinary ones.
const SPARE_DESCRIPTORS: u64 = 500;
/// Bytes that the kernel baseline sends on a socket that it has accepted. A completed handshake
/// only says that the kernel has accepted it.
pub const GREETING_BYTES: u64 = 1;
/// The ramp is given up when nothing comes up for so long.
const RAMP_STALL: Duration = Duration::from_secs(30);

/// The channel of each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channels {
    /// All on one.
    Shared(String),
    /// A channel each: `c0`, `c1`, ...
    Distinct,
    /// So many rooms: `r0`, `r1`, ... in turn.
    Rooms(u64),
}

impl Channels {
    /// The channel of the connection with this index.
    pub fn of(&self, index: u64) -> String {
        match self {
            Channels::Shared(name) => name.clone(),
            Channels::Distinct => format!("c{index}"),
            Channels::Rooms(rooms) => format!("r{}", index % rooms),
        }
    }

    /// The `nth` of the channels.
    pub fn nth(&self, nth: u64) -> String {
        match self {
            Channels::Rooms(_) => format!("r{nth}"),
            other => other.of(nth),
        }
    }

    /// How many channels `connections` connections are on.
    pub fn count(&self, connections: u64) -> u64 {
        match self {
            Channels::Shared(_) => 1,
            Channels::Distinct => connections,
            Channels::Rooms(rooms) => (*rooms).min(connections),
        }
    }
}

/// What each connection does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Connects at TCP, waits for the greeting and counts the bytes behind it.
    Raw,
    /// WebSocket, connect, subscribe, then reads.
    Subscribe(Channels),
    /// The same with a small receive buffer, and reads nothing once it is subscribed.
    Stall(Channels),
}

/// What the dense client is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Connections in all.
    pub connections: u64,
    /// Port of the server.
    pub port: u16,
    /// Whether the server listens on 127.0.0.1 alone, and not on every loopback address.
    pub one_address: bool,
    /// What clients say and understand; raw ones nothing.
    pub dialect: &'static dyn Dialect,
    /// Connections of a ring that are being made at a time.
    pub in_flight: u32,
    /// What each connection does.
    pub mode: Mode,
}

impl Plan {
    /// The peer of the connection with this index.
    fn peer(&self, index: u64) -> SocketAddrV4 {
        let many = self.connections.div_ceil(PER_ADDRESS).max(1);
        let addresses = if self.one_address { 1 } else { many };
        let last = 1 + (index % addresses) as u32;
        let ip = u32::from(Ipv4Addr::new(127, 0, 0, 0)) + last;
        SocketAddrV4::new(Ipv4Addr::from(ip), self.port)
    }
}

/// What all threads count together.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that are up or were.
    pub up: AtomicU64,
    /// Connections that never came up.
    pub refused: AtomicU64,
    /// Connections that were up and ended.
    pub lost: AtomicU64,
    /// Bytes read in raw mode.
    pub bytes: AtomicU64,
    /// Deliveries of the present phase, distinct ones.
    pub delivered: AtomicU64,
    /// Deliveries that came packed, since the start.
    pub packed: AtomicU64,
    /// Deliveries that belong to no present phase, or carry no stamp.
    pub stray: AtomicU64,
    /// Pings seen, of the protocol or as frames.
    pub pings: AtomicU64,
    /// Pongs sent.
    pub pongs: AtomicU64,
    causes: Mutex<BTreeMap<String, u64>>,
    codes: Mutex<BTreeMap<u16, u64>>,
    /// Why a thread has died.
    death: Mutex<Option<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    fn refuse(&self, cause: String) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        *locked(&self.causes).entry(cause).or_default() += 1;
    }

    fn lose(&self, code: u16) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        *locked(&self.codes).entry(code).or_default() += 1;
    }

    /// Why connections were refused, and how many each.
    pub fn causes(&self) -> BTreeMap<String, u64> {
        locked(&self.causes).clone()
    }

    /// Close codes of lost connections; 1006 is an end without a close frame.
    pub fn codes(&self) -> BTreeMap<u16, u64> {
        locked(&self.codes).clone()
    }

    fn die(&self, error: &anyhow::Error) {
        locked(&self.death).get_or_insert_with(|| format!("{error:#}"));
    }

    /// The error of a command that a thread has not carried out.
    fn dead(&self) -> anyhow::Error {
        match &*locked(&self.death) {
            Some(why) => anyhow!("a thread of the dense client has died: {why}"),
            None => anyhow!("a thread of the dense client has died"),
        }
    }

    /// Deliveries that came packed, since the start.
    pub fn packed(&self) -> u64 {
        read(&self.packed)
    }

    /// Pings seen since the start.
    pub fn pings(&self) -> u64 {
        read(&self.pings)
    }

    /// Connections that were up and ended.
    pub fn lost(&self) -> u64 {
        read(&self.lost)
    }

    /// Connections that are up now.
    pub fn standing(&self) -> u64 {
        read(&self.up).saturating_sub(read(&self.lost))
    }
}

/// What a lane is told.
enum Command {
    /// A phase begins: forget sequences, start recording.
    Begin(u16, Sender<()>),
    /// The phase is over: hand the recorder out.
    Finish(Sender<Recorder>),
    /// Stalled connections read again.
    Resume,
    /// Refuse the connections that are still being made, with what they wait for.
    GiveUp(Sender<()>),
    /// Make the connections that were held back.
    OpenRest,
    /// Note where the channel stands from now on.
    Track,
    /// End every connection from this side.
    Cut,
    /// Connect again those that were cut; whether they recover.
    ComeBack(bool),
    /// End.
    Stop,
}

/// One ring's connections, from outside.
struct Lane {
    commands: Sender<Command>,
    /// Of the thread that turns it.
    bell: OwnedFd,
}

impl Lane {
    /// Whether it is there to hear it.
    fn tell(&self, command: Command) -> bool {
        let heard = self.commands.send(command).is_ok();
        drumline::base::sys::ring_doorbell(&self.bell);
        heard
    }
}

/// How the ramp went.
#[derive(Debug, Clone, Copy)]
pub struct Ramp {
    /// Connections that came up.
    pub up: u64,
    /// Connections that never did.
    pub refused: u64,
    /// Connections that came up and ended before all were up.
    pub lost: u64,
    /// From the first connect to the last answer.
    pub took: Duration,
}

/// Running connections.
pub struct Dense {
    plan: Arc<Plan>,
    counters: Arc<Counters>,
    lanes: Vec<Lane>,
    threads: Vec<JoinHandle<Result<()>>>,
    /// Connections that are to be up by now, those held back not among them.
    asked: u64,
    begun: Instant,
}

impl Dense {
    /// Starts to connect; [`Dense::ramp`] waits for it.
    pub fn start(plan: Plan, clock: RunClock) -> Result<Self> {
        Self::start_part(plan, clock, 1)
    }

    /// Starts to connect one of so many; [`Dense::open_rest`] lets the others follow.
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

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections in all.
    pub fn connections(&self) -> u64 {
        self.plan.connections
    }

    /// Waits until every connection asked for is up or refused.
    pub fn ramp(&self) -> Result<Ramp> {
        let progress = Progress::new("connections", self.asked);
        let mut last = (0, Instant::now());
        loop {
            let (up, refused) = (read(&self.counters.up), read(&self.counters.refused));
            progress.set(up);
            let done = up + refused >= self.asked;
            if up + refused > last.0 {
                last = (up + refused, Instant::now());
            }
            if done || last.1.elapsed() > RAMP_STALL {
                progress.finish(up);
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

    /// Lets the connections that were held back follow; [`Dense::ramp`] then waits for all.
    pub fn open_rest(&mut self) -> Result<()> {
        self.begun = Instant::now();
        self.asked = self.plan.connections;
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::OpenRest))
    }

    /// An error if a thread has ended: its connections are gone.
    fn alive(&self) -> Result<()> {
        let alive = self.threads.iter().all(|thread| !thread.is_finished());
        if alive { Ok(()) } else { Err(self.counters.dead()) }
    }

    /// Begins a phase: deliveries with its number are recorded. Returns when all threads know.
    pub fn begin(&self, phase: u16) -> Result<()> {
        self.counters.delivered.store(0, Ordering::Relaxed);
        self.all_answer(|done| Command::Begin(phase, done))
    }

    fn tell(&self, lane: &Lane, command: Command) -> Result<()> {
        if lane.tell(command) { Ok(()) } else { Err(self.counters.dead()) }
    }

    /// Tells all lanes a command and waits until each has carried it out.
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

    /// Waits until so many deliveries of the phase have come, or until `patience` passes without
    /// one. Answers how many came.
    pub fn await_delivered(&self, expected: u64, patience: Duration) -> u64 {
        await_count(&self.counters.delivered, expected, patience)
    }

    /// The same for bytes in raw mode, counted from the start.
    pub fn await_bytes(&self, expected: u64, patience: Duration) -> u64 {
        await_count(&self.counters.bytes, expected, patience)
    }

    /// Ends the phase: everything that was recorded, with `expected` deliveries expected.
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

    /// Lets stalled connections read again.
    pub fn resume(&self) -> Result<()> {
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::Resume))
    }

    /// Notes from now on where the shared channel stands; told before connections are made, it
    /// misses nothing.
    pub fn track(&self) -> Result<()> {
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::Track))
    }

    /// Cuts all connections at once and waits until every socket is closed.
    pub fn cut(&self) -> Result<()> {
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::Cut))?;
        let begun = Instant::now();
        while read(&self.counters.up) > 0 {
            let left = read(&self.counters.up);
            ensure!(begun.elapsed() < RAMP_STALL, "{left} connections could not be cut");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Lets all that were cut connect again at once, and waits for them as [`Dense::ramp`] does.
    pub fn come_back(&mut self, recovers: bool) -> Result<Ramp> {
        self.begun = Instant::now();
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::ComeBack(recovers)))?;
        self.ramp()
    }

    /// Closes all connections and waits for the threads.
    pub fn stop(self) -> Result<()> {
        for lane in &self.lanes {
            // One that has ended already tells its error below.
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

/// First index and count of each lane's connections.
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
    fn shares_cover_all() {
        for connections in [1, 2, 19_500, 1_000_000] {
            let shares = shares(connections).unwrap();
            assert_eq!(shares.iter().map(|(_, count)| u64::from(*count)).sum::<u64>(), connections);
            assert_eq!(shares[0].0, 0);
        }
    }

    #[test]
    fn channels() {
        assert_eq!(Channels::Distinct.of(7), "c7");
        assert_eq!(Channels::Rooms(10).of(17), "r7");
        assert_eq!(Channels::Rooms(10).nth(7), "r7");
        assert_eq!(Channels::Shared("all".into()).of(3), "all");
        assert_eq!(Channels::Rooms(10).count(1000), 10);
    }
}
