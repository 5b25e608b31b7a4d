//! The home of channels and users: one shard decides about each of them for all shards.
//!
//! Owns offsets, history, interest, presence, idempotency keys and the number of connections per
//! user. All messages, also those of its own shard, come through [`Home::handle`]. Knows a
//! connection only by its address and a shard only by its endpoint. The invariant: a message that
//! `handle` returns as `Err` has changed nothing.

mod user_admission;
mod channel_publications;
mod channel_queries;
mod channel_streams;
pub mod channels;
pub mod durable;
mod epochs;
pub mod history;
pub mod members;
mod publishing;
mod restores;
mod saves;
mod latest_cells;
mod polled;
pub mod idempotency_keys;
pub mod presence_parts;
mod presence_queries;
#[cfg(test)]
mod snapshot_tests;
mod streams;
mod subscribers;
pub mod users;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::busiest::Busiest;
use crate::base::memory::{ShardToFree, ShardUsage};
use crate::base::metrics::{Action, Metrics};
use crate::base::work_budget::{WorkBudget, cost};
use crate::home::channel_publications::PreparedPublication;
use crate::home::channels::Channels;
use crate::home::durable::requests::{Found, channel_of, needs_stream};
use crate::home::durable::state::Durable;
use crate::home::durable::stored::Times;
use crate::home::saves::Saves;
use crate::home::users::{UserLimit, Users};
use crate::model::ids::Ids;
use crate::model::message::{
    ChannelAnswer, ChannelQuery, Depart, Endpoint, HomeAnswer, HomeQuery, Message, Post, Rank,
    ReplyTo, endpoints,
};
use crate::model::names::Names;
use crate::model::watch::BusyChannel;
use crate::wire::protocol::Error;

pub use self::channels::HomeSettings;

/// An inbox that a message must go to is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NoRoom;

/// The home of the channels and users whose names hash to one shard.
pub struct Home {
    control: Endpoint,
    channels: Channels,
    /// Users whose connections are limited.
    users: Users,
    user_limit: UserLimit,
    /// Prepared publications that wait for room in an inbox, in the order of their offsets.
    prepared: VecDeque<PreparedPublication>,
    /// What is on its way to the store and back.
    durable: Durable,
    /// The snapshot that is being made.
    saves: Saves,
    metrics: Arc<Metrics>,
    /// Channels with the most publications, while an operator watches.
    busiest: Busiest,
    /// The time of this turn, in milliseconds of the monotonic clock.
    now: u64,
}

/// What a home gets from its shard and its node.
pub struct HomeContext {
    /// Endpoint of the control plane.
    pub control: Endpoint,
    /// How names are hashed.
    pub names: Names,
    /// Makes the ids of clients.
    pub ids: Ids,
    /// Secret seed of the epochs of all homes of the node.
    pub seed: u64,
    /// Memory budget of the history.
    pub history: ShardUsage,
    /// Memory budget of the idempotency keys.
    pub keys: ShardUsage,
    /// Endpoint of the store; `None`: there is none.
    pub store: Option<Endpoint>,
    /// Endpoint of the shard.
    pub shard: Endpoint,
    /// Memory budget of what waits for the store.
    pub stored: ShardUsage,
    /// The counters of the shard.
    pub metrics: Arc<Metrics>,
}

impl Home {
    /// A home without channels and users.
    pub fn new(settings: HomeSettings, user_limit: UserLimit, context: HomeContext) -> Self {
        let HomeContext { control, names, ids, seed, history, keys, metrics, .. } = context;
        let durable = Durable::new(context.store, context.shard, context.stored);
        let channels = Channels::new(settings, (names, ids), seed, (history, keys));
        let (users, prepared) = (Users::default(), VecDeque::new());
        let (saves, busiest) = (Saves::default(), Busiest::default());
        Home {
            control,
            channels,
            users,
            user_limit,
            prepared,
            durable,
            saves,
            metrics,
            busiest,
            now: 0,
        }
    }

    /// Changes the limits. What the home keeps already stays as it is.
    pub fn reconfigure(&mut self, settings: HomeSettings, user_limit: UserLimit) {
        self.channels.settings = settings;
        self.user_limit = user_limit;
    }

    /// Sets the time of this turn.
    pub fn begin_turn(&mut self, times: Times) {
        self.now = times.now;
        self.durable.begin_turn(times);
    }

    /// Takes the channels with the most publications since the last call, at most `most`. Counts
    /// on if the watch `goes_on`.
    pub fn take_busiest(&mut self, most: usize, goes_on: bool) -> Vec<BusyChannel> {
        let found = self.busiest.take(most);
        self.busiest.watch(goes_on);
        found
    }

