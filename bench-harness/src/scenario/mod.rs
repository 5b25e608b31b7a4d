//! The scenarios, one per file, and what they share.
//!
//! Owns the flags, the phases, the ports and the end of a run. Never interprets a number: each
//! scenario interprets its own. Invariant: a refused or lost connection and a lost delivery are
//! faults, and a run with faults exits with status 1 unless `--keep-going` is given.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::account::{KernelSample, ProcessDelta, ProcessSample};
use crate::baseline::{Baseline, Exchange, Options, Outcome, Sent};
use crate::clock::RunClock;
use crate::dense::{Channels, Dense, Mode, Ramp};
use crate::environment::Environment;
use crate::grid::Grid;
use crate::latency::Recorder;
use crate::publish::{Api, Load, Post, Published};
use crate::rows::{Row, number};
use crate::run::Run;
use crate::server::{API_KEY, PING_SECONDS, Server, ServerOptions};
use crate::table;
use crate::timeline::Timeline;
use crate::wire::Data;

pub mod api;
mod clients;
pub mod drain;
pub mod durable;
pub mod fanout;
pub mod feed;
pub mod flood;
pub mod hostile;
pub mod idle_shards;
pub mod isolation;
pub mod kernel_baseline;
pub mod ladder;
pub mod latency;
pub mod memory;
pub mod million;
pub mod multi_core;
pub mod one_to_one;
mod pairs;
pub mod peers;
pub mod reload;
pub mod rounds;
pub mod scrape;
pub mod showdown;
pub mod slow;
pub mod slowloris;
pub mod soak;
pub mod storm;
mod targets;
pub mod tls;
pub mod tokens;
pub mod variants;
pub mod versus;

/// Time between the start of publishers and their first message, in ns: they connect meanwhile.
const LEAD_NS: u64 = 500_000_000;
/// Time without a delivery after which the missing deliveries count as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Slots of a shard's table, which has RLIMIT_NOFILE of them, that stay unused.
const SPARE_SLOTS: u64 = 500;
/// The machine is quiet again when at most this many more sockets exist than before the run.
const SETTLED_SOCKETS: u64 = 200;
/// The machine is quiet again when its slab memory changes by fewer bytes per second than this.
const SETTLED_SLAB: u64 = 4 << 20;
/// Maximum wait for a quiet machine.
const SETTLE: Duration = Duration::from_secs(120);
const SECOND_NS: u64 = 1_000_000_000;

/// Flags of every scenario.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// Path of the server's program.
    #[arg(long, default_value = "target/release/drumline")]
    pub server: PathBuf,
    /// First port to use; every server and kernel baseline takes the next free one.
    #[arg(long, default_value_t = 8100)]
    pub port: u16,
    /// Number of connections. Each scenario has its own default.
    #[arg(long)]
    pub connections: Option<u64>,
    /// Number of shards of the server. By default one per processor, more if RLIMIT_NOFILE requires
    /// it.
    #[arg(long)]
    pub shards: Option<u32>,
    /// Seconds of each measured phase. Each scenario has its own default.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Connections that each client ring opens at the same time.
    #[arg(long, default_value_t = 64)]
    pub in_flight: u32,
    /// Directory of the results.
    #[arg(long, default_value = "bench-harness/results")]
    pub results: PathBuf,
    /// Allow deep idle states of the processors while measuring. By default the run keeps the
    /// processors out of them.
    #[arg(long)]
    pub deep_idle: bool,
    /// Exit with status 0 even if connections or deliveries were lost.
    #[arg(long)]
    pub keep_going: bool,
    /// An additional argument of the server. Can be given several times.
    #[arg(long = "server-argument", allow_hyphen_values = true)]
    pub server_arguments: Vec<String>,
}

/// A scenario being run.
pub struct Bench {
    /// The flags.
    pub common: Common,
    /// Connections of the scenario.
    pub connections: u64,
    /// Seconds of each measured phase.
    pub seconds: u64,
    /// Shards of the server and of the kernel baseline.
    pub shards: u32,
    /// Seconds over which a graceful shutdown of the server spreads its closes.
    pub spread_seconds: u64,
    /// Seconds between two pings of a connection.
    pub ping_seconds: u64,
    /// The clock of the run.
    pub clock: RunClock,
    run: Run,
    series: Vec<(String, Recorder)>,
    faults: Vec<String>,
    phase: u16,
    port: u16,
    /// Keeps the processors awake as long as it lives.
    _awake: Option<OwnedFd>,
}

