//! One target's turn: started, loaded, accounted for, and stopped.
//!
//! Owns the steps of a turn and the numbers that it takes. Never compares. Invariant: when a turn
//! is over the target and its connections are gone, whatever has failed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::quantities::{
    BUSY, CLIENT_CPU, CONNECTS, CPU, CPU_BOTH, CPU_UNHEARD, KERNEL, LATE, LOST, P50, P99, P999,
    SPEED,
};
use super::scenarios::{BYTES, FANOUTS, Numbers, PING_SECONDS, Scenario, Stage};
use super::tables::Tables;
use super::turn::{Empty, PATIENCE, SETTLE, Turn, client, own, slab};
use super::{asks, idle};
use crate::account::{KernelSample, per_connection};
use crate::dense::{Channels, Dense, Ramp};
use crate::latency::Deliveries;
use crate::publish::Api;
use crate::scenario::{Bench, Burst, Delivered, frame_bytes};
use crate::target::{Adapter, Peer, Target, TargetOptions};

/// The machine is quiet again when at most this many sockets are left over and its slab memory
/// changes by fewer than this many bytes in half a second. The last is the maximum wait.
const SPARE_SOCKETS: u64 = 200;

const SETTLED_BYTES: u64 = 1 << 20;

const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// At a steady rate the machine is full when a smaller part of it than this is idle.
const IDLE_PART: f64 = 0.1;

/// A target's turn in a stage.
pub(super) fn stage(
    bench: &mut Bench,
    tables: &mut Tables,
    (target, stage): (Target, Stage),
    scenarios: &[Scenario],
    plan: &Numbers,
) -> Result<()> {
    match target {
        Target::Server(adapter) if !can(adapter, stage) => {
            scenarios.iter().for_each(|one| tables.remark(*one, one.absence()));
            Ok(())
        }
        Target::Server(adapter) => server(bench, tables, (adapter, stage), scenarios, plan),
        Target::Baseline => baseline(bench, tables, scenarios, plan),
    }
}

/// Whether the target can do what a stage measures.
fn can(adapter: &dyn Adapter, stage: Stage) -> bool {
    match stage {
        Stage::Pinged => adapter.pings(),
        Stage::Publish => matches!(adapter.api(), Api::Http(_)),
        Stage::Recovery => adapter.recovery().is_some(),
        Stage::History | Stage::Presence | Stage::Members => adapter.answers_requests(),
        Stage::Shared | Stage::Rooms | Stage::Distinct | Stage::Storm => true,
    }
}

