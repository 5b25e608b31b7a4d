//! A simulated node: its shards, bus and clients, and the random order of their steps.
//!
//! Everything follows from the seed and the fault, so a run can be repeated.

mod checks;
mod clients;
mod crash;
mod node;
mod settings;

use std::sync::Arc;

use drumline::home::users::UserLimit;
use drumline::hub::HubSettings;
use drumline::model::entrance::Entrance;
use drumline::model::token::make_connection;

use crate::backend::Backend;
use crate::client::{Client, Trust};
use crate::disk::Disk;
use crate::faults::Fault;
use crate::ledger::Ledger;
use crate::random::Random;
use crate::shard::HomeContext;

use node::{Node, Start};

/// Minimum number of steps of a run.
pub const STEPS_MIN: usize = 2_000;
/// What a run covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub steps: usize,
    pub clients: usize,
    pub seen: usize,
    pub slow: usize,
    /// Hook events.
    pub told: u64,
    pub crashes: usize,
    /// Hash of what clients read, of the places of publications, and of the random numbers.
    pub trace: u64,
}

/// Bound of the number of shards: the tag of an announcement names its settings and its shard.
const SHARDS_MAX: u64 = 64;

pub struct World {
    seed: u64,
    fault: Option<Fault>,
    random: Random,
    node: Node,
    /// Whether deadlines have no share of the passes except when the node comes to rest.
    pings_wait: bool,
    settling: bool,
    hooked: bool,
    /// Whether a subscribe proxy decides: a unidirectional client then gets none of the channels
    /// that its connect lists.
    proxied: bool,
    trust: Trust,
    clients: Vec<Client>,
    ledger: Ledger,
    channels: usize,
    may_be_slow: bool,
    limit: UserLimit,
    /// Tokens of the users.
    tokens: Vec<String>,
    clients_max: usize,
    /// Whether the configuration is loaded again from time to time.
    reloads: bool,
    /// The first client of this process.
    first_client: usize,
    /// Number of processes that have ended.
    crashes: usize,
    /// Hook events of the processes that have ended.
    told: u64,
}

