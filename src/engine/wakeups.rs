//! The two protocols of the bus that lose no wake-up: room in an inbox, and sleep of a consumer.
//!
//! Owns the atomics. Never waits and never wakes by itself: each function returns whom the caller
//! must wake.

use crate::model::message::Endpoint;

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

/// Room in one inbox: what is promised and what lies there, together at most the capacity.
#[derive(Debug)]
pub struct InboxRoom {
    taken: AtomicUsize,
    capacity: usize,
    /// Bit n: endpoint n found no room and waits to be woken.
    waiting: AtomicU64,
}

impl InboxRoom {
    /// An empty inbox's room.
    pub fn new(capacity: usize) -> Self {
        InboxRoom { taken: AtomicUsize::new(0), capacity, waiting: AtomicU64::new(0) }
    }

    fn take(&self) -> bool {
        self.taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                (taken < self.capacity).then_some(taken + 1)
            })
            .is_ok()
    }

    /// Whether nothing lies in the inbox, and nothing is promised to it.
    pub fn is_empty(&self) -> bool {
        self.taken.load(Ordering::SeqCst) == 0
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

/// Whether a consumer sleeps, and who of its endpoints has news; the protocol that loses no
/// wake-up.
///
/// The consumer says that it is asleep, then looks for news once more, then waits. The producer
/// notes the news, then looks whether the consumer is asleep. One of the two sees the other.
#[derive(Debug)]
pub struct SleepState {
    asleep: AtomicBool,
    /// Bit n: there is a message for endpoint n, or room that it waited for.
    news: AtomicU64,
}

impl Default for SleepState {
    fn default() -> Self {
        SleepState { asleep: AtomicBool::new(false), news: AtomicU64::new(0) }
    }
}

impl SleepState {
    /// The consumer is about to wait. Returns whether it may.
    pub fn prepare(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let sleeps = self.news.load(Ordering::SeqCst) == 0;
        if !sleeps {
            self.wake_up();
        }
        sleeps
    }

    /// The consumer goes on.
    pub fn wake_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// The endpoints with news since the last call. Whoever takes it looks at their inboxes
    /// afterwards.
    pub fn take_news(&self) -> u64 {
        match self.news.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.news.swap(0, Ordering::SeqCst),
        }
    }

    /// There is news for an endpoint: the producer has pushed, or made room. Returns whether it
    /// must ring: only one of several producers does.
    pub fn notify(&self, endpoint: Endpoint) -> bool {
        self.news.fetch_or(1 << endpoint, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst)
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use crate::model::message::endpoints;
    use loom::sync::Arc;
    use loom::thread;

    fn model(check: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(check);
    }

    /// Two producers and a consumer that waits whenever it may, and takes earlier rings back before
    /// its last look: no message is left behind, and news comes after what it tells of.
    #[test]
    fn no_wake_up_is_lost() {
        model(|| {
            let sleep = Arc::new(SleepState::default());
            let inboxes = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let wake_method = Arc::new(AtomicBool::new(true));
            let producers: Vec<_> = (0..2)
                .map(|endpoint| {
                    let (sleep, inboxes, wake_method) =
                        (sleep.clone(), inboxes.clone(), wake_method.clone());
                    thread::spawn(move || {
                        inboxes[endpoint].store(1, Ordering::Relaxed);
                        if sleep.notify(endpoint as Endpoint) {
                            wake_method.store(true, Ordering::Release);
                        }
                    })
                })
                .collect();
            wake_method.store(false, Ordering::SeqCst);
            let sleeps = sleep.prepare();
            for endpoint in endpoints(sleep.take_news()) {
                let inbox = &inboxes[usize::from(endpoint)];
                assert_eq!(inbox.load(Ordering::Relaxed), 1, "news of nothing");
            }
            for producer in producers {
                producer.join().unwrap();
            }
            assert!(!sleeps || wake_method.load(Ordering::Acquire), "asleep, and nobody rang");
        });
    }

    /// A producer that finds no room and goes to sleep is woken, whenever room is made.
    #[test]
    fn no_waiter_sleeps_on() {
        model(|| {
            let (room, sleep) = (Arc::new(InboxRoom::new(1)), Arc::new(SleepState::default()));
            assert!(room.reserve(0));
            let consumer = {
                let (room, sleep) = (room.clone(), sleep.clone());
                thread::spawn(move || room.free() & 1 << 1 != 0 && sleep.notify(1))
            };
            let waits = !room.reserve(1);
            let sleeps = waits && sleep.prepare();
            let wake_method = consumer.join().unwrap();
            assert!(!sleeps || wake_method, "asleep though there is room");
        });
    }

    /// A producer that finds no room is in the mask of those to be woken, or finds room.
    #[test]
    fn no_waiter_is_forgotten() {
        model(|| {
            let room = Arc::new(InboxRoom::new(1));
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
