//! One line under load: its server, its feed and its clients.
//!
//! Owns the order of a measurement. Never interprets its numbers. Invariant: when a measurement is
//! over its server and its clients are gone, whatever has failed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::feed::{Api, Feed, Sink};
use super::line::{Line, ServerKind};
use super::prices::{BYTES, SYMBOLS};
use super::relay::{self, Distance};
use super::service::Service;
use super::servlet::Servlet;
use crate::account::{ProcessSample, per_connection};
use crate::dense::Channels;
use crate::reader::{ReaderPlan, Reading, Readings, Window, read};
use crate::scenario::{Bench, SECOND_NS};
use crate::server::Server;
use crate::target::{Nchan, Nginx, Peer};

/// Maximum time without another client that is up.
const RAMP_PATIENCE: Duration = Duration::from_secs(30);
/// Time between the last client and the window.
pub(super) const SETTLE: Duration = Duration::from_secs(1);
/// The fixed answer of nginx: a price of [`BYTES`] bytes.
const FIXED_PRICE: &str = r#"{"t":"00000000000001","q":"001000000001","p":""}"#;
static NGINX: Nginx = Nginx { fixed: FIXED_PRICE };
/// What Drumline needs for every way.
pub(super) const ARGUMENTS: [&str; 8] = [
    "--uni_websocket.enabled",
    "--uni_sse.enabled",
    "--uni_http_stream.enabled",
    "--long_polling.enabled",
    "--polling.enabled",
    "--channel.without_namespace.history_size=100",
    "--channel.without_namespace.history_ttl=60s",
    "--channel.without_namespace.force_recovery=true",
];

/// What is measured on a line.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) clients: u64,
    pub(super) seconds: u64,
    pub(super) channels: Channels,
    /// Prices per second on each channel.
    pub(super) per_channel: f64,
    /// At random times instead of regular ones.
    pub(super) random: bool,
    pub(super) headers: &'static str,
    /// The relay between clients and server, if any.
    pub(super) distance: Option<Distance>,
}

impl Load {
    /// A price per second for each client, without a relay.
    pub(super) fn of_case(line: Line) -> Self {
        Load {
            clients: 0,
            seconds: 0,
            // These answer every client with the same price.
            channels: match line {
                Line::Servlet | Line::NginxFixed => Channels::Shared("all".to_owned()),
                _ => Channels::Rooms(SYMBOLS),
            },
            per_channel: 1.0,
            random: false,
            headers: line.headers(),
            distance: None,
        }
    }
}

impl Load {
    /// The feed of this load.
    fn feed(&self, sink: Sink) -> Feed {
        let channel_count = self.channels.count(self.clients);
        Feed {
            sink,
            channels: self.channels.clone(),
            channel_count,
            per_second: self.per_channel * channel_count as f64,
            random: self.random,
            bytes: BYTES,
        }
    }
}

/// The outcome.
pub(super) struct Measured {
    pub(super) readings: Readings,
    pub(super) seconds: f64,
    /// Processor time of the server per price delivered.
    pub(super) cpu_ns: f64,
    /// The same of the clients and the feed.
    pub(super) client_cpu_ns: f64,
    /// Anonymous memory of the server per client.
    pub(super) memory: f64,
}

impl Measured {
    /// An outcome for tests of one second and one price.
    #[cfg(test)]
    pub(super) fn of(framing: u64, cpu_ns: f64, skipped: u64) -> Result<Self> {
        use crate::latency::Recorder;
        use crate::reader::Counts;
        let recorder = || Recorder::new(std::time::SystemTime::UNIX_EPOCH);
        let counts = Counts { framing, prices: 1, skipped, ..Counts::default() };
        let readings = Readings { counts, latency: recorder()?, ages: recorder()? };
        Ok(Measured { readings, seconds: 1.0, cpu_ns, client_cpu_ns: 1.0, memory: 9.0 })
    }

    /// Prices that clients should have got and did not.
    pub(super) fn lost(&self, line: Line) -> u64 {
        if line.is_push() { self.readings.counts.skipped } else { 0 }
    }
}

/// The server of a line.
enum Running {
    Drumline(Server),
    /// It serves the files of a folder.
    Nginx(Peer),
    /// It takes prices as they are.
    Bare(Peer),
}

impl Running {
    fn start(bench: &mut Bench, line: Line) -> Result<Self> {
        Ok(match line.server() {
            ServerKind::Drumline => {
                let arguments = ARGUMENTS.map(str::to_owned);
                Running::Drumline(bench.server_with(false, &arguments)?)
            }
            ServerKind::Nginx => Running::Nginx(Peer::start(&NGINX, bench.target_options()?)?),
            ServerKind::Nchan => Running::Bare(Peer::start(&Nchan, bench.target_options()?)?),
            ServerKind::Servlet => Running::Bare(Peer::start(&Servlet, bench.target_options()?)?),
        })
    }

