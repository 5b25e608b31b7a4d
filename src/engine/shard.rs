//! A shard: it turns completions and messages into state changes, and state into sends.
//!
//! Owns a ring, a hub and a port of the bus. Never waits inside a turn. The order of a turn:
//! messages, completions, deadlines, connections with left input, fan-out, one transmit, then the
//! operations that the hub requests of the ring. Deadlines come after input, so no client is closed
//! for a silence during which the process was stopped. Completions are taken from the kernel before
//! messages, and handled after them: if a client publishes here because it got a publication from
//! another shard, its publication comes after that one. Every step is limited by the work budget of
//! the turn.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use socket2::Socket;

use crate::base::metrics::Metrics;
use crate::base::sys::Now;
use crate::base::vitals::Vitals;
use crate::base::work_budget::Stage;
use crate::engine::bus::BusPort;
use crate::engine::ring::{Ring, RingHandle, RingNews};
use crate::hub::connections::Phase;
use crate::hub::{Hub, Segments};
use crate::model::message::{Endpoint, Message, RANKS, Rank, SlotRelease};
use crate::model::snapshot::RestoredHome;

/// Number of accepts in progress, and of slots reserved for sockets that must move.
const ACCEPTS: usize = 16;
/// Maximum messages of one rank per turn.
const MESSAGES: usize = 512;

/// Microseconds from which a turn counts as long.
const LONG_TURN: u64 = 1000;

/// State of a shard that every other shard can read without a message.
#[derive(Debug, Default)]
pub struct ShardStatus {
    pub(super) ring: OnceLock<RingHandle>,
    pub(super) free: AtomicUsize,
    /// Whether the node shuts down and every connection of the shard is closed.
    pub(super) done: AtomicBool,
}

