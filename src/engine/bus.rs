//! The bus: bounded inboxes, one for each rank of each endpoint, and the bells that wake whoever
//! takes from them.
//!
//! Owns the queues. Never blocks and never exceeds a bound: room is reserved before anything is
//! sent, and whoever finds none is woken when there is some again. A queue has memory for the
//! messages that lie in it alone, so an inbox that nothing is sent to takes none. The invariants: a
//! reserved message always fits; a consumer never sleeps while there is news for one of its
//! endpoints.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, SendError, Sender, unbounded};

use crate::base::limits::SHARDS_MAX;
use crate::base::sys;
use crate::engine::wakeups::{InboxRoom, SleepState};
use crate::model::message::{Endpoint, Message, Post, RANKS, Rank, endpoints};
use crate::model::own_queues::{OWN_MAX, OwnQueues};

/// How many messages each inbox holds, by rank.
pub type Capacities = [usize; RANKS];

/// How a consumer is woken.
pub enum WakeMethod {
    /// A worker's eventfd, which its ring polls.
    Descriptor(OwnedFd),
    /// A call: the control plane's.
    Call(Box<dyn Fn() + Send + Sync>),
}

struct Inbox {
    room: InboxRoom,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
}

struct EndpointInboxes {
    inboxes: [Inbox; RANKS],
    /// Who takes from them: an index of the bus's consumers.
    consumer: usize,
}

struct Consumer {
    sleep: SleepState,
    wake_method: WakeMethod,
}

/// All inboxes and consumers of a node. The last inboxes and the last consumer are the control
/// plane's; the others belong to the shards and the workers.
pub struct Bus {
    inboxes: Box<[EndpointInboxes]>,
    consumers: Box<[Consumer]>,
}

impl Bus {
    /// A bus of `shards` shards that `workers` threads turn, shard n worker n modulo `workers`,
    /// and a control plane that is woken by `control`.
    pub fn new(
        shards: usize,
        workers: usize,
        capacities: Capacities,
        control: Box<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Arc<Self>> {
        assert!(shards <= SHARDS_MAX, "a mask of endpoints has a bit for each shard");
        assert!(workers > 0, "somebody turns the shards");
        let endpoint_inboxes = |consumer| {
            let inboxes = capacities.map(|capacity| {
                // The room bounds the queue.
                let (sender, receiver) = unbounded();
                Inbox { room: InboxRoom::new(capacity), sender, receiver }
            });
            EndpointInboxes { inboxes, consumer }
        };
        let of_shards = (0..shards).map(|shard| endpoint_inboxes(shard % workers));
        let inboxes = of_shards.chain([endpoint_inboxes(workers)]).collect();
        let mut consumers = Vec::with_capacity(workers + 1);
        for _ in 0..workers {
            let wake_method = WakeMethod::Descriptor(sys::doorbell()?);
            consumers.push(Consumer { sleep: SleepState::default(), wake_method });
        }
        consumers.push(Consumer {
            sleep: SleepState::default(),
            wake_method: WakeMethod::Call(control),
        });
        Ok(Arc::new(Bus { inboxes, consumers: consumers.into() }))
    }

    /// The control plane's endpoint.
    pub fn control(&self) -> Endpoint {
        (self.inboxes.len() - 1) as Endpoint
    }

    /// The view of one endpoint.
    pub fn port(self: &Arc<Self>, endpoint: Endpoint) -> BusPort {
        let own = OwnQueues::new(OWN_MAX);
        BusPort { bus: self.clone(), endpoint, own, to_wake: 0 }
    }

    /// The watch of the worker that turns an endpoint's shard, or of the control plane.
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

/// A consumer's sleep: when it may wait, and what woke it.
pub struct ConsumerHandle {
    bus: Arc<Bus>,
    consumer: usize,
}

impl ConsumerHandle {
    fn consumer(&self) -> &Consumer {
        &self.bus.consumers[self.consumer]
    }

    /// The descriptor of the bell; `None` for the control plane.
    pub fn doorbell(&self) -> Option<&OwnedFd> {
        match &self.consumer().wake_method {
            WakeMethod::Descriptor(wake_method) => Some(wake_method),
            WakeMethod::Call(_) => None,
        }
    }

    /// Bit n: endpoint n was sent something, or there is room that it waited for, since the last
    /// call. Take from its inboxes afterwards.
    pub fn take_news(&self) -> u64 {
        self.consumer().sleep.take_news()
    }

    /// Says that the consumer is about to wait. `true`: it may, until the bell rings.
    pub fn prepare_to_sleep(&self) -> bool {
        self.consumer().sleep.prepare()
    }

    /// Says that the consumer goes on.
    pub fn wake_up(&self) {
        self.consumer().sleep.wake_up();
    }
}

/// One endpoint's hold on the bus: its own inboxes to take from, everybody's to send to.
pub struct BusPort {
    bus: Arc<Bus>,
    endpoint: Endpoint,
    /// What a shard sends to itself. The control plane's own inbox is shared by its tasks.
    own: OwnQueues,
    /// Bit n: endpoint n was sent something, or waited for room that was made, since the bells
    /// were last woken.
    to_wake: u64,
}

impl BusPort {
    /// Which endpoint this is.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Whether a message to this endpoint stays on its thread.
    fn is_own(&self, to: Endpoint) -> bool {
        to == self.endpoint && to != self.bus.control()
    }

    fn endpoint_inboxes(&self) -> &EndpointInboxes {
        &self.bus.inboxes[usize::from(self.endpoint)]
    }

    /// Takes the oldest message of a rank.
    pub fn take(&mut self, rank: Rank) -> Option<Message> {
        let inbox = &self.endpoint_inboxes().inboxes[rank as usize];
        // An empty inbox costs one load: what is sent after it rings the bell.
        if inbox.room.is_empty() {
            return None;
        }
        let message = inbox.receiver.try_recv().ok()?;
        self.to_wake |= inbox.room.free();
        Some(message)
    }

    /// Tells whoever was sent something, or waited for room that was made, since the last call.
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
            Err(SendError(_)) => unreachable!("the bus owns both ends"),
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

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::model::message::Release;
    use std::os::fd::AsRawFd;

    fn release() -> Message {
        Message::Release(Release { channel: "c".into(), hash: 1, shard: 0 })
    }

    #[test]
    fn room_is_bounded_and_waiters_are_woken() {
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
    fn inboxes_take_memory_for_their_messages_and_keep_their_bound() {
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
    fn a_waiter_that_is_told_before_it_sleeps_looks_again() {
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
    fn what_a_shard_sends_to_itself_stays_on_its_line_and_wakes_nobody() {
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
    fn shards_of_one_worker_share_its_bell_and_keep_their_news_apart() {
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
