//! The bus: bounded inboxes, one for each rank of each endpoint, and the bells that wake them.
//!
//! Owns the queues. Never blocks and never grows: room is reserved before anything is sent, and
//! whoever finds none is woken when there is some again. The invariants: a reserved message
//! always fits; an endpoint never sleeps while a message lies in one of its inboxes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::message::{Endpoint, Message, Post, RANKS, Rank, endpoints};
use crate::sys;

#[cfg(drumline_loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(drumline_loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

/// How many messages each inbox holds, by rank.
pub type Capacities = [usize; RANKS];

/// Room in one inbox: what is promised and what lies there, together at most the capacity.
#[derive(Debug)]
pub struct Room {
    taken: AtomicUsize,
    capacity: usize,
    /// Bit n: endpoint n found no room and waits to be woken.
    waiting: AtomicU64,
}

impl Room {
    /// An empty inbox's room.
    pub fn new(capacity: usize) -> Self {
        Room { taken: AtomicUsize::new(0), capacity, waiting: AtomicU64::new(0) }
    }

    fn take(&self) -> bool {
        self.taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                (taken < self.capacity).then_some(taken + 1)
            })
            .is_ok()
    }

    /// Takes room for one message, or notes that `endpoint` waits for some.
    pub fn reserve(&self, endpoint: Endpoint) -> bool {
        if self.take() {
            return true;
        }
        self.waiting.fetch_or(1 << endpoint, Ordering::SeqCst);
        // The consumer may have made room between the look and the note: one of the two sees
        // the other.
        fence(Ordering::SeqCst);
        self.take()
    }

    /// Gives room for one message back; returns the endpoints to wake, once enough of it is
    /// free.
    pub fn free(&self) -> u64 {
        let left = self.taken.fetch_sub(1, Ordering::SeqCst) - 1;
        fence(Ordering::SeqCst);
        if left <= self.capacity / 2 && self.waiting.load(Ordering::SeqCst) != 0 {
            self.waiting.swap(0, Ordering::SeqCst)
        } else {
            0
        }
    }
}

/// Whether an endpoint sleeps; the protocol that loses no wake-up.
///
/// The consumer says that it is asleep, then looks at its inboxes once more, then waits. The
/// producer pushes, then looks whether the consumer is asleep. One of the two sees the other. News
/// that lies in no inbox (there is room again) is a nudge, which the consumer looks at likewise.
#[derive(Debug)]
pub struct Sleep {
    asleep: AtomicBool,
    nudged: AtomicBool,
}

impl Default for Sleep {
    fn default() -> Self {
        Sleep { asleep: AtomicBool::new(false), nudged: AtomicBool::new(false) }
    }
}

impl Sleep {
    /// The consumer is about to wait. Returns whether it may: `empty` must look at every inbox
    /// afresh.
    pub fn prepare(&self, empty: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let sleeps = empty() && !self.nudged.swap(false, Ordering::SeqCst);
        if !sleeps {
            self.wake_up();
        }
        sleeps
    }

    /// There is news for the consumer that lies in no inbox. Ask [`Sleep::must_ring`] next.
    pub fn nudge(&self) {
        self.nudged.store(true, Ordering::SeqCst);
    }

    /// The consumer goes on.
    pub fn wake_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// The producer has pushed. Returns whether it must ring: only one of several producers
    /// does.
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst)
    }
}

/// How an endpoint is woken.
pub enum Bell {
    /// A shard's eventfd, which its ring polls.
    Descriptor(OwnedFd),
    /// A call: the control plane's.
    Call(Box<dyn Fn() + Send + Sync>),
}

struct Inbox {
    room: Room,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
}

struct Station {
    inboxes: [Inbox; RANKS],
    sleep: Sleep,
    bell: Bell,
}

/// All inboxes of a node: one station a shard, and the control plane's behind them.
pub struct Bus {
    stations: Box<[Station]>,
}

