//! A simulated node: its shards, bus and clients, and the random order of their steps.
//!
//! Everything follows from the seed and the fault, so a run can be repeated.

mod checks;
mod clients;
mod settings;

use std::sync::Arc;

use drumline::base::connection_limits::ConnectionLimits;
use drumline::base::memory::MemoryBudgets;
use drumline::base::metrics::Metrics;
use drumline::base::sys::Now;
use drumline::engine::ready::ReadySet;
use drumline::home::users::UserLimit;
use drumline::hub::{Hub, HubSettings, NextSettings, ShardContext};
use drumline::model::entrance::Entrance;
use drumline::model::ids::Ids;
use drumline::model::names::Names;
use drumline::model::token::make_connection;

use crate::Fault;
use crate::bus::Bus;
use crate::client::{Client, Trust};
use crate::control::Control;
use crate::ledger::Ledger;
use crate::random::Random;
use crate::shard::{HomeContext, Shard};

/// What a run covered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    pub clients: usize,
    pub seen: usize,
    pub slow: usize,
    /// Hook events.
    pub told: u64,
}

/// Bound of the number of shards: the tag of an announcement names its settings and its shard.
const SHARDS_MAX: u64 = 64;

pub struct World {
    random: Random,
    now: u64,
    /// Counts everything that happens: the clock of the checks.
    steps: usize,
    bus: Bus,
    shards: Vec<Shard>,
    ready: ReadySet,
    /// Whether deadlines have no share of the passes except when the node comes to rest.
    pings_wait: bool,
    settling: bool,
    control: Control,
    /// The settings of the last reload, and where those of each shard are put.
    settings: Arc<HubSettings>,
    next_settings: Vec<Arc<NextSettings>>,
    metrics: Vec<Arc<Metrics>>,
    hooked: bool,
    /// Whether a subscribe proxy decides: a unidirectional client then gets none of the channels
    /// that its connect lists.
    proxied: bool,
    trust: Trust,
    clients: Vec<Client>,
    ledger: Ledger,
    channels: usize,
    history: bool,
    presence: bool,
    may_be_slow: bool,
    limit: UserLimit,
    /// Tokens of the users.
    tokens: Vec<String>,
    clients_max: usize,
    /// Whether the configuration is loaded again from time to time.
    reloads: bool,
}

