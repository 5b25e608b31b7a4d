//! The part of a home in the snapshot of a node: streams in memory, their publications and keys.
//!
//! Owns the walk that answers a question. Never copies the data of a publication, and never answers
//! about durable streams, which the store has. The invariants: from the first question on, nothing
//! in memory is published or removed, so all answers are of one state; no question is answered
//! while a publication is prepared.

use crate::base::work_budget::{WorkBudget, cost};
use crate::home::Home;
use crate::home::channels::{Channel, Channels};
use crate::home::durable::stored::Times;
use crate::home::history::Stream;
use crate::model::message::{Message, Post};
use crate::model::snapshot::{
    SavedStream, SnapshotAnswer, SnapshotPart, SnapshotQuery, SnapshotRequest,
};
use crate::model::storage::{StoredPublication, StreamRecord};

/// Maximum number of entries of an answer.
const ENTRIES_MAX: usize = 1024;
/// Maximum bytes of the publications of an answer, beside the last one.
const BYTES_MAX: usize = 1 << 20;
/// Counters that one step looks at.
const COUNTERS_STEP: usize = 1024;
/// Lifetime of the epoch of an unpublished channel after a restart, in milliseconds.
const UNPUBLISHED_TTL: u64 = 3_600_000;

/// What a home knows of the snapshot that is being made.
#[derive(Default)]
pub(super) struct Saves {
    /// Whether nothing in memory is published or removed any more.
    is_frozen: bool,
    walk: Option<SnapshotWalk>,
}

impl Saves {
    /// Whether nothing in memory is published or removed any more.
    pub(super) fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// Whether a question waits for its answer.
    pub(super) fn has_walk(&self) -> bool {
        self.walk.is_some()
    }
}

/// The answer to a question, as far as it is collected.
struct SnapshotWalk {
    tag: u64,
    /// The question for the rest.
    query: SnapshotQuery,
    part: SnapshotPart,
    /// Bytes of the publications.
    bytes: usize,
}

impl SnapshotWalk {
    fn is_full(&self) -> bool {
        self.part.len() >= ENTRIES_MAX || self.bytes >= BYTES_MAX
    }

    /// Looks at the next entry; `false`: there is none.
    fn step(&mut self, home: &Home, budget: &mut WorkBudget) -> bool {
        let (channels, times) = (&home.channels, home.durable.times());
        budget.charge(cost::LOOK);
        match (&mut self.query, &mut self.part) {
            (SnapshotQuery::Streams { from }, SnapshotPart::Streams(found)) => {
                if *from as usize >= channels.channels.capacity() {
                    return false;
                }
                found.extend(channels.saved_stream(*from, times).map(|stream| (*from, stream)));
                *from += 1;
            }
            (
                SnapshotQuery::Publications { channels: wanted, nth, below },
                SnapshotPart::Publications(found),
            ) => {
                let Some(at) = wanted.get(*nth) else { return false };
                let Some(newest) = channels.saved_publication(*at, *below, times) else {
                    (*nth, *below) = (*nth + 1, u64::MAX);
                    return true;
                };
                self.bytes += newest.publication.size();
                *below = newest.publication.offset().unwrap_or(0);
                found.push((*nth, newest));
            }
            (SnapshotQuery::Keys { from }, SnapshotPart::Keys(found)) => {
                let Some((next, key)) = channels.idempotency_keys.next_saved(*from, times) else {
                    return false;
                };
                *from = next;
                found.extend(key);
            }
            (SnapshotQuery::Generations { from }, SnapshotPart::Generations(found)) => {
                budget.charge(COUNTERS_STEP);
                let (shard, range) = (home.durable.shard(), *from..*from + COUNTERS_STEP);
                *from = range.end;
                let Some(generations) = channels.epochs.renewed(shard, range) else {
                    return false;
                };
                found.extend(generations);
            }
            // A walk begins with the part of its question.
            _ => return false,
        }
        true
    }
}

impl Home {
    /// From now on, the home remembers which channels had subscribers, because the clients leave.
    pub fn begin_drain(&mut self) {
        self.channels.is_draining = true;
    }

    /// Begins the answer to a question. The control plane has reserved room for it.
    pub(super) fn begin_snapshot(&mut self, request: SnapshotRequest) {
        let SnapshotRequest { tag, query } = request;
        let part = SnapshotPart::of(&query);
        self.saves.is_frozen = true;
        self.saves.walk = Some(SnapshotWalk { tag, query, part, bytes: 0 });
    }

    /// Continues the answer; returns whether the budget ended first.
    pub(super) fn continue_snapshot(
        &mut self,
        post: &mut impl Post,
        budget: &mut WorkBudget,
    ) -> bool {
        if !self.prepared.is_empty() {
            return false;
        }
        let Some(mut walk) = self.saves.walk.take() else { return false };
        let mut is_over = false;
        while !is_over && !walk.is_full() {
            if budget.is_spent() {
                self.saves.walk = Some(walk);
                return true;
            }
            is_over = !walk.step(self, budget);
        }
        let SnapshotWalk { tag, query, part, .. } = walk;
        let answer = SnapshotAnswer { tag, part, next: (!is_over).then_some(query) };
        post.send(self.control, Message::SnapshotAnswer(Box::new(answer)));
        false
    }
}

impl Channels {
    /// What a snapshot has of a channel: its stream in memory, or the epoch of an unpublished
    /// channel, if it does not follow from the generation of its partition.
    fn saved_stream(&self, at: u32, times: Times) -> Option<SavedStream> {
        let channel = self.channels.get(at as usize)?;
        let record = match self.stream_of(at).map(|stream| self.streams.get(stream)) {
            Some(stream) if stream.stored().is_some() => return None,
            Some(stream) => memory_record(stream, times),
            None if !self.has_own_generation(channel) => return None,
            None => {
                let ends = times.unix.saturating_add(UNPUBLISHED_TTL);
                let epoch = self.epochs.epoch(channel.hash, channel.generation);
                let (top, first, bytes, due) = (0, 1, 0, ends);
                StreamRecord { epoch, top, first, settled: 1, ends, due, bytes, version: None }
            }
        };
        let Channel { name, hash, generation, interested, was_subscribed, .. } = channel;
        Some(SavedStream {
            channel: name.clone(),
            hash: *hash,
            generation: *generation,
            record,
            was_subscribed: *was_subscribed || *interested != 0,
        })
    }

    /// The newest publication below an offset of a stream in memory.
    fn saved_publication(&self, at: u32, below: u64, times: Times) -> Option<StoredPublication> {
        let stream = self.streams.get(self.stream_of(at)?);
        let (publication, expires) = stream.newest_below(below)?;
        let is_in_store = stream.stored().is_some();
        let publication = publication.clone();
        let expires = times.unix_of(expires);
        (!is_in_store).then_some(StoredPublication { publication, expires })
    }
}

/// The record of a stream that is in memory alone.
fn memory_record(stream: &Stream, times: Times) -> StreamRecord {
    StreamRecord {
        epoch: stream.epoch(),
        top: stream.position().offset,
        first: stream.first_kept(),
        settled: stream.first_kept(),
        ends: times.unix_of(stream.ends()),
        due: times.unix_of(stream.next_expiry()),
        bytes: 0,
        version: stream.version().map(|version| Box::new(version.clone())),
    }
}