impl Bus {
    /// A bus of as many shards as there are `capacities`, and a control plane that is woken by
    /// `control`.
    pub fn new(
        shards: usize,
        capacities: Capacities,
        control: Box<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Arc<Self>> {
        assert!(shards < 64, "a mask of interested shards has 64 bits");
        let station = |bell| {
            let inboxes = capacities.map(|capacity| {
                let (sender, receiver) = bounded(capacity);
                Inbox { room: Room::new(capacity), sender, receiver }
            });
            Station { inboxes, sleep: Sleep::default(), bell }
        };
        let mut stations = Vec::with_capacity(shards + 1);
        for _ in 0..shards {
            stations.push(station(Bell::Descriptor(sys::doorbell()?)));
        }
        stations.push(station(Bell::Call(control)));
        Ok(Arc::new(Bus { stations: stations.into() }))
    }

    /// The control plane's endpoint.
    pub fn control(&self) -> Endpoint {
        (self.stations.len() - 1) as Endpoint
    }

    /// The view of one endpoint.
    pub fn line(self: &Arc<Self>, endpoint: Endpoint) -> Line {
        Line { bus: self.clone(), endpoint, rung: 0, freed: 0 }
    }

    fn ring(&self, endpoint: Endpoint) {
        let station = &self.stations[usize::from(endpoint)];
        if station.sleep.must_ring() {
            match &station.bell {
                Bell::Descriptor(bell) => sys::ring_doorbell(bell.as_fd()),
                Bell::Call(call) => call(),
            }
        }
    }
}

/// One endpoint's hold on the bus: its own inboxes to take from, everybody's to send to.
pub struct Line {
    bus: Arc<Bus>,
    endpoint: Endpoint,
    /// Bit n: endpoint n was sent something since the bells were last rung.
    rung: u64,
    /// Bit n: endpoint n waited for room that was made since then.
    freed: u64,
}

impl Line {
    /// Which endpoint this is.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    fn station(&self) -> &Station {
        &self.bus.stations[usize::from(self.endpoint)]
    }

    /// The descriptor of this endpoint's bell; `None` for the control plane.
    pub fn doorbell(&self) -> Option<RawFd> {
        match &self.station().bell {
            Bell::Descriptor(bell) => Some(bell.as_raw_fd()),
            Bell::Call(_) => None,
        }
    }

    /// Takes the oldest message of a rank.
    pub fn take(&mut self, rank: Rank) -> Option<Message> {
        let inbox = &self.station().inboxes[rank as usize];
        let message = inbox.receiver.try_recv().ok()?;
        self.freed |= inbox.room.free();
        Some(message)
    }

    /// Whether no inbox holds anything that could be taken; inboxes of `stalled` ranks wait for
    /// room elsewhere and do not count.
    fn is_idle(&self, stalled: &[bool; RANKS]) -> bool {
        let mut inboxes = self.station().inboxes.iter().zip(stalled);
        inboxes.all(|(inbox, stalled)| *stalled || inbox.receiver.is_empty())
    }

    /// Wakes whoever was sent something, or waits for room that was made, since the last call.
    pub fn ring(&mut self) {
        let freed = std::mem::take(&mut self.freed);
        for endpoint in endpoints(freed) {
            self.bus.stations[usize::from(endpoint)].sleep.nudge();
        }
        for endpoint in endpoints(freed | std::mem::take(&mut self.rung)) {
            self.bus.ring(endpoint);
        }
    }

    /// Says that this endpoint is about to wait. `true`: it may, until its bell rings. Inboxes
    /// of `stalled` ranks are left as they are.
    pub fn prepare_to_sleep(&self, stalled: &[bool; RANKS]) -> bool {
        self.station().sleep.prepare(|| self.is_idle(stalled))
    }

    /// Says that this endpoint goes on.
    pub fn wake_up(&self) {
        self.station().sleep.wake_up();
    }
}

impl Post for Line {
    fn reserve(&mut self, to: Endpoint, rank: Rank) -> bool {
        self.bus.stations[usize::from(to)].inboxes[rank as usize].room.reserve(self.endpoint)
    }

    fn cancel(&mut self, to: Endpoint, rank: Rank) {
        self.freed |= self.bus.stations[usize::from(to)].inboxes[rank as usize].room.free();
    }

    fn send(&mut self, to: Endpoint, message: Message) {
        let inbox = &self.bus.stations[usize::from(to)].inboxes[message.rank() as usize];
        match inbox.sender.try_send(message) {
            Ok(()) => self.rung |= 1 << to,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                unreachable!("room was reserved, and the bus owns both ends")
            }
        }
    }
}