/// A socket that was accepted here and must move to another shard.
#[derive(Clone, Copy)]
pub(super) struct MovingSocket {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// The walk over the slots of a shard that shuts down.
pub(super) struct ShutdownWalk {
    /// The next slot.
    pub(super) next: u32,
    /// Connections closed so far, and their number when the walk began.
    pub(super) nth: u64,
    pub(super) count: u64,
    /// Duration of the drain and its start, in milliseconds.
    pub(super) over: u64,
    pub(super) begun: u64,
}

/// The budget of one turn of a shard.
#[derive(Clone, Copy, Debug)]
pub struct TurnShare {
    /// Whether the inboxes may have messages that arrived after the last turn.
    pub messages: bool,
    /// Units of work.
    pub work: usize,
    /// Whether one piece of work may exceed the budget.
    pub large: bool,
    /// Sends of the fan-out.
    pub sends: usize,
    /// Deadlines, if none of them is late.
    pub deadlines: usize,
}

/// What a turn used of its budget. The last piece of work may have exceeded it.
#[derive(Clone, Copy, Debug)]
pub struct TurnUsage {
    /// Units of work.
    pub work: usize,
    /// Sends of the fan-out.
    pub sends: usize,
    /// Deadlines.
    pub deadlines: usize,
}

/// One shard of a worker.
pub struct Shard {
    pub(super) ring: Ring,
    pub(super) bus: BusPort,
    pub(super) hub: Hub,
    /// The time of this turn, in milliseconds.
    pub(super) now: u64,
    pub(super) metrics: Arc<Metrics>,
    pub(super) statuses: Arc<[ShardStatus]>,
    vitals: Arc<Vitals>,
    /// Number of slots for connections that stay.
    pub(super) kept_slots: usize,
    /// Maximum accepts in progress for each listener.
    pub(super) accepts_max: usize,
    /// Accepts in progress.
    pub(super) accepts: usize,
    /// Accepts in progress for each listener.
    pub(super) accepts_of: Vec<usize>,
    /// Time before which no accept is started, in milliseconds.
    pub(super) accept_after: u64,
    /// Messages that wait because an inbox for their results is full, by rank.
    pub(super) stalled: [Option<Message>; RANKS],
    pub(super) sockets_to_move: Vec<MovingSocket>,
    /// Slots of other shards that were offered and are not used; they must be released.
    pub(super) unused_slots: Vec<(Endpoint, SlotRelease)>,
    /// Sockets on their way to another shard, with the shard, slot and generation that were
    /// offered.
    pub(super) sockets_in_transit: Vec<(MovingSocket, Endpoint, u32, u32)>,
    pub(super) awaiting_buffer: Vec<u32>,
    /// Whether newcomers are refused and the others are closed.
    pub(super) draining: bool,
    /// Whether no socket is accepted any more.
    pub(super) stopping: bool,
    /// The walk of the shutdown, if one is in progress.
    pub(super) shutdown: Option<ShutdownWalk>,
    /// Whether the last turn left work for the next.
    pub(super) busy: bool,
    /// Whether the last turn may have left messages in the inboxes.
    pub(super) messages_left: bool,
    /// Time of the next turn without events, in milliseconds.
    pub(super) due: Option<u64>,
}

impl Shard {
    /// Creates a shard that accepts from `listeners`, one for each entrance. Must be called on the
    /// worker's thread. Errors are those of the kernel.
    pub fn new(
        mut ring: Ring,
        bus: BusPort,
        hub: Hub,
        listeners: Vec<Socket>,
        metrics: Arc<Metrics>,
        (statuses, vitals): (Arc<[ShardStatus]>, Arc<Vitals>),
    ) -> std::io::Result<Self> {
        let count = listeners.len();
        let accepts_max = (ACCEPTS.min(hub.room() / 4) / count.max(1)).max(1);
        let kept_slots = hub.room().saturating_sub(accepts_max * count);
        let handle = ring.handle()?;
        statuses[usize::from(bus.endpoint())].ring.get_or_init(|| handle);
        ring.listen(listeners);
        Ok(Shard {
            ring,
            bus,
            hub,
            now: 0,
            metrics,
            statuses,
            vitals,
            kept_slots,
            accepts_max,
            accepts: 0,
            accepts_of: vec![0; count],
            accept_after: 0,
            stalled: Default::default(),
            sockets_to_move: Vec::new(),
            unused_slots: Vec::new(),
            sockets_in_transit: Vec::new(),
            awaiting_buffer: Vec::new(),
            draining: false,
            stopping: false,
            shutdown: None,
            busy: true,
            messages_left: true,
            due: None,
        })
    }

    /// Gives the home what it had before a restart.
    pub fn restore(&mut self, home: RestoredHome, now: Now) {
        self.hub.restore(home, now);
    }

    /// Whether there are connections. Their tokens can expire by the wall clock.
    pub fn has_connections(&self) -> bool {
        self.hub.len() > self.accepts
    }

    /// Whether the node shuts down and every connection here is closed.
    pub fn is_done(&self) -> bool {
        self.stopping && self.hub.is_empty() && !self.hub.has_outgoing()
    }

    /// Whether every shard is done. Until then, this shard is still the home of channels of other
    /// shards.
    pub fn is_node_done(&self) -> bool {
        self.statuses.iter().all(|status| status.done.load(Ordering::Acquire))
    }

    /// Time of the next turn without events, in milliseconds.
    pub fn next_due(&self) -> Option<u64> {
        self.due
    }

