//! The protocols that lose no wake-up: room in an inbox, sleep of a consumer, and news of a ring
//! that writes to an eventfd.
//!
//! Owns the atomics. Never waits and never wakes by itself: each function returns whom the caller
//! must wake.

use crate::engine::atomics::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::model::message::Endpoint;

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
