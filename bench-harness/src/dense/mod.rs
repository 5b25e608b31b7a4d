//! The dense client: holds up to a million connections to a server in the process of the harness.
//!
//! Owns the ring threads and their counters. Never publishes. Invariant: a connection counts as up
//! only when the server has answered all its requests; every refused or lost connection is counted
//! with its cause.

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

/// Maximum number of connections to one loopback address. The kernel finds free local ports slowly
/// when more than half of the range is in use.
const PER_ADDRESS: u64 = 12_500;
/// File descriptors reserved for files outside the rings' tables.
const SPARE_DESCRIPTORS: u64 = 500;
/// Bytes that the kernel baseline sends on each socket after accept. The TCP handshake alone does
/// not show that the process accepted the socket.
pub const GREETING_BYTES: u64 = 1;
/// The ramp-up is aborted when no connection comes up or is refused for this long.
const RAMP_STALL: Duration = Duration::from_secs(30);

/// Assignment of connections to channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channels {
    /// All connections subscribe to this channel.
    Shared(String),
    /// Each connection has a channel of its own: `c0`, `c1`, ...
    Distinct,
    /// The connections are spread over this many channels: `r0`, `r1`, ...
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

    /// The channel with number `nth`.
    pub fn nth(&self, nth: u64) -> String {
        match self {
            Channels::Rooms(_) => format!("r{nth}"),
            other => other.of(nth),
        }
    }

    /// Number of channels that `connections` connections use.
    pub fn count(&self, connections: u64) -> u64 {
        match self {
            Channels::Shared(_) => 1,
            Channels::Distinct => connections,
            Channels::Rooms(rooms) => (*rooms).min(connections),
        }
    }
}

/// Behavior of each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Opens a TCP connection, waits for the greeting of the kernel baseline and counts all bytes
    /// after it.
    Raw,
    /// Opens the transport, connects, subscribes and reads all publications.
    Subscribe(Channels),
    /// Like `Subscribe` with a small receive buffer, but stops reading after the subscription.
    Stall(Channels),
}

/// Parameters of the dense client.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Total number of connections.
    pub connections: u64,
    /// Port of the server.
    pub port: u16,
    /// Use only 127.0.0.1, for a server that does not listen on every loopback address.
    pub one_address: bool,
    /// Protocol of the clients. Raw connections do not use it.
    pub dialect: &'static dyn Dialect,
    /// Maximum number of connections per ring that are being established at the same time.
    pub in_flight: u32,
    /// Behavior of each connection.
    pub mode: Mode,
}

impl Plan {
    /// The server address of the connection with this index.
    fn peer(&self, index: u64) -> SocketAddrV4 {
        let many = self.connections.div_ceil(PER_ADDRESS).max(1);
        let addresses = if self.one_address { 1 } else { many };
        let last = 1 + (index % addresses) as u32;
        let ip = u32::from(Ipv4Addr::new(127, 0, 0, 0)) + last;
        SocketAddrV4::new(Ipv4Addr::from(ip), self.port)
    }
}

/// Counters shared by all threads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that came up, including those that ended later.
    pub up: AtomicU64,
    /// Connections that never came up.
    pub refused: AtomicU64,
    /// Connections that were up and ended.
    pub lost: AtomicU64,
    /// Bytes read in raw mode, without greetings.
    pub bytes: AtomicU64,
    /// Distinct deliveries of the current phase.
    pub delivered: AtomicU64,
    /// Deliveries received as a delta or compressed, since the start.
    pub packed: AtomicU64,
    /// Deliveries without a stamp, or with the stamp of another phase.
    pub stray: AtomicU64,
    /// Pings received, as protocol messages or as WebSocket frames.
    pub pings: AtomicU64,
    /// Pongs sent.
    pub pongs: AtomicU64,
    causes: Mutex<BTreeMap<String, u64>>,
    codes: Mutex<BTreeMap<u16, u64>>,
    /// The error of the first thread that failed.
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

    /// Causes of refused connections, with their counts.
    pub fn causes(&self) -> BTreeMap<String, u64> {
        locked(&self.causes).clone()
    }

    /// Close codes of lost connections, with their counts. 1006: the connection ended without a
    /// close frame.
    pub fn codes(&self) -> BTreeMap<u16, u64> {
        locked(&self.codes).clone()
    }

    fn die(&self, error: &anyhow::Error) {
        locked(&self.death).get_or_insert_with(|| format!("{error:#}"));
    }

    /// The error returned when a thread has ended and cannot execute a command.
    fn dead(&self) -> anyhow::Error {
        match &*locked(&self.death) {
            Some(why) => anyhow!("a thread of the dense client failed: {why}"),
            None => anyhow!("a thread of the dense client ended early"),
        }
    }

    /// Deliveries received as a delta or compressed, since the start.
    pub fn packed(&self) -> u64 {
        read(&self.packed)
    }

    /// Pings received since the start.
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

/// A command to a lane.
enum Command {
    /// Begin a phase: reset the sequence numbers and start recording.
    Begin(u16, Sender<()>),
    /// End the phase and return its recorder.
    Finish(Sender<Recorder>),
    /// Let stalled connections read again.
    Resume,
    /// Count the connections that are not up yet as refused, with what they wait for as the cause.
    GiveUp(Sender<()>),
    /// Open the connections that were held back.
    OpenRest,
    /// Start to track the position of the shared channel.
    Track,
    /// Close every connection from the client side.
    Cut,
    /// Reconnect the connections that were cut. `true`: they request recovery.
    ComeBack(bool),
    /// End the lane.
    Stop,
}

/// Handle to the connections of one ring.
struct Lane {
    commands: Sender<Command>,
    /// Doorbell of the thread that runs the lane.
    bell: OwnedFd,
}

impl Lane {
    /// Sends a command and wakes the thread. Returns false if the lane has ended.
    fn tell(&self, command: Command) -> bool {
        let heard = self.commands.send(command).is_ok();
        drumline::base::sys::ring_doorbell(&self.bell);
        heard
    }
}

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

    /// Lets stalled connections read again.
    pub fn resume(&self) -> Result<()> {
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::Resume))
    }

    /// Starts to track the position of the shared channel. Call it before the connections are
    /// opened, so that no publication is missed.
    pub fn track(&self) -> Result<()> {
        self.lanes.iter().try_for_each(|lane| self.tell(lane, Command::Track))
    }

    /// Cuts all connections at the same time and waits until every socket is closed.
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

    #[test]
    fn connections_are_assigned_to_channels() {
        assert_eq!(Channels::Distinct.of(7), "c7");
        assert_eq!(Channels::Rooms(10).of(17), "r7");
        assert_eq!(Channels::Rooms(10).nth(7), "r7");
        assert_eq!(Channels::Shared("all".into()).of(3), "all");
        assert_eq!(Channels::Rooms(10).count(1000), 10);
    }
}
