//! The time of one run, shared by all its publishers and subscribers.
//!
//! Owns the origin. Never steps back. Invariant: a stamp and the latency counted from it come from
//! the same monotonic clock.

use std::time::{Duration, Instant, SystemTime};

/// The clock of a run; copies tell the same time.
#[derive(Debug, Clone, Copy)]
pub struct RunClock {
    origin: Instant,
    started: SystemTime,
}

impl RunClock {
    /// A run that starts now.
    pub fn start() -> Self {
        RunClock { origin: Instant::now(), started: SystemTime::now() }
    }

    /// Time since the start, in ns.
    pub fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// When the run started, for the recorders.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// The time now, in unix seconds.
    pub fn unix_seconds(&self) -> u64 {
        let now = self.started + self.origin.elapsed();
        now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
    }

    /// The time from now until `at_ns` after the start; zero if that is past.
    pub fn until(&self, at_ns: u64) -> Duration {
        Duration::from_nanos(at_ns.saturating_sub(self.now_ns()))
    }
}