/// The outcome of a phase.
pub struct Delivered {
    /// Latencies and account.
    pub recorder: Recorder,
    /// The publishers' side.
    pub published: Published,
    /// From the first scheduled message to the last delivery.
    pub took: Duration,
}

/// A load without a start time, which the bench adds.
pub struct Burst {
    /// How it is published.
    pub api: Api,
    /// Connections that publish.
    pub publishers: u64,
    /// Channels that receive the messages.
    pub channels: Channels,
    /// Data of each message.
    pub data: Data,
    /// Total number of messages.
    pub messages: u64,
    /// Time between two messages, in ns.
    pub interval_ns: u64,
    /// Publications per frame.
    pub per_frame: u64,
}

impl Burst {
    /// Publishes by one kept-alive HTTP connection to all.
    pub fn to_all(messages: u64, data: Data, interval_ns: u64) -> Self {
        Burst {
            api: Api::Http(Post::drumline(API_KEY)),
            publishers: 1,
            channels: all(),
            data,
            messages,
            interval_ns,
            per_frame: 1,
        }
    }
}

/// The channel that all connections share.
pub fn all() -> Channels {
    Channels::Shared("all".to_owned())
}

/// Bytes of the frame that carries a publication of `bytes` bytes of data in [`all`].
pub fn frame_bytes(bytes: usize) -> usize {
    let text = "{\"push\":{\"channel\":\"all\",\"pub\":{\"data\":}}}".len() + bytes;
    text + if text < 126 { 2 } else { 4 }
}

impl Bench {
    /// A run of `scenario` with these defaults.
    pub fn new(common: &Common, scenario: &str, title: &str, defaults: (u64, u64)) -> Result<Self> {
        let awake = (!common.deep_idle).then(drumline::base::sys::hold_processors_awake);
        let awake = awake.and_then(|held| {
            let refused = |error| {
                eprintln!(
                    "cannot keep the processors out of deep idle: /dev/cpu_dma_latency: {error}"
                )
            };
            held.map_err(refused).ok()
        });
        let environment = Environment::collect(awake.is_some())?;
        let connections = common.connections.unwrap_or(defaults.0);
        let seconds = common.seconds.unwrap_or(defaults.1).max(1);
        let shards = match common.shards {
            Some(shards) => shards.max(1),
            None => enough_shards(connections)?,
        };
        let plural = if connections == 1 { "" } else { "s" };
        let load = format!("{} connection{plural}, {shards} shards", number(connections as f64));
        let mut run = Run::new(scenario, title, &load, environment);
        for (name, value) in
            [("connections", connections), ("seconds", seconds), ("shards", u64::from(shards))]
        {
            run.parameters.insert(name.to_owned(), value.into());
        }
        Ok(Bench {
            common: common.clone(),
            connections,
            seconds,
            shards,
            spread_seconds: 0,
            ping_seconds: PING_SECONDS,
            clock: RunClock::start(),
            run,
            series: Vec::new(),
            faults: Vec::new(),
            phase: 0,
            port: common.port,
            _awake: awake,
        })
    }

    /// Adds a measured row.
    pub fn row(&mut self, row: Row) {
        eprintln!("  {}: {} ({})", row.what, row.measured_text(), row.verdict_text());
        self.run.rows.push(row);
    }

    /// Adds a remark on the whole run.
    pub fn note(&mut self, note: impl Into<String>) {
        self.run.notes.push(note.into());
    }

    /// Records a fault of the run.
    pub fn fault(&mut self, fault: String) {
        eprintln!("  FAULT: {fault}");
        self.run.notes.push(format!("Fault: {fault}"));
        self.faults.push(fault);
    }

