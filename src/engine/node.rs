//! All shards of one process: their workers, their rings, the bus between them.
//!
//! Owns the threads. Never serves a request itself. The invariant: either every shard has its
//! ring, its listener and its memory, or nothing listens and the error says what is missing.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use crate::base::connection_limits::ConnectionLimits;
use crate::base::failure::Failure;
use crate::base::memory::Budgets;
use crate::base::metrics::Metrics;
use crate::base::sys::{self, Clock, ListenerOptions};
use crate::engine::bus::{Bus, Capacities};
use crate::engine::ring::{Ring, Sizes};
use crate::engine::shard::{Shard, Status};
use crate::engine::worker::Worker;
use crate::hub::{Hub, HubSettings, ShardContext};
use crate::model::ids::Ids;
use crate::model::names::Names;

/// What to do where descriptors are used up.
const DESCRIPTORS_CURE: &str = "raise the limit on descriptors (`ulimit -n 1048576`)";
/// What to do where a shard cannot listen.
const LISTEN_CURE: &str = "choose another http_server.address or http_server.port";
/// What to do where the check of the machine knows more.
const CHECK_CURE: &str = "run `drumline check`";

/// Bytes of a receive buffer.
const BUFFER_BYTES: u32 = 4096;

/// Sizes of every ring of a node.
#[derive(Clone, Copy, Debug)]
pub struct RingSizes {
    /// Submission entries; more operations are submitted in several calls.
    pub submissions: u32,
    /// Completion entries at most; the kernel keeps aside what finds no room.
    pub completions: u32,
    /// Receive buffers, a power of two.
    pub buffers: u16,
}

impl RingSizes {
    /// The ring of a shard with so many slots. Every connection may have one completion, and every
    /// operation of a call. The kernel takes no fewer completion entries than submission entries.
    pub fn sizes(&self, slots: usize) -> Sizes {
        let RingSizes { submissions, completions, buffers } = *self;
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        let ring_requests = slots.saturating_add(submissions).min(completions).max(submissions);
        let completions = ring_requests.next_power_of_two();
        Sizes { submissions, completions, slots, buffers, buffer_bytes: BUFFER_BYTES }
    }
}

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to listen.
    pub address: SocketAddr,
    /// Connections that each shard holds; as many shards as entries.
    pub slots: Vec<usize>,
    /// Options of accepted sockets.
    pub listener: ListenerOptions,
    /// Messages that each inbox holds, by rank.
    pub inboxes: Capacities,
    /// Sizes of each shard's ring.
    pub rings: RingSizes,
    /// What shards go by; its number of slots is replaced by each shard's own.
    pub settings: HubSettings,
}

/// A running node.
pub struct Node {
    /// Where it listens, with the port that the kernel chose where none was named.
    pub address: SocketAddr,
    /// The bus, whose last endpoint is the control plane's.
    pub bus: Arc<Bus>,
    /// The counters of each shard.
    pub metrics: Arc<[Arc<Metrics>]>,
    /// How much memory the node may use, and how much it does.
    pub budgets: Budgets,
    /// How channels find their homes.
    pub names: Names,
    /// How many clients the node takes.
    pub gate: Arc<ConnectionLimits>,
    /// The clock that the shards go by.
    pub clock: Clock,
    /// The processor of each shard's worker; `None` where it could not be pinned.
    pub processors: Vec<Option<usize>>,
    threads: Vec<JoinHandle<()>>,
}

/// What a shard needs to begin.
struct Start {
    place: ShardContext,
    plan: Arc<Plan>,
    bus: Arc<Bus>,
    metrics: Arc<Metrics>,
    statuses: Arc<[Status]>,
    clock: Clock,
    listener: socket2::Socket,
}