fn server(
    bench: &mut Bench,
    tables: &mut Tables,
    (adapter, stage): (&'static dyn Adapter, Stage),
    scenarios: &[Scenario],
    plan: &Numbers,
) -> Result<()> {
    settle(plan)?;
    let kernel = slab()?;
    let options = target_options(bench, (adapter, stage), plan)?;
    let mut peer = Peer::start(adapter, options)?;
    let empty = peer.sample()?;
    // For the idle scenario some come early.
    let parted = stage == Stage::Shared && scenarios.contains(&Scenario::Idle);
    let of = if parted { idle::PART } else { 1 };
    if stage == Stage::History {
        asks::keep(bench, &peer)?;
    }
    let client = client(bench, &peer, (asks::dialect(adapter, stage), stage), plan);
    let dense = Dense::start_part(client, bench.clock, of)?;
    let mut turn = Turn { bench, tables, plan, peer: &mut peer, dense };
    let empty = Empty { user: empty, kernel };
    let measured = turn.all(scenarios, parted, &empty);
    let dense = turn.dense;
    let measured = measured.map_err(|error| peer.cause(error));
    // The server first: its sockets then stay in TIME_WAIT, not the client's.
    let stopped = peer.stop();
    let closed = dense.stop();
    measured.and(stopped).and(closed)
}

fn target_options(
    bench: &mut Bench,
    (adapter, stage): (&dyn Adapter, Stage),
    plan: &Numbers,
) -> Result<TargetOptions> {
    let options = bench.target_options()?;
    let publish_port =
        if adapter.has_publish_port() { bench.free_port()? } else { options.publish_port };
    Ok(TargetOptions {
        peers: std::path::absolute(&plan.peers)?,
        publish_port,
        ping_seconds: (stage == Stage::Pinged).then_some(PING_SECONDS),
        recovers: stage.keeps() && adapter.recovery().is_some(),
        members: stage.knows_members(),
        ..options
    })
}

impl Turn<'_> {
    fn all(&mut self, scenarios: &[Scenario], parted: bool, empty: &Empty) -> Result<()> {
        let early = if parted { Some(self.early()?) } else { None };
        let ramp = self.dense.ramp()?;
        self.up(ramp)?;
        for scenario in scenarios {
            match scenario {
                Scenario::Idle | Scenario::IdleDistinct => {
                    self.idle(*scenario, ramp, early.as_ref(), empty)?;
                }
                Scenario::Pings => self.pings()?,
                Scenario::Publish => self.publish()?,
                Scenario::Storm => self.storm()?,
                Scenario::Recovery => self.recover(Scenario::Recovery)?,
                Scenario::History | Scenario::Presence => self.ask(*scenario)?,
                Scenario::Members => self.members()?,
                _ => self.loaded(*scenario)?,
            }
            self.peer.alive()?;
            self.standing(&format!("in {}", scenario.name()))?;
        }
        Ok(())
    }

    /// An error unless all connections are up.
    pub(super) fn up(&mut self, ramp: Ramp) -> Result<()> {
        self.peer.alive()?;
        if ramp.refused > 0 {
            let causes = self.dense.counters().causes();
            bail!("{} of {} never came up: {causes:?}", ramp.refused, self.plan.connections);
        }
        self.standing("while connecting")
    }

    fn standing(&self, when: &str) -> Result<()> {
        let lost = self.dense.counters().lost();
        let codes = self.dense.counters().codes();
        ensure!(lost == 0, "{lost} connections lost {when}, by close code: {codes:?}");
        Ok(())
    }

    /// Publishes a warm-up, then the measured load.
    fn loaded(&mut self, scenario: Scenario) -> Result<()> {
        let api = self.peer.adapter().api();
        let Some((warm, measured)) = scenario.loads(&api, self.plan) else { return Ok(()) };
        let warm = self.deliver(warm)?;
        self.lost(scenario, &warm.recorder.deliveries, "the warm-up of ");
        let publications = measured.messages;
        let interval_ns = measured.interval_ns;
        let (server, client) = (self.peer.sample()?, own()?);
        let delivered = self.deliver(measured)?;
        let cpu = self.peer.sample()?.since(&server)?;
        let client = own()?.since(&client)?;
        let count = delivered.recorder.deliveries.delivered;
        ensure!(count > 0, "nothing of {publications} publications was delivered");
        let wall_ns = delivered.took.as_nanos() as u64;
        let each = cpu.cpu_ns_per(count)?;
        let late = delivered.published.lateness.percentiles()?;
        self.set(scenario, CPU, each);
        self.set(scenario, CPU_BOTH, each);
        self.set(scenario, CLIENT_CPU, client.cpu_ns_per(count)?);
        self.set(scenario, SPEED, count as f64 / delivered.took.as_secs_f64());
        let cores = cpu.cores(wall_ns)? + client.cores(wall_ns)?;
        self.set(scenario, BUSY, cores);
        self.set(scenario, LATE, late.p99 as f64);
        let lost = self.lost(scenario, &delivered.recorder.deliveries, "");
        self.set(scenario, LOST, lost as f64);
        if scenario.is_rated() {
            self.rated(scenario, delivered, cores)?;
        } else if late.max > interval_ns {
            self.late(scenario, "a publication went out later than the next was due");
        }
        if scenario == Scenario::Unicast {
            self.unheard(scenario)?;
        }
        Ok(())
    }

    /// Adds latencies, and a remark if they are not the target's own.
    fn rated(&mut self, scenario: Scenario, delivered: Delivered, cores: f64) -> Result<()> {
        let all = delivered.recorder.percentiles()?;
        let late = delivered.published.lateness.percentiles()?;
        for (column, v) in [(P50, all.p50), (P99, all.p99), (P999, all.p99_9)] {
            self.set(scenario, column, v as f64);
        }
        if late.p99 > all.p99 / 2 {
            self.late(scenario, "publishers' lateness is more than half of p99");
        }
        let full = drumline::base::sys::processors() as f64 * (1.0 - IDLE_PART);
        if cores > full {
            self.late(scenario, &format!("the machine was full ({cores:.2} processors)"));
        }
        if scenario == Scenario::Unicast {
            self.tables.latencies(delivered.recorder)?;
        }
        Ok(())
    }

    /// Publishes the same without subscribers: the cost of publishing alone.
    fn unheard(&mut self, scenario: Scenario) -> Result<()> {
        let api = self.peer.adapter().api();
        let Some((burst, _)) = scenario.loads(&api, self.plan) else { return Ok(()) };
        let messages = burst.messages;
        let burst = Burst { channels: Channels::Shared("empty".to_owned()), ..burst };
        let before = self.peer.sample()?;
        self.bench.publish_unheard(self.peer.publish_address(), burst)?;
        let cpu = self.peer.sample()?.since(&before)?;
        self.set(scenario, CPU_UNHEARD, cpu.cpu_ns_per(messages)?);
        Ok(())
    }

    pub(super) fn deliver(&mut self, burst: Burst) -> Result<Delivered> {
        let to = self.peer.publish_address();
        let delivered = self.bench.deliver_to(to, &self.dense, burst, PATIENCE);
        // A dead target explains more than its broken connections do.
        self.peer.alive()?;
        let delivered = delivered?;
        match &delivered.published.refusal {
            Some(refusal) => bail!("a publication was refused: {refusal}"),
            None => Ok(delivered),
        }
    }

    /// Records lost and duplicate deliveries as a fault. Returns the number of lost deliveries.
    pub(super) fn lost(&mut self, scenario: Scenario, account: &Deliveries, part: &str) -> u64 {
        let (lost, duplicates) = (account.lost(), account.duplicates);
        if lost > 0 || duplicates > 0 {
            let told = format!(
                "{part}round {}: {lost} of {} deliveries lost, {duplicates} duplicates",
                self.tables.round() + 1,
                account.expected
            );
            self.tables.remark(scenario, &told);
            let name = self.peer.adapter().name();
            self.bench.fault(format!("{name}, {}: {told}", scenario.name()));
        }
        lost
    }

    fn late(&mut self, scenario: Scenario, why: &str) {
        let told = format!("client late in round {}: {why}", self.tables.round() + 1);
        self.tables.remark(scenario, &told);
    }

    pub(super) fn set(&mut self, scenario: Scenario, column: &str, value: f64) {
        self.tables.set(scenario, column, value);
    }
}

