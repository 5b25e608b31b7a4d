//! Streams on disk whose channels are no longer durable: what has expired of them is removed.
//!
//! Owns no state of its own: it is in [`Durable`](super::state::Durable). Never puts such a stream
//! into memory, where the channel may have another one, in another epoch.

use std::sync::Arc;

use crate::home::Home;
use crate::home::durable::sent::What;
use crate::home::durable::stored::{ERASED_MAX, Span};
use crate::home::durable::writes::WRITE_OVERHEAD;
use crate::model::message::Post;
use crate::model::storage::{
    LoadedStream, StoreAnswer, StoreFound, StoreQuery, StreamChange, StreamRecord,
};

/// Stands for the index of a channel in questions and writes that concern no channel in memory.
pub(super) const LEFTOVER: u32 = u32::MAX;
/// Maximum number of questions that are not answered. The store asks again for what is left out.
const QUESTIONS_MAX: usize = 256;

impl Home {
    /// Asks the store for a stream, to remove what is before the offset `first` or has expired.
    pub(super) fn ask_leftover(&mut self, post: &mut impl Post, channel: Arc<str>, first: u64) {
        if self.durable.leftovers.len() >= QUESTIONS_MAX {
            return;
        }
        let query = StoreQuery::Load { limit: 0, bytes: 0 };
        if let Some(question) = self.send_question(post, (LEFTOVER, channel), query) {
            self.durable.leftovers.insert(question, first);
        }
    }

    /// Removes what the answer shows, if there is room: otherwise the store asks again.
    pub(super) fn leftover_answered(
        &mut self,
        post: &mut impl Post,
        question: u32,
        answer: StoreAnswer,
    ) {
        let Some(first) = self.durable.leftovers.remove(&question) else { return };
        let Ok(StoreFound::Stream(loaded)) = answer.result else { return };
        if let Some(change) = removal(loaded, first)
            && self.reserve_upkeep(post)
        {
            let write = (What::Leftover, Span::default());
            self.post_write(post, (LEFTOVER, answer.channel), WRITE_OVERHEAD, write, change);
        }
    }
}

/// The change that removes what is before `first` or has expired; `None`: there is nothing.
fn removal(loaded: LoadedStream, first: u64) -> Option<StreamChange> {
    if loaded.has_ended {
        return Some(StreamChange::default());
    }
    let record = loaded.record?;
    let next = record.top.saturating_add(1);
    let (alive, due) = loaded.alive.unwrap_or((next, record.ends));
    let first = first.max(alive).max(record.first).min(next);
    let span =
        Span { top: record.top, first: record.first, bytes: record.bytes, ..Span::default() };
    let oldest = loaded.oldest.unwrap_or(first);
    if first == record.first && due == record.due && oldest >= first {
        return None;
    }
    let remains = Span { first, oldest, ..span }.remains(ERASED_MAX);
    // What remains then is removed by the store, because it is settled.
    let bytes = span.bytes_from(first);
    let due = if first == next { record.ends } else { due };
    let record = StreamRecord { first, settled: first, due, bytes, ..record };
    let erased = [remains, next..next];
    Some(StreamChange { record: Some(record), erased, ..StreamChange::default() })
}
