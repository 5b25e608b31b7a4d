//! The streams of a home's channels: when a stream begins, expires and makes room for others.
//!
//! Owns nothing: the streams are in [`Channels`]. The invariant: a stream with a prepared
//! publication is not dropped.

use crate::base::memory::ShardToFree;
use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::work_budget::{WorkBudget, cost};
use crate::home::channels::{Channel, Channels};
use crate::home::history::Stream;
use crate::home::streams::NONE;
use crate::model::retention::Retention;
use crate::wire::protocol::Epoch;

/// Milliseconds per tick of the expiry wheel.
const TICK: u64 = 1000;
/// Maximum number of streams per sweep.
const SWEEP_MAX: usize = 32;
/// Maximum number of publications dropped per stream and sweep; the rest is due again at once.
const DROPS_MAX: usize = 256;
/// Maximum number of streams that drop publications to make room for one publication.
const SHEDDERS_MAX: usize = 64;
/// Bytes per channel beside its record and its name: allocator overhead and its entries in tables
/// and the wheel.
const CHANNEL_OVERHEAD: usize = 128;

impl Channels {
    /// Index of the stream of a channel, if there is one.
    pub(super) fn stream_of(&self, at: u32) -> Option<u32> {
        self.channels.get(at as usize).map(|one| one.stream).filter(|stream| *stream != NONE)
    }

    /// Index of the stream of a channel; begins the stream if there is none.
    pub(super) fn stream(&mut self, at: u32, retention: &Retention, now: u64) -> u32 {
        if let Some(stream) = self.stream_of(at) {
            return stream;
        }
        if self.streams.len() >= self.settings.streams_max {
            self.evict();
        }
        let Channel { hash, generation, .. } = self.channels[at as usize];
        let epoch = self.epochs.epoch(hash, generation);
        self.add_stream(at, Stream::new(epoch, retention, now))
    }

    /// Puts a durable stream into memory.
    pub(super) fn insert_stream(&mut self, at: u32, stream: Stream) {
        if self.streams.len() >= self.settings.streams_max {
            self.evict();
        }
        self.add_stream(at, stream);
    }

    fn add_stream(&mut self, at: u32, stream: Stream) -> u32 {
        let channel = &mut self.channels[at as usize];
        let overhead = size_of::<Channel>() + CHANNEL_OVERHEAD + channel.name.len();
        channel.stream = self.streams.insert(stream, at, overhead);
        let stream = channel.stream;
        self.schedule(at);
        stream
    }

    /// Compares a few streams and drops one. Streams without kept publications and subscribers go
    /// first; among equals, the stream that expires first.
    fn evict(&mut self) {
        let channels = &self.channels;
        let rank = |stream: &Stream, channel: u32| {
            let is_planted =
                planted(PlantedFault::StreamWithWritesEvicted) && stream.stored().is_some();
            let is_free = |one: &&Channel| !one.keeps_stream() || is_planted;
            let channel = channels.get(channel as usize).filter(is_free)?;
            Some((channel.interested != 0 || stream.bytes() > 0, stream.next_expiry()))
        };
        if let Some(channel) = self.streams.lowest_ranked(rank) {
            let stream = self.stream_of(channel).map(|stream| self.streams.get(stream));
            let is_durable = stream.is_some_and(|stream| stream.stored().is_some());
            self.evicted += u64::from(!is_durable);
            self.drop_stream(channel);
        }
    }

    /// The epoch of the stream of a channel, or of the stream that the first publication begins.
    pub(super) fn epoch(&self, found: Option<u32>, hash: u64) -> Epoch {
        let generation = match found {
            Some(at) => self.channels[at as usize].generation,
            None => self.epochs.generation(hash),
        };
        self.epochs.epoch(hash, generation)
    }