    /// Whether the last turn left work for the next: laps are open, or input was left.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Runs one turn; returns what it used of its budget.
    pub fn turn(&mut self, now: Now, share: TurnShare) -> TurnUsage {
        self.now = now.millis;
        self.hub.set_share(share.work, share.large);
        self.hub.set_deadline_share(share.deadlines);
        self.ring.poll();
        self.hub.begin_turn(now);
        self.ring.reap();
        self.read_ahead();
        // Whatever was sent before a completion is in an inbox by now.
        let mut goes_on = self.take_messages(share.messages || self.ring.has_reaped());
        self.take_completions();
        goes_on |= self.hub.expire();
        goes_on |= self.continue_shutdown();
        self.hub.resume_paused(&mut self.bus);
        self.hub.send_waiting(&mut self.bus);
        self.bus.wake_receivers();
        let sends = self.hub.fan_out_up_to(share.sends);
        self.transmit();
        self.start_ring_requests();
        self.move_sockets();
        self.refill_accepts();
        self.publish_status();
        self.bus.wake_receivers();
        self.busy = goes_on || self.hub.is_busy() || self.ring.has_reaped();
        let accept_after = Some(self.accept_after).filter(|after| *after > 0 && !self.stopping);
        let others = [accept_after, self.next_close()];
        self.due = self.hub.next_due().into_iter().chain(others.into_iter().flatten()).min();
        TurnUsage { work: self.hub.work_done(), sends, deadlines: self.hub.deadlines_done() }
    }

    /// Ends the pass of the last turn, at this time in microseconds.
    pub fn end_pass(&mut self, micros: u64) {
        self.hub.end_pass(micros);
    }

    /// The counters of the shard.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Submits what the last turn queued in the ring.
    pub fn submit(&mut self) {
        self.ring.poll();
    }

    /// Makes the next wait end when the eventfd is written from now on.
    pub fn arm_doorbell(&mut self) {
        self.ring.arm_doorbell();
    }

    /// What the ring shows of its news. Errors are those of the kernel.
    pub fn news(&self) -> std::io::Result<RingNews> {
        RingNews::of(&self.ring)
    }

    /// Takes the completions of the ring, among them the wake-up of the worker; returns whether
    /// others are left for a turn.
    pub fn take_wake_up(&mut self) -> bool {
        self.ring.poll();
        self.ring.reap();
        self.ring.has_reaped()
    }

    /// Waits for a completion, the eventfd or `timeout`; `None` waits without limit.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        self.ring.wait(timeout);
    }

    /// Endpoint of this shard on the bus.
    pub fn endpoint(&self) -> Endpoint {
        self.bus.endpoint()
    }

    /// Sets the eventfd that ends [`Shard::wait`].
    pub fn watch_doorbell(&mut self, doorbell: OwnedFd) {
        self.ring.watch_doorbell(doorbell);
    }

    /// Writes to the eventfd `doorbell` whenever this shard's ring has news. Errors are those of
    /// the kernel.
    pub fn ring_doorbell_on_news(&mut self, doorbell: &OwnedFd) -> std::io::Result<()> {
        self.ring.ring_doorbell_on_news(doorbell)
    }

    /// Updates the metrics of a turn that took at most this many microseconds.
    pub fn report(&self, took: u64) {
        if took > LONG_TURN {
            self.metrics.long_turns.add(1);
        }
        if took > self.metrics.longest_turn_micros.get() {
            self.metrics.longest_turn_micros.set(took);
        }
    }

    /// Publishes the status of this shard to the other shards.
    fn publish_status(&mut self) {
        self.hub.measure();
        self.metrics.sockets.set(self.hub.len().saturating_sub(self.accepts) as u64);
        self.metrics.completion_overflows.set(self.ring.overflows());
        self.metrics.enters.set(self.ring.enters());
        self.metrics.sends.set(self.ring.sends());
        let free = if self.draining { 0 } else { self.free_slots() };
        let endpoint = usize::from(self.bus.endpoint());
        self.vitals.note_turn(endpoint, self.established() as u64);
        let status = &self.statuses[endpoint];
        status.free.store(free, Ordering::Relaxed);
        status.done.store(self.is_done(), Ordering::Release);
    }

    /// Number of free slots for connections that stay.
    pub(super) fn free_slots(&self) -> usize {
        (self.kept_slots + self.accepts).saturating_sub(self.hub.len())
    }