    /// Keeps a recorder as a series of the run, and accounts for its deliveries.
    pub fn series(&mut self, name: &str, recorder: Recorder) {
        self.account(name, &recorder);
        if recorder.deliveries.delivered > 0 {
            self.keep(name, recorder);
        }
    }

    /// Keeps a recorder with deliveries that are accounted for already.
    pub fn keep(&mut self, name: &str, recorder: Recorder) {
        self.series.push((name.to_owned(), recorder));
    }

    /// Adds tables of targets beside each other.
    pub fn tables(&mut self, tables: Vec<Grid>) {
        self.run.tables.extend(tables);
    }

    /// Adds values over time.
    pub fn timelines(&mut self, timelines: Vec<Timeline>) {
        self.run.timelines.extend(timelines);
    }

    /// Adds a parameter of the scenario.
    pub fn parameter(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        self.run.parameters.insert(name.to_owned(), value.into());
    }

    /// Prints the account of the deliveries. A loss or a duplicate is a fault.
    pub fn account(&mut self, name: &str, recorder: &Recorder) {
        let account = recorder.deliveries;
        let told = format!(
            "{name}: {} expected, {} delivered, {} lost, {} out of order, {} duplicates",
            number(account.expected as f64),
            number(account.delivered as f64),
            number(account.lost() as f64),
            number(account.out_of_order as f64),
            number(account.duplicates as f64)
        );
        eprintln!("  {told}");
        if account.lost() > 0 || account.duplicates > 0 {
            self.fault(told);
        }
    }

    fn next_port(&mut self) -> u16 {
        let port = self.port;
        self.port += 1;
        port
    }

    /// The next port that no process listens on. A server bound to one address would receive the
    /// connections of another server that is bound to all addresses.
    fn free_port(&mut self) -> Result<u16> {
        for _ in 0..1000 {
            let port = self.next_port();
            let free = |address: Ipv4Addr| TcpListener::bind((address, port)).is_ok();
            if free(Ipv4Addr::LOCALHOST) && free(Ipv4Addr::UNSPECIFIED) {
                return Ok(port);
            }
        }
        bail!("no free port from {} on; choose another range with --port", self.common.port)
    }

    /// Starts the server on a free port.
    pub fn server(&mut self, pong: bool) -> Result<Server> {
        self.server_with(pong, &[])
    }

    /// Like [`Bench::server`], with additional arguments.
    pub fn server_with(&mut self, pong: bool, arguments: &[String]) -> Result<Server> {
        self.server_on(None, pong, arguments)
    }

    /// Like [`Bench::server_with`], with API and metrics on a port of their own.
    pub fn server_apart(&mut self, arguments: &[String]) -> Result<Server> {
        let internal = self.free_port()?;
        self.server_on(Some(internal), false, arguments)
    }

    fn server_on(
        &mut self,
        internal_port: Option<u16>,
        pong: bool,
        arguments: &[String],
    ) -> Result<Server> {
        Server::start(&self.server_options(internal_port, pong, arguments)?)
    }

    /// Options of a server on a free port.
    fn server_options(
        &mut self,
        internal_port: Option<u16>,
        pong: bool,
        arguments: &[String],
    ) -> Result<ServerOptions> {
        Ok(ServerOptions {
            program: self.common.server.clone(),
            port: self.free_port()?,
            internal_port,
            shards: self.shards,
            ping_seconds: self.ping_seconds,
            pong,
            spread_seconds: self.spread_seconds,
            arguments: [&self.common.server_arguments, arguments].concat(),
        })
    }

    /// Starts the kernel baseline on a port of its own and connects the client to it.
    pub fn baseline(&mut self) -> Result<(Exchange, Ramp)> {
        let port = self.free_port()?;
        let slots = self.connections.div_ceil(u64::from(self.shards));
        // SO_REUSEPORT spreads connections unevenly, and the kernel baseline does not move them to
        // a shard with room.
        let slots = (slots * 2).min(drumline::base::sys::raise_open_files()?) as u32;
        let options = Options {
            port,
            shards: self.shards,
            slots,
            send_buffer: 65_536,
            receive_buffer: 65_536,
        };
        let baseline = Baseline::start(&options)?;
        let (client, ramp) = self.connect(self.connections, port, Mode::Raw)?;
        Ok((Exchange::new(baseline, client), ramp))
    }

