//! Questions about who is in a channel, which may take many turns to answer.
//!
//! Owns the questions that wait, in their order. Never answers with members of different moments:
//! an answer is given in the turn in which it is complete. The invariant: what is encoded is kept
//! for the channels asked about last only.

use std::collections::VecDeque;

use crate::model::message::{ChannelQuery, HomeQuery, ReplyTo};
use crate::wire::protocol::Wire;

/// Questions that wait at most.
const WAITING_MAX: usize = 65_536;
/// Encoded answers that are kept for the next who ask.
const KEPT_MAX: usize = 2;

/// The questions that wait, and the answers that are kept.
#[derive(Default)]
pub(super) struct PresenceQueries {
    waiting: VecDeque<(HomeQuery, Wire)>,
    /// Channels and encodings whose answers are kept, the latest last.
    kept: VecDeque<(u32, Wire)>,
}

impl PresenceQueries {
    /// A question about who is in a channel waits for its answer. `Err` gives it back: too many
    /// wait.
    pub(super) fn wait(&mut self, question: HomeQuery) -> Result<(), HomeQuery> {
        let ChannelQuery::Presence(wire) = question.about else { return Err(question) };
        if self.waiting.len() >= WAITING_MAX {
            return Err(question);
        }
        self.waiting.push_back((question, wire));
        Ok(())
    }

    /// Number of questions that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The question that is answered next, and the encoding of its answer.
    pub(super) fn first(&self) -> Option<(&HomeQuery, Wire)> {
        self.waiting.front().map(|(question, wire)| (question, *wire))
    }

    /// Who asked the question that is answered next.
    pub(super) fn first_reply_to(&self) -> Option<ReplyTo> {
        self.waiting.front().map(|(question, _)| question.reply_to)
    }

    /// The first question is answered.
    pub(super) fn drop_first(&mut self) {
        self.waiting.pop_front();
    }

    /// The other questions come first: the asker's shard has no room.
    pub(super) fn postpone_first(&mut self) {
        if let Some(first) = self.waiting.pop_front() {
            self.waiting.push_back(first);
        }
    }

    /// Keeps what was encoded for a channel; returns what is to be dropped instead, if anything.
    pub(super) fn keep(&mut self, at: u32, wire: Wire) -> Option<(u32, Wire)> {
        if self.kept.back() == Some(&(at, wire)) {
            return None;
        }
        self.kept.retain(|kept| *kept != (at, wire));
        self.kept.push_back((at, wire));
        if self.kept.len() > KEPT_MAX { self.kept.pop_front() } else { None }
    }
}
