//! The bus: bounded inboxes, one per rank of each endpoint, and the means to wake their consumers.
//!
//! Owns the queues. Never blocks and never exceeds a bound: a sender reserves room before it sends,
//! and is woken when it found no room and some becomes free. A queue has memory only for its
//! messages, so an empty inbox takes none. The invariants: a reserved message always fits; a
//! consumer never sleeps while one of its endpoints has news.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, SendError, Sender, unbounded};

use crate::base::limits::SHARDS_MAX;
use crate::base::sys;
use crate::engine::wakeups::{InboxRoom, SleepState};
use crate::model::message::{Endpoint, Message, Post, RANKS, Rank, endpoints};
use crate::model::own_queues::{OWN_MAX, OwnQueues};

/// Capacity of the inboxes, by rank.
pub type Capacities = [usize; RANKS];

/// How a consumer is woken.
pub enum WakeMethod {
    /// An eventfd: a worker's, which its ring polls, or the store's.
    Descriptor(OwnedFd),
    /// A function call, for the control plane.
    Call(Box<dyn Fn() + Send + Sync>),
}

struct Inbox {
    room: InboxRoom,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
}

struct EndpointInboxes {
    inboxes: [Inbox; RANKS],
    /// The consumer of these inboxes: an index into the consumers of the bus.
    consumer: usize,
}

struct Consumer {
    sleep: SleepState,
    wake_method: WakeMethod,
}

impl Consumer {
    fn new(wake_method: WakeMethod) -> Self {
        Consumer { sleep: SleepState::default(), wake_method }
    }
}

/// All inboxes and consumers of a node. The last two belong to the control plane and the store; the
/// others belong to the shards and the workers.
pub struct Bus {
    inboxes: Box<[EndpointInboxes]>,
    consumers: Box<[Consumer]>,
}

impl Bus {
    /// Creates a bus of `shards` shards on `workers` threads, a control plane that `control` wakes,
    /// and a store. Worker n modulo `workers` runs shard n.
    pub fn new(
        shards: usize,
        workers: usize,
        capacities: Capacities,
        control: Box<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Arc<Self>> {
        assert!(shards <= SHARDS_MAX, "a mask of endpoints has a bit for each of them");
        assert!(workers > 0, "a bus needs at least one worker");
        let endpoint_inboxes = |consumer| {
            let inboxes = capacities.map(|capacity| {
                // `InboxRoom` bounds the queue.
                let (sender, receiver) = unbounded();
                Inbox { room: InboxRoom::new(capacity), sender, receiver }
            });
            EndpointInboxes { inboxes, consumer }
        };
        let of_shards = (0..shards).map(|shard| endpoint_inboxes(shard % workers));
        let of_others = [endpoint_inboxes(workers), endpoint_inboxes(workers + 1)];
        let inboxes = of_shards.chain(of_others).collect();
        let mut consumers = Vec::with_capacity(workers + 2);
        for _ in 0..workers {
            consumers.push(Consumer::new(WakeMethod::Descriptor(sys::doorbell()?)));
        }
        consumers.push(Consumer::new(WakeMethod::Call(control)));
        consumers.push(Consumer::new(WakeMethod::Descriptor(sys::doorbell()?)));
        Ok(Arc::new(Bus { inboxes, consumers: consumers.into() }))
    }

    /// Messages in the inboxes of a rank of all shards.
    pub fn depth(&self, rank: Rank) -> usize {
        let shards = self.inboxes.iter().take(usize::from(self.control()));
        shards.map(|shard| shard.inboxes[rank as usize].room.taken()).sum()
    }

    /// The control plane's endpoint.
    pub fn control(&self) -> Endpoint {
        (self.inboxes.len() - 2) as Endpoint
    }

    /// The store's endpoint.
    pub fn store(&self) -> Endpoint {
        (self.inboxes.len() - 1) as Endpoint
    }

    /// The access of one endpoint to the bus.
    pub fn port(self: &Arc<Self>, endpoint: Endpoint) -> BusPort {
        let own = OwnQueues::new(OWN_MAX);
        BusPort { bus: self.clone(), endpoint, own, to_wake: 0 }
    }

    /// The consumer of an endpoint: the worker of a shard, the control plane or the store.
    pub fn consumer(self: &Arc<Self>, endpoint: Endpoint) -> ConsumerHandle {
        let consumer = self.inboxes[usize::from(endpoint)].consumer;
        ConsumerHandle { bus: self.clone(), consumer }
    }

    fn wake(&self, endpoint: Endpoint) {
        let consumer = &self.consumers[self.inboxes[usize::from(endpoint)].consumer];
        if consumer.sleep.notify(endpoint) {
            match &consumer.wake_method {
                WakeMethod::Descriptor(wake_method) => sys::ring_doorbell(wake_method.as_fd()),
                WakeMethod::Call(call) => call(),
            }
        }
    }
}

/// The sleep and the news of one consumer.
pub struct ConsumerHandle {
    bus: Arc<Bus>,
    consumer: usize,
}

impl ConsumerHandle {
    fn consumer(&self) -> &Consumer {
        &self.bus.consumers[self.consumer]
    }