    /// Handles a message to this home. `Err` returns the message: an inbox that the result must go
    /// to is full.
    pub fn handle(&mut self, message: Message, post: &mut impl Post) -> Result<(), Message> {
        if self.concerns_store(&message) {
            return self.handle_durable(post, message);
        }
        match message {
            Message::Publish(request) => self.publish(post, request),
            Message::Subscribe(request) => self.subscribe(post, request, None),
            Message::Leave(leave) => self.leave(post, leave),
            Message::MemberUpdate(update) => {
                self.channels.update_member(&update);
                Ok(())
            }
            Message::HomeQuery(question) => self.answer(post, question, None),
            Message::Release(release) => {
                self.channels.release(&release);
                Ok(())
            }
            Message::Admit(admit) => self.admit(post, admit),
            Message::Depart(Depart { user, address }) => {
                self.users.depart(user, address);
                Ok(())
            }
            Message::SnapshotRequest(request) => {
                self.begin_snapshot(*request);
                Ok(())
            }
            Message::StoreWritten(written) => {
                self.written(post, written);
                Ok(())
            }
            Message::StoreAnswer(answer) => {
                self.store_answered(post, *answer);
                Ok(())
            }
            Message::StoreDue(due) => {
                self.remove_due(post, *due);
                Ok(())
            }
            // No other message goes to a home.
            _ => Ok(()),
        }
    }

    /// Whether a message is about a durable stream, or may not overtake one that is.
    fn concerns_store(&self, message: &Message) -> bool {
        let waits = || channel_of(message).is_some_and(|(name, hash)| self.is_waiting(hash, name));
        self.durable.is_used() && (needs_stream(message) || waits())
    }

    /// Answers a query at once. A presence query is queued, because its answer can take many turns.
    fn answer(
        &mut self,
        post: &mut impl Post,
        question: Box<HomeQuery>,
        found: Option<&Found>,
    ) -> Result<(), Message> {
        let action = action_of(&question.query);
        self.answer_or_queue(post, question, found)?;
        if let Some(action) = action {
            self.metrics.by.actions[action as usize].add(1);
        }
        Ok(())
    }

    fn answer_or_queue(
        &mut self,
        post: &mut impl Post,
        question: Box<HomeQuery>,
        found: Option<&Found>,
    ) -> Result<(), Message> {
        let reply_to = question.reply_to;
        if self.saves.is_frozen() && question.query == ChannelQuery::RemoveHistory {
            return self.answer_query(post, question, Err(Error::INTERNAL));
        }
        if matches!(question.query, ChannelQuery::Presence(_)) {
            let Err(question) = self.channels.queue_presence_query(*question) else {
                return Ok(());
            };
            // The queue of presence queries is full.
            let refused = Message::HomeAnswer(Box::new(HomeAnswer {
                reply_to,
                result: Err(Error::INTERNAL),
            }));
            let sent = self.send_answer(post, reply_to, || refused);
            return sent.map_err(|NoRoom| Message::HomeQuery(Box::new(question)));
        }
        if !reserve_for(post, reply_to) {
            return Err(Message::HomeQuery(question));
        }
        let result = self.channels.answer_query(&question, self.now, found);
        self.post_answer(
            post,
            reply_to,
            Message::HomeAnswer(Box::new(HomeAnswer { reply_to, result })),
        );
        Ok(())
    }

    /// Answers a query with this result. `Err` returns it: there is no room.
    fn answer_query(
        &mut self,
        post: &mut impl Post,
        question: Box<HomeQuery>,
        result: Result<ChannelAnswer, Error>,
    ) -> Result<(), Message> {
        let reply_to = question.reply_to;
        let answer = || Message::HomeAnswer(Box::new(HomeAnswer { reply_to, result }));
        self.send_answer(post, reply_to, answer).map_err(|NoRoom| Message::HomeQuery(question))
    }

    /// Commits prepared publications that waited for room, and continues answers that take many
    /// turns. Returns whether work is left for the next turn.
    pub fn continue_work(&mut self, post: &mut impl Post, budget: &mut WorkBudget) -> bool {
        self.commit_prepared(post);
        if self.durable.has_work() {
            self.continue_durable(post, budget);
        }
        let presence = self.answer_presence_queries(post, budget);
        let snapshot = self.continue_snapshot(post, budget);
        presence || snapshot || self.durable.goes_on()
    }

    /// Whether [`Home::continue_work`] has something to do.
    pub fn waits(&self) -> bool {
        let has_answers = self.channels.presence_queries() > 0 || self.saves.has_walk();
        has_answers || !self.prepared.is_empty() || self.durable.has_work()
    }

    /// Whether work was begun that takes many turns: presence queries, a part of the snapshot, or
    /// what the store kept.
    pub fn is_unfinished(&self) -> bool {
        self.channels.presence_queries() > 0 || self.saves.has_walk() || self.durable.goes_on()
    }

