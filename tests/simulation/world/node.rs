//! What lives as long as the process of a node: shards, bus, control plane and store.
//!
//! Owns the parts and their connections. Never outlives a crash, except for the disk and the
//! callers of the API.

use std::sync::Arc;

use drumline::base::connection_limits::ConnectionLimits;
use drumline::base::memory::MemoryBudgets;
use drumline::base::metrics::Metrics;
use drumline::engine::ready::ReadySet;
use drumline::hub::{Hub, HubSettings, NextSettings, ShardContext};
use drumline::model::ids::Ids;
use drumline::model::names::Names;
use drumline::model::retention::Retention;

use crate::backend::Backend;
use crate::bus::Bus;
use crate::control::Control;
use crate::disk::Disk;
use crate::faults::Fault;
use crate::random::Random;
use crate::shard::Shard;
use crate::store::Store;

pub struct Node {
    pub bus: Bus,
    pub shards: Vec<Shard>,
    pub ready: ReadySet,
    pub control: Control,
    pub store: Option<Store>,
    /// The settings of the last reload, and where those of each shard are put.
    pub settings: Arc<HubSettings>,
    pub next_settings: Vec<Arc<NextSettings>>,
    pub metrics: Vec<Arc<Metrics>>,
    pub names: Names,
    /// Whether every subscriber is listed, so that presence counts them.
    pub presence: bool,
}

/// What a process begins with.
pub struct Start {
    pub seed: u64,
    /// Number of the process.
    pub process: usize,
    pub settings: Arc<HubSettings>,
    pub backend: Backend,
    pub disk: Option<Disk>,
    /// How the process before hashed names.
    pub names: Option<Names>,
    pub fault: Option<Fault>,
}

impl Node {
    /// Starts a process with a random number of shards.
    pub fn start(start: Start, random: &mut Random) -> Self {
        let Start { seed, process, settings, backend, disk, names: names_before, fault } = start;
        let names_before = names_before.filter(|_| fault == Some(Fault::StreamLostWithItsHome));
        let shards = random.between(1, 4);
        let capacity = random.pick(&[1, 1, 1, 2, 5]);
        let control = shards as u8;
        let names = Names::new([7 + process as u8; 16], control);
        let connection_limits = Arc::<ConnectionLimits>::default();
        let budgets = MemoryBudgets::new(&settings.budgets, shards);
        let metrics: Vec<Arc<Metrics>> = (0..shards).map(|_| Arc::default()).collect();
        let next_settings: Vec<_> = (0..shards).map(|_| Arc::<NextSettings>::default()).collect();
        let hubs = (0..control).map(|shard| {
            let place = ShardContext {
                shard,
                control,
                names,
                ids: Ids::new([3; 16]),
                connection_limits: connection_limits.clone(),
                budgets: budgets.clone(),
                seed: seed + u64::from(shard) + 1000 * process as u64,
                store: disk.is_some().then_some(control + 1),
                next_settings: next_settings[usize::from(shard)].clone(),
                vitals: Arc::default(),
            };
            let metrics = metrics[usize::from(shard)].clone();
            let hub = Hub::new(settings.clone(), &place, metrics);
            Shard::new(hub, shard, seed % 4 == 3, fault)
        });
        Node {
            bus: Bus::new(shards, [capacity; 4], fault),
            shards: hubs.collect(),
            ready: ReadySet::new(shards),
            control: Control::new(control, names, backend),
            store: disk.map(|disk| Store::new(control + 1, (names, names_before), disk, random)),
            names,
            presence: settings.namespaces.without.presence,
            settings,
            next_settings,
            metrics,
        }
    }

    /// Index of the control plane on the bus.
    pub fn control(&self) -> usize {
        self.shards.len()
    }

    /// Retention of all channels.
    pub fn retention(&self) -> Option<Retention> {
        self.settings.namespaces.without.retention
    }

    /// Whether something is awake.
    pub fn is_awake(&self) -> bool {
        let endpoints = self.shards.len() + 1 + usize::from(self.store.is_some());
        self.bus.asleep[..endpoints].iter().any(|asleep| !asleep)
    }
}
