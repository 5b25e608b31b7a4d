//! All shards of one process: their workers, their rings and the bus between them.
//!
//! Owns the threads. Never serves a request itself. The invariant: either every shard has its ring,
//! its listener and its memory, or the start fails with an error that says what is missing.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use crate::base::connection_limits::ConnectionLimits;
use crate::base::failure::Failure;
use crate::base::listeners::{ListenAddress, Listeners, SocketFile};
use crate::base::memory::MemoryBudgets;
use crate::base::metrics::Metrics;
use crate::base::sys::{self, Clock, ListenerOptions};
use crate::base::vitals::Vitals;
use crate::engine::bus::{Bus, Capacities};
use crate::engine::ring::{Ring, RingSizes};
use crate::engine::shard::{Shard, ShardStatus};
use crate::engine::worker::Worker;
use crate::hub::{Hub, HubSettings, NextSettings, ShardContext};
use crate::model::ids::Ids;
use crate::model::names::Names;
use crate::model::snapshot::{NodeSecrets, RestoredHome};
use crate::wire::tls;

/// Advice if descriptors are used up.
const DESCRIPTORS_CURE: &str = "raise the limit on descriptors (`ulimit -n 1048576`)";
/// Advice if `drumline check` reports more.
const CHECK_CURE: &str = "run `drumline check`";

/// Bytes of a receive buffer.
const BUFFER_BYTES: u32 = 4096;

/// Sizes of every ring of a node.
#[derive(Clone, Copy, Debug)]
pub struct RingSettings {
    /// Submission entries; more operations need several system calls.
    pub submissions: u32,
    /// Maximum completion entries; the kernel keeps the overflow.
    pub completions: u32,
    /// Receive buffers, a power of two.
    pub buffers: u16,
}

impl RingSettings {
    /// The ring of a shard with `slots` slots. Each connection and each queued operation can have
    /// one completion. The kernel requires at least as many completion entries as submission
    /// entries.
    pub fn sizes(&self, slots: usize) -> RingSizes {
        let RingSettings { submissions, completions, buffers } = *self;
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        let needed = slots.saturating_add(submissions).min(completions).max(submissions);
        let completions = needed.next_power_of_two();
        RingSizes { submissions, completions, slots, buffers, buffer_bytes: BUFFER_BYTES }
    }
}

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Addresses to listen on, one for each entrance of the hub's settings; the first is a TCP
    /// address.
    pub listeners: Vec<ListenAddress>,
    /// Maximum connections of each shard; one entry per shard.
    pub slots: Vec<usize>,
    /// Options of accepted sockets.
    pub listener: ListenerOptions,
    /// Capacity of the inboxes, by rank.
    pub inboxes: Capacities,
    /// Sizes of each shard's ring.
    pub rings: RingSettings,
    /// Whether there is a store for durable channels.
    pub has_store: bool,
    /// Secrets of names and epochs.
    pub secrets: NodeSecrets,
    /// Settings of the shards; the number of slots is set per shard.
    pub hub: HubSettings,
}

/// A running node.
pub struct Node {
    /// The bound addresses, with the ports that the kernel chose.
    pub listeners: Vec<ListenAddress>,
    /// The bus; its last endpoint is the control plane.
    pub bus: Arc<Bus>,
    /// The counters of each shard.
    pub metrics: Arc<[Arc<Metrics>]>,
    /// Memory budgets and their use.
    pub budgets: MemoryBudgets,
    /// Maps names to homes.
    pub names: Names,
    /// Limits of clients and of sockets on the control plane.
    pub connection_limits: Arc<ConnectionLimits>,
    /// The clock of the shards.
    pub clock: Clock,
    /// Slots of each shard.
    pub slots: Arc<[usize]>,
    /// The life of the node.
    pub vitals: Arc<Vitals>,
    /// Where the next settings of each shard are put.
    pub next_settings: Arc<[Arc<NextSettings>]>,
    /// Processor of the worker of each shard; `None` if pinning failed.
    pub processors: Vec<Option<usize>>,
    threads: Vec<JoinHandle<()>>,
    /// The workers that wait for [`Node::open`].
    gates: Vec<mpsc::Sender<Opening>>,
    /// Files of the Unix sockets; they are removed when the node is dropped.
    _socket_files: Vec<SocketFile>,
}

/// Lets a worker accept connections.
struct Opening {
    /// What the home of each shard gets back; empty: nothing.
    homes: Vec<RestoredHome>,
    /// Told when the homes have it.
    opened: mpsc::Sender<()>,
}

