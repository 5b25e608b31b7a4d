//! A durable stream: what of it is in memory, what only the store has, and its record on disk.
//!
//! Owns no state of its own: it is in [`Stream`]. Never sends a message. The invariant: the
//! publications of the history are those from [`StoredPart::first`] to the top.

use std::ops::Range;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::home::durable::stored::{Span, StoredPart, Times};
use crate::home::history::Stream;
use crate::model::message::HistoryRange;
use crate::model::namespaces::RecoveryMode;
use crate::model::storage::{LoadedStream, StreamRecord};
use crate::wire::protocol::Position;

impl Stream {
    /// Whether publications that only the store has may have expired.
    pub fn is_due(&self, now: u64) -> bool {
        !self.only_stored().is_empty() && self.stored().is_some_and(|stored| stored.due <= now)
    }

    /// The history begins with the oldest publication that is alive, of those before `end` that
    /// only the store had: the store has found its offset and its expiry. `None`: they have all
    /// expired.
    pub fn begin_at_alive(&mut self, end: u64, alive: Option<(u64, u64)>, times: Times) {
        let (first_kept, ends) = (self.first_kept(), self.ends());
        let in_memory = self.first_expires().unwrap_or(ends);
        let Some(stored) = self.stored_mut() else { return };
        let alive = alive.map(|(first, expires)| (first, times.moment_of(expires)));
        // What left memory meanwhile is looked for at once.
        let (first, due) = alive.unwrap_or((end, times.now));
        stored.first = stored.first.max(first);
        stored.due = if first_kept <= stored.first { in_memory } else { due };
    }

    /// The stream that the store has, without publications in memory.
    pub fn of_record(loaded: &LoadedStream, times: Times, meta_ttl: u64) -> Stream {
        let LoadedStream { record, recorded, epoch, oldest, alive, .. } = loaded;
        let is_recorded = record.is_some();
        let (top, ends, version) = match record {
            Some(record) => (record.top, record.ends, record.version.clone()),
            None => (0, times.unix.saturating_add(meta_ttl), None),
        };
        let next = top + 1;
        let (first, due) = alive.map_or((next, ends), |(first, due)| (first.min(next), due));
        let oldest = oldest.unwrap_or(first).min(first);
        let due = times.moment_of(due);
        let recorded_span = record.as_ref().map_or_else(Span::default, |record| {
            let StreamRecord { top, first, bytes, .. } = *record;
            Span { top, first, bytes, ..Span::default() }
        });
        let bytes = recorded_span.bytes_from(first);
        let stored = StoredPart {
            first,
            oldest,
            sent: Span { top, first, oldest, due, bytes },
            bytes,
            is_uncertain: record.as_ref().is_some_and(|record| record.first != first),
            is_recorded,
            recorded: *recorded,
            ends: record.as_ref().map_or(0, |record| record.ends),
            due,
            ..StoredPart::default()
        };
        let position = Position { offset: top, epoch: *epoch };
        let mut stream = Stream::loaded(position, times.moment_of(ends), stored);
        if let Some((version, life)) = version.as_deref() {
            stream.set_version(*version, life);
        }
        stream
    }

    /// The offsets of the publications that only the store has.
    pub fn only_stored(&self) -> Range<u64> {
        let end = self.first_kept();
        let first = self.stored().map_or(end, |stored| stored.first);
        first.min(end)..end
    }

    /// The stream as it is committed.
    pub fn span(&self) -> Span {
        let top = self.position().offset;
        let empty = Span { top, first: top + 1, oldest: top + 1, ..Span::default() };
        self.stored().map_or(empty, |stored| {
            let StoredPart { first, oldest, due, bytes, .. } = *stored;
            Span { top, first, oldest, due, bytes }
        })
    }

    /// The record of the stream after a write. After a new publication the stream ends at
    /// `new_end`, in unix time, unless an earlier write has given it a later end.
    pub fn record(&self, after: Span, new_end: Option<u64>, times: Times) -> StreamRecord {
        let sent_end = self.stored().map_or(0, |stored| stored.ends);
        // Before the first publication is committed, memory keeps the stream for a time of its own.
        let is_begun = sent_end > 0 && self.position().offset == 0;
        let in_memory = || if is_begun { sent_end } else { times.unix_of(self.ends()) };
        let ends = new_end.unwrap_or_else(in_memory).max(sent_end);
        let due = if after.first > after.top { ends } else { times.unix_of(after.due) };
        let version = self.sent_version().map(|version| Box::new(version.clone()));
        let Span { top, first, .. } = after;
        let settled = match planted(PlantedFault::UnsettledRemoved) {
            true => first,
            false => self.stored().map_or(0, |stored| stored.first),
        };
        let bytes = after.bytes;
        StreamRecord { epoch: self.epoch(), top, first, settled, ends, due, bytes, version }
    }

    /// The version of the stream after the writes that were sent, which the next record carries.
    pub fn sent_version(&self) -> Option<&(u64, Box<str>)> {
        let sent = self.stored().and_then(|stored| stored.sent_version.as_deref());
        let sent = sent.filter(|_| !planted(PlantedFault::VersionNotStored));
        sent.or_else(|| self.version())
    }

    /// When the publication at `first`, which begins the history after the writes that were sent,
    /// expires, or earlier: memory may not have it.
    pub fn sent_due(&self, first: u64) -> u64 {
        let Some(stored) = self.stored() else { return 0 };
        // Otherwise no write that was sent and is not committed has changed the begin.
        let begins_anew = stored.sent.first > stored.first.min(self.position().offset);
        let in_memory = self.first_expires().filter(|_| first >= self.first_kept());
        in_memory.unwrap_or(if begins_anew { stored.sent.due } else { stored.due })
    }

    /// The publications that only the store has and that a recovery needs.
    pub fn missing_for_recovery(
        &self,
        since: Position,
        mode: RecoveryMode,
        (filtered, limit): (bool, usize),
    ) -> Option<Range<u64>> {
        let only_stored = self.only_stored();
        if only_stored.is_empty() {
            return None;
        }
        if mode == RecoveryMode::Cache {
            // Without a filter the latest publication is enough.
            let wanted = if filtered { limit } else { 1 };
            let missing = wanted.saturating_sub(self.len()) as u64;
            let from = only_stored.start.max(only_stored.end.saturating_sub(missing));
            return (from < only_stored.end).then_some(from..only_stored.end);
        }
        let same_life = since.epoch.is_unset() || since.epoch == self.epoch();
        let missed = self.position().offset.checked_sub(since.offset)?;
        let from = since.offset + 1;
        let is_kept = same_life && missed <= limit as u64 && from >= only_stored.start;
        (is_kept && from < only_stored.end).then_some(from..only_stored.end)
    }

    /// The publications that only the store has and that a read of the history needs, and their
    /// maximum number.
    pub fn missing_for_range(&self, range: &HistoryRange) -> Option<(Range<u64>, usize)> {
        let only_stored = self.only_stored();
        let next = self.next_offset();
        let since = range.since.map(|since| since.offset);
        let (missing, limit) = if range.reverse {
            let end = since.unwrap_or(next);
            let in_memory =
                usize::try_from(end.saturating_sub(only_stored.end)).unwrap_or(usize::MAX);
            let end = if end > next { only_stored.start } else { end.min(only_stored.end) };
            (only_stored.start..end, range.limit.saturating_sub(in_memory))
        } else {
            let from = since.map_or(0, |since| since.saturating_add(1)).max(only_stored.start);
            (from..only_stored.end, range.limit)
        };
        (!missing.is_empty() && limit > 0).then_some((missing, limit))
    }
}
