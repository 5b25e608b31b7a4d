//! Requests that wait for the store: their stream is not loaded, or memory lacks publications.
//!
//! Owns no state of its own: it is in [`Durable`]. Never answers from a stream that is not loaded.
//! The invariants: the requests of a channel are handled in the order in which they came; a request
//! that waits has changed nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::work_budget::{WorkBudget, cost};
use crate::home::Home;
use crate::home::durable::leftovers::LEFTOVER;
use crate::home::durable::requests::{
    self, ChannelWait, Found, WaitState, bytes_of, channel_of, is_durable, needs_stream,
};
use crate::home::durable::state::{PAUSE, STEPS_MAX, WAITING_MAX};
use crate::home::history::Stream;
use crate::model::message::{ChannelQuery, Message, Post, Rank};
use crate::model::publication::Publication;
use crate::model::storage::{
    LoadedStream, StoreAnswer, StoreFound, StoreQuery, StoreRead, StoreRefusal, StoredPublication,
};
use crate::wire::protocol::Error;

/// Number of questions of one request to the store. Each further one means that publications left
/// memory while the question was answered.
const QUESTIONS_MAX: u32 = 4;
/// Estimated memory of a request that waits, beside its data.
const REQUEST_OVERHEAD: usize = 512;
/// Lifetime of a stream without publications whose options are not known, in milliseconds.
const UNPUBLISHED_TTL: u64 = 3_600_000;

impl Home {
    /// Handles a request of a durable channel, or a message that must not overtake one.
    pub(in crate::home) fn handle_durable(
        &mut self,
        post: &mut impl Post,
        message: Message,
    ) -> Result<(), Message> {
        let Some((name, hash)) = channel_of(&message) else { return Ok(()) };
        let at = self.channels.find_or_insert(hash, name);
        let handled = self.queue_or_serve(post, at, message);
        self.channels.remove_if_unused(at);
        handled
    }

    /// Whether a request of this channel waits for the store.
    pub(in crate::home) fn is_waiting(&self, hash: u64, name: &str) -> bool {
        !self.durable.waits.is_empty()
            && self.channels.find(hash, name).is_some_and(|at| self.durable.waits.contains_key(&at))
    }

    fn queue_or_serve(
        &mut self,
        post: &mut impl Post,
        at: u32,
        message: Message,
    ) -> Result<(), Message> {
        let overtakes =
            planted(PlantedFault::WaitingRequestOvertaken) && self.stream_at(at).is_some();
        if let Some(wait) = self.durable.waits.get_mut(&at)
            && !overtakes
        {
            if let Message::MemberUpdate(update) = &message {
                let (before, after) = wait.update_member(update);
                self.durable.usage.change(before, after);
                return self.serve(post, at, message, None);
            }
            return self.queue(post, at, message);
        }
        match self.missing(at, &message, None) {
            Some(query) => {
                if !self.has_room_to_wait(&message) {
                    return self.refuse(post, message);
                }
                self.begin_wait(post, at, query);
                self.queue(post, at, message)
            }
            None => self.serve(post, at, message, None),
        }
    }

    /// Whether one more request may wait.
    fn has_room_to_wait(&self, message: &Message) -> bool {
        // Each leave follows a subscribe, whose number is bounded.
        let bounded = !matches!(message, Message::Leave(_));
        !bounded || (self.durable.waiting < WAITING_MAX && self.durable.usage.excess() == 0)
    }

    /// Puts a request behind the others of its channel.
    fn queue(&mut self, post: &mut impl Post, at: u32, message: Message) -> Result<(), Message> {
        if !self.has_room_to_wait(&message) {
            return self.refuse(post, message);
        }
        let bytes = REQUEST_OVERHEAD + bytes_of(&message);
        if let Some(wait) = self.durable.waits.get_mut(&at) {
            wait.requests.push_back((message, bytes));
            self.durable.waiting += 1;
            self.durable.usage.change(0, bytes);
        }
        Ok(())
    }