/// What a shard needs to start.
struct ShardStart {
    context: ShardContext,
    settings: Arc<NodeSettings>,
    bus: Arc<Bus>,
    metrics: Arc<Metrics>,
    statuses: Arc<[ShardStatus]>,
    clock: Clock,
    listeners: Vec<socket2::Socket>,
}

impl Node {
    /// The bound address of the first listener.
    pub fn address(&self) -> SocketAddr {
        let tcp = self.listeners.iter().find_map(|listener| match listener {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix { .. } => None,
        });
        tcp.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Starts every shard, or none. `control` wakes the control plane. The listeners are there, and
    /// no connection is accepted before [`Node::open`].
    pub fn start(
        settings: NodeSettings,
        control: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, Failure> {
        let shards = settings.slots.len();
        let failed = |what: &str, cure: &'static str| {
            let what = what.to_owned();
            move |error: std::io::Error| Failure::new(format!("{what}: {error}"), cure)
        };
        let no_descriptor = failed("cannot create an eventfd for the bus", DESCRIPTORS_CURE);
        let no_random = failed("cannot read random bytes from the kernel", CHECK_CURE);
        let workers = shards.min(sys::processors());
        let bus = Bus::new(shards, workers, settings.inboxes, control).map_err(no_descriptor)?;
        let names = Names::new(settings.secrets.names, shards as u8);
        let ids = Ids::new(sys::random().map_err(&no_random)?);
        let metrics: Arc<[Arc<Metrics>]> = (0..shards).map(|_| Arc::default()).collect();
        let statuses: Arc<[ShardStatus]> = (0..shards).map(|_| ShardStatus::default()).collect();
        let (settings, clock) = (Arc::new(settings), Clock::new());
        let connection_limits = Arc::new(connection_limits(&settings));
        let budgets = MemoryBudgets::new(&settings.hub.budgets, shards);
        let next_settings: Arc<[Arc<NextSettings>]> = (0..shards).map(|_| Arc::default()).collect();
        let vitals = Arc::new(Vitals::new(shards));
        let slots = settings.slots.clone().into();
        let mut starts_by_worker: Vec<Vec<ShardStart>> = (0..workers).map(|_| Vec::new()).collect();
        let listeners = Listeners::open(&settings.listeners, shards, &settings.listener)?;
        let Listeners { of_shards, addresses: listeners, files } = listeners;
        let mut of_shards = of_shards.into_iter();
        for shard in 0..shards {
            let context = ShardContext {
                shard: shard as u8,
                control: bus.control(),
                names,
                ids,
                connection_limits: connection_limits.clone(),
                budgets: budgets.clone(),
                seed: settings.secrets.epochs,
                store: settings.has_store.then(|| bus.store()),
                next_settings: next_settings[shard].clone(),
                vitals: vitals.clone(),
            };
            starts_by_worker[shard % workers].push(ShardStart {
                context,
                settings: settings.clone(),
                bus: bus.clone(),
                metrics: metrics[shard].clone(),
                statuses: statuses.clone(),
                clock,
                listeners: of_shards.next().unwrap_or_default(),
            });
        }
        let StartedWorkers { threads, pinned, gates } = spawn(starts_by_worker)?;
        let processors = (0..shards).map(|shard| pinned[shard % workers]).collect();
        Ok(Node {
            listeners,
            bus,
            metrics,
            budgets,
            names,
            connection_limits,
            clock,
            slots,
            vitals,
            next_settings,
            processors,
            threads,
            gates,
            _socket_files: files,
        })
    }

    /// Begins to accept connections, when the home of each shard has got its part back. `homes` has
    /// a part for each shard, or is empty.
    pub fn open(&mut self, homes: Vec<RestoredHome>) {
        let workers = self.gates.len();
        let mut by_worker: Vec<Vec<RestoredHome>> = (0..workers).map(|_| Vec::new()).collect();
        for (shard, home) in homes.into_iter().enumerate() {
            by_worker[shard % workers].push(home);
        }
        let (opened, openings) = mpsc::channel();
        for (gate, homes) in self.gates.drain(..).zip(by_worker) {
            // A panic of a worker ends the process, except in a test.
            let _ = gate.send(Opening { homes, opened: opened.clone() });
        }
        drop(opened);
        openings.iter().for_each(drop);
    }

    /// Waits until every shard has closed its connections after a drain.
    pub fn join(self) {
        for thread in self.threads {
            // A panic of a worker ends the process, except in a test.
            let _ = thread.join();
        }
    }
}

/// The limits of a node with these settings.
fn connection_limits(settings: &NodeSettings) -> ConnectionLimits {
    let HubSettings { connection_limit, connection_rate, places, .. } = settings.hub;
    let HubSettings { address_limit, address_rate, .. } = settings.hub;
    ConnectionLimits::new(connection_limit, connection_rate)
        .with_control_max(places)
        .with_address_limits(address_limit, address_rate, settings.slots.iter().sum())
}

/// The processor of a started worker, or why it did not start.
type StartResult = Result<Option<usize>, Failure>;

/// Worker threads, the processor of each, and where each waits before it accepts.
#[derive(Default)]
struct StartedWorkers {
    threads: Vec<JoinHandle<()>>,
    pinned: Vec<Option<usize>>,
    gates: Vec<mpsc::Sender<Opening>>,
}

fn spawn(starts_by_worker: Vec<Vec<ShardStart>>) -> Result<StartedWorkers, Failure> {
    let mut workers = StartedWorkers::default();
    for (nth, starts) in starts_by_worker.into_iter().enumerate() {
        let (ready, readiness) = mpsc::channel::<StartResult>();
        let (gate, opening) = mpsc::channel::<Opening>();
        let name = format!("worker-{nth}");
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || run(nth, starts, &ready, &opening))
            .map_err(|error| {
                let cause = format!("cannot start thread {name}: {error}");
                Failure::new(cause, "raise the limit on threads (`ulimit -u`, TasksMax=)")
            })?;
        let ready = readiness.recv().map_err(|_| {
            Failure::new(format!("thread {name} ended at once"), "see the lines above")
        })?;
        workers.pinned.push(ready?);
        workers.threads.push(thread);
        workers.gates.push(gate);
    }
    Ok(workers)
}

