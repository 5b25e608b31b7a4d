//! Questions about who is in a channel, which may take many turns to answer.
//!
//! Owns the questions that wait, in their order. Never answers with members of different moments:
//! an answer is given in the turn in which it is complete. The invariant: what is encoded is kept
//! for the channels asked about last only.

use std::collections::VecDeque;

use crate::base::budget::Budget;
use crate::home::Homes;
use crate::model::message::{About, Asker, Question, Told};
use crate::wire::protocol::reply::Roll;
use crate::wire::protocol::{Error, Wire};

/// Questions that wait at most.
const WAITING_MAX: usize = 65_536;
/// Encoded answers that are kept for the next who ask.
const KEPT_MAX: usize = 2;

/// The questions that wait, and the answers that are kept.
#[derive(Default)]
pub(super) struct Rolls {
    waiting: VecDeque<(Question, Wire)>,
    /// Channels and encodings whose answers are kept, the latest last.
    kept: VecDeque<(u32, Wire)>,
}

impl Homes {
    /// A question about who is in a channel waits for its answer. `Err` gives it back: too many
    /// wait.
    pub fn await_roll(&mut self, question: Question) -> Result<(), Question> {
        let About::Presence(wire) = question.about else { return Err(question) };
        if self.rolls.waiting.len() >= WAITING_MAX {
            return Err(question);
        }
        self.rolls.waiting.push_back((question, wire));
        Ok(())
    }

    /// Number of questions that wait.
    pub fn waiting_rolls(&self) -> usize {
        self.rolls.waiting.len()
    }

    /// Who asked the question that is answered next.
    pub fn first_asker(&self) -> Option<Asker> {
        self.rolls.waiting.front().map(|(question, _)| question.asker)
    }

    /// The first question is answered, or its asker is gone.
    pub fn drop_first(&mut self) {
        self.rolls.waiting.pop_front();
    }

    /// The others come first: the asker's shard has no room.
    pub fn postpone_first(&mut self) {
        if let Some(first) = self.rolls.waiting.pop_front() {
            self.rolls.waiting.push_back(first);
        }
    }

    /// Goes on with the answer to the first question; `None`: there is more to do.
    pub fn first_roll(&mut self, budget: &mut Budget) -> Option<Result<Told, Error>> {
        let (question, wire) = self.rolls.waiting.front()?;
        let (wire, found) = (*wire, self.find(question.hash, &question.channel));
        let found = found.and_then(|at| Some((at, self.channels.get_mut(at as usize)?)));
        let Some((at, Some(members))) = found.map(|(at, found)| (at, found.members.as_mut()))
        else {
            return Some(Ok(Told::Presence(Roll::default())));
        };
        let most = self.settings.answer_bytes;
        if members.bytes() > most {
            return Some(Err(Error::LIMIT_EXCEEDED));
        }
        let roll = members.roll(wire, &self.ids, budget);
        if members.encoded(wire) > most {
            members.forget_roll(wire);
            return Some(Err(Error::LIMIT_EXCEEDED));
        }
        self.keep_roll(at, wire);
        roll.map(|roll| Ok(Told::Presence(roll)))
    }

    /// Keeps what was encoded for a channel, and drops what was kept longest.
    fn keep_roll(&mut self, at: u32, wire: Wire) {
        if self.rolls.kept.back() == Some(&(at, wire)) {
            return;
        }
        self.rolls.kept.retain(|kept| *kept != (at, wire));
        self.rolls.kept.push_back((at, wire));
        if self.rolls.kept.len() > KEPT_MAX
            && let Some((old, wire)) = self.rolls.kept.pop_front()
            && let Some(channel) = self.channels.get_mut(old as usize)
            && let Some(members) = channel.members.as_mut()
        {
            members.forget_roll(wire);
        }
    }
}
