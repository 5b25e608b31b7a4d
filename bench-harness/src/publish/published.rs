//! The outcome of a load on the publishers' side.
//!
//! Owns the counts and the lateness. Never compares them with the deliveries.

use std::time::Duration;

use anyhow::Result;

use crate::clock::RunClock;
use crate::latency::Recorder;

/// The outcome of a load on the publishers' side.
#[derive(Debug, Clone)]
pub struct Published {
    /// Messages written to a socket.
    pub sent: u64,
    /// Of them, those that the server confirmed.
    pub confirmed: u64,
    /// The first refusal, if any.
    pub refusal: Option<String>,
    /// From the first scheduled message until all publishers were done.
    pub took: Duration,
    /// Actual minus scheduled time of sending.
    pub lateness: Recorder,
}

impl Published {
    pub(super) fn new(clock: &RunClock) -> Result<Self> {
        let lateness = Recorder::new(clock.started())?;
        Ok(Published { sent: 0, confirmed: 0, refusal: None, took: Duration::ZERO, lateness })
    }

    pub(super) fn merge(&mut self, other: Published) -> Result<()> {
        self.sent += other.sent;
        self.confirmed += other.confirmed;
        self.refusal = self.refusal.take().or(other.refusal);
        self.lateness.merge(other.lateness)
    }

    /// Notes that a message that was due at `due_ns` goes out now.
    pub(super) fn note(&mut self, clock: &RunClock, due_ns: u64) -> Result<()> {
        let now_ns = clock.now_ns();
        self.sent += 1;
        self.lateness.expect(1);
        self.lateness.record(now_ns, now_ns.saturating_sub(due_ns))
    }
}
