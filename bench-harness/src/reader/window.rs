//! The time in which readers count, and how many of them are up.
//!
//! Owns the shared numbers. Never waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The measured time, which is set once all clients are up.
#[derive(Debug)]
pub struct Window {
    begin_ns: AtomicU64,
    end_ns: AtomicU64,
    up: AtomicU64,
    cancelled: AtomicBool,
}

impl Default for Window {
    fn default() -> Self {
        let never = || AtomicU64::new(u64::MAX);
        Window {
            begin_ns: never(),
            end_ns: never(),
            up: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        }
    }
}

impl Window {
    /// Sets the measured time, in ns since the start of the run.
    pub fn set(&self, begin_ns: u64, end_ns: u64) {
        self.begin_ns.store(begin_ns, Ordering::Relaxed);
        self.end_ns.store(end_ns, Ordering::Release);
    }

    /// Ends everything at once.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.set(0, 0);
    }

    /// Whether everything was ended early.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Where the measured time ends.
    pub fn end_ns(&self) -> u64 {
        self.end_ns.load(Ordering::Acquire)
    }

    /// Where the measured time begins.
    pub fn begin_ns(&self) -> u64 {
        self.begin_ns.load(Ordering::Relaxed)
    }

    /// Whether a moment is in the measured time.
    pub fn contains(&self, at_ns: u64) -> bool {
        (self.begin_ns()..self.end_ns()).contains(&at_ns)
    }

    /// Counts a client that is up.
    pub(super) fn come_up(&self) {
        self.up.fetch_add(1, Ordering::Relaxed);
    }

    /// Clients that are up.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }
}