impl World {
    pub fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = Random::new(seed);
        let settings::Plan { settings, terms, may_be_slow } = settings::random(&mut random);
        let limit = settings.user_limit;
        let token =
            |user| make_connection(&settings::tokens(), user, None, 0).expect("there is a secret");
        let trust = Trust::new();
        let entrances = Arc::new([false, true].map(|tls| Entrance { tls, ..Entrance::default() }));
        let tls = Some(trust.server.clone());
        let settings = Arc::new(HubSettings { entrances, tls, ..settings });
        let channels = random.between(1, 4);
        let start = Start {
            seed,
            process: 0,
            settings: settings.clone(),
            backend: Backend::new(channels),
            disk: terms.durable.then(|| Disk::new(fault)),
            names: None,
            fault,
        };
        World {
            seed,
            fault,
            node: Node::start(start, &mut random),
            pings_wait: seed % 3 == 1,
            settling: false,
            proxied: settings.namespaces.without.subscribe_proxy.is_some(),
            hooked: settings.proxies.disconnect_hook.is_some(),
            trust,
            clients: Vec::new(),
            ledger: Ledger::new(channels, terms),
            channels,
            may_be_slow,
            limit,
            tokens: ["a", "b", ""].map(token).into(),
            clients_max: random.between(2, 12),
            reloads: seed.is_multiple_of(2),
            first_client: 0,
            crashes: 0,
            told: 0,
            random,
        }
    }

    /// The whole life of a node.
    pub fn run(&mut self) -> Result<Account, String> {
        trace!("{:?} {:?}", self.ledger.terms, self.node.settings.budgets);
        while self.ledger.step < STEPS_MIN {
            for _ in 0..self.random.between(50, 700) {
                self.happen()?;
            }
            self.rest()?;
            self.settling = false;
            if self.ledger.terms.durable && self.random.one_in(4) {
                self.idle()?;
            }
        }
        self.finish()?;
        let last = self.random.next();
        self.ledger.note(&last.to_le_bytes());
        let slow = self.clients.iter().filter(|client| client.closed == Some(3008)).count();
        Ok(Account {
            steps: self.ledger.step,
            clients: self.clients.len(),
            seen: self.ledger.seen,
            slow,
            told: self.told + self.node.control.told,
            crashes: self.crashes,
            trace: self.ledger.trace,
        })
    }

    fn of(&self, client: usize, error: &str) -> String {
        let uni = if self.clients[client].uni { "unidirectional " } else { "" };
        format!("{uni}client {client} at step {}: {error}", self.ledger.step)
    }

    /// Runs one random step of the node.
    fn happen(&mut self) -> Result<(), String> {
        self.ledger.step += 1;
        if self.random.one_in(20) {
            let by = self.random.pick(&[1, 20, 150]);
            self.pass_time(by)?;
        }
        let live = self.clients.iter().filter(|client| !client.done).count();
        if live < self.clients_max && self.random.one_in(6) {
            self.come();
        }
        if self.reloads && self.random.one_in(40) {
            self.reload();
        }
        if self.ledger.terms.durable && self.random.one_in(400) {
            return self.crash();
        }
        if self.random.one_in(30) {
            self.keep_house();
        }
        let shard = self.random.below(self.node.shards.len());
        for _ in 0..self.random.between(0, 6) {
            self.step_shard(shard)?;
        }
        self.step_control()?;
        self.step_store()?;
        if self.random.one_in(8) {
            self.node.control.backend.act(&mut self.ledger, &mut self.random);
            self.wake_control();
        }
        let alive: Vec<usize> =
            (0..self.clients.len()).filter(|at| !self.clients[*at].done).collect();
        if !alive.is_empty() {
            let client = self.random.pick(&alive);
            self.act(client)?;
        }
        Ok(())
    }

    fn pass_time(&mut self, by: u64) -> Result<(), String> {
        trace!("TIME +{by} step {}", self.ledger.step);
        self.ledger.clock.now += by;
        let now = self.ledger.clock.read();
        let Node { ready, shards, bus, .. } = &mut self.node;
        let ready = ready.begin_pass(now);
        for (at, shard) in shards.iter().enumerate() {
            if ready >> at & 1 != 0 {
                bus.asleep[at] = false;
            }
            let due = shard.hub.next_due().is_some_and(|due| due <= now.millis);
            if due && bus.asleep[at] {
                return Err(format!("shard {at} sleeps though a deadline is due"));
            }
        }
        Ok(())
    }

    fn wake_control(&mut self) {
        let control = self.node.control();
        self.node.bus.asleep[control] = false;
    }

    fn step_control(&mut self) -> Result<(), String> {
        let retention = self.node.retention();
        let at = self.node.control();
        let Node { bus, control, shards, .. } = &mut self.node;
        if bus.asleep[at] {
            return Ok(());
        }
        let stepped = control.step(bus, retention, &mut self.ledger, &mut self.random);
        stepped.map_err(|error| format!("at step {}: {error}", self.ledger.step))?;
        // A shard that has answered a reload works with its settings, or with later ones.
        for (at, tag) in control.reloaded.drain(..) {
            let serial = shards[at].hub.settings().history_limit as u64;
            let confirmed = tag / SHARDS_MAX;
            if serial < confirmed {
                return Err(format!("shard {at} has settings {serial} and confirmed {confirmed}"));
            }
        }
        Ok(())
    }

    fn step_store(&mut self) -> Result<(), String> {
        let at = self.node.control() + 1;
        let Node { bus, store: Some(store), .. } = &mut self.node else { return Ok(()) };
        match bus.asleep[at] {
            true => Ok(()),
            false => {
                let now = self.ledger.clock.read().unix;
                store.step(bus, (self.settling, now), &mut self.random)
            }
        }
    }

    /// Lets the store make a step of its housekeeping.
    fn keep_house(&mut self) {
        let at = self.node.control() + 1;
        if let Node { bus, store: Some(store), .. } = &mut self.node {
            (store.is_due, bus.asleep[at]) = (true, false);
        }
    }

    /// Sends other settings to all shards.
    fn reload(&mut self) {
        let settings = settings::changed(&mut self.random, &self.node.settings);
        let presence = |settings: &HubSettings| settings.namespaces.without.presence;
        // From now on some subscribers are listed and others are not.
        self.node.presence &= presence(&settings) == presence(&self.node.settings);
        self.node.settings = Arc::new(settings);
        let Node { next_settings, settings, control, .. } = &mut self.node;
        for (at, next) in next_settings.iter().enumerate() {
            next.put(settings.clone());
            let serial = settings.history_limit as u64;
            control.reload(at, serial * SHARDS_MAX + at as u64);
        }
        self.wake_control();
    }

    fn step_shard(&mut self, at: usize) -> Result<(), String> {
        let now = self.ledger.clock.read();
        let Node { bus, shards, ready, .. } = &mut self.node;
        if bus.asleep[at] {
            return Ok(());
        }
        let began = shards.iter().filter_map(|shard| shard.turn_began).min();
        let behind = began.map_or(0, |began| now.millis - began);
        self.ledger.oldest_turn = self.ledger.clock.now - behind;
        let mut around = HomeContext {
            bus,
            clients: &mut self.clients,
            random: &mut self.random,
            now,
            pings_wait: self.pings_wait && !self.settling,
            settling: self.settling,
        };
        let shard = &mut shards[at];
        if let Some(busy) = shard.step(&mut around)? {
            ready.turned(at, busy, shard.hub.next_due());
        }
        Ok(())
    }
}