    /// Begins to wait for the store, on behalf of a channel whose stream is not loaded or lacks
    /// publications.
    pub(super) fn begin_wait(&mut self, post: &mut impl Post, at: u32, query: StoreQuery) {
        let requests = VecDeque::new();
        let state = WaitState::Room(query);
        self.durable.waits.insert(at, ChannelWait { question: 0, state, asked: 0, requests });
        self.pin(at);
        self.ask_store(post, at);
    }

    /// Asks the store what the first request of a channel needs, or later if there is no room.
    fn ask_store(&mut self, post: &mut impl Post, at: u32) {
        let Some(channel) = self.channels.channels.get(at as usize) else { return };
        let Some(wait) = self.durable.waits.get(&at) else { return };
        let WaitState::Room(query) = &wait.state else { return };
        let (channel, query) = (channel.name.clone(), query.clone());
        let offsets = match &query {
            StoreQuery::Range { offsets, .. } => Some(offsets.clone()),
            _ => None,
        };
        let Some(question) = self.send_question(post, (at, channel), query) else {
            return self.durable.resumable.push_back(at);
        };
        if let Some(wait) = self.durable.waits.get_mut(&at) {
            (wait.question, wait.asked) = (question, wait.asked + 1);
            wait.state = WaitState::Answer(offsets);
        }
    }

    /// Sends a question about a channel at the index `at`, and returns its number; `None`: there is
    /// no room.
    pub(super) fn send_question(
        &mut self,
        post: &mut impl Post,
        (at, channel): (u32, Arc<str>),
        query: StoreQuery,
    ) -> Option<u32> {
        let store = self.durable.store.filter(|store| post.reserve(*store, Rank::Store))?;
        self.durable.questions = self.durable.questions.wrapping_add(1);
        let question = self.durable.questions;
        let tag = u64::from(at) << 32 | u64::from(question);
        let (shard, now) = (self.durable.shard, self.durable.times.unix);
        let read = StoreRead { shard, tag, channel, now, query };
        post.send(store, Message::StoreRead(Box::new(read)));
        Some(question)
    }

    /// Handles the answer of the store to a question.
    pub(in crate::home) fn store_answered(&mut self, post: &mut impl Post, answer: StoreAnswer) {
        let (at, question) = ((answer.tag >> 32) as u32, answer.tag as u32);
        if at == LEFTOVER {
            return self.leftover_answered(post, question, answer);
        }
        if let Some(end) = self.durable.looks.remove(&question) {
            return self.look_answered((at, end), answer.result);
        }
        let Some(wait) = self.durable.waits.get_mut(&at) else { return };
        let WaitState::Answer(offsets) = &wait.state else { return };
        if wait.question != question {
            return;
        }
        let offsets = offsets.clone().unwrap_or_default();
        let state = match answer.result {
            Ok(StoreFound::Stream(loaded)) => {
                if loaded.has_ended && wait.requests.is_empty() {
                    self.end_stored(post, at);
                } else {
                    self.load(at, loaded);
                }
                WaitState::Nothing(None)
            }
            Ok(StoreFound::Publications(found)) => {
                let mut found: Vec<_> = found.into_iter().map(|one| one.publication).collect();
                found.sort_unstable_by_key(Publication::offset);
                WaitState::Nothing(Some(Found { offsets, publications: Some(found) }))
            }
            // No request asks for this.
            Ok(StoreFound::OldestAlive(_)) => WaitState::Nothing(None),
            Err(StoreRefusal::TooLarge) => {
                WaitState::Nothing(Some(Found { offsets, publications: None }))
            }
            Err(StoreRefusal::Unavailable) => {
                self.durable.upkeep_after = self.now + PAUSE;
                WaitState::Refused
            }
        };
        if let Some(wait) = self.durable.waits.get_mut(&at) {
            wait.state = state;
        }
        self.resume(post, at);
        self.channels.make_room(None);
    }