fn run(
    nth: usize,
    starts: Vec<ShardStart>,
    ready: &mpsc::Sender<StartResult>,
    opening: &mpsc::Receiver<Opening>,
) {
    let processor = sys::pin(nth);
    let mut worker = match worker(starts) {
        Ok(worker) => worker,
        Err(error) => {
            // The receiver is gone when the start was given up.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok(processor)).is_err() {
        return;
    }
    // Without an opening the start was given up.
    if let Ok(Opening { homes, opened }) = opening.recv() {
        worker.restore(homes);
        let _ = opened.send(());
        drop(opened);
        worker.run();
    }
}

fn worker(starts: Vec<ShardStart>) -> Result<Worker, Failure> {
    let first = starts
        .first()
        .ok_or_else(|| Failure::new("a worker has no shards", "report this as a fault"))?;
    let (consumer, clock) = (first.bus.consumer(first.context.shard), first.clock);
    if first.settings.hub.tls.is_some() {
        tls::seed_random_numbers();
    }
    let shards = starts.into_iter().map(shard).collect::<Result<_, _>>()?;
    Worker::new(shards, consumer, clock).map_err(|error| {
        Failure::new(format!("cannot register an eventfd with a ring: {error}"), DESCRIPTORS_CURE)
    })
}

fn shard(start: ShardStart) -> Result<Shard, Failure> {
    let shard = start.context.shard;
    let slots = start.settings.slots[usize::from(shard)];
    let ring = Ring::new(&start.settings.rings.sizes(slots)).map_err(|error| {
        let cure = match error.raw_os_error() {
            Some(libc::ENOMEM) => {
                "raise RLIMIT_MEMLOCK by `ulimit -l unlimited` as root (LimitMEMLOCK=infinity in a \
                 systemd unit), or the memory limit; all rings of a user count together"
            }
            _ => CHECK_CURE,
        };
        Failure::new(format!("cannot set up a ring of {slots} slots for a shard: {error}"), cure)
    })?;
    let settings = Arc::new(start.settings.hub.of_shard(slots, start.settings.slots.len()));
    let hub = Hub::new(settings, &start.context, start.metrics.clone());
    let line = start.bus.port(shard);
    let shared = (start.statuses, start.context.vitals);
    Shard::new(ring, line, hub, start.listeners, start.metrics, shared).map_err(|error| {
        Failure::new(
            format!("cannot duplicate the descriptor of a ring: {error}"),
            DESCRIPTORS_CURE,
        )
    })
}
