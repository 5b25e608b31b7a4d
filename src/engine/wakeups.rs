//! The protocols that lose no wake-up: room in an inbox, sleep of a consumer, and news of a ring
//! that writes to an eventfd.
//!
//! Owns the atomics. Never waits and never wakes by itself: each function returns whom the caller
//! must wake.

use crate::model::message::Endpoint;

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(feature = "loom"))]
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

/// Room in one inbox. Reserved and queued messages together never exceed the capacity.
#[derive(Debug)]
pub(super) struct InboxRoom {
    taken: AtomicUsize,
    capacity: usize,
    /// Bit n: endpoint n found no room and waits for a wake-up.
    waiting: AtomicU64,
}

impl InboxRoom {
    /// The room of an empty inbox.
    pub(super) fn new(capacity: usize) -> Self {
        InboxRoom { taken: AtomicUsize::new(0), capacity, waiting: AtomicU64::new(0) }
    }

    fn take(&self) -> bool {
        self.taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                (taken < self.capacity).then_some(taken + 1)
            })
            .is_ok()
    }

    /// Whether the inbox has no messages and no reservations.
    pub(super) fn is_empty(&self) -> bool {
        self.taken.load(Ordering::SeqCst) == 0
    }

    /// Messages and reservations.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes room for one message, or notes that `endpoint` waits for room.
    pub(super) fn reserve(&self, endpoint: Endpoint) -> bool {
        if self.take() {
            return true;
        }
        self.waiting.fetch_or(1 << endpoint, Ordering::SeqCst);
        // The consumer may have freed room between the first try and the note. The fence makes sure
        // that one of the two sees the other.
        fence(Ordering::SeqCst);
        self.take()
    }

    /// Frees the room of one message. Returns the endpoints to wake once half of the capacity is
    /// free.
    pub(super) fn free(&self) -> u64 {
        let left = self.taken.fetch_sub(1, Ordering::SeqCst) - 1;
        fence(Ordering::SeqCst);
        if left <= self.capacity / 2 && self.waiting.load(Ordering::SeqCst) != 0 {
            self.waiting.swap(0, Ordering::SeqCst)
        } else {
            0
        }
    }
}

/// Whether a consumer sleeps, and which of its endpoints have news. No wake-up is lost.
///
/// The consumer sets its sleep flag, looks for news once more, and then waits. The producer notes
/// the news and then looks at the flag. One of the two sees the other.
#[derive(Debug)]
pub(super) struct SleepState {
    asleep: AtomicBool,
    /// Bit n: endpoint n has a message, or room that it waited for.
    news: AtomicU64,
}

impl Default for SleepState {
    fn default() -> Self {
        SleepState { asleep: AtomicBool::new(false), news: AtomicU64::new(0) }
    }
}

impl SleepState {
    /// Sets the sleep flag. Returns whether the consumer may wait.
    pub(super) fn prepare(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let sleeps = self.news.load(Ordering::SeqCst) == 0;
        if !sleeps {
            self.wake_up();
        }
        sleeps
    }

    /// Clears the sleep flag.
    pub(super) fn wake_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Takes the endpoints with news since the last call. The caller must look at their inboxes
    /// afterwards.
    pub(super) fn take_news(&self) -> u64 {
        match self.news.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.news.swap(0, Ordering::SeqCst),
        }
    }

    /// Notes news for an endpoint, after a message was pushed or room was freed. Returns whether
    /// the caller must wake the consumer; only one of several producers does.
    pub(super) fn notify(&self, endpoint: Endpoint) -> bool {
        self.news.fetch_or(1 << endpoint, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst)
    }
}

/// What a ring shows of its news in memory that the kernel shares.
pub trait KernelNews {
    /// Whether the ring has completions, or an enter would bring some.
    fn has_news(&self) -> bool;

    /// Makes the ring write to its eventfd when news comes, or keeps it from it.
    fn set_eventfd(&self, writes: bool);
}

/// Lets a ring write to its eventfd from now on, after a turn of its shard during which it could
/// not. Returns whether it has news already, of which no write tells.
///
/// The worker allows the writes and then looks. The kernel publishes the news and then looks at
/// whether it may write. One of the two sees the other.
pub(super) fn resume_writes(ring: &impl KernelNews) -> bool {
    ring.set_eventfd(true);
    fence(Ordering::SeqCst);
    ring.has_news()
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

    /// Two producers and a consumer that waits whenever it may, and clears earlier wake-ups before
    /// it looks for news: no message is left behind, and news is noted only after its message.
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

    /// A ring of a model kernel: it publishes its news, and then writes to the eventfd if it may.
    #[derive(Clone, Default)]
    struct ModelRing(Arc<ModelWords>);

    #[derive(Default)]
    struct ModelWords {
        news: AtomicBool,
        may_write: AtomicBool,
        written: AtomicBool,
    }

    impl ModelRing {
        fn complete(&self) {
            self.0.news.store(true, Ordering::Release);
            fence(Ordering::SeqCst);
            if self.0.may_write.load(Ordering::Relaxed) {
                self.0.written.store(true, Ordering::Release);
            }
        }
    }

    impl KernelNews for ModelRing {
        fn has_news(&self) -> bool {
            self.0.news.load(Ordering::Acquire)
        }

        fn set_eventfd(&self, writes: bool) {
            self.0.may_write.store(writes, Ordering::Release);
        }
    }

    fn check_ring(resume_writes: fn(&ModelRing) -> bool) {
        model(move || {
            let ring = ModelRing::default();
            let kernel = ring.clone();
            let kernel = thread::spawn(move || kernel.complete());
            ring.set_eventfd(false);
            let has_news = resume_writes(&ring);
            kernel.join().unwrap();
            assert!(has_news || ring.0.written.load(Ordering::Acquire), "no news, and no write");
        });
    }

    /// A completion that comes at any time during or after a turn is seen or written.
    #[test]
    fn a_completion_around_a_turn_is_seen_or_written() {
        check_ring(resume_writes);
    }

    /// The planted fault: a worker that looks before it allows the writes misses a completion.
    #[test]
    #[should_panic = "no news, and no write"]
    fn a_look_before_the_writes_are_allowed_is_found() {
        check_ring(|ring| {
            let has_news = ring.has_news();
            ring.set_eventfd(true);
            has_news
        });
    }

    /// A producer that finds no room and sleeps is woken when room is freed.
    #[test]
    fn a_waiting_sender_is_woken_when_room_is_freed() {
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

    /// A producer that finds no room is among the endpoints to wake, or finds room.
    #[test]
    fn a_sender_without_room_is_among_those_to_wake() {
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
