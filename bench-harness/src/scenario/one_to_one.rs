//! One publication to one subscriber, at a million connections with a channel each.
//!
//! Owns the rows of `one-to-one`. Never mixes publishers: each has a window of its own, on the same
//! connections. Invariant: the pings of a window are counted by connection, and a window of pings
//! alone comes first, which tells the cost of a ping.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::{Bench, Burst, Common, LEAD_NS, SECOND_NS, used};
use crate::account::{ProcessDelta, ProcessSample};
use crate::dense::{Channels, Dense, Mode, PingTally, PingWindow};
use crate::namespace;
use crate::profile::Profile;
use crate::publish::{Api, Post};
use crate::rows::{Row, number, value};
use crate::server::{API_KEY, PING_SECONDS, Server};
use crate::wire::Data;

const BYTES: usize = 512;
/// Publications per second at a million connections.
const RATE: u64 = 16_667;
const MILLION: u64 = 1_000_000;
/// Unanswered requests of the HTTP publisher.
const IN_FLIGHT: u64 = 1024;
/// Targets: p50 and p99 in ns, CPU of the server per message beside pings in ns.
const P50_NS: f64 = 1e6;
const P99_NS: f64 = 50e6;
const CPU_NS: f64 = 30_000.0;
/// Least share of the pings that come, in percent, and how late a ping may be, in ms.
const PINGS_PERCENT: f64 = 99.0;
const PING_LATE_MS: u64 = 5_000;
const MS_NS: u64 = 1_000_000;
/// Start of the name of the dense client's threads.
const DENSE: &str = "dense-";
/// Counters of the server, whose growth per message is reported, and what each counts.
const WORK: [(&str, &str); 8] = [
    ("drumline_calls_total", "HTTP publishes answered by a shard"),
    ("drumline_deliveries_total", "deliveries"),
    ("drumline_pings_total", "pings"),
    ("drumline_sends_total", "sends"),
    ("drumline_enters_total", "calls of io_uring_enter"),
    ("drumline_turns_total", "turns of the shards"),
    ("drumline_passes_total", "passes of the workers"),
    ("drumline_sleeps_total", "sleeps"),
];
/// Counter of the wall time inside the passes of the workers, in microseconds.
const PASS_MICROS: &str = "drumline_pass_micros_total";

/// A set of connections, each with its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Pings every --ping-seconds, which clients do not answer.
    Plain,
    /// Pings every --ping-seconds, which clients answer.
    Pong,
    /// Pings every --slow-ping-seconds, which clients do not answer.
    SlowPings,
}

/// How messages are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Publisher {
    /// One kept-alive connection with many unanswered requests.
    Http,
    /// One WebSocket with --per-frame publications per frame.
    Websocket,
}

impl Publisher {
    fn name(self) -> &'static str {
        match self {
            Publisher::Http => "HTTP",
            Publisher::Websocket => "WebSocket",
        }
    }
}

/// Flags of `one-to-one`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Stages to run.
    #[arg(long, value_enum, value_delimiter = ',')]
    #[arg(default_values_t = Stage::value_variants().to_vec())]
    stages: Vec<Stage>,
    /// Publishers to measure in each stage, one after the other.
    #[arg(long, value_enum, value_delimiter = ',')]
    #[arg(default_values_t = Publisher::value_variants().to_vec())]
    publishers: Vec<Publisher>,
    /// Publications per second. By default 16,667 at a million connections, in proportion.
    #[arg(long)]
    rate: Option<u64>,
    /// Publications per frame of the WebSocket publisher. All of a frame are due with the first.
    #[arg(long, default_value_t = 16)]
    per_frame: u64,
    /// Seconds between two pings of a connection, at least 2.
    #[arg(long, default_value_t = PING_SECONDS)]
    ping_seconds: u64,
    /// Seconds between two pings of a connection in stage slow-pings, at least 2.
    #[arg(long, default_value_t = 60)]
    slow_ping_seconds: u64,
    /// Stay in the present network namespace. By default the run makes one with a larger table of
    /// TCP connections, if it may.
    #[arg(long)]
    no_namespace: bool,
    /// Sample the server's workers with perf, and report their CPU per message by groups of
    /// functions. Sampling costs the server some percent, so other numbers of the run rise too.
    #[arg(long)]
    perf: bool,
}