    /// Puts a stream of the store into memory, with its idempotency keys.
    fn load(&mut self, at: u32, loaded: LoadedStream) {
        let times = self.durable.times;
        let Some(hash) = self.channels.channels.get(at as usize).map(|channel| channel.hash) else {
            return;
        };
        let keys = loaded.keys.iter().filter(|_| !planted(PlantedFault::KeysNotLoaded));
        for key in keys {
            let until = (times.moment_of(key.until), times.now);
            self.channels.idempotency_keys.restore(hash, &key.key, Some(key.position), until);
        }
        if self.channels.stream_of(at).is_none() {
            let stream = Stream::of_record(&loaded, times, UNPUBLISHED_TTL);
            self.channels.insert_stream(at, stream);
        }
        self.add_newest(at, loaded.newest);
        self.want_upkeep(at);
    }

    /// Adds the newest publications, as far as memory lacks them.
    fn add_newest(&mut self, at: u32, newest: Vec<StoredPublication>) {
        let times = self.durable.times;
        let in_memory = |one: StoredPublication| (one.publication, times.moment_of(one.expires));
        let newest = newest.into_iter().map(in_memory).collect();
        if let Some(stream) = self.channels.stream_of(at) {
            self.channels.streams.change(stream, |stream| stream.prepend(newest));
            self.channels.schedule(at);
        }
    }

    /// Handles the requests of a channel that have what they waited for, in their order, while the
    /// inboxes have room; the rest in a later turn.
    pub(super) fn resume(&mut self, post: &mut impl Post, at: u32) {
        for _ in 0..STEPS_MAX {
            let Some(wait) = self.durable.waits.get_mut(&at) else { return };
            let (found, is_refused) = match &mut wait.state {
                WaitState::Room(_) => return self.ask_store(post, at),
                WaitState::Answer(_) => return,
                WaitState::Nothing(found) => (found.take(), false),
                WaitState::Refused => (None, true),
            };
            let Some((message, bytes)) = wait.requests.pop_front() else {
                return self.end_wait(at);
            };
            let asked = wait.asked;
            let missing = match is_refused {
                true => None,
                false => self.missing(at, &message, found.as_ref()),
            };
            let handled = match missing {
                Some(query) if asked < QUESTIONS_MAX => {
                    self.ask_again(at, query, (message, bytes));
                    continue;
                }
                Some(_) => self.refuse(post, message),
                None if is_refused => self.refuse(post, message),
                None => self.serve(post, at, message, found.as_ref()),
            };
            let Some(wait) = self.durable.waits.get_mut(&at) else { return };
            if let Err(message) = handled {
                if !is_refused {
                    wait.state = WaitState::Nothing(found);
                }
                wait.requests.push_front((message, bytes));
                return self.durable.resumable.push_back(at);
            }
            wait.asked = 0;
            self.durable.waiting -= 1;
            self.durable.usage.change(bytes, 0);
        }
        self.durable.goes_on = true;
        self.durable.resumable.push_back(at);
    }

    /// The first request of a channel needs more of the store.
    fn ask_again(&mut self, at: u32, query: StoreQuery, request: (Message, usize)) {
        if let Some(wait) = self.durable.waits.get_mut(&at) {
            wait.state = WaitState::Room(query);
            wait.requests.push_front(request);
        }
    }

    /// No request of the channel waits any more.
    fn end_wait(&mut self, at: u32) {
        self.durable.waits.remove(&at);
        if !planted(PlantedFault::WaitNotEnded) {
            self.unpin(at);
        }
        self.want_upkeep(at);
        self.channels.remove_if_unused(at);
    }