    /// What the kernel baseline sent; a difference to what was received is a fault.
    fn check(&mut self, outcome: Outcome) -> Sent {
        if let Some(fault) = outcome.fault {
            self.fault(format!("kernel baseline, {fault}"));
        }
        outcome.sent
    }

    /// Publishes and waits for every delivery. A refused publication is a fault.
    pub fn deliver(&mut self, server: &Server, dense: &Dense, burst: Burst) -> Result<Delivered> {
        // Without an internal port this is the public one, which WebSocket publishers need.
        let delivered = self.deliver_to(server.control(), dense, burst, PATIENCE)?;
        self.check_refusal(&delivered.published);
        Ok(delivered)
    }

    /// Publishes to this address and waits for every delivery, until none comes for `patience`.
    pub fn deliver_to(
        &mut self,
        server: SocketAddr,
        dense: &Dense,
        burst: Burst,
        patience: Duration,
    ) -> Result<Delivered> {
        let (first_ns, expected, published) = self.send(server, dense, burst)?;
        dense.await_delivered(expected, patience);
        let took = Duration::from_nanos(self.clock.now_ns().saturating_sub(first_ns));
        let recorder = dense.finish(expected)?;
        Ok(Delivered { recorder, published, took })
    }

    /// Publishes in a new phase, which stays open. Returns the number of expected deliveries.
    pub fn publish(&mut self, server: &Server, dense: &Dense, burst: Burst) -> Result<u64> {
        let (_, expected, published) = self.send(server.address(), dense, burst)?;
        self.check_refusal(&published);
        Ok(expected)
    }

    /// Returns the due time of the first message, the expected deliveries and the publishers'
    /// side.
    fn send(
        &mut self,
        server: SocketAddr,
        dense: &Dense,
        burst: Burst,
    ) -> Result<(u64, u64, Published)> {
        let load = self.load(server, dense.connections(), burst);
        let first_ns = load.first_ns;
        dense.begin(self.phase)?;
        let expected = load.expected(dense.connections());
        let published = load.start(self.clock)?.join()?;
        Ok((first_ns, expected, published))
    }

    fn check_refusal(&mut self, published: &Published) {
        if let Some(refusal) = &published.refusal {
            self.fault(format!("the server refused a publication: {refusal}"));
        }
    }

    /// The load of a new phase, which begins after [`LEAD_NS`].
    fn load(&mut self, server: SocketAddr, connections: u64, burst: Burst) -> Load {
        self.phase += 1;
        Load {
            server,
            api: burst.api,
            publishers: burst.publishers,
            channel_count: burst.channels.count(connections),
            channels: burst.channels,
            phase: self.phase,
            data: burst.data,
            first_ns: self.clock.now_ns() + LEAD_NS,
            interval_ns: burst.interval_ns,
            messages: burst.messages,
            per_frame: burst.per_frame,
        }
    }

    /// Publishes without subscribers. A refused publication is an error.
    pub fn publish_unheard(&mut self, server: SocketAddr, burst: Burst) -> Result<Published> {
        let published = self.load(server, 1, burst).start(self.clock)?.join()?;
        match published.refusal {
            Some(refusal) => bail!("the server refused a publication: {refusal}"),
            None => Ok(published),
        }
    }

    /// Adds a row with the lateness of the publishers.
    pub fn lateness(&mut self, what: &str, published: &Published) -> Result<()> {
        let late = published.lateness.percentiles()?;
        self.row(Row::new(format!("{what}: publishers' lateness, p99"), late.p99 as f64, "ns"));
        Ok(())
    }

    /// Adds rows with the median and the tails of a recorder. Targets are in ns; 0: no target.
    pub fn percentiles(
        &mut self,
        what: &str,
        recorder: &Recorder,
        targets: [f64; 3],
    ) -> Result<()> {
        let all = recorder.percentiles()?;
        let values = [("p50", all.p50), ("p99", all.p99), ("p99.9", all.p99_9)];
        for ((name, value), target) in values.into_iter().zip(targets) {
            let row = Row::new(format!("{what}: {name}"), value as f64, "ns");
            self.row(if target > 0.0 { row.at_most(target) } else { row });
        }
        Ok(())
    }