    fn address(&self) -> SocketAddr {
        match self {
            Running::Drumline(server) => server.address(),
            Running::Nginx(peer) | Running::Bare(peer) => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, peer.port()))
            }
        }
    }

    fn sink(&self) -> Sink {
        match self {
            Running::Drumline(server) => Sink::Http(server.address(), Api::Drumline),
            Running::Bare(_) => Sink::Http(self.address(), Api::Bare),
            Running::Nginx(peer) => Sink::Files(peer.dir().join("prices")),
        }
    }

    /// Processor time and memory.
    fn sample(&self) -> Result<ProcessSample> {
        match self {
            Running::Drumline(server) => server.sample(),
            Running::Nginx(peer) | Running::Bare(peer) => peer.sample(),
        }
    }

    fn stop(self) -> Result<()> {
        match self {
            Running::Drumline(server) => server.stop(),
            Running::Nginx(peer) | Running::Bare(peer) => peer.stop(),
        }
    }
}

/// Measures a line.
pub(super) fn line(bench: &mut Bench, line: Line, load: &Load) -> Result<Measured> {
    let server = Running::start(bench, line)?;
    let window = Arc::new(Window::default());
    let relay = load.distance.map(|distance| relay::start(server.address(), distance));
    let relay = relay.transpose()?;
    let plan = ReaderPlan {
        server: relay.as_ref().map_or(server.address(), Service::address),
        way: line.way(),
        clients: load.clients,
        channels: load.channels.clone(),
        path: line.path().to_owned(),
        headers: load.headers.to_owned(),
        interval_ns: SECOND_NS,
        bytes: BYTES,
    };
    let empty = server.sample()?;
    let feed = load.feed(server.sink()).start(bench.clock, window.clone())?;
    let reading = read(plan, bench.clock, window.clone())?;
    let measured = loaded(bench, (&server, empty), &reading, load, &window);
    if measured.is_err() {
        window.cancel();
    }
    let fed = feed.join();
    // The clients end with their server.
    drop(relay);
    let stopped = server.stop();
    let ended = reading.end();
    let measured = measured.with_context(|| line.name())?;
    fed.and(stopped).and(ended)?;
    let lost = measured.lost(line);
    if lost > 0 {
        bench.fault(format!("{}: {lost} prices lost", line.name()));
    }
    Ok(measured)
}

/// Measures the clients once they are up.
fn loaded(
    bench: &Bench,
    (server, empty): (&Running, ProcessSample),
    reading: &Reading,
    load: &Load,
    window: &Window,
) -> Result<Measured> {
    if let Err(error) = ramp(window, load.clients) {
        window.cancel();
        // The clients know more about the cause.
        return Err(reading.outcome().err().unwrap_or(error));
    }
    std::thread::sleep(SETTLE.min(Duration::from_millis(load.clients)));
    let full = server.sample()?;
    let begin_ns = bench.clock.now_ns() + SECOND_NS / 2;
    window.set(begin_ns, begin_ns + load.seconds * SECOND_NS);
    std::thread::sleep(bench.clock.until(begin_ns));
    let before = (server.sample()?, own()?);
    std::thread::sleep(bench.clock.until(window.end_ns()));
    let after = (server.sample()?, own()?);
    let readings = reading.outcome()?;
    let prices = readings.counts.prices;
    ensure!(prices > 0, "no price was delivered");
    Ok(Measured {
        readings,
        seconds: load.seconds as f64,
        cpu_ns: after.0.since(&before.0)?.cpu_ns_per(prices)?,
        client_cpu_ns: after.1.since(&before.1)?.cpu_ns_per(prices)?,
        memory: per_connection(full.since(&empty)?.rss_anon, load.clients)?,
    })
}

/// Waits until all clients are up.
fn ramp(window: &Window, clients: u64) -> Result<()> {
    let mut last = (0, Instant::now());
    while window.up() < clients {
        if window.up() > last.0 {
            last = (window.up(), Instant::now());
        }
        let waited = last.1.elapsed();
        ensure!(waited < RAMP_PATIENCE, "only {} of {clients} clients came up", window.up());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The harness's own processor time.
pub(super) fn own() -> Result<ProcessSample> {
    ProcessSample::of_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Stamp;

    #[test]
    fn the_fixed_answer_is_a_price_of_the_same_size() {
        let mut price = Vec::new();
        Stamp { due_ns: 1, phase: 1, sequence: 1 }.write(BYTES, &mut price);
        assert_eq!(price, FIXED_PRICE.as_bytes());
    }
}