    /// Continues the requests that wait for room.
    pub(super) fn resume_all(&mut self, post: &mut impl Post, budget: &mut WorkBudget) {
        for _ in 0..self.durable.resumable.len().min(STEPS_MAX) {
            if budget.is_spent() {
                self.durable.goes_on = true;
                return;
            }
            budget.charge(cost::MESSAGE);
            if let Some(at) = self.durable.resumable.pop_front() {
                self.resume(post, at);
            }
        }
    }

    /// What a request needs of the store, beside what the store has `found`.
    fn missing(&self, at: u32, message: &Message, found: Option<&Found>) -> Option<StoreQuery> {
        if matches!(message, Message::Leave(_) | Message::MemberUpdate(_)) {
            return None;
        }
        let Some(stream) = self.stream_at(at) else {
            return needs_stream(message).then(requests::load);
        };
        let (offsets, limit, enough, reverse) = match message {
            Message::Subscribe(request) => {
                let mode = request.terms.recovery_mode;
                let most = self.channels.settings.recovery_limit;
                let most = (request.filter.is_some(), most);
                let offsets = stream.missing_for_recovery(request.since?, mode, most)?;
                (offsets, usize::MAX, None, false)
            }
            Message::HomeQuery(question) => match &question.query {
                ChannelQuery::History(range) => {
                    let (offsets, limit) = stream.missing_for_range(range)?;
                    let enough = (!range.reverse).then_some(limit);
                    (offsets, limit, enough, range.reverse)
                }
                ChannelQuery::Latest => {
                    let only_stored = stream.only_stored();
                    let is_missing = stream.is_empty() && !only_stored.is_empty();
                    let offsets = is_missing.then(|| only_stored.end - 1..only_stored.end)?;
                    (offsets, 1, None, true)
                }
                _ => return None,
            },
            _ => return None,
        };
        let is_planted = planted(PlantedFault::ShedMeanwhileIgnored);
        if found.is_some_and(|found| is_planted || found.has(&offsets, enough)) {
            return None;
        }
        let bytes = self.channels.settings.answer_bytes;
        Some(StoreQuery::Range { offsets, limit, bytes, reverse })
    }

    /// Handles a request for which everything is in memory, or was found.
    fn serve(
        &mut self,
        post: &mut impl Post,
        at: u32,
        message: Message,
        found: Option<&Found>,
    ) -> Result<(), Message> {
        match message {
            Message::Publish(request) if is_durable(&request) => {
                self.publish_durable(post, at, request)
            }
            Message::Publish(request) => self.publish(post, request),
            Message::Subscribe(request) => self.subscribe(post, request, found),
            Message::HomeQuery(question) if question.query == ChannelQuery::RemoveHistory => {
                self.remove_durable(post, at, question)
            }
            Message::HomeQuery(question) => match question.query {
                ChannelQuery::TrimHistory(first) => {
                    self.trim_durable(post, at, first);
                    Ok(())
                }
                _ => self.answer(post, question, found),
            },
            Message::Leave(leave) => self.leave(post, leave),
            Message::MemberUpdate(update) => {
                self.channels.update_member(&update);
                Ok(())
            }
            // No other message waits.
            _ => Ok(()),
        }
    }

    /// Answers a request with error 100, because the store cannot be asked.
    fn refuse(&mut self, post: &mut impl Post, message: Message) -> Result<(), Message> {
        match message {
            Message::Publish(request) => {
                self.metrics.durable_refused.add(1);
                self.answer_publish(post, request, Err(Error::INTERNAL))
            }
            Message::HomeQuery(question) => self.answer_query(post, question, Err(Error::INTERNAL)),
            Message::Subscribe(request) => {
                let shard = request.subscriber.shard;
                if !post.reserve(shard, Rank::Delivery) {
                    return Err(Message::Subscribe(request));
                }
                let answer = request.refused(Error::INTERNAL);
                post.send(shard, Message::Subscribed(Box::new(answer)));
                Ok(())
            }
            Message::Leave(leave) => self.leave(post, leave),
            other => self.serve(post, 0, other, None),
        }
    }
}
