//! A server under a hostile load, with the probes that measure it.
//!
//! Owns the server and the time of the load. Never chooses a load. Invariant: probes and watch run
//! from the begin of the load.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::probe::PingProbes;
use super::watch::{self, Watch};
use crate::account::ProcessSample;
use crate::clock::RunClock;
use crate::server::Server;

/// Connections of a load that is not scaled down.
pub(super) const FULL: u64 = 9_000;
/// Maximum time for the start of a server.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server under a load.
pub struct Scene {
    pub(super) server: Server,
    /// Address for clients.
    pub(super) address: SocketAddr,
    /// Address of the API, metrics and health.
    pub(super) control: SocketAddr,
    /// Connections of the run; [`Scene::scaled`] scales loads by them.
    pub(super) connections: u64,
    /// Duration of the load after [`Scene::begin`].
    pub(super) lasts: Duration,
    pub(super) probes: u64,
    pub(super) clock: RunClock,
    pub(super) running: Option<(PingProbes, Watch, Instant)>,
    /// Events that make the run fail.
    pub(super) faults: Vec<String>,
    pub(super) remarks: Vec<String>,
}

impl Scene {
    /// A number of the full load, scaled down in proportion to the connections.
    pub(super) fn scaled(&self, full: u64) -> u64 {
        (full * self.connections / FULL).max(2)
    }

    /// Waits until the server is healthy: its port accepts connections before that.
    pub(super) fn await_health(&self) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = watch::get(self.control, "/health") {
            let running = ProcessSample::of_one(self.server.pid());
            running.context("the server ended while it started: see its error above")?;
            ensure!(begun.elapsed() < PATIENCE, "no health within {PATIENCE:?}: {error:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Begins the load: starts the ping probes and the watch of the server.
    pub(super) fn begin(&mut self) -> Result<()> {
        let probes = PingProbes::start(self.address, self.probes, self.clock)?;
        let watch = Watch::start(self.server.pid(), self.control)?;
        self.running = Some((probes, watch, Instant::now()));
        Ok(())
    }

    /// Time at which the load must end.
    pub(super) fn deadline(&self) -> Instant {
        self.running.as_ref().map_or_else(Instant::now, |(_, _, begun)| *begun) + self.lasts
    }

    pub(super) fn goes_on(&self) -> bool {
        Instant::now() < self.deadline()
    }

    /// The largest value of a metric.
    pub(super) fn metric(&self, name: &str) -> Result<Option<f64>> {
        Ok(values(&watch::get(self.control, "/metrics")?, name).max_by(f64::total_cmp))
    }
}

/// The values of a metric in a text of Prometheus metrics.
pub(super) fn values<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    let ours =
        move |line: &'a str| line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
    text.lines().filter_map(ours).filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
}