    /// The eventfd of a worker or the store; `None` for the control plane.
    pub fn doorbell(&self) -> Option<&OwnedFd> {
        match &self.consumer().wake_method {
            WakeMethod::Descriptor(wake_method) => Some(wake_method),
            WakeMethod::Call(_) => None,
        }
    }

    /// Bit n: endpoint n got a message, or room that it waited for, since the last call. The caller
    /// must look at its inboxes afterwards.
    pub fn take_news(&self) -> u64 {
        self.consumer().sleep.take_news()
    }

    /// Announces that the consumer is about to wait. Returns whether it may.
    pub fn prepare_to_sleep(&self) -> bool {
        self.consumer().sleep.prepare()
    }

    /// Announces that the consumer runs again.
    pub fn wake_up(&self) {
        self.consumer().sleep.wake_up();
    }
}

/// The access of one endpoint to the bus: it takes from its own inboxes and sends to all others.
pub struct BusPort {
    bus: Arc<Bus>,
    endpoint: Endpoint,
    /// Messages of a shard to itself. The control plane sends to itself through its inbox, because
    /// its tasks share it.
    own: OwnQueues,
    /// Bit n: endpoint n must be woken: it got a message, or room that it waited for.
    to_wake: u64,
}

impl BusPort {
    /// The endpoint.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Whether a message to this endpoint stays on its thread.
    fn is_own(&self, to: Endpoint) -> bool {
        to == self.endpoint && to < self.bus.control()
    }

    fn endpoint_inboxes(&self) -> &EndpointInboxes {
        &self.bus.inboxes[usize::from(self.endpoint)]
    }

    /// Takes the oldest message of a rank.
    pub fn take(&mut self, rank: Rank) -> Option<Message> {
        let inbox = &self.endpoint_inboxes().inboxes[rank as usize];
        // An empty inbox costs one load: a later message sets the news flag.
        if inbox.room.is_empty() {
            return None;
        }
        let message = inbox.receiver.try_recv().ok()?;
        self.to_wake |= inbox.room.free();
        Some(message)
    }

    /// The endpoints that are to be woken, a bit each. The caller owes them [`BusPort::add_wakes`].
    pub fn take_wakes(&mut self) -> u64 {
        std::mem::take(&mut self.to_wake)
    }

    /// Adds endpoints to those that the next [`BusPort::wake_receivers`] wakes.
    pub fn add_wakes(&mut self, endpoints: u64) {
        self.to_wake |= endpoints;
    }

    /// Wakes the consumers of all endpoints that got a message or room since the last call.
    pub fn wake_receivers(&mut self) {
        for endpoint in endpoints(std::mem::take(&mut self.to_wake)) {
            self.bus.wake(endpoint);
        }
    }
}

impl Post for BusPort {
    fn reserve(&mut self, to: Endpoint, rank: Rank) -> bool {
        if self.is_own(to) {
            return self.own.reserve(rank);
        }
        self.bus.inboxes[usize::from(to)].inboxes[rank as usize].room.reserve(self.endpoint)
    }

    fn cancel(&mut self, to: Endpoint, rank: Rank) {
        if self.is_own(to) {
            return self.own.cancel(rank);
        }
        self.to_wake |= self.bus.inboxes[usize::from(to)].inboxes[rank as usize].room.free();
    }

    fn wake(&mut self, to: Endpoint) {
        self.to_wake |= 1 << to;
    }

    fn send(&mut self, to: Endpoint, message: Message) {
        if self.is_own(to) {
            return self.own.send(message);
        }
        let inbox = &self.bus.inboxes[usize::from(to)].inboxes[message.rank() as usize];
        match inbox.sender.send(message) {
            Ok(()) => self.to_wake |= 1 << to,
            Err(SendError(_)) => unreachable!("the bus owns the sender and the receiver"),
        }
    }

    fn take_own(&mut self, rank: Rank) -> Option<Message> {
        self.own.take(rank)
    }

    fn put_back(&mut self, message: Message) {
        self.own.put_back(message);
    }