/// Connections of a stage, ready to be measured.
struct Standing<'a> {
    options: &'a Options,
    name: String,
    server: Server,
    dense: Dense,
    rate: u64,
    /// Processor time of the server for one ping, in ns.
    ping_ns: f64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let pings = [options.ping_seconds, options.slow_ping_seconds];
    ensure!(pings.iter().all(|seconds| *seconds >= 2), "pings must be at least 2 seconds apart");
    ensure!(options.per_frame > 0, "--per-frame must be above 0");
    let title = "One publication to one subscriber, at a million connections";
    let mut bench = Bench::new(&options.common, "one-to-one", title, (MILLION, 60))?;
    if !options.no_namespace {
        bench.note(namespace::enter_if_permitted());
    }
    let rate = options.rate.unwrap_or((RATE * bench.connections).div_ceil(MILLION));
    ensure!(rate > 0, "--rate must be above 0");
    bench.parameter("publications per second", rate);
    bench.note(
        "Latency counts from the scheduled time of the publish call to the client's receive. The \
         load generator runs on the processors of the server, and its CPU stands beside the \
         server's. CPU beside pings: the server's CPU in the window, less its pings times the CPU \
         per ping of a window with pings alone, on the same connections.",
    );
    for stage in &options.stages {
        eprintln!("stage {stage:?}");
        measure_stage(&mut bench, options, *stage, rate)?;
    }
    bench.finish()
}

fn measure_stage(bench: &mut Bench, options: &Options, stage: Stage, rate: u64) -> Result<()> {
    bench.ping_seconds = match stage {
        Stage::Plain | Stage::Pong => options.ping_seconds,
        Stage::SlowPings => options.slow_ping_seconds,
    };
    let pongs = if stage == Stage::Pong { " with pongs" } else { "" };
    let name = format!("pings every {} s{pongs}", bench.ping_seconds);
    let server = bench.server(stage == Stage::Pong)?;
    let mode = Mode::Subscribe(Channels::Distinct);
    let (dense, _) = bench.connect(bench.connections, server.address().port(), mode)?;
    let mut standing = Standing { options, name, server, dense, rate, ping_ns: 0.0 };
    // Every connection's first ping comes within one interval.
    std::thread::sleep(Duration::from_secs(bench.ping_seconds + 1));
    standing.pings_alone(bench)?;
    for publisher in &options.publishers {
        standing.measure(bench, *publisher)?;
    }
    bench.check_standing(&standing.dense, &format!("with {}", standing.name));
    let stray = standing.dense.counters().stray.load(std::sync::atomic::Ordering::Relaxed);
    if stray > 0 {
        bench.fault(format!("{}: {stray} deliveries that were not expected", standing.name));
    }
    standing.dense.stop()?;
    standing.server.stop()
}

