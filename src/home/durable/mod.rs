//! Durable channels: their publications are committed when the store has them on disk.
//!
//! Owns what is on its way to the store and back: writes, questions, and the requests that wait for
//! them. Never waits itself: a request for which nothing can be sent gets error 100. The
//! invariants: the writes of a home are committed in the order in which they were sent, and only
//! what is on disk is committed; after a failed write, it and every write that was sent behind it
//! fail; a request of a channel whose earlier request waits for the store waits behind it.

pub mod stored;
#[cfg(test)]
mod tests;
mod upkeep;
pub mod waits;
mod writes;

use std::collections::{HashMap, VecDeque};

use crate::base::memory::ShardUsage;
use crate::base::work_budget::WorkBudget;
use crate::home::Home;
use crate::home::durable::stored::Times;
use crate::home::durable::waits::ChannelWait;
use crate::home::durable::writes::{Refusal, SentWrite};
use crate::model::message::{Endpoint, Post};

/// Maximum number of writes of a home that are not answered.
const WRITES_MAX: usize = 4096;
/// Maximum number of requests of a home that wait for the store.
const WAITING_MAX: usize = 4096;

/// What a home has on its way to the store and back.
pub struct Durable {
    /// Endpoint of the store; `None`: there is none.
    store: Option<Endpoint>,
    /// Endpoint of the home's shard.
    shard: Endpoint,
    times: Times,
    /// Writes that are not committed, in the order of their serials.
    writes: VecDeque<SentWrite>,
    /// Serial of the last write that was sent.
    serial: u64,
    /// Serial of the last write that is on disk.
    kept: u64,
    /// Number of failures so far.
    term: u32,
    /// Answers to requests whose writes failed.
    refusals: VecDeque<Refusal>,
    /// Channels with requests that wait for the store, by their index.
    waits: HashMap<u32, ChannelWait>,
    /// Number of these requests.
    waiting: usize,
    /// Channels whose requests can continue.
    resumable: VecDeque<u32>,
    /// Number of questions so far.
    questions: u32,
    /// Streams of which the store must be told something.
    upkeep: VecDeque<u32>,
    /// When the next upkeep begins, in milliseconds of the monotonic clock.
    upkeep_after: u64,
    /// Memory of the requests and writes that wait for the store.
    usage: ShardUsage,
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
            upkeep: VecDeque::new(),
            upkeep_after: 0,
            usage,
        }
    }

    /// Whether there is a store.
    pub fn is_used(&self) -> bool {
        self.store.is_some()
    }

    /// Sets the time of this turn.
    pub fn begin_turn(&mut self, times: Times) {
        self.times = times;
    }

    /// Charges memory that waits for the store; `false`: the budget has no room.
    fn charge(&mut self, bytes: usize) -> bool {
        self.usage.change(0, bytes);
        let has_room = self.usage.excess() == 0;
        if !has_room {
            self.usage.change(bytes, 0);
        }
        has_room
    }

    /// Whether something can be done without another message.
    pub fn has_work(&self) -> bool {
        let is_kept = self.writes.front().is_some_and(|write| write.serial <= self.kept);
        let upkeep = !self.upkeep.is_empty() && self.upkeep_after <= self.times.now;
        is_kept || !self.refusals.is_empty() || !self.resumable.is_empty() || upkeep
    }

    /// When the next upkeep begins, if a stream needs some.
    pub fn next_upkeep(&self) -> Option<u64> {
        (!self.upkeep.is_empty()).then_some(self.upkeep_after)
    }

    /// Number of writes and requests that are not answered.
    pub fn unanswered(&self) -> usize {
        self.writes.len() + self.refusals.len() + self.waiting
    }
}

impl Home {
    /// Continues what waited for room or for its time.
    pub(super) fn continue_durable(&mut self, post: &mut impl Post, budget: &mut WorkBudget) {
        self.commit_written(post);
        self.send_refusals(post);
        self.resume_all(post);
        self.keep_up(post, budget);
    }
}