    /// Counts an operation on a slot; returns whether the connection of this generation is still
    /// there.
    pub(super) fn begin(&mut self, slot: u32, generation: u32) -> bool {
        let connection = self.hub.connection(slot, generation);
        connection.map(|found| found.operations = found.operations.saturating_add(1)).is_some()
    }

    pub(super) fn watch(&mut self, slot: u32) {
        let generation = self.hub.generation(slot);
        if let Some(connection) = self.hub.connection(slot, generation) {
            connection.flags.set_watched(true);
            connection.operations = connection.operations.saturating_add(1);
            self.ring.watch(generation, slot);
        }
    }

    /// Reads from a slot, or notes that input is available if the read must wait.
    pub(super) fn read(&mut self, slot: u32) {
        let generation = self.hub.generation(slot);
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        let reads =
            matches!(connection.phase, Phase::ProxyHeader | Phase::Handshake | Phase::Closing);
        if !connection.takes_output() && !reads {
            return;
        }
        let later = connection.flags.receiving() || connection.flags.paused();
        connection.flags.set_readable(later);
        if !later {
            connection.flags.set_receiving(true);
            connection.operations = connection.operations.saturating_add(1);
            self.ring.receive(generation, slot);
        }
    }

    // ---- messages ------------------------------------------------------------------------

    /// Handles messages; returns whether some may be left. Looks at the inboxes only if `arrived`
    /// or the last turn says that they may have messages.
    fn take_messages(&mut self, arrived: bool) -> bool {
        let mut left = false;
        self.hub.begin(Stage::Deliveries);
        self.hub.serve_own(&mut self.bus);
        if !arrived && !self.messages_left && self.stalled.iter().all(Option::is_none) {
            return false;
        }
        for rank in Rank::SERVED {
            self.hub.begin(match rank {
                Rank::Delivery => Stage::Deliveries,
                Rank::Store | Rank::Request => Stage::Requests,
                Rank::Ingress => Stage::Ingress,
            });
            left |= self.take_rank(rank);
        }
        self.messages_left = left;
        left
    }

    fn take_rank(&mut self, rank: Rank) -> bool {
        for _ in 0..MESSAGES {
            if rank == Rank::Delivery && !self.hub.takes_deliveries() {
                return true;
            }
            let waiting = self.stalled[rank as usize].take();
            let Some(message) = waiting.or_else(|| self.bus.take(rank)) else { return false };
            if !self.hub.affords(&message) {
                self.stalled[rank as usize] = Some(message);
                return true;
            }
            if let Err(message) = self.handle(message) {
                self.stalled[rank as usize] = Some(message);
                return false;
            }
        }
        true
    }

    fn handle(&mut self, message: Message) -> Result<(), Message> {
        match message {
            Message::Adopt(adopt) => self.adopt(*adopt),
            Message::Drain(over) => self.drain(over),
            Message::Stop => self.stop(),
            Message::SlotRequest(request) if !self.offer_slot(&request) => {
                return Err(Message::SlotRequest(request));
            }
            Message::SlotRequest(_) => {}
            Message::SlotOffer(offer) => self.take_offer(&offer),
            Message::SlotRelease(release) => self.offer_released(&release),
            other => return self.hub.handle(&mut self.bus, other),
        }
        Ok(())
    }

    // ---- output --------------------------------------------------------------------------

    fn transmit(&mut self) {
        if !self.hub.has_output() {
            // Laps without sends end here too.
            return self.hub.end_turn();
        }
        self.hub.seal_output();
        let hub = &self.hub;
        let unsent = self.ring.transmit(|batch| {
            hub.for_each_send(|generation, slot, segments| match segments {
                Segments::Whole(bytes) => batch.send(generation, slot, bytes),
                Segments::Turn(pieces) => batch.send_segments(generation, slot, pieces),
            });
        });
        for send in unsent {
            self.hub.send_fell_short(send.slot, send.generation, send.taken);
        }
        self.hub.end_turn();
    }
}
