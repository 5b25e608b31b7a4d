//! The home of channels and users: what their one shard decides for all shards.
//!
//! Owns offsets, history, interest, presence, idempotency keys and the number of connections per
//! user. It has one door, [`Home::handle`], for its own shard and all others alike. Never knows a
//! connection but by its address, and never a shard but by its endpoint. The invariant: a message
//! that `handle` gives back has changed nothing.

mod user_admission;
mod channel_publications;
mod channel_queries;
mod channel_streams;
pub mod channels;
mod epochs;
pub mod history;
pub mod members;
mod publishing;
pub mod idempotency_keys;
pub mod presence_parts;
mod presence_queries;
mod streams;
mod subscribers;
pub mod users;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::budget::{Budget, cost};
use crate::base::memory::{Relief, Share};
use crate::base::metrics::Metrics;
use crate::home::channel_publications::PreparedPublication;
use crate::home::channels::Channels;
use crate::home::users::{UserLimit, Users};
use crate::model::ids::Ids;
use crate::model::message::{
    ChannelQuery, Depart, Endpoint, HomeAnswer, HomeQuery, Message, Post, Rank, ReplyTo, endpoints,
};
use crate::model::names::Names;
use crate::wire::protocol::Error;

pub use self::channels::HomeSettings;

/// There is no room on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NoRoom;

/// The home of the channels and users whose names hash to one shard.
pub struct Home {
    control: Endpoint,
    channels: Channels,
    /// Users whose connections are limited.
    users: Users,
    user_limit: UserLimit,
    /// Prepared publications whose commit found no room, in their order.
    prepared: VecDeque<PreparedPublication>,
    metrics: Arc<Metrics>,
    /// The time of this turn, in milliseconds of the monotonic clock.
    now: u64,
}

/// What a home belongs to.
pub struct HomeContext {
    /// The control plane's place on the bus.
    pub control: Endpoint,
    /// How names are hashed.
    pub names: Names,
    /// Names of the clients.
    pub ids: Ids,
    /// Seed of the epochs.
    pub seed: u64,
    /// Counts history.
    pub history: Share,
    /// Counts idempotency keys.
    pub keys: Share,
    /// The counters of the shard.
    pub metrics: Arc<Metrics>,
}

impl Home {
    /// A home without channels and users.
    pub fn new(settings: HomeSettings, user_limit: UserLimit, around: HomeContext) -> Self {
        let HomeContext { control, names, ids, seed, history, keys, metrics } = around;
        let channels = Channels::new(settings, (names, ids), seed, (history, keys));
        let (users, prepared) = (Users::default(), VecDeque::new());
        Home { control, channels, users, user_limit, prepared, metrics, now: 0 }
    }

    /// Sets the time of this turn, in milliseconds of the monotonic clock.
    pub fn begin_turn(&mut self, now: u64) {
        self.now = now;
    }

    /// Handles a message to this home. `Err` gives it back: there is no room for what it would
    /// cause.
    pub fn handle(&mut self, message: Message, post: &mut impl Post) -> Result<(), Message> {
        match message {
            Message::Publish(request) => self.publish(post, request),
            Message::Subscribe(request) => self.subscribe(post, request),
            Message::Leave(leave) => self.leave(post, leave),
            Message::HomeQuery(question) => self.answer(post, question),
            Message::Release(release) => {
                self.channels.release(&release);
                Ok(())
            }
            Message::Admit(admit) => self.admit(post, admit),
            Message::Depart(Depart { user, address }) => {
                self.users.depart(user, address);
                Ok(())
            }
            // No other message goes to a home.
            _ => Ok(()),
        }
    }

    /// Answers a question, or notes it where the answer may take many turns.
    fn answer(&mut self, post: &mut impl Post, question: Box<HomeQuery>) -> Result<(), Message> {
        let reply_to = question.reply_to;
        if matches!(question.about, ChannelQuery::Presence(_)) {
            let Err(question) = self.channels.queue_presence_query(*question) else {
                return Ok(());
            };
            // Too many questions wait.
            let refused =
                Message::HomeAnswer(Box::new(HomeAnswer { reply_to, told: Err(Error::INTERNAL) }));
            let sent = self.send_answer(post, reply_to, || refused);
            return sent.map_err(|NoRoom| Message::HomeQuery(Box::new(question)));
        }
        if !reserve_for(post, reply_to) {
            return Err(Message::HomeQuery(question));
        }
        let told = self.channels.answer_query(&question, self.now);
        self.post_answer(
            post,
            reply_to,
            Message::HomeAnswer(Box::new(HomeAnswer { reply_to, told })),
        );
        Ok(())
    }

