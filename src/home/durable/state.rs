//! What a home has on its way to the store and back.
//!
//! Owns writes, questions and the requests that wait for them. Never sends a message. The
//! invariants: writes are in the order of their serials; the charged memory is that of the writes
//! and requests that are not answered.

use std::collections::{HashMap, VecDeque};

use crate::base::memory::ShardUsage;
use crate::home::durable::requests::ChannelWait;
use crate::home::durable::sent::{Refusal, SentWrite};
use crate::home::durable::stored::Times;
use crate::model::message::Endpoint;

/// Maximum number of writes of a home that are not answered.
pub(super) const WRITES_MAX: usize = 4096;
/// Maximum number of writes that are committed, of requests that continue, and of refusals that are
/// sent, each in a turn or for a message.
pub(super) const STEPS_MAX: usize = 128;
/// Milliseconds between a failed write and the next upkeep.
pub(super) const PAUSE: u64 = 1_000;
/// Maximum number of requests of a home that wait for the store.
pub(super) const WAITING_MAX: usize = 4096;

/// What a home has on its way to the store and back.
pub struct Durable {
    /// Endpoint of the store; `None`: there is none.
    pub(super) store: Option<Endpoint>,
    /// Endpoint of the home's shard.
    pub(super) shard: Endpoint,
    pub(super) times: Times,
    /// Writes that are not committed, in the order of their serials.
    pub(super) writes: VecDeque<SentWrite>,
    /// Serial of the last write that was sent.
    pub(super) serial: u64,
    /// Serial of the last write that is on disk.
    pub(super) kept: u64,
    /// Number of failures so far.
    pub(super) term: u32,
    /// Answers to requests whose writes failed.
    pub(super) refusals: VecDeque<Refusal>,
    /// Channels with requests that wait for the store, by their index.
    pub(super) waits: HashMap<u32, ChannelWait>,
    /// Number of these requests.
    pub(super) waiting: usize,
    /// Channels whose requests can continue.
    pub(super) resumable: VecDeque<u32>,
    /// Number of questions so far.
    pub(super) questions: u32,
    /// First offsets that streams of channels that are no longer durable keep, by the question
    /// about the stream.
    pub(super) leftovers: HashMap<u32, u64>,
    /// Offsets behind the last publications that questions for expired ones are about, by the
    /// question.
    pub(super) looks: HashMap<u32, u64>,
    /// Streams of which the store must be told something.
    pub(super) upkeep: VecDeque<u32>,
    /// When the next upkeep begins, in milliseconds of the monotonic clock.
    pub(super) upkeep_after: u64,
    /// Whether work was left for the next turn although there was room for its results.
    pub(super) goes_on: bool,
    /// Memory of the requests and writes that wait for the store.
    pub(super) usage: ShardUsage,
}

impl Durable {
    /// Nothing is on its way. `usage` is the part of the memory budget.
    pub fn new(store: Option<Endpoint>, shard: Endpoint, usage: ShardUsage) -> Self {
        Durable {
            store,
            shard,
            times: Times::default(),
            writes: VecDeque::new(),
            serial: 0,
            kept: 0,
            term: 0,
            refusals: VecDeque::new(),
            waits: HashMap::new(),
            waiting: 0,
            resumable: VecDeque::new(),
            questions: 0,
            leftovers: HashMap::new(),
            looks: HashMap::new(),
            upkeep: VecDeque::new(),
            upkeep_after: 0,
            goes_on: false,
            usage,
        }
    }

    /// Endpoint of the home's shard.
    pub fn shard(&self) -> Endpoint {
        self.shard
    }

    /// The time of this turn.
    pub fn times(&self) -> Times {
        self.times
    }

    /// Whether there is a store.
    pub fn is_used(&self) -> bool {
        self.store.is_some()
    }

    /// Sets the time of this turn.
    pub fn begin_turn(&mut self, times: Times) {
        self.times = times;
    }

    /// Whether one more write may be sent now.
    pub(super) fn admits(&self) -> bool {
        self.writes.len() + self.refusals.len() < WRITES_MAX
    }

    /// Charges memory that waits for the store; `false`: the budget has no room.
    pub(super) fn charge(&mut self, bytes: usize) -> bool {
        self.usage.change(0, bytes);
        let has_room = self.usage.excess() == 0;
        if !has_room {
            self.usage.change(bytes, 0);
        }
        has_room
    }

    /// Replaces a charge by the exact one, which it returns.
    pub(super) fn recharge(&mut self, estimate: usize, bytes: usize) -> usize {
        self.usage.change(estimate, bytes);
        bytes
    }

    /// Whether a write that is on disk is not committed.
    pub(super) fn has_kept(&self) -> bool {
        self.writes.front().is_some_and(|write| write.serial <= self.kept)
    }

    /// Whether work was left for the next turn although there was room for its results.
    pub fn goes_on(&self) -> bool {
        self.goes_on && self.has_work()
    }

    /// Whether something can be done without another message.
    pub fn has_work(&self) -> bool {
        let upkeep = !self.upkeep.is_empty() && self.upkeep_after <= self.times.now;
        self.has_kept() || !self.refusals.is_empty() || !self.resumable.is_empty() || upkeep
    }

    /// When the next upkeep begins, if a stream needs some.
    pub fn next_upkeep(&self) -> Option<u64> {
        (!self.upkeep.is_empty()).then_some(self.upkeep_after)
    }

    /// Number of writes, refusals, channels that wait for the store, and questions for expired
    /// publications.
    pub fn waits(&self) -> usize {
        self.writes.len() + self.refusals.len() + self.waits.len() + self.looks.len()
    }

    /// Memory of the writes and requests that wait for the store.
    pub fn bytes(&self) -> usize {
        self.usage.used()
    }

    /// Number of writes and requests that are not answered.
    pub fn unanswered(&self) -> usize {
        self.writes.len() + self.refusals.len() + self.waiting
    }
}