impl World {
    pub fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = Random::new(seed);
        let shards = random.between(1, 4);
        let history = random.one_in(2);
        let (settings, may_be_slow) = settings::random(&mut random, history);
        let capacity = random.pick(&[1, 1, 1, 2, 5]);
        let names = Names::new([7; 16], shards as u8);
        let presence = settings.namespaces.without.presence;
        let limit = settings.user_limit;
        let token =
            |user| make_connection(&settings::tokens(), user, None, 0).expect("there is a secret");
        let trust = Trust::new();
        let entrances = Arc::new([false, true].map(|tls| Entrance { tls, ..Entrance::default() }));
        let tls = Some(trust.server.clone());
        let settings = Arc::new(HubSettings { entrances, tls, ..settings });
        let connection_limits = Arc::<ConnectionLimits>::default();
        let budgets = MemoryBudgets::new(&settings.budgets, shards);
        let metrics: Vec<Arc<Metrics>> = (0..shards).map(|_| Arc::default()).collect();
        let next_settings: Vec<_> = (0..shards).map(|_| Arc::<NextSettings>::default()).collect();
        let hubs = (0..shards as u8).map(|shard| {
            let place = ShardContext {
                shard,
                control: shards as u8,
                names,
                ids: Ids::new([3; 16]),
                connection_limits: connection_limits.clone(),
                budgets: budgets.clone(),
                seed,
                store: None,
                next_settings: next_settings[usize::from(shard)].clone(),
                vitals: Arc::default(),
            };
            let metrics = metrics[usize::from(shard)].clone();
            let hub = Hub::new(settings.clone(), &place, metrics);
            Shard::new(hub, shard, seed % 4 == 3, fault)
        });
        let channels = random.between(1, 4);
        World {
            now: 0,
            steps: 0,
            bus: Bus::new(shards, [capacity; 4], fault),
            shards: hubs.collect(),
            ready: ReadySet::new(shards),
            pings_wait: seed % 3 == 1,
            settling: false,
            control: Control::new(shards as u8),
            next_settings: next_settings.clone(),
            proxied: settings.namespaces.without.subscribe_proxy.is_some(),
            hooked: settings.proxies.disconnect_hook.is_some(),
            settings,
            metrics,
            trust,
            clients: Vec::new(),
            ledger: Ledger::new(channels),
            channels,
            history,
            presence,
            may_be_slow,
            limit,
            tokens: ["a", "b", ""].map(token).into(),
            clients_max: random.between(2, 12),
            reloads: seed.is_multiple_of(2),
            random,
        }
    }

    /// The whole life of a node.
    pub fn run(&mut self) -> Result<Account, String> {
        for _ in 0..self.random.between(1, 4) {
            for _ in 0..self.random.between(50, 700) {
                self.happen()?;
            }
            self.settle()?;
            self.settling = false;
            let is_done = |at: usize| self.clients[at].done || self.clients[at].closed.is_some();
            // A stream whose sender is closed may lack replies.
            let heard = self.clients.iter().filter(|client| !client.voice.is_some_and(is_done));
            for client in heard {
                let settled = client.check_settled(&self.ledger);
                settled.map_err(|error| self.of(client.number, &error))?;
            }
            self.count_present()?;
            self.count_users()?;
            self.count_grants()?;
        }
        self.finish()?;
        let slow = self.clients.iter().filter(|client| client.closed == Some(3008)).count();
        let told = self.control.told;
        Ok(Account { clients: self.clients.len(), seen: self.ledger.seen, slow, told })
    }

    fn of(&self, client: usize, error: &str) -> String {
        let uni = if self.clients[client].uni { "unidirectional " } else { "" };
        format!("{uni}client {client} at step {}: {error}", self.steps)
    }

    /// Runs one random step of the node.
    fn happen(&mut self) -> Result<(), String> {
        self.steps += 1;
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
        let shard = self.random.below(self.shards.len());
        for _ in 0..self.random.between(0, 6) {
            self.step_shard(shard)?;
        }
        self.step_control()?;
        let alive: Vec<usize> =
            (0..self.clients.len()).filter(|at| !self.clients[*at].done).collect();
        if !alive.is_empty() {
            let client = self.random.pick(&alive);
            self.act(client)?;
        }
        Ok(())
    }

    fn pass_time(&mut self, by: u64) -> Result<(), String> {
        self.now += by;
        let ready = self.ready.begin_pass(Now {
            millis: self.now,
            micros: self.now * 1000,
            unix: self.now,
        });
        for at in 0..self.shards.len() {
            if ready >> at & 1 != 0 {
                self.bus.asleep[at] = false;
            }
            let due = self.shards[at].hub.next_due().is_some_and(|due| due <= self.now);
            if due && self.bus.asleep[at] {
                return Err(format!("shard {at} sleeps though a deadline is due"));
            }
        }
        Ok(())
    }

    fn step_control(&mut self) -> Result<(), String> {
        if self.bus.asleep[self.shards.len()] {
            return Ok(());
        }
        self.control.step(&mut self.bus, &mut self.random)?;
        // A shard that has answered a reload works with its settings, or with later ones.
        for (at, tag) in self.control.reloaded.drain(..) {
            let serial = self.shards[at].hub.settings().history_limit as u64;
            let confirmed = tag / SHARDS_MAX;
            if serial < confirmed {
                return Err(format!("shard {at} has settings {serial} and confirmed {confirmed}"));
            }
        }
        Ok(())
    }

    /// Sends other settings to all shards.
    fn reload(&mut self) {
        let settings = settings::changed(&mut self.random, &self.settings);
        let presence = |settings: &HubSettings| settings.namespaces.without.presence;
        // From now on some subscribers are listed and others are not.
        self.presence &= presence(&settings) == presence(&self.settings);
        self.settings = Arc::new(settings);
        for (at, next) in self.next_settings.iter().enumerate() {
            next.put(self.settings.clone());
            let serial = self.settings.history_limit as u64;
            self.control.reload(at, serial * SHARDS_MAX + at as u64);
        }
        let control = self.shards.len();
        self.bus.asleep[control] = false;
    }

    fn step_shard(&mut self, at: usize) -> Result<(), String> {
        if self.bus.asleep[at] {
            return Ok(());
        }
        let mut around = HomeContext {
            bus: &mut self.bus,
            clients: &mut self.clients,
            random: &mut self.random,
            now: self.now,
            pings_wait: self.pings_wait && !self.settling,
            settling: self.settling,
        };
        let shard = &mut self.shards[at];
        if let Some(busy) = shard.step(&mut around)? {
            self.ready.turned(at, busy, shard.hub.next_due());
        }
        Ok(())
    }
}
