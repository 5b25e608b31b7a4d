//! Counters that all threads of the dense client share.
//!
//! Owns the counts, the causes of refused connections and the close codes of lost ones. Never
//! decides when a connection counts as up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::anyhow;

/// Counters shared by all threads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that came up, including those that ended later.
    pub up: AtomicU64,
    /// Connections that never came up.
    pub refused: AtomicU64,
    /// Connections that were up and ended.
    pub lost: AtomicU64,
    /// Bytes read in raw mode, without greetings.
    pub bytes: AtomicU64,
    /// Bytes of frame headers and of other framing of messages, since the start.
    pub framing: AtomicU64,
    /// Distinct deliveries of the current phase.
    pub delivered: AtomicU64,
    /// Deliveries received as a delta or compressed, since the start.
    pub packed: AtomicU64,
    /// Deliveries without a stamp, or with the stamp of another phase.
    pub stray: AtomicU64,
    /// Answers to requests for items.
    pub answers: AtomicU64,
    /// Items of all answers and pushes.
    pub items: AtomicU64,
    /// Pings received, as protocol messages or as WebSocket frames.
    pub pings: AtomicU64,
    /// Pongs sent.
    pub pongs: AtomicU64,
    causes: Mutex<BTreeMap<String, u64>>,
    codes: Mutex<BTreeMap<u16, u64>>,
    /// The error of the first thread that failed.
    death: Mutex<Option<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    pub(super) fn refuse(&self, cause: String) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        *locked(&self.causes).entry(cause).or_default() += 1;
    }

    /// Notes an answer with an error to a connection that stays up.
    pub(super) fn note(&self, cause: String) {
        *locked(&self.causes).entry(cause).or_default() += 1;
    }

    pub(super) fn lose(&self, code: u16) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        *locked(&self.codes).entry(code).or_default() += 1;
    }

    /// Causes of refused connections and requests, with their counts.
    pub fn causes(&self) -> BTreeMap<String, u64> {
        locked(&self.causes).clone()
    }

    /// Close codes of lost connections, with their counts. 1006: the connection ended without a
    /// close frame.
    pub fn codes(&self) -> BTreeMap<u16, u64> {
        locked(&self.codes).clone()
    }

    pub(super) fn die(&self, error: &anyhow::Error) {
        locked(&self.death).get_or_insert_with(|| format!("{error:#}"));
    }

    /// The error returned when a thread has ended and cannot execute a command.
    pub(super) fn dead(&self) -> anyhow::Error {
        match &*locked(&self.death) {
            Some(why) => anyhow!("a thread of the dense client failed: {why}"),
            None => anyhow!("a thread of the dense client ended early"),
        }
    }

    /// Deliveries received as a delta or compressed, since the start.
    pub fn packed(&self) -> u64 {
        read(&self.packed)
    }

    /// Bytes of framing received since the start.
    pub fn framing(&self) -> u64 {
        read(&self.framing)
    }

    /// Pings received since the start.
    pub fn pings(&self) -> u64 {
        read(&self.pings)
    }

    /// Connections that were up and ended.
    pub fn lost(&self) -> u64 {
        read(&self.lost)
    }

    /// Connections that are up now.
    pub fn standing(&self) -> u64 {
        read(&self.up).saturating_sub(read(&self.lost))
    }
}