#[cfg(all(test, not(drumline_loom)))]
mod tests {
    use super::*;
    use crate::message::Release;

    fn release() -> Message {
        Message::Release(Release { channel: "c".into(), hash: 1, shard: 0 })
    }

    #[test]
    fn room_is_bounded_and_waiters_are_woken() {
        let bus = Bus::new(2, [1; RANKS], Box::new(|| {})).unwrap();
        let (mut zero, mut one) = (bus.line(0), bus.line(1));
        assert!(zero.reserve(1, Rank::Request));
        zero.send(1, release());
        assert!(!zero.reserve(1, Rank::Request), "full");
        assert!(zero.reserve(1, Rank::Delivery), "ranks have inboxes of their own");
        zero.cancel(1, Rank::Delivery);
        assert!(zero.prepare_to_sleep(&[false; RANKS]));
        assert!(!one.prepare_to_sleep(&[false; RANKS]), "a message lies there");
        assert!(one.take(Rank::Request).is_some());
        one.ring();
        assert!(!bus.stations[0].sleep.must_ring(), "the waiter was woken already");
        assert!(zero.reserve(1, Rank::Request));
    }

    #[test]
    fn a_waiter_that_is_told_before_it_sleeps_looks_again() {
        let bus = Bus::new(2, [1; RANKS], Box::new(|| {})).unwrap();
        let (mut zero, mut one) = (bus.line(0), bus.line(1));
        assert!(zero.reserve(1, Rank::Request));
        zero.send(1, release());
        assert!(!zero.reserve(1, Rank::Request), "it waits");
        one.take(Rank::Request);
        one.ring();
        assert!(!zero.prepare_to_sleep(&[false; RANKS]), "there is room");
        assert!(zero.prepare_to_sleep(&[false; RANKS]));
    }
}

#[cfg(all(test, drumline_loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn model(check: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(check);
    }

    /// Two producers and a consumer that waits whenever it may: no message is left behind.
    #[test]
    fn no_wake_up_is_lost() {
        model(|| {
            let sleep = Arc::new(Sleep::default());
            let inbox = Arc::new(AtomicUsize::new(0));
            let bell = Arc::new(AtomicBool::new(false));
            let producers: Vec<_> = (0..2)
                .map(|_| {
                    let (sleep, inbox, bell) = (sleep.clone(), inbox.clone(), bell.clone());
                    thread::spawn(move || {
                        inbox.fetch_add(1, Ordering::Release);
                        if sleep.must_ring() {
                            bell.store(true, Ordering::Release);
                        }
                    })
                })
                .collect();
            let sleeps = sleep.prepare(|| inbox.load(Ordering::Acquire) == 0);
            for producer in producers {
                producer.join().unwrap();
            }
            assert!(!sleeps || bell.load(Ordering::Acquire), "asleep, and nobody rang");
        });
    }

    /// A producer that finds no room and goes to sleep is woken, whenever room is made.
    #[test]
    fn no_waiter_sleeps_on() {
        model(|| {
            let (room, sleep) = (Arc::new(Room::new(1)), Arc::new(Sleep::default()));
            assert!(room.reserve(0));
            let consumer = {
                let (room, sleep) = (room.clone(), sleep.clone());
                thread::spawn(move || {
                    let woken = room.free() & 1 << 1 != 0;
                    if woken {
                        sleep.nudge();
                    }
                    woken && sleep.must_ring()
                })
            };
            let waits = !room.reserve(1);
            let sleeps = waits && sleep.prepare(|| true);
            let bell = consumer.join().unwrap();
            assert!(!sleeps || bell, "asleep though there is room");
        });
    }

    /// A producer that finds no room is in the mask of those to be woken, or finds room.
    #[test]
    fn no_waiter_is_forgotten() {
        model(|| {
            let room = Arc::new(Room::new(1));
            assert!(room.reserve(0));
            let producer = {
                let room = room.clone();
                thread::spawn(move || room.reserve(1))
            };
            let woken = room.free();
            let reserved = producer.join().unwrap();
            let woken_later = if reserved { room.free() } else { 0 };
            assert!(reserved || (woken | woken_later) & 1 << 1 != 0, "nobody wakes endpoint 1");
        });
    }
}