    /// The stream of a channel at this time. A channel without publications has an empty stream,
    /// which is not kept.
    pub(super) fn stream_now(
        &mut self,
        found: Option<u32>,
        hash: u64,
        now: u64,
    ) -> CurrentStream<'_> {
        match found.and_then(|at| self.stream_of(at)) {
            Some(stream) => {
                self.streams.change(stream, |stream| stream.expire(now));
                CurrentStream::Kept(self.streams.get(stream))
            }
            None => CurrentStream::Unpublished(Stream::empty(self.epoch(found, hash))),
        }
    }

    pub(super) fn schedule(&mut self, at: u32) {
        self.schedule_after(at, 0);
    }

    /// Schedules the next expiry of a stream, not before `earliest`.
    fn schedule_after(&mut self, at: u32, earliest: u64) {
        if let Some(stream) = self.stream_of(at) {
            let due = self.streams.get(stream).next_expiry().max(earliest) / TICK;
            self.expiry.set(at, due as u32 + 1);
        }
    }

    /// Drops the oldest publications while the node exceeds its history budget and this home holds
    /// the most. Among a few streams, the one whose oldest publication expires first is cut;
    /// finally the stream that has grown. When no publication is left, streams are dropped.
    pub(super) fn make_room(&mut self, grown: Option<u32>) {
        for turn in 0..=SHEDDERS_MAX {
            self.history.set(self.streams.bytes());
            if self.history.shard_to_free() != ShardToFree::This {
                return;
            }
            if self.streams.kept_bytes() == 0 {
                self.evict();
                continue;
            }
            let oldest = |stream: &Stream, _| (stream.bytes() > 0).then(|| stream.next_expiry());
            let any = (turn < SHEDDERS_MAX)
                .then(|| self.streams.lowest_ranked(oldest))
                .flatten()
                .or(grown);
            if let Some(channel) = any
                && let Some(stream) = self.stream_of(channel)
            {
                let over = self.history.excess();
                let shed = self.streams.change(stream, |stream| stream.shed(over)) as u64;
                // The store still has the publications of a durable stream.
                let is_durable = self.streams.get(stream).stored().is_some();
                self.shed += if is_durable { 0 } else { shed };
                self.hide_latest(channel);
                self.schedule(channel);
            }
        }
        self.history.set(self.streams.bytes());
    }

    /// Frees history and idempotency keys that the budgets demand from this home, a bounded amount
    /// per call.
    pub fn relieve(&mut self) {
        if self.history.shard_to_free() == ShardToFree::This {
            self.make_room(None);
        }
        self.idempotency_keys.relieve();
    }

    /// Which shard must free history, and which one idempotency keys, while a budget is exceeded.
    pub fn reliefs(&self) -> [ShardToFree; 2] {
        [self.history.shard_to_free(), self.idempotency_keys.share().shard_to_free()]
    }

    /// Drops a stream from memory. Without a store, that is its end.
    pub(super) fn drop_stream(&mut self, at: u32) {
        if let Some(stream) = self.stream_of(at) {
            let is_durable = self.streams.get(stream).stored().is_some();
            self.hide_latest(at);
            self.expiry.clear(at);
            self.streams.remove(stream);
            self.history.set(self.streams.bytes());
            let channel = &mut self.channels[at as usize];
            channel.stream = NONE;
            if !is_durable {
                channel.generation = self.epochs.renew(channel.hash);
            }
            self.remove_if_unused(at);
        }
    }

    /// Drops a durable stream that has ended from memory, unless something is on its way.
    pub(super) fn forget_stream(&mut self, at: u32, now: u64) {
        let has_ended = |stream: u32| self.streams.get(stream).ends() <= now;
        if self.channels.get(at as usize).is_some_and(|channel| !channel.keeps_stream())
            && self.stream_of(at).is_some_and(has_ended)
        {
            self.drop_stream(at);
        }
    }

    /// Drops history and idempotency keys that have expired at `now`, a bounded number per call.
    pub fn expire(&mut self, now: u64, budget: &mut WorkBudget) {
        let mut due = std::mem::take(&mut self.due);
        let most = if budget.is_spent() { 0 } else { SWEEP_MAX };
        if most > 0 {
            budget.charge(cost::LOOK * self.idempotency_keys.expire(now));
        }
        self.expiry.sweep((now / TICK) as u32, most, &mut due);
        for at in due.drain(..) {
            let Some(stream) = self.stream_of(at) else { continue };
            let before = self.streams.get(stream).len();
            let is_over = self.streams.change(stream, |stream| stream.expire_some(now, DROPS_MAX));
            let dropped = before - self.streams.get(stream).len();
            budget.charge(cost::LOOK + dropped * cost::PUBLICATION);
            if self.streams.get(stream).is_empty() {
                self.hide_latest(at);
            }
            if self.streams.get(stream).stored().is_some() {
                // Until its upkeep is done, the stream stays due.
                self.expired.push(at);
                self.schedule_after(at, now + TICK);
            } else if is_over && !self.channels[at as usize].keeps_stream() {
                self.drop_stream(at);
            } else {
                self.schedule(at);
            }
        }
        self.history.set(self.streams.bytes());
        self.due = due;
    }

    /// Removes the publications before `first` from the history of a channel.
    pub(super) fn trim_history(&mut self, at: u32, first: u64) {
        if let Some(stream) = self.stream_of(at) {
            self.streams.change(stream, |stream| stream.trim(first));
            if self.streams.get(stream).is_empty() {
                self.hide_latest(at);
            }
            self.history.set(self.streams.bytes());
            self.schedule(at);
        }
    }

    /// Removes the history of a channel; epoch and top offset stay.
    pub(super) fn clear_history(&mut self, at: u32) {
        if let Some(stream) = self.stream_of(at) {
            self.streams.change(stream, Stream::clear);
            self.hide_latest(at);
            self.history.set(self.streams.bytes());
            self.schedule(at);
        }
    }

    /// When [`Channels::expire`] has something to do next, in milliseconds.
    pub fn next_expiry(&self) -> Option<u64> {
        let streams = self.expiry.next_due().map(|tick| u64::from(tick) * TICK);
        streams.into_iter().chain(self.idempotency_keys.next_expiry()).min()
    }
}

/// The stream of a channel, kept or not.
pub(super) enum CurrentStream<'a> {
    /// The channel has a stream.
    Kept(&'a Stream),
    /// The channel has no stream: an empty one in the epoch of its first publication.
    Unpublished(Stream),
}

impl std::ops::Deref for CurrentStream<'_> {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        match self {
            CurrentStream::Kept(stream) => stream,
            CurrentStream::Unpublished(stream) => stream,
        }
    }
}