    fn was_full(&mut self) -> bool {
        self.own.was_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Release;
    use std::os::fd::AsRawFd;

    fn release() -> Message {
        Message::Release(Release { channel: "c".into(), hash: 1, shard: 0 })
    }

    #[test]
    fn room_is_bounded_and_waiting_senders_are_woken() {
        let bus = Bus::new(2, 2, [1; RANKS], Box::new(|| {})).unwrap();
        let (mut zero, mut one) = (bus.port(0), bus.port(1));
        let (zeros, ones) = (bus.consumer(0), bus.consumer(1));
        assert!(zero.reserve(1, Rank::Request));
        zero.send(1, release());
        zero.wake_receivers();
        assert!(!zero.reserve(1, Rank::Request), "full");
        assert!(zero.reserve(1, Rank::Delivery), "ranks have inboxes of their own");
        zero.cancel(1, Rank::Delivery);
        assert!(zeros.prepare_to_sleep());
        assert!(!ones.prepare_to_sleep(), "a message lies there");
        assert_eq!(ones.take_news(), 0b10);
        assert!(one.take(Rank::Request).is_some());
        one.wake_receivers();
        assert!(!zeros.consumer().sleep.notify(0), "the waiter was woken already");
        assert_eq!(zeros.take_news(), 0b01);
        assert!(zero.reserve(1, Rank::Request));
    }

    #[test]
    fn inboxes_take_memory_only_for_messages_and_keep_their_bound() {
        // As many slots could not be allocated.
        Bus::new(SHARDS_MAX, 2, [usize::MAX; RANKS], Box::new(|| {})).unwrap();
        let bus = Bus::new(2, 2, [100; RANKS], Box::new(|| {})).unwrap();
        let (mut zero, mut one) = (bus.port(0), bus.port(1));
        for _ in 0..3 {
            for _ in 0..100 {
                assert!(zero.reserve(1, Rank::Request));
                zero.send(1, release());
            }
            assert!(!zero.reserve(1, Rank::Request), "full");
            let taken = std::iter::from_fn(|| one.take(Rank::Request)).count();
            assert_eq!(taken, 100);
        }
    }

    #[test]
    fn a_sender_that_gets_room_before_it_sleeps_does_not_sleep() {
        let bus = Bus::new(2, 2, [1; RANKS], Box::new(|| {})).unwrap();
        let (mut zero, mut one) = (bus.port(0), bus.port(1));
        let zeros = bus.consumer(0);
        assert!(zero.reserve(1, Rank::Request));
        zero.send(1, release());
        assert!(!zero.reserve(1, Rank::Request), "it waits");
        one.take(Rank::Request);
        one.wake_receivers();
        assert!(!zeros.prepare_to_sleep(), "there is room");
        assert_eq!(zeros.take_news(), 0b01);
        assert!(zeros.prepare_to_sleep());
    }

    #[test]
    fn messages_of_a_shard_to_itself_stay_on_its_port_and_wake_no_consumer() {
        let bus = Bus::new(2, 2, [1; RANKS], Box::new(|| {})).unwrap();
        let (mut zero, watch) = (bus.port(0), bus.consumer(0));
        let mut reserved = 0;
        while zero.reserve(0, Rank::Request) {
            zero.send(0, release());
            reserved += 1;
        }
        assert!(reserved == OWN_MAX && zero.was_full());
        zero.wake_receivers();
        assert!(zero.take(Rank::Request).is_none() && watch.take_news() == 0);
        assert!(bus.port(1).reserve(0, Rank::Request), "others find the inbox empty");
        for _ in 0..OWN_MAX {
            assert!(zero.take_own(Rank::Request).is_some());
        }
        assert!(zero.take_own(Rank::Request).is_none());
        let mut control = bus.port(bus.control());
        assert!(control.reserve(bus.control(), Rank::Delivery), "for the answer of a shard");
        assert!(!bus.port(bus.control()).reserve(bus.control(), Rank::Delivery));
    }

    #[test]
    fn shards_of_one_worker_share_its_eventfd_and_have_separate_news() {
        let bus = Bus::new(3, 2, [1; RANKS], Box::new(|| {})).unwrap();
        let (mut one, watch) = (bus.port(1), bus.consumer(0));
        let wake_method = |watch: &ConsumerHandle| watch.doorbell().map(AsRawFd::as_raw_fd);
        assert_eq!(wake_method(&watch), wake_method(&bus.consumer(2)));
        assert_ne!(wake_method(&watch), wake_method(&bus.consumer(1)));
        assert!(watch.prepare_to_sleep());
        assert!(one.reserve(2, Rank::Request));
        one.send(2, release());
        one.wake_receivers();
        assert_eq!(watch.take_news(), 0b100);
        assert_eq!(watch.take_news(), 0);
    }
}
