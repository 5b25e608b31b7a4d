//! The control plane's end of the bus: requests to shards, their answers, and messages from shards.
//!
//! Owns the table of requests whose answer is pending. Never blocks a thread: a task waits for
//! room. The invariant: a request first reserves room in the control plane's own inbox, so an
//! answer always fits. An answer whose requester has given up is dropped.

pub mod publishing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::base::memory::MemoryBudgets;
use crate::base::metrics::Metrics;
use crate::base::sys::Clock;
use crate::engine::bus::{Bus, BusPort};
use crate::model::message::{
    ChannelAnswer, ChannelQuery, Endpoint, HandOver, HomeQuery, HookEvent, LookupRequest, Message,
    Order, OrderRequest, Post, Publish, Published, Rank, ReplyTo, Scope, Survey, Surveyed, Watch,
    Watched,
};
use crate::model::names::Names;
use crate::model::snapshot::{SnapshotAnswer, SnapshotQuery, SnapshotRequest};
use crate::wire::protocol::Error;

/// Maximum time that a sender waits for room on the bus.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);
/// Maximum time that a request waits for its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Messages that the dispatcher takes before it yields to other tasks.
const BATCH: usize = 512;

/// There is no answer, because the node is overloaded or shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkBusy;

impl From<LinkBusy> for Error {
    fn from(_: LinkBusy) -> Self {
        Error::INTERNAL
    }
}

enum LinkAnswer {
    Published(Box<Published>),
    Surveyed(Box<Surveyed>),
    Watched(Box<Watched>),
    Snapshot(Box<SnapshotAnswer>),
    ChannelAnswer(Result<ChannelAnswer, Error>),
    Ordered,
}

/// When a publication wakes the shard of its channel's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At once.
    Now,
    /// With the next [`Link::wake_batch`], so that the shard wakes once for a batch.
    WithBatch,
}

/// A request whose answer is pending.
pub struct Pending {
    answer: oneshot::Receiver<LinkAnswer>,
}

/// The control plane's end of the bus.
pub struct Link {
    bus: Arc<Bus>,
    names: Names,
    metrics: Arc<[Arc<Metrics>]>,
    budgets: MemoryBudgets,
    /// The bus notifies it when messages or room arrive for the control plane.
    bell: Arc<Notify>,
    /// The clock of the shards.
    clock: Clock,
    /// Notified when an inbox may have room again.
    room: Notify,
    waiting: Mutex<HashMap<u64, oneshot::Sender<LinkAnswer>>>,
    next_tag: AtomicU64,
    /// Endpoints that got messages of a batch and that nobody has woken, a bit each.
    owed_wakes: AtomicU64,
}

impl Link {
    /// The control plane's end of `bus`. The bus must call `bell.notify_one()` to wake it.
    /// The clock is that of the shards.
    pub fn new(
        bus: Arc<Bus>,
        names: Names,
        metrics: Arc<[Arc<Metrics>]>,
        budgets: MemoryBudgets,
        (bell, clock): (Arc<Notify>, Clock),
    ) -> Self {
        Link {
            bus,
            names,
            metrics,
            budgets,
            bell,
            clock,
            room: Notify::new(),
            waiting: Mutex::default(),
            next_tag: AtomicU64::new(1),
            owed_wakes: AtomicU64::new(0),
        }
    }

    /// The low bits of the microseconds of the shards' clock.
    pub fn stamp(&self) -> u32 {
        self.clock.micros() as u32
    }

    /// Milliseconds of the shards' clock.
    pub fn millis(&self) -> u64 {
        self.clock.millis()
    }

    /// Has these shards turn, a bit each, although there is no message for them.
    pub fn wake_shards(&self, shards: u64) {
        let mut line = self.bus.port(self.bus.control());
        line.add_wakes(shards);
        line.wake_receivers();
    }

    /// The counters of each shard.
    pub fn metrics(&self) -> &Arc<[Arc<Metrics>]> {
        &self.metrics
    }