    /// Continues the presence answers; returns whether the budget ended first.
    fn answer_presence_queries(&mut self, post: &mut impl Post, budget: &mut WorkBudget) -> bool {
        for _ in 0..self.channels.presence_queries() {
            if budget.is_spent() {
                return true;
            }
            let Some(reply_to) = self.channels.first_reply_to() else { return false };
            if !reserve_for(post, reply_to) {
                self.channels.postpone_first();
                continue;
            }
            let Some(result) = self.channels.encode_first_presence(budget) else {
                reply_to.shard().into_iter().for_each(|shard| post.cancel(shard, Rank::Delivery));
                return true;
            };
            budget.charge(cost::MESSAGE);
            self.post_answer(
                post,
                reply_to,
                Message::HomeAnswer(Box::new(HomeAnswer { reply_to, result })),
            );
            self.channels.drop_first();
        }
        false
    }

    /// Reserves room for an answer and sends it, if the requester waits for one.
    fn send_answer(
        &self,
        post: &mut impl Post,
        reply_to: ReplyTo,
        answer: impl FnOnce() -> Message,
    ) -> Result<(), NoRoom> {
        if !reserve_for(post, reply_to) {
            return Err(NoRoom);
        }
        self.post_answer(post, reply_to, answer());
        Ok(())
    }

    /// Sends an answer for which room is reserved, if the requester waits for one.
    fn post_answer(&self, post: &mut impl Post, reply_to: ReplyTo, answer: Message) {
        match (reply_to, reply_to.shard()) {
            (ReplyTo::Control(_), _) => post.send(self.control, answer),
            (_, Some(shard)) => post.send(shard, answer),
            (_, None) => {}
        }
    }

    /// Drops expired history and idempotency keys, a bounded amount per call.
    pub fn expire(&mut self, budget: &mut WorkBudget) {
        self.channels.expire(self.now, budget);
        if !self.channels.expired.is_empty() {
            self.want_upkeep_of_expired();
        }
    }

    /// When [`Home::expire`] has something to do next, in milliseconds.
    pub fn next_expiry(&self) -> Option<u64> {
        self.channels.next_expiry().into_iter().chain(self.durable.next_upkeep()).min()
    }

    /// Frees what the memory budgets of the node demand from this home, a bounded amount per call.
    pub fn relieve(&mut self) {
        self.channels.relieve();
    }

    /// Which shard must free history, and which one idempotency keys, while a budget is exceeded.
    pub fn reliefs(&self) -> [ShardToFree; 2] {
        self.channels.reliefs()
    }

    /// Updates the metrics of the home.
    pub fn measure(&self) {
        self.channels.measure(&self.metrics);
    }

    /// Number of channels with interest or history, and of uncommitted publications.
    pub fn len(&self) -> usize {
        self.channels.len() + self.prepared.len() + self.durable.unanswered()
    }

    /// Whether the home holds no channel and no publication.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of writes, refusals, and channels that wait for the store.
    pub fn store_waits(&self) -> usize {
        self.durable.waits()
    }

    /// Memory of the writes and requests that wait for the store.
    pub fn store_bytes(&self) -> usize {
        self.durable.bytes()
    }

    /// Number of reasons to keep streams in memory.
    pub fn pins(&self) -> usize {
        self.channels.pins()
    }

    /// Number of users whose connections are counted.
    pub fn users(&self) -> usize {
        self.users.len()
    }
}

/// Reserves room for an answer. The control plane has reserved room for its own answers.
fn reserve_for(post: &mut impl Post, reply_to: ReplyTo) -> bool {
    reply_to.shard().is_none_or(|shard| post.reserve(shard, Rank::Delivery))
}

/// The action that a query is, for metrics.
fn action_of(query: &ChannelQuery) -> Option<Action> {
    match query {
        ChannelQuery::Presence(_) => Some(Action::Presence),
        ChannelQuery::Stats => Some(Action::PresenceStats),
        ChannelQuery::History(_) => Some(Action::History),
        ChannelQuery::RemoveHistory => Some(Action::HistoryRemove),
        ChannelQuery::Position | ChannelQuery::Latest | ChannelQuery::TrimHistory(_) => None,
    }
}

/// Reserves room for one delivery to each of these shards, or for none of them.
fn reserve_all(post: &mut impl Post, shards: u64) -> Result<(), NoRoom> {
    for shard in endpoints(shards) {
        if !post.reserve(shard, Rank::Delivery) {
            cancel_all(post, shards & ((1 << shard) - 1));
            return Err(NoRoom);
        }
    }
    Ok(())
}

/// Cancels the reservations of these shards.
fn cancel_all(post: &mut impl Post, shards: u64) {
    endpoints(shards).for_each(|shard| post.cancel(shard, Rank::Delivery));
}