impl Node {
    /// Starts every shard, or none. `control` wakes the control plane.
    pub fn start(plan: Plan, control: Box<dyn Fn() + Send + Sync>) -> Result<Self, Failure> {
        let shards = plan.slots.len();
        let failed = |what: &str, cure: &'static str| {
            let what = what.to_owned();
            move |error: std::io::Error| Failure::new(format!("{what}: {error}"), cure)
        };
        let no_descriptor = failed("no eventfd for the bus", DESCRIPTORS_CURE);
        let no_random = failed("no random bytes from the kernel", CHECK_CURE);
        let workers = shards.min(sys::processors());
        let bus = Bus::new(shards, workers, plan.inboxes, control).map_err(no_descriptor)?;
        let names = Names::new(sys::random().map_err(&no_random)?, shards as u8);
        let ids = Ids::new(sys::random().map_err(&no_random)?);
        let metrics: Arc<[Arc<Metrics>]> = (0..shards).map(|_| Arc::default()).collect();
        let statuses: Arc<[Status]> = (0..shards).map(|_| Status::default()).collect();
        let (plan, clock) = (Arc::new(plan), Clock::new());
        let HubSettings { connection_limit, connection_rate, places, .. } = plan.settings;
        let gate = ConnectionLimits::new(connection_limit, connection_rate).with_places(places);
        let gate = Arc::new(gate);
        let budgets = Budgets::new(&plan.settings.budgets, shards);
        let mut crews: Vec<Vec<Start>> = (0..workers).map(|_| Vec::new()).collect();
        let mut address = plan.address;
        for shard in 0..shards {
            let seed = u64::from_ne_bytes(sys::random().map_err(&no_random)?);
            let place = ShardContext {
                shard: shard as u8,
                control: bus.control(),
                names,
                ids,
                gate: gate.clone(),
                budgets: budgets.clone(),
                seed,
            };
            let refused = failed(&format!("cannot listen on {address}"), LISTEN_CURE);
            let listener = sys::listener(address, &plan.listener).map_err(&refused)?;
            // The other shards share the port that the first one was given.
            let bound = listener.local_addr().map_err(&refused)?;
            address = bound.as_socket().unwrap_or(address);
            crews[shard % workers].push(Start {
                place,
                plan: plan.clone(),
                bus: bus.clone(),
                metrics: metrics[shard].clone(),
                statuses: statuses.clone(),
                clock,
                listener,
            });
        }
        let (threads, pinned) = spawn(crews)?;
        let processors = (0..shards).map(|shard| pinned[shard % workers]).collect();
        Ok(Node { address, bus, metrics, budgets, names, gate, clock, processors, threads })
    }

    /// Waits until every shard has closed its connections after a drain.
    pub fn join(self) {
        for thread in self.threads {
            // A panic of a worker has ended the process already, except in a test.
            let _ = thread.join();
        }
    }
}

/// A worker is ready, on this processor; or it cannot be.
type Ready = Result<Option<usize>, Failure>;

/// Threads, and the processor of each.
type Threads = (Vec<JoinHandle<()>>, Vec<Option<usize>>);

fn spawn(crews: Vec<Vec<Start>>) -> Result<Threads, Failure> {
    let mut threads = Vec::with_capacity(crews.len());
    let mut processors = Vec::with_capacity(crews.len());
    for (nth, crew) in crews.into_iter().enumerate() {
        let (ready, readiness) = mpsc::channel::<Ready>();
        let name = format!("worker-{nth}");
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || run(nth, crew, &ready))
            .map_err(|error| {
                let cause = format!("cannot start thread {name}: {error}");
                Failure::new(cause, "raise the limit on threads (`ulimit -u`, TasksMax=)")
            })?;
        let ready = readiness.recv().map_err(|_| {
            Failure::new(format!("thread {name} ended at once"), "see the lines above")
        })?;
        processors.push(ready?);
        threads.push(thread);
    }
    Ok((threads, processors))
}

fn run(nth: usize, crew: Vec<Start>, ready: &mpsc::Sender<Ready>) {
    let processor = sys::pin(nth);
    let worker = match worker(crew) {
        Ok(worker) => worker,
        Err(error) => {
            // Nobody listening: the start was given up.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok(processor)).is_ok() {
        worker.run();
    }
}

fn worker(crew: Vec<Start>) -> Result<Worker, Failure> {
    let mut starts = crew.into_iter();
    let leader = starts
        .next()
        .ok_or_else(|| Failure::new("a worker without shards", "report this as a fault"))?;
    let (watch, clock) = (leader.bus.watch(leader.place.shard), leader.clock);
    let leader = shard(leader)?;
    let followers = starts.map(shard).collect::<Result<_, _>>()?;
    Worker::new(leader, followers, watch, clock)
        .map_err(|error| Failure::new(format!("no doorbell for a ring: {error}"), DESCRIPTORS_CURE))
}

fn shard(start: Start) -> Result<Shard, Failure> {
    let shard = start.place.shard;
    let slots = start.plan.slots[usize::from(shard)];
    let ring = Ring::new(&start.plan.rings.sizes(slots)).map_err(|error| {
        let cure = match error.raw_os_error() {
            Some(libc::ENOMEM) => {
                "raise RLIMIT_MEMLOCK by `ulimit -l unlimited` as root (LimitMEMLOCK=infinity in a \
                 systemd unit), or the memory limit; all rings of a user count together"
            }
            _ => CHECK_CURE,
        };
        Failure::new(format!("no ring of {slots} slots for a shard: {error}"), cure)
    })?;
    let settings = Arc::new(start.plan.settings.of_shard(slots, start.plan.slots.len()));
    let hub = Hub::new(settings, &start.place, start.metrics.clone());
    let line = start.bus.line(shard);
    Shard::new(ring, line, hub, start.listener, start.metrics, start.statuses).map_err(|error| {
        Failure::new(format!("a ring has no second descriptor: {error}"), DESCRIPTORS_CURE)
    })
}
