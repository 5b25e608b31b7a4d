//! What the home of a channel answers: the position and missed publications of a subscriber, and
//! queries for history, presence and positions.
//!
//! Owns nothing: the channels are in [`Channels`]. Never sends a message.

use crate::base::work_budget::WorkBudget;
use crate::home::channels::{Channels, HomeSettings};
use crate::home::durable::requests::Found;
use crate::home::history::Recovery;
use crate::home::members::Members;
use crate::model::message::{
    ChannelAnswer, ChannelQuery, HistoryRange, HomeQuery, ReplyTo, Subscribe, Subscribed,
};
use crate::model::namespaces::RecoveryMode;
use crate::model::publication::Publication;
use crate::wire::protocol::reply::PresenceList;
use crate::wire::protocol::{Error, Position};

impl Channels {
    /// Records the interest of the shard, and answers with the position and the missed
    /// publications.
    pub fn subscribe(
        &mut self,
        request: &Subscribe,
        now: u64,
        older: &[Publication],
    ) -> Subscribed {
        let at = self.find_or_insert(request.hash, &request.channel);
        self.channels[at as usize].interested |= 1 << request.subscriber.shard;
        let mut recovery = Recovery::default();
        let mode = request.terms.recovery_mode;
        // In cache mode no publication counts as missed.
        let strict = request.strict && mode == RecoveryMode::Stream;
        let position = request.stream_access.needs_stream().then(|| {
            let HomeSettings { recovery_limit, answer_bytes, .. } = self.settings;
            let stream = self.stream_now(Some(at), request.hash, now);
            match (request.since, mode) {
                (Some(since), RecoveryMode::Stream) => {
                    recovery = stream.recover(since, (recovery_limit, answer_bytes), older);
                }
                (Some(since), RecoveryMode::Cache) => {
                    let filter = request.filter.as_ref();
                    recovery = stream.recover_latest(since, filter, recovery_limit, older);
                }
                (None, _) => {}
            }
            stream.position()
        });
        Subscribed {
            channel: request.channel.clone(),
            hash: request.hash,
            subscriber: request.subscriber,
            encoding: request.encoding,
            filter: request.filter.clone(),
            stream_access: request.stream_access,
            was_recovering: request.was_recovering,
            recovered: recovery.recovered,
            strict,
            error: None,
            position: match request.since {
                Some(since) if recovery.recovered => {
                    position.map(|top| Position { offset: since.offset, ..top })
                }
                _ => position,
            },
            top: position,
            publications: recovery.publications,
            news: None,
        }
    }

    /// Answers a query about a channel. `stored` is what the store has found for it.
    pub fn answer_query(
        &mut self,
        question: &HomeQuery,
        now: u64,
        stored: Option<&Found>,
    ) -> Result<ChannelAnswer, Error> {
        let found = self.find(question.hash, &question.channel);
        match &question.query {
            ChannelQuery::Stats => {
                let channel = found.and_then(|at| self.channels.get(at as usize));
                let members = channel.and_then(|channel| channel.members.as_deref());
                Ok(ChannelAnswer::Stats(members.map(Members::stats).unwrap_or_default()))
            }
            // Presence queries are queued: see `Channels::queue_presence_query`.
            ChannelQuery::Presence(_) => Err(Error::INTERNAL),
            ChannelQuery::Position => {
                Ok(ChannelAnswer::Position(self.stream_now(found, question.hash, now).position()))
            }
            ChannelQuery::Latest => Ok(self.latest(found, now, Found::older(stored))),
            ChannelQuery::History(range) => self.read_history(question, range, now, stored),
            // Only the store asks for it, of durable channels: see `Home::trim_durable`.
            ChannelQuery::TrimHistory(_) => Err(Error::INTERNAL),
            ChannelQuery::RemoveHistory => {
                found.into_iter().for_each(|at| self.clear_history(at));
                Ok(ChannelAnswer::HistoryRemoved)
            }
        }
    }

    /// Reads a range of the history.
    fn read_history(
        &mut self,
        question: &HomeQuery,
        range: &HistoryRange,
        now: u64,
        stored: Option<&Found>,
    ) -> Result<ChannelAnswer, Error> {
        if stored.is_some_and(|stored| stored.publications.is_none()) {
            return Err(Error::LIMIT_EXCEEDED);
        }
        let answer_bytes = self.settings.answer_bytes;
        let found = self.find(question.hash, &question.channel);
        let stream = self.stream_now(found, question.hash, now);
        let same_life = |since: Position| since.epoch.is_unset() || since.epoch == stream.epoch();
        if !range.since.is_none_or(same_life) {
            return Err(Error::UNRECOVERABLE_POSITION);
        }
        let Some(publications) = stream.read_range(range, answer_bytes, Found::older(stored))
        else {
            return Err(Error::LIMIT_EXCEEDED);
        };
        Ok(ChannelAnswer::History(publications, stream.position()))
    }

    /// Queues a presence query. `Err` returns it: the queue is full.
    pub fn queue_presence_query(&mut self, question: HomeQuery) -> Result<(), HomeQuery> {
        self.presence_queries.wait(question)
    }

    /// Number of waiting presence queries.
    pub fn presence_queries(&self) -> usize {
        self.presence_queries.waiting()
    }

    /// Where the answer to the next query goes.
    pub fn first_reply_to(&self) -> Option<ReplyTo> {
        self.presence_queries.first_reply_to()
    }

    /// Removes the first query after its answer.
    pub fn drop_first(&mut self) {
        self.presence_queries.drop_first();
    }

    /// Moves the first query to the end: its inbox is full.
    pub fn postpone_first(&mut self) {
        self.presence_queries.postpone_first();
    }

    /// Continues the answer to the first query; `None`: it is not complete yet.
    pub fn encode_first_presence(
        &mut self,
        budget: &mut WorkBudget,
    ) -> Option<Result<ChannelAnswer, Error>> {
        let (question, wire) = self.presence_queries.first()?;
        let found = self.find(question.hash, &question.channel);
        let found = found.and_then(|at| Some((at, self.channels.get_mut(at as usize)?)));
        let Some((at, Some(members))) = found.map(|(at, found)| (at, found.members.as_mut()))
        else {
            return Some(Ok(ChannelAnswer::Presence(PresenceList::default())));
        };
        let most = self.settings.answer_bytes;
        if members.bytes() > most {
            return Some(Err(Error::LIMIT_EXCEEDED));
        }
        let roll = members.encode_presence(wire, &self.ids, budget);
        if members.encoded(wire) > most {
            members.drop_encoded(wire);
            return Some(Err(Error::LIMIT_EXCEEDED));
        }
        if let Some((old, wire)) = self.presence_queries.keep(at, wire)
            && let Some(channel) = self.channels.get_mut(old as usize)
            && let Some(members) = channel.members.as_mut()
        {
            members.drop_encoded(wire);
        }
        roll.map(|roll| Ok(ChannelAnswer::Presence(roll)))
    }
}
