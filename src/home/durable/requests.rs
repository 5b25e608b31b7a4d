//! The requests that wait for the store, and what they wait for.
//!
//! Owns the types. Never asks the store. The invariant: a request that is not about a durable
//! stream waits only behind one that is.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::model::message::{ChannelQuery, MemberUpdate, Message, Publish, Subscribe};
use crate::model::publication::Publication;
use crate::model::storage::StoreQuery;

/// Maximum number of publications that a load brings into memory.
const LOADED_MAX: usize = 100;
/// Maximum bytes of these publications.
const LOADED_BYTES: usize = 64 * 1024;

/// The requests of one channel that wait for the store.
pub struct ChannelWait {
    /// Number of the question that the store answers.
    pub(super) question: u32,
    pub(super) state: WaitState,
    /// Number of questions for the first request.
    pub(super) asked: u32,
    pub(super) requests: VecDeque<(Message, usize)>,
}

impl ChannelWait {
    /// Changes what the newest subscribe of a connection that waits tells of its client. Returns
    /// the bytes of the subscribe before and after.
    pub(super) fn update_member(&mut self, update: &MemberUpdate) -> (usize, usize) {
        let subscribe = |(message, bytes)| match message {
            &mut Message::Subscribe(ref mut request) => Some((request, bytes)),
            _ => None,
        };
        let mut waiting = self.requests.iter_mut().rev().map(|one| (&mut one.0, &mut one.1));
        let is_same = |request: &Subscribe| request.subscriber.address() == update.address;
        let found = waiting.find_map(|one| subscribe(one).filter(|(found, _)| is_same(found)));
        let Some((Some(info), bytes)) = found.map(|(found, bytes)| (found.info.as_mut(), bytes))
        else {
            return (0, 0);
        };
        let before = *bytes;
        *bytes = before.saturating_sub(info.size()) + update.info.size();
        **info = update.info.clone();
        (before, *bytes)
    }
}

/// What the first request waits for.
pub(super) enum WaitState {
    /// Room in the store's inbox, for this question.
    Room(StoreQuery),
    /// The answer of the store to this question about offsets, or to a load.
    Answer(Option<Range<u64>>),
    /// Nothing: it continues when the inboxes have room.
    Nothing(Option<Found>),
    /// Nothing: the store cannot answer.
    Refused,
}

/// What the store has found for the first request of a channel.
pub struct Found {
    /// The offsets of the question.
    pub(super) offsets: Range<u64>,
    /// The publications, oldest first; `None`: they have more bytes than an answer may have.
    pub publications: Option<Vec<Publication>>,
}

impl Found {
    /// The publications, if a request may have them.
    pub fn older(found: Option<&Found>) -> &[Publication] {
        found.and_then(|found| found.publications.as_deref()).unwrap_or_default()
    }

    /// Whether this is all that a request needs of the store. `most` is the number of publications
    /// that are enough, if they are not needed up to those in memory: the store gives no more.
    /// Those before the missing ones have left the history meanwhile.
    pub(super) fn has(&self, missing: &Range<u64>, most: Option<usize>) -> bool {
        let is_kept = |one: &&Publication| one.offset() >= Some(missing.start);
        let (all, kept) = match &self.publications {
            Some(found) => (found.len(), found.iter().filter(is_kept).count()),
            None => (0, usize::MAX),
        };
        let is_cut = most.is_some_and(|most| all >= most);
        let is_whole = self.offsets.end >= missing.end && !is_cut;
        is_whole || most.is_some_and(|most| kept >= most)
    }
}

/// The question for a stream that is not in memory.
pub(super) fn load() -> StoreQuery {
    StoreQuery::Load { limit: LOADED_MAX, bytes: LOADED_BYTES }
}

/// Whether the store keeps a publication.
pub(super) fn is_durable(request: &Publish) -> bool {
    request.retention.is_some_and(|retention| retention.durable)
}

/// Whether a request is about the stream of a durable channel.
pub(in crate::home) fn needs_stream(message: &Message) -> bool {
    match message {
        Message::Publish(request) => is_durable(request),
        Message::Subscribe(request) => {
            request.terms.durable && request.stream_access.needs_stream()
        }
        Message::HomeQuery(question) => {
            let presence =
                matches!(question.query, ChannelQuery::Presence(_) | ChannelQuery::Stats);
            question.durable && !presence
        }
        _ => false,
    }
}

/// The channel of a message that may not overtake a request of the channel.
pub(in crate::home) fn channel_of(message: &Message) -> Option<(&Arc<str>, u64)> {
    match message {
        Message::Publish(request) if request.retention.is_some() => {
            Some((&request.channel, request.hash))
        }
        Message::Subscribe(request) => Some((&request.channel, request.hash)),
        Message::HomeQuery(question) => match question.query {
            ChannelQuery::Presence(_) | ChannelQuery::Stats => None,
            _ => Some((&question.channel, question.hash)),
        },
        Message::Leave(leave) => Some((&leave.channel, leave.hash)),
        Message::MemberUpdate(update) => Some((&update.channel, update.hash)),
        _ => None,
    }
}

/// Bytes of the texts and the data of a request.
pub(super) fn bytes_of(message: &Message) -> usize {
    match message {
        Message::Publish(request) => request.size(),
        // Filters have a budget of their own.
        Message::Subscribe(request) => request.info.as_ref().map_or(0, |info| info.size()),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::publication::NewPublication;
    use crate::wire::protocol::{Epoch, Position};

    /// The answer to a question about `offsets`, of which the store has found some.
    fn answer(offsets: Range<u64>, found: Range<u64>) -> Found {
        let publication = |offset| {
            let position = Some(Position { offset, epoch: Epoch::from_random(1) });
            Publication::new(NewPublication { position, ..NewPublication::default() })
        };
        Found { offsets, publications: Some(found.map(publication).collect()) }
    }

    #[test]
    fn an_answer_that_its_limit_cut_is_not_whole_when_the_history_moves_on() {
        let found = answer(40..44, 40..42);
        assert!(found.has(&(40..44), Some(2)));
        assert!(!found.has(&(41..44), Some(2)), "42 and 43 are on disk alone");
        assert!(found.has(&(41..44), Some(1)));
    }

    #[test]
    fn an_answer_without_a_cut_is_whole_up_to_its_last_offset() {
        let found = answer(40..44, 40..44);
        assert!(found.has(&(42..44), Some(5)) && found.has(&(42..44), None));
        assert!(!found.has(&(42..45), Some(5)) && !found.has(&(42..45), None));
    }
}
