//! The running child of the kernel baseline, from outside.
//!
//! Owns the process. Never sends by itself: the child does. Invariant: every order is answered
//! before the next is given.

use anyhow::{Context, Result};

use super::order::Sent;
use super::shard::Options;
use crate::account::ProcessSample;
use crate::subprocess::Subprocess;

/// Sends that go into one enter, as in the server.
const PER_TURN: u32 = 128;

/// The running child.
pub struct Baseline {
    process: Subprocess,
}

impl Baseline {
    /// Starts the child and waits until it listens.
    pub fn start(options: &Options) -> Result<Self> {
        let process = Subprocess::start("baseline-server", &options.arguments())?;
        Ok(Baseline { process })
    }

    /// The child's processor time and memory so far.
    pub(super) fn sample(&self) -> Result<ProcessSample> {
        self.process.sample()
    }

    /// Sends `bytes` bytes once to each socket.
    pub(super) fn send(&mut self, bytes: usize) -> Result<Sent> {
        self.order(&format!("send {bytes} {PER_TURN}"))
    }

    /// Sends `bytes` bytes to the sockets in turn, `per_second` sends per second in all.
    pub(super) fn rate(&mut self, per_second: u64, seconds: u64, bytes: usize) -> Result<Sent> {
        self.order(&format!("rate {per_second} {seconds} {bytes} {PER_TURN}"))
    }

    fn order(&mut self, order: &str) -> Result<Sent> {
        self.process.order(order)?;
        let line = self.process.answer()?;
        Sent::parse(&line)
            .with_context(|| format!("the kernel baseline answered `{line}`, not a count of sends"))
    }

    /// Ends the child.
    pub(super) fn stop(self) -> Result<()> {
        self.process.stop()
    }
}
