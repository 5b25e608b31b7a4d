//! What the store must be told of a stream although nothing is published: old publications are
//! erased, a failed write is corrected, and a stream ends.
//!
//! Owns no state of its own: it is in [`Durable`](super::state::Durable). Never delays a request:
//! upkeep takes part of the places for writes, and requests go on while the store looks for what
//! has expired. The invariants: a stream that needs upkeep stays in memory until the store has it;
//! a look counts only for the committed publications that it was asked about.

use std::sync::Arc;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::work_budget::{WorkBudget, cost};
use crate::home::Home;
use crate::home::durable::requests;
use crate::home::durable::state::{self, PAUSE, WAITING_MAX};
use crate::home::history::Stream;
use crate::model::message::{ChannelQuery, HomeQuery, Message, Post, ReplyTo};
use crate::model::storage::{StoreDue, StoreFound, StoreQuery, StoreRefusal};

/// Maximum number of streams with upkeep in a turn.
const STREAMS_MAX: usize = 16;
/// Maximum number of writes on their way with which an upkeep is sent.
const WRITES_MAX: usize = state::WRITES_MAX / 4;
/// Maximum number of questions for expired publications that are not answered.
const LOOKS_MAX: usize = 256;

impl Home {
    /// Notes that a stream may need upkeep.
    pub(super) fn want_upkeep(&mut self, at: u32) {
        let now = self.now;
        let Some(stream) = self.channels.stream_of(at) else { return };
        let stream = self.channels.streams.get_mut(stream);
        let is_due = stream.ends() <= now || stream.is_due(now);
        let Some(stored) = stream.stored_mut() else { return };
        let is_uncertain = stored.is_uncertain && !planted(PlantedFault::RecordNotCorrected);
        let needs = is_uncertain || stored.has_many_remains() || is_due;
        if stored.is_recorded && needs && !stored.has_upkeep {
            stored.has_upkeep = true;
            self.pin(at);
            self.durable.upkeep.push_back(at);
        }
    }

    /// Notes the streams of which something has expired.
    pub(in crate::home) fn want_upkeep_of_expired(&mut self) {
        for at in std::mem::take(&mut self.channels.expired) {
            self.want_upkeep(at);
            let ends = |stream: &Stream| {
                let recorded = stream.stored().is_some_and(|stored| stored.is_recorded);
                !recorded && stream.ends() <= self.now
            };
            if self.stream_at(at).is_some_and(ends) {
                self.channels.forget_stream(at, self.now);
            }
        }
    }

    /// Removes what the store has found to be expired or too much.
    pub(in crate::home) fn remove_due(&mut self, post: &mut impl Post, due: StoreDue) {
        self.load_due(post, due.channels);
        for (channel, first) in due.trims {
            if !self.channels.is_durable(&channel) {
                self.ask_leftover(post, channel, first);
                continue;
            }
            let hash = self.channels.names.hash(&channel);
            let query = ChannelQuery::TrimHistory(first);
            let reply_to = ReplyTo::None;
            let question = HomeQuery { channel, hash, reply_to, durable: true, query };
            // Without room it is dropped, and the store asks again.
            let _ = self.handle_durable(post, Message::HomeQuery(Box::new(question)));
        }
    }

    /// Loads the streams in which something has expired, so that their expiry is handled.
    fn load_due(&mut self, post: &mut impl Post, channels: Vec<Arc<str>>) {
        for name in channels {
            if !self.channels.is_durable(&name) {
                self.ask_leftover(post, name, 0);
                continue;
            }
            let hash = self.channels.names.hash(&name);
            let at = self.channels.find_or_insert(hash, &name);
            if let Some(stream) = self.channels.stream_of(at) {
                // The record on disk is older than the stream in memory.
                if let Some(stored) = self.channels.streams.get_mut(stream).stored_mut() {
                    stored.is_uncertain = true;
                }
                self.want_upkeep(at);
            } else if !self.durable.waits.contains_key(&at)
                && self.durable.waits.len() < WAITING_MAX
            {
                self.begin_wait(post, at, requests::load());
            }
            self.channels.remove_if_unused(at);
        }
    }

    /// Does some upkeep, if it is time.
    pub(super) fn keep_up(&mut self, post: &mut impl Post, budget: &mut WorkBudget) {
        if self.durable.upkeep_after > self.now {
            return;
        }
        for _ in 0..STREAMS_MAX.min(self.durable.upkeep.len()) {
            if self.durable.writes.len() >= WRITES_MAX || budget.is_spent() {
                return;
            }
            let Some(at) = self.durable.upkeep.pop_front() else { return };
            budget.charge(cost::LOOK);
            if !self.keep_up_stream(post, at) {
                return self.durable.upkeep.push_front(at);
            }
        }
    }

    /// Sends one write of upkeep of a stream, or asks the store what has expired; `false`: there is
    /// no room.
    fn keep_up_stream(&mut self, post: &mut impl Post, at: u32) -> bool {
        let now = self.now;
        let Some(stream) = self.stream_at(at) else {
            self.unpin(at);
            return true;
        };
        let is_due = stream.is_due(now);
        let (ended, span) = (stream.ends() <= now, stream.span());
        // A publication on its way continues the stream.
        let is_at_top = stream.stored().is_some_and(|stored| stored.sent.top == span.top);
        let is_last = ended && is_at_top && span.oldest >= span.first && span.first > span.top;
        let needs_write = is_last
            || stream.stored().is_some_and(|one| {
                one.is_uncertain || one.has_many_remains() || (ended && one.oldest < one.first)
            });
        if is_due && !needs_write {
            return self.look_for_expired(post, at);
        }
        if needs_write && !self.reserve_upkeep(post) {
            return false;
        }
        let stream =
            self.channels.stream_of(at).map(|stream| self.channels.streams.get_mut(stream));
        if let Some(stored) = stream.and_then(|stream| stream.stored_mut()) {
            stored.has_upkeep = false;
        }
        if needs_write {
            self.send_upkeep(post, at, is_last);
        }
        self.unpin(at);
        self.channels.remove_if_unused(at);
        true
    }

    /// Asks the store which publications that only the store has have expired; `false`: there is no
    /// room. Until the answer, the stream needs upkeep.
    fn look_for_expired(&mut self, post: &mut impl Post, at: u32) -> bool {
        if self.durable.looks.len() >= LOOKS_MAX {
            return false;
        }
        let Some(channel) = self.channels.channels.get(at as usize) else { return true };
        let Some(offsets) = self.stream_at(at).map(Stream::only_stored) else { return true };
        let (channel, end) = ((at, channel.name.clone()), offsets.end);
        let question = self.send_question(post, channel, StoreQuery::OldestAlive { offsets });
        self.durable.looks.extend(question.map(|question| (question, end)));
        question.is_some()
    }

    /// Handles the answer of the store to a look at the publications before `end`.
    pub(super) fn look_answered(
        &mut self,
        (at, end): (u32, u64),
        result: Result<StoreFound, StoreRefusal>,
    ) {
        let times = self.durable.times;
        let Some(stream) = self.channels.stream_of(at) else { return self.unpin(at) };
        let stream = self.channels.streams.get_mut(stream);
        if let Some(stored) = stream.stored_mut() {
            stored.has_upkeep = false;
        }
        match result {
            Ok(StoreFound::OldestAlive(alive)) => stream.begin_at_alive(end, alive, times),
            _ => self.durable.upkeep_after = self.now + PAUSE,
        }
        self.channels.schedule(at);
        self.unpin(at);
        self.want_upkeep(at);
        self.channels.remove_if_unused(at);
    }
}
