//! The queue of presence queries; one answer can take many turns.
//!
//! Owns the waiting queries in order. An answer is sent in the turn in which it is complete, so it
//! never mixes members of different moments. The invariant: encoded answers are kept only for the
//! channels that were queried last.

use std::collections::VecDeque;

use crate::model::message::{ChannelQuery, HomeQuery, ReplyTo};
use crate::wire::protocol::Wire;

/// Maximum number of waiting queries.
const WAITING_MAX: usize = 65_536;
/// Number of encoded answers that are kept for later queries.
const KEPT_MAX: usize = 2;

/// Waiting queries, and the list of kept answers.
#[derive(Default)]
pub(super) struct PresenceQueries {
    waiting: VecDeque<(HomeQuery, Wire)>,
    /// Channels and encodings of the kept answers, the latest last.
    kept: VecDeque<(u32, Wire)>,
}

impl PresenceQueries {
    /// Queues a presence query. `Err` returns it: the queue is full.
    pub(super) fn wait(&mut self, question: HomeQuery) -> Result<(), HomeQuery> {
        let ChannelQuery::Presence(wire) = question.query else { return Err(question) };
        if self.waiting.len() >= WAITING_MAX {
            return Err(question);
        }
        self.waiting.push_back((question, wire));
        Ok(())
    }

    /// Number of waiting queries.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The query to answer next, and the encoding of its answer.
    pub(super) fn first(&self) -> Option<(&HomeQuery, Wire)> {
        self.waiting.front().map(|(question, wire)| (question, *wire))
    }

    /// Where the answer to the next query goes.
    pub(super) fn first_reply_to(&self) -> Option<ReplyTo> {
        self.waiting.front().map(|(question, _)| question.reply_to)
    }

    /// Removes the first query after its answer.
    pub(super) fn drop_first(&mut self) {
        self.waiting.pop_front();
    }

    /// Moves the first query to the end: its inbox is full.
    pub(super) fn postpone_first(&mut self) {
        if let Some(first) = self.waiting.pop_front() {
            self.waiting.push_back(first);
        }
    }

    /// Notes that the encoded answer of a channel is kept. Returns the answer to drop instead, if
    /// any.
    pub(super) fn keep(&mut self, at: u32, wire: Wire) -> Option<(u32, Wire)> {
        if self.kept.back() == Some(&(at, wire)) {
            return None;
        }
        self.kept.retain(|kept| *kept != (at, wire));
        self.kept.push_back((at, wire));
        if self.kept.len() > KEPT_MAX { self.kept.pop_front() } else { None }
    }
}