    /// Sends what waits for room, and goes on with answers that take many turns; returns whether
    /// some of that is left for the next turn.
    pub fn continue_work(&mut self, post: &mut impl Post, budget: &mut Budget) -> bool {
        self.commit_prepared(post);
        self.answer_presence_queries(post, budget)
    }

    /// Whether [`Home::continue_work`] has something to do.
    pub fn waits(&self) -> bool {
        !self.prepared.is_empty() || self.channels.presence_queries() > 0
    }

    /// Whether answers that may take many turns are still to be given.
    pub fn has_presence_queries(&self) -> bool {
        self.channels.presence_queries() > 0
    }

    /// Goes on with answers about who is in a channel; returns whether the budget ended before
    /// they did.
    fn answer_presence_queries(&mut self, post: &mut impl Post, budget: &mut Budget) -> bool {
        for _ in 0..self.channels.presence_queries() {
            if budget.is_spent() {
                return true;
            }
            let Some(reply_to) = self.channels.first_reply_to() else { return false };
            if !reserve_for(post, reply_to) {
                self.channels.postpone_first();
                continue;
            }
            let Some(told) = self.channels.encode_first_presence(budget) else {
                reply_to.shard().into_iter().for_each(|shard| post.cancel(shard, Rank::Delivery));
                return true;
            };
            budget.charge(cost::MESSAGE);
            self.post_answer(
                post,
                reply_to,
                Message::HomeAnswer(Box::new(HomeAnswer { reply_to, told })),
            );
            self.channels.drop_first();
        }
        false
    }

    /// Sends an answer, if its asker waits for one and there is room.
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

    /// Sends an answer for which there is room, if its asker waits for one.
    fn post_answer(&self, post: &mut impl Post, reply_to: ReplyTo, answer: Message) {
        match (reply_to, reply_to.shard()) {
            (ReplyTo::Control(_), _) => post.send(self.control, answer),
            (_, Some(shard)) => post.send(shard, answer),
            (_, None) => {}
        }
    }

    /// Drops history that has expired, a bounded amount at a time.
    pub fn expire(&mut self, budget: &mut Budget) {
        self.channels.expire(self.now, budget);
    }

    /// When [`Home::expire`] has something to do next, in milliseconds.
    pub fn next_expiry(&self) -> Option<u64> {
        self.channels.next_expiry()
    }

    /// Gives up what the node's memory budgets ask of this home, a bounded amount at a time.
    pub fn relieve(&mut self) {
        self.channels.relieve();
    }

    /// Which shard gives up history, and which one idempotency keys, if one must.
    pub fn reliefs(&self) -> [Relief; 2] {
        self.channels.reliefs()
    }

    /// Reports what is kept, and what made room.
    pub fn measure(&self) {
        self.channels.measure(&self.metrics);
    }

    /// Number of channels that a shard is interested in or that keep history, and of publications
    /// that are not committed.
    pub fn len(&self) -> usize {
        self.channels.len() + self.prepared.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of users that are counted.
    pub fn users(&self) -> usize {
        self.users.len()
    }
}

/// Reserves room for an answer; the control plane has reserved its own.
fn reserve_for(post: &mut impl Post, reply_to: ReplyTo) -> bool {
    reply_to.shard().is_none_or(|shard| post.reserve(shard, Rank::Delivery))
}

/// Reserves room for one delivery to each of these shards, or to none.
fn reserve_all(post: &mut impl Post, shards: u64) -> Result<(), NoRoom> {
    for shard in endpoints(shards) {
        if !post.reserve(shard, Rank::Delivery) {
            cancel_all(post, shards & ((1 << shard) - 1));
            return Err(NoRoom);
        }
    }
    Ok(())
}

/// Gives the reservations of these shards back.
fn cancel_all(post: &mut impl Post, shards: u64) {
    endpoints(shards).for_each(|shard| post.cancel(shard, Rank::Delivery));
}