/// The turn of the kernel baseline: held sockets, and the bytes of a fan-out.
fn baseline(
    bench: &mut Bench,
    tables: &mut Tables,
    scenarios: &[Scenario],
    plan: &Numbers,
) -> Result<()> {
    let silent = |scenario: &Scenario| !matches!(scenario, Scenario::Idle | Scenario::Fanout);
    for scenario in scenarios.iter().filter(|scenario| silent(scenario)) {
        tables.remark(*scenario, "does not apply: a bare kernel has no channels");
    }
    if scenarios.iter().all(silent) {
        return Ok(());
    }
    settle(plan)?;
    let kernel = slab()?;
    let (mut baseline, ramp) = bench.baseline()?;
    let count = plan.connections;
    ensure!(ramp.refused == 0, "{} of {count} sockets never came up", ramp.refused);
    std::thread::sleep(SETTLE);
    let idle = [(KERNEL, per_connection(slab()? - kernel, ramp.up)?), (CONNECTS, connects(ramp))];
    idle.into_iter().for_each(|(column, v)| tables.set(Scenario::Idle, column, v));
    tables.remark(Scenario::Idle, "connects by TCP only; user memory does not apply");
    let bytes = frame_bytes(BYTES);
    let mut fanouts = |rounds: u64| -> Result<(f64, f64)> {
        let (server, client) = (baseline.sample()?, own()?);
        let outcome = baseline.send(bytes, rounds as u32)?;
        if let Some(fault) = outcome.fault {
            bail!("kernel baseline, {fault}");
        }
        let sends = outcome.sent.sends;
        let (server, client) = (baseline.sample()?.since(&server)?, own()?.since(&client)?);
        Ok((server.cpu_ns_per(sends)?, client.cpu_ns_per(sends)?))
    };
    let measured = fanouts(1).and_then(|_| fanouts(FANOUTS));
    let stopped = baseline.stop();
    let (server, client) = measured?;
    tables.set(Scenario::Fanout, CPU, server);
    tables.set(Scenario::Fanout, CLIENT_CPU, client);
    tables.set(Scenario::Fanout, LOST, 0.0);
    stopped
}

/// Connections per second of a ramp.
fn connects(ramp: Ramp) -> f64 {
    ramp.up as f64 / ramp.took.as_secs_f64().max(1e-9)
}

/// Waits until the sockets of the previous turn are gone and their memory is freed.
fn settle(plan: &Numbers) -> Result<()> {
    let (begun, mut last) = (Instant::now(), 0);
    while begun.elapsed() < SETTLED_WITHIN {
        let now = slab()?;
        let gone = KernelSample::now()?.sockets_in_use <= plan.sockets + SPARE_SOCKETS;
        if gone && now.abs_diff(last) < SETTLED_BYTES {
            break;
        }
        last = now;
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}