    /// Waits until the sockets of stopped processes are gone and the slab no longer changes.
    /// Sockets in TIME_WAIT count too: they last a minute and take 256 bytes of slab each.
    pub fn settle(&mut self, baseline: &KernelSample) -> Result<()> {
        let begun = Instant::now();
        let mut last = 0;
        while begun.elapsed() < SETTLE {
            let now = KernelSample::now()?;
            let slab = now.s_unreclaim + now.s_reclaimable;
            let gone = now.sockets_in_use <= baseline.sockets_in_use + SETTLED_SOCKETS
                && time_waits()? <= SETTLED_SOCKETS;
            if gone && slab.abs_diff(last) < SETTLED_SLAB {
                return Ok(());
            }
            last = slab;
            std::thread::sleep(Duration::from_secs(1));
        }
        let (sockets, waits) = (KernelSample::now()?.sockets_in_use, time_waits()?);
        let told = format!(
            "the machine was not quiet before a stage ({sockets} sockets, {waits} in TIME_WAIT): \
             another program uses it, and kernel memory is not that of this run alone"
        );
        eprintln!("  {told}");
        self.note(told);
        Ok(())
    }

    /// Writes the run, prints its tables, and returns its faults as an error.
    pub fn finish(mut self) -> Result<()> {
        let path = self.run.write(&self.common.results, &self.series)?;
        for table in &self.run.tables {
            println!("{}", table.text());
        }
        if let Some(first) = self.run.tables.iter().find(|table| table.compares()) {
            println!("{}\n", first.legend());
        }
        println!("{}", table::render(&self.run.title, &self.run.rows)?);
        println!("{}", path.display());
        if !self.faults.is_empty() && !self.common.keep_going {
            bail!("{}", self.faults.join("\n"));
        }
        Ok(())
    }
}

/// Shards that hold `connections` connections: one per processor, or as many as RLIMIT_NOFILE
/// requires.
fn enough_shards(connections: u64) -> Result<u32> {
    let limit = drumline::base::sys::raise_open_files().context("cannot raise RLIMIT_NOFILE")?;
    let room = limit.saturating_sub(SPARE_SLOTS).max(1);
    // SO_REUSEPORT fills shards unevenly: a twentieth of the slots stays free.
    let slots = room - room / 20;
    Ok((connections.div_ceil(slots) as u32).max(drumline::base::sys::processors() as u32))
}

/// Sockets in TIME_WAIT.
fn time_waits() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/net/sockstat").context("cannot read sockstat")?;
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let mut words = line.split(' ').skip_while(|word| *word != "tw");
    words.nth(1).and_then(|count| count.parse().ok()).context("sockstat: no TCP tw")
}

/// Growth of slab memory of both kinds since `quiet`, in bytes. Waits first for the work that the
/// kernel has deferred during the ramp.
pub fn slab_growth(quiet: &KernelSample) -> Result<i64> {
    std::thread::sleep(Duration::from_secs(2));
    Ok(KernelSample::now()?.since(quiet).slab())
}

/// The use of a child while `work` ran.
pub fn used(
    sample: impl Fn() -> Result<ProcessSample>,
    work: impl FnOnce() -> Result<()>,
) -> Result<ProcessDelta> {
    let before = sample()?;
    work()?;
    sample()?.since(&before)
}

/// The median; of an even number of values the lower of the middle two.
pub fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().context("no values to take a median of")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_long_as_the_engine_makes_them() {
        for bytes in [48, 128, 512] {
            let mut frame = Vec::new();
            let text = format!(
                "{{\"push\":{{\"channel\":\"all\",\"pub\":{{\"data\":{}}}}}}}",
                "x".repeat(bytes)
            );
            drumline::wire::frame::write_text(text.as_bytes(), &mut frame);
            assert_eq!(frame.len(), frame_bytes(bytes));
        }
    }

    #[test]
    fn the_median_is_the_middle_value_and_needs_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).unwrap(), 2.0);
        assert!(median(Vec::new()).is_err());
    }
}