    /// Memory budgets of the node, and how much of them is used.
    pub fn budgets(&self) -> &MemoryBudgets {
        &self.budgets
    }

    /// Selects the home of a name.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Endpoints of all shards.
    pub fn shards(&self) -> std::ops::Range<Endpoint> {
        0..self.bus.control()
    }

    /// Sum of a metric over all shards.
    pub fn sum(&self, of: impl Fn(&Metrics) -> u64) -> u64 {
        self.metrics.iter().map(|metrics| of(metrics)).sum()
    }

    /// Messages that wait in the inboxes of the shards, by rank.
    pub fn inbox_depths(&self) -> [(&'static str, usize); 3] {
        [("delivery", Rank::Delivery), ("request", Rank::Request), ("ingress", Rank::Ingress)]
            .map(|(name, rank)| (name, self.bus.depth(rank)))
    }

    /// The shard with the fewest sockets.
    pub fn least_loaded_shard(&self) -> Endpoint {
        let sockets = |shard: &Endpoint| self.metrics[usize::from(*shard)].sockets.get();
        self.shards().min_by_key(sockets).unwrap_or(0)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<LinkAnswer>>> {
        // After a panic elsewhere the table is consistent: each change is one insertion or removal.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- requests to shards ------------------------------------------------------------

    /// Sends a publication to its channel's home. The caller may wait for the answer later.
    pub async fn publish(
        &self,
        channel: &str,
        request: impl FnOnce(ReplyTo, u64) -> Publish,
        wake: Wake,
    ) -> Result<Pending, LinkBusy> {
        let hash = self.names.hash(channel);
        let message = |tag| Message::Publish(Box::new(request(ReplyTo::Control(tag), hash)));
        let (mut line, pending) =
            self.ask_asleep(self.names.home(hash), Rank::Request, message).await?;
        match wake {
            Wake::Now => line.wake_receivers(),
            Wake::WithBatch => _ = self.owed_wakes.fetch_or(line.take_wakes(), Ordering::AcqRel),
        }
        Ok(pending)
    }

    /// Wakes the shards that got publications of a batch. The sender of a batch must call it before
    /// it waits for an answer.
    pub fn wake_batch(&self) {
        if self.owed_wakes.load(Ordering::Acquire) != 0 {
            let mut line = self.bus.port(self.bus.control());
            line.add_wakes(self.owed_wakes.swap(0, Ordering::AcqRel));
            line.wake_receivers();
        }
    }

    /// Asks the home of a channel, which is durable or not, about the channel.
    pub async fn ask_home(
        &self,
        (channel, durable): (&Arc<str>, bool),
        query: ChannelQuery,
    ) -> Result<Pending, LinkBusy> {
        let hash = self.names.hash(channel);
        let channel = channel.clone();
        let message = |tag| {
            let reply_to = ReplyTo::Control(tag);
            Message::HomeQuery(Box::new(HomeQuery { channel, hash, reply_to, durable, query }))
        };
        self.ask(self.names.home(hash), Rank::Request, message).await
    }

    /// Asks a shard for the channels that its clients are subscribed to.
    pub async fn survey(&self, shard: Endpoint, scope: Scope) -> Result<Pending, LinkBusy> {
        let message = |tag| Message::Survey(Box::new(Survey { tag, scope }));
        self.ask(shard, Rank::Ingress, message).await
    }

    /// Asks a shard for its load. It counts on for the next call if the watch `goes_on`.
    pub async fn watch(&self, shard: Endpoint, goes_on: bool) -> Result<Pending, LinkBusy> {
        let message = |tag| Message::Watch(Watch { tag, goes_on });
        self.ask(shard, Rank::Ingress, message).await
    }

    /// Asks the home of a shard for a part of the snapshot.
    pub async fn snapshot(
        &self,
        shard: Endpoint,
        query: SnapshotQuery,
    ) -> Result<Pending, LinkBusy> {
        let message = |tag| Message::SnapshotRequest(Box::new(SnapshotRequest { tag, query }));
        self.ask(shard, Rank::Request, message).await
    }

    /// Orders a shard to act on connections. It answers when the order is carried out.
    pub async fn order(&self, shard: Endpoint, order: Arc<Order>) -> Result<Pending, LinkBusy> {
        let message = |tag| Message::Order(OrderRequest { tag, order });
        self.ask(shard, Rank::Delivery, message).await
    }

    /// Has a shard take its new settings. It answers when they are in force.
    pub async fn reconfigure(&self, shard: Endpoint) -> Result<Pending, LinkBusy> {
        self.ask(shard, Rank::Delivery, Message::Reconfigure).await
    }

    async fn ask(
        &self,
        to: Endpoint,
        rank: Rank,
        message: impl FnOnce(u64) -> Message,
    ) -> Result<Pending, LinkBusy> {
        let (mut line, pending) = self.ask_asleep(to, rank, message).await?;
        line.wake_receivers();
        Ok(pending)
    }

    /// Sends a request. The caller must wake its receiver by the port.
    async fn ask_asleep(
        &self,
        to: Endpoint,
        rank: Rank,
        message: impl FnOnce(u64) -> Message,
    ) -> Result<(BusPort, Pending), LinkBusy> {
        let mut line = self.wait_for_room(to, rank, true).await?;
        let tag = self.next_tag.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(tag, sender);
        line.send(to, message(tag));
        Ok((line, Pending { answer }))
    }

    /// Sends a message that has no answer. Returns the message if the inbox has no room in time.
    pub async fn send(&self, to: Endpoint, message: Message) -> Result<(), Message> {
        match self.wait_for_room(to, message.rank(), false).await {
            Ok(mut line) => {
                line.send(to, message);
                line.wake_receivers();
                Ok(())
            }
            Err(LinkBusy) => Err(message),
        }
    }

    /// Sends a message that has no answer, and waits for room without a time limit: a connection
    /// waits for the message and reads no input meanwhile.
    pub async fn send_persistently(&self, to: Endpoint, message: Message) {
        let mut left = self.send(to, message).await;
        while let Err(message) = left {
            left = self.send(to, message).await;
        }
    }

    async fn wait_for_room(
        &self,
        to: Endpoint,
        rank: Rank,
        answered: bool,
    ) -> Result<BusPort, LinkBusy> {
        let attempts = async {
            loop {
                // Registers before the attempt, so that no notification in between is missed.
                let room = self.room.notified();
                if let Some(line) = self.try_room(to, rank, answered) {
                    return line;
                }
                room.await;
            }
        };
        timeout(ROOM_PATIENCE, attempts).await.map_err(|_| LinkBusy)
    }

    /// Reserves room for a message, and for its answer if it has one.
    fn try_room(&self, to: Endpoint, rank: Rank, answered: bool) -> Option<BusPort> {
        let own = self.bus.control();
        let mut line = self.bus.port(own);
        if answered && !line.reserve(own, Rank::Delivery) {
            return None;
        }
        if line.reserve(to, rank) {
            return Some(line);
        }
        if answered {
            line.cancel(own, Rank::Delivery);
        }
        line.wake_receivers();
        None
    }

    // ---- messages from shards ------------------------------------------------------------

    /// Takes incoming messages as long as the process runs. Sockets go to `hand_over`, lookups to
    /// `look_up`, and hook events to `deliver_hook`.
    pub async fn dispatch(
        &self,
        mut hand_over: impl FnMut(HandOver),
        mut look_up: impl FnMut(LookupRequest),
        mut deliver_hook: impl FnMut(HookEvent),
    ) {
        let mut line = self.bus.port(self.bus.control());
        let watch = self.bus.consumer(self.bus.control());
        loop {
            watch.take_news();
            let mut taken = 0;
            for rank in Rank::SERVED {
                while taken < BATCH
                    && let Some(message) = line.take(rank)
                {
                    taken += 1;
                    match message {
                        Message::HandOver(socket) => hand_over(*socket),
                        Message::LookupRequest(request) => look_up(*request),
                        Message::HookEvent(event) => deliver_hook(*event),
                        message => self.handle(message),
                    }
                }
            }
            line.wake_receivers();
            let asleep = taken < BATCH && watch.prepare_to_sleep();
            // After `prepare_to_sleep` the bell also rings for room. Only now may waiting senders
            // try again: if they still find no room, the bell wakes them.
            self.room.notify_waiters();
            if asleep {
                self.bell.notified().await;
                watch.wake_up();
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    fn handle(&self, message: Message) {
        match message {
            Message::Published(published) => match published.reply_to {
                ReplyTo::Control(tag) => self.answer(tag, LinkAnswer::Published(published)),
                _ => misrouted(),
            },
            Message::HomeAnswer(told) => match told.reply_to {
                ReplyTo::Control(tag) => self.answer(tag, LinkAnswer::ChannelAnswer(told.result)),
                _ => misrouted(),
            },
            Message::Surveyed(surveyed) => {
                self.answer(surveyed.tag, LinkAnswer::Surveyed(surveyed))
            }
            Message::Watched(watched) => self.answer(watched.tag, LinkAnswer::Watched(watched)),
            Message::SnapshotAnswer(answer) => {
                self.answer(answer.tag, LinkAnswer::Snapshot(answer));
            }
            Message::Ordered(tag) => self.answer(tag, LinkAnswer::Ordered),
            _ => misrouted(),
        }
    }

    fn answer(&self, tag: u64, answer: LinkAnswer) {
        if let Some(waiting) = self.waiting().remove(&tag) {
            // The requester may have given up.
            let _ = waiting.send(answer);
        }
    }
}

/// Drops a message that only shards can handle. Its sender gets no answer.
fn misrouted() {
    tracing::error!(
        target: "control",
        "dropped a message that only shards can handle; please report this bug"
    );
}

impl Pending {
    async fn answer(self) -> Result<LinkAnswer, LinkBusy> {
        match timeout(ANSWER_PATIENCE, self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(LinkBusy),
        }
    }

    /// Answer of a home to a publication.
    pub async fn published(self) -> Result<Published, LinkBusy> {
        match self.answer().await? {
            LinkAnswer::Published(published) => Ok(*published),
            _ => Err(LinkBusy),
        }
    }

    /// Answer of a shard to a survey.
    pub async fn surveyed(self) -> Result<Surveyed, LinkBusy> {
        match self.answer().await? {
            LinkAnswer::Surveyed(surveyed) => Ok(*surveyed),
            _ => Err(LinkBusy),
        }
    }

    /// Answer of a shard to a query for its load.
    pub async fn watched(self) -> Result<Watched, LinkBusy> {
        match self.answer().await? {
            LinkAnswer::Watched(watched) => Ok(*watched),
            _ => Err(LinkBusy),
        }
    }

    /// Answer of a home to a question for a part of the snapshot.
    pub async fn snapshot(self) -> Result<SnapshotAnswer, LinkBusy> {
        match self.answer().await? {
            LinkAnswer::Snapshot(answer) => Ok(*answer),
            _ => Err(LinkBusy),
        }
    }

    /// Answer of a shard to an order.
    pub async fn ordered(self) -> Result<(), LinkBusy> {
        match self.answer().await? {
            LinkAnswer::Ordered => Ok(()),
            _ => Err(LinkBusy),
        }
    }

    /// Answer of a home to a question about a channel.
    pub async fn channel_answer(self) -> Result<Result<ChannelAnswer, Error>, LinkBusy> {
        match self.answer().await? {
            LinkAnswer::ChannelAnswer(told) => Ok(told),
            _ => Err(LinkBusy),
        }
    }
}