impl Standing<'_> {
    /// A window with pings alone.
    fn pings_alone(&mut self, bench: &mut Bench) -> Result<()> {
        let pings = self.dense.counters().pings();
        let time = Duration::from_secs(bench.seconds.max(bench.ping_seconds));
        let window = self.begin(bench, time)?;
        let idle = || {
            std::thread::sleep(time);
            Ok(())
        };
        let cpu = used(|| self.server.sample(), idle)?;
        let came = self.dense.counters().pings() - pings;
        let name = format!("pings alone, {}", self.name);
        self.end(bench, &name, window)?;
        self.ping_ns = cpu.cpu_ns_per(came.max(1))?;
        let cores = cpu.cores(time.as_nanos() as u64)?;
        bench.row(Row::new(format!("{name}: cores of the server"), cores, "cores"));
        bench.row(Row::new(format!("{name}: CPU of the server per ping"), self.ping_ns, "ns"));
        Ok(())
    }

    fn burst(&self, publisher: Publisher, seconds: u64) -> Burst {
        let (api, per_frame) = match publisher {
            Publisher::Http => (Api::Http(Post::drumline(API_KEY).pipelined(IN_FLIGHT)), 1),
            Publisher::Websocket => (Api::WebSocket, self.options.per_frame),
        };
        Burst {
            api,
            publishers: 1,
            channels: Channels::Distinct,
            data: Data::Filled(BYTES),
            messages: self.rate * seconds,
            interval_ns: SECOND_NS / self.rate,
            per_frame,
        }
    }

    /// A window with publications.
    fn measure(&self, bench: &mut Bench, publisher: Publisher) -> Result<()> {
        let name = format!("{}, {}", publisher.name(), self.name);
        let warm = bench.deliver(&self.server, &self.dense, self.burst(publisher, 1))?;
        bench.account(&format!("{name}, warm-up"), &warm.recorder);
        let time = Duration::from_nanos(LEAD_NS + bench.seconds * SECOND_NS);
        let window = self.begin(bench, time)?;
        let counted = self.server.totals()?;
        let before = Usage::now(&self.server)?;
        let pings = self.dense.counters().pings();
        let burst = self.burst(publisher, bench.seconds);
        let profile = self.profile(bench);
        let delivered = bench.deliver(&self.server, &self.dense, burst)?;
        let usage = Usage::now(&self.server)?.since(&before)?;
        let pings = self.dense.counters().pings() - pings;
        let work = growth(&counted, &self.server.totals()?);
        self.end(bench, &name, window)?;
        bench.percentiles(&name, &delivered.recorder, [P50_NS, P99_NS, 0.0])?;
        let messages = delivered.recorder.deliveries.delivered;
        self.cost(bench, &name, &usage, messages, pings)?;
        split(bench, &name, &work, messages);
        if let Some(profile) = profile {
            by_function(bench, &name, profile, usage.workers_ns as f64 / messages as f64);
        }
        bench.lateness(&name, &delivered.published)?;
        bench.series(&name, delivered.recorder);
        Ok(())
    }

    /// perf for the time of a window, if it is asked for and runs.
    fn profile(&self, bench: &mut Bench) -> Option<Profile> {
        let time = Duration::from_secs(bench.seconds);
        let started = self.options.perf.then(|| Profile::start(self.server.pid(), time))?;
        started.inspect_err(|error| bench.note(format!("no profile: {error:#}"))).ok()
    }

    /// The rows of processor time.
    fn cost(
        &self,
        bench: &mut Bench,
        name: &str,
        usage: &UsageDelta,
        messages: u64,
        pings: u64,
    ) -> Result<()> {
        let all_ns = usage.server.cpu_ns_per(messages)?;
        let pings_ns = self.ping_ns * pings as f64 / messages as f64;
        let beside = Row::new(
            format!("{name}: CPU of the server per message beside pings"),
            all_ns - pings_ns,
            "ns",
        );
        bench.row(beside.at_most(CPU_NS));
        let each = value(self.ping_ns, "ns");
        let note = format!("{} pings of {each} each", number(pings as f64));
        let row =
            Row::new(format!("{name}: CPU of the server per message, for pings"), pings_ns, "ns");
        bench.row(row.note(note));
        let workers = usage.workers_ns as f64 / messages as f64;
        bench.row(Row::new(
            format!("{name}: CPU per message, workers (with pings)"),
            workers,
            "ns",
        ));
        let dense_ns = usage.dense_ns as f64 / messages as f64;
        let publisher_ns = usage.client.cpu_ns_per(messages)? - dense_ns;
        for (whose, cost) in [("subscribers", dense_ns), ("publisher", publisher_ns.max(0.0))] {
            let what = format!("{name}: CPU of the load generator per message, {whose}");
            bench.row(Row::new(what, cost, "ns"));
        }
        Ok(())
    }

    /// Opens a window of pings.
    fn begin(&self, bench: &Bench, time: Duration) -> Result<PingWindow> {
        let interval_ms = bench.ping_seconds * 1000;
        self.dense.begin_pings(interval_ms)?;
        let begun_ms = bench.clock.now_ns() / MS_NS;
        Ok(PingWindow { begun_ms, end_ms: begun_ms + time.as_millis() as u64, interval_ms })
    }

    /// Waits for the pings of the window as long as they may be late, and reports them.
    fn end(&self, bench: &mut Bench, name: &str, window: PingWindow) -> Result<()> {
        let begun = Instant::now();
        let tally = loop {
            let now_ms = bench.clock.now_ns() / MS_NS;
            let tally = self.dense.count_pings(window, now_ms)?;
            let over = now_ms >= window.end_ms;
            let late = begun.elapsed() > Duration::from_millis(PING_LATE_MS);
            if over && (tally.came >= tally.due || late) {
                break tally;
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        self.dense.end_pings()?;
        report_pings(bench, name, tally)
    }
}

/// The rows of the pings. Missing and late pings are a fault.
fn report_pings(bench: &mut Bench, name: &str, tally: PingTally) -> Result<()> {
    ensure!(tally.due > 0, "{name}: no ping was due; measure longer with --seconds");
    let percent = 100.0 * tally.came as f64 / tally.due as f64;
    let counts = format!("{} due, {} came", number(tally.due as f64), number(tally.came as f64));
    let row = Row::new(format!("{name}: pings that came"), percent, "percent");
    bench.row(row.at_least(PINGS_PERCENT).note(counts.clone()));
    let late = Row::new(format!("{name}: latest ping"), (tally.latest_ms * MS_NS) as f64, "ns");
    bench.row(late.at_most((PING_LATE_MS * MS_NS) as f64).note("after its due time"));
    if percent < PINGS_PERCENT || tally.latest_ms > PING_LATE_MS {
        let latest = tally.latest_ms;
        bench.fault(format!("{name}: pings: {counts}, the latest {latest} ms after its due time"));
    }
    Ok(())
}

/// Processor time of the server and of the load generator so far.
struct Usage {
    server: ProcessSample,
    /// Of the server's workers, in ns.
    workers_ns: u64,
    client: ProcessSample,
    /// Of the dense client's threads, in ns.
    dense_ns: u64,
}

/// The growth of a [`Usage`].
struct UsageDelta {
    server: ProcessDelta,
    workers_ns: u64,
    client: ProcessDelta,
    dense_ns: u64,
}

impl Usage {
    fn now(server: &Server) -> Result<Self> {
        let own = std::process::id();
        Ok(Usage {
            server: server.sample()?,
            workers_ns: ProcessSample::of_threads(server.pid(), "worker-")?,
            client: ProcessSample::of_one(own)?,
            dense_ns: ProcessSample::of_threads(own, DENSE)?,
        })
    }

    fn since(&self, before: &Self) -> Result<UsageDelta> {
        Ok(UsageDelta {
            server: self.server.since(&before.server)?,
            workers_ns: self.workers_ns.saturating_sub(before.workers_ns),
            client: self.client.since(&before.client)?,
            dense_ns: self.dense_ns.saturating_sub(before.dense_ns),
        })
    }
}

/// Growth of each counter.
fn growth(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let grown = |(name, now): (&String, &f64)| {
        (name.clone(), now - before.get(name).copied().unwrap_or_default())
    };
    after.iter().map(grown).collect()
}

/// Rows of the server's counters per message. An older server lacks some of them.
fn split(bench: &mut Bench, name: &str, work: &BTreeMap<String, f64>, messages: u64) {
    let each = |count: f64| count / messages.max(1) as f64;
    for (counter, what) in WORK {
        if let Some(count) = work.get(counter) {
            bench.row(Row::new(format!("{name}: {what} per message"), each(*count), "count"));
        }
    }
    if let Some(micros) = work.get(PASS_MICROS) {
        let what = format!("{name}: time inside passes per message");
        bench.row(Row::new(what, each(micros * 1000.0), "ns").note("wall time, of all workers"));
    }
}

/// Rows of the workers' processor time per message by groups of functions.
fn by_function(bench: &mut Bench, name: &str, profile: Profile, workers_ns: f64) {
    match profile.finish() {
        Ok(shares) => {
            for (group, share) in shares {
                let what = format!("{name}: CPU of the workers per message, by perf: {group}");
                bench.row(Row::new(what, share * workers_ns, "ns"));
            }
        }
        Err(error) => bench.note(format!("{name}: no profile: {error:#}")),
    }
}
