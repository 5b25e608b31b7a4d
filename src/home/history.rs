//! The stream of a channel: its epoch, its top offset and the kept publications.
//!
//! Owns the publications in memory. Never reads a clock. The invariant: the kept offsets are
//! consecutive and end at the top, so a recovery has no gap or is refused. Of a durable stream, the
//! store has older publications than memory; a request that needs them hands them over, and they
//! count as kept while it is answered.

use std::collections::VecDeque;

use crate::home::durable::stored::{StoredPart, Times};
use crate::model::latest::Latest;
use crate::model::message::HistoryRange;
use crate::model::publication::Publication;
use crate::model::retention::Retention;
use crate::model::storage::StreamRecord;
use crate::wire::filter::Filter;
use crate::wire::protocol::{Epoch, Position};

struct HistoryEntry {
    publication: Publication,
    expires: u64,
}

impl HistoryEntry {
    /// Bytes of memory of this entry.
    fn size(&self) -> usize {
        // The queue doubles when it grows; 48 is for allocator and reference counts.
        2 * size_of::<HistoryEntry>() + 48 + self.publication.size()
    }
}

/// The publications of a channel in one epoch.
pub struct Stream {
    epoch: Epoch,
    top: u64,
    kept: VecDeque<HistoryEntry>,
    /// Bytes of the kept publications.
    bytes: usize,
    /// Version of the latest publication and the version epoch, as the application gave them.
    version: Option<Box<(u64, Box<str>)>>,
    /// When the stream ends and its epoch and top offset are dropped.
    expires: u64,
    /// What the store has of the stream; `None`: the stream is in memory alone.
    stored: Option<Box<StoredPart>>,
}

/// The result of a recovery.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Whether `publications` contains everything that was missed.
    pub recovered: bool,
    /// The publications after the requested offset, up to the top.
    pub publications: Vec<Publication>,
}

impl Stream {
    /// An empty stream in a new epoch.
    pub fn new(epoch: Epoch, retention: &Retention, now: u64) -> Self {
        let expires = now + retention.meta_ttl;
        Stream { expires, ..Stream::empty(epoch) }
    }

    /// A stream that the store has, without publications in memory.
    pub fn loaded(position: Position, expires: u64, stored: StoredPart) -> Self {
        let (top, stored) = (position.offset, Some(Box::new(stored)));
        Stream { top, expires, stored, ..Stream::empty(position.epoch) }
    }

    /// A stream that was in memory before a restart, without its publications.
    pub fn restored(record: &StreamRecord, times: Times) -> Self {
        let StreamRecord { epoch, top, ends, version, .. } = record;
        let (expires, version) = (times.moment_of(*ends), version.clone());
        Stream { top: *top, expires, version, ..Stream::empty(*epoch) }
    }

    /// The empty stream of a channel without publications; read only.
    pub fn empty(epoch: Epoch) -> Self {
        Stream {
            epoch,
            top: 0,
            kept: VecDeque::new(),
            bytes: 0,
            version: None,
            expires: u64::MAX,
            stored: None,
        }
    }

    /// The current position.
    pub fn position(&self) -> Position {
        Position { offset: self.top, epoch: self.epoch }
    }

    /// The offset that the next publication gets.
    pub fn next_offset(&self) -> u64 {
        self.top + 1
    }

    /// Offset of the oldest publication in memory; the next offset if there is none.
    pub fn first_kept(&self) -> u64 {
        self.next_offset().saturating_sub(self.kept.len() as u64)
    }

    /// When the oldest publication in memory expires.
    pub fn first_expires(&self) -> Option<u64> {
        self.kept.front().map(|kept| kept.expires)
    }

    /// When the stream ends.
    pub fn ends(&self) -> u64 {
        self.expires
    }

    /// What the store has of the stream, if it is durable.
    pub fn stored(&self) -> Option<&StoredPart> {
        self.stored.as_deref()
    }

    /// Like [`Stream::stored`], to change it.
    pub fn stored_mut(&mut self) -> Option<&mut StoredPart> {
        self.stored.as_deref_mut()
    }

    /// Version of the latest publication and the version epoch.
    pub fn version(&self) -> Option<&(u64, Box<str>)> {
        self.version.as_deref()
    }

    /// Puts older publications, with the times at which they expire, before the kept ones, as far
    /// as they are consecutive and belong to the history.
    pub fn prepend(&mut self, older: Vec<(Publication, u64)>) {
        let first = self.stored().map_or(1, |stored| stored.first);
        for (publication, expires) in older.into_iter().rev() {
            let offset = publication.offset().unwrap_or(0);
            if offset + 1 == self.first_kept() && offset >= first {
                let kept = HistoryEntry { publication, expires };
                self.bytes += kept.size();
                self.kept.push_front(kept);
            }
        }
    }

    /// Adds a publication whose offset is the next one.
    pub fn push(&mut self, publication: Publication, retention: &Retention, now: u64) {
        assert_eq!(publication.offset(), Some(self.top + 1), "offsets are consecutive");
        self.expire(now);
        let earlier_end = if self.top > 0 { self.expires } else { 0 };
        self.top += 1;
        let kept = HistoryEntry { publication, expires: now + retention.ttl };
        self.bytes += kept.size();
        self.kept.push_back(kept);
        while self.kept.len() > retention.size {
            self.drop_oldest();
        }
        // The earlier end is later if the clock was set back between two starts. The history may
        // have publications that expire after the new end.
        self.expires = earlier_end.max(now + retention.meta_ttl);
    }

    /// Drops expired publications; returns whether the stream itself has expired.
    pub fn expire(&mut self, now: u64) -> bool {
        self.expire_some(now, usize::MAX)
    }

    /// Like [`Stream::expire`], for at most `most` publications. The stream has not expired while
    /// expired publications are left.
    pub fn expire_some(&mut self, now: u64, most: usize) -> bool {
        for _ in 0..most {
            if self.kept.front().is_none_or(|kept| kept.expires > now) {
                return self.expires <= now;
            }
            self.drop_oldest();
            self.end_history_at_oldest();
        }
        false
    }

    /// The history begins with the oldest publication in memory: earlier ones have expired or are
    /// too many.
    fn end_history_at_oldest(&mut self) {
        let first = self.first_kept();
        let due = self.first_expires().unwrap_or(self.expires);
        if let Some(stored) = self.stored_mut()
            && stored.first <= first
        {
            (stored.first, stored.due) = (first, due);
        }
    }

    /// The newest kept publication below an offset, and when it expires.
    pub fn newest_below(&self, offset: u64) -> Option<(&Publication, u64)> {
        let newer = self.next_offset().saturating_sub(offset);
        let at = self.kept.len().checked_sub(usize::try_from(newer).ok()?)?.checked_sub(1)?;
        self.kept.get(at).map(|kept| (&kept.publication, kept.expires))
    }

    /// The newest kept publication.
    pub fn latest(&self) -> Option<Latest> {
        let newest = self.kept.back()?;
        Some(Latest { publication: newest.publication.clone(), expires: newest.expires })
    }

    /// Number of kept publications.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether no publication is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn drop_oldest(&mut self) {
        self.bytes -= self.kept.pop_front().map_or(0, |kept| kept.size());
    }

    /// Drops the publications before `first`.
    pub fn trim(&mut self, first: u64) {
        while !self.kept.is_empty() && self.first_kept() < first {
            self.drop_oldest();
        }
    }

    /// Drops the oldest publications until `bytes` are freed or none is left; returns their number.
    pub fn shed(&mut self, bytes: usize) -> usize {
        let (kept, enough) = (self.kept.len(), self.bytes.saturating_sub(bytes));
        while self.bytes > enough {
            self.drop_oldest();
        }
        kept - self.kept.len()
    }

    /// Bytes of memory of the kept publications.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When [`Stream::expire`] has something to do next.
    pub fn next_expiry(&self) -> u64 {
        let in_memory = self.kept.front().map_or(self.expires, |kept| kept.expires);
        let stored = self.stored().filter(|_| !self.only_stored().is_empty());
        stored.map_or(in_memory, |stored| stored.due.min(in_memory))
    }

    /// Those of `older` that belong to the history and are not in memory, oldest first.
    fn older<'a>(
        &self,
        older: &'a [Publication],
    ) -> impl DoubleEndedIterator<Item = &'a Publication> + use<'a> {
        let only_stored = self.only_stored();
        let offset = |publication: &&Publication| publication.offset().unwrap_or(0);
        older.iter().filter(move |publication| only_stored.contains(&offset(publication)))
    }

    /// Recovery in cache mode: the latest publication that passes the filter, or nothing if the
    /// subscriber is at the top already. The search looks at no more than `limit` publications.
    pub fn recover_latest(
        &self,
        since: Position,
        filter: Option<&Filter>,
        limit: usize,
        older: &[Publication],
    ) -> Recovery {
        let same_life = since.epoch.is_unset() || since.epoch == self.epoch;
        if same_life && since.offset == self.top && self.top > 0 {
            return Recovery { recovered: true, publications: Vec::new() };
        }
        let passes = |publication: &&Publication| {
            filter.is_none_or(|filter| filter.matches(publication.tags()))
        };
        let newest = self.kept.iter().rev().map(|kept| &kept.publication);
        let latest = newest.chain(self.older(older).rev()).take(limit).find(passes).cloned();
        Recovery { recovered: latest.is_some(), publications: latest.into_iter().collect() }
    }

    /// Whether this version is not newer than the latest one of the same version epoch.
    pub fn is_old(&self, version: u64, life: &str) -> bool {
        let last = self.version.as_deref().filter(|(_, one)| **one == *life);
        version > 0 && last.is_some_and(|(last, _)| version <= *last)
    }

    /// Stores the version of the latest publication.
    pub fn set_version(&mut self, version: u64, life: &str) {
        self.version = Some(Box::new((version, life.into())));
    }

    /// Removes the kept publications; epoch and top offset stay.
    pub fn clear(&mut self) {
        self.kept = VecDeque::new();
        self.bytes = 0;
        let next = self.next_offset();
        if let Some(stored) = self.stored_mut() {
            stored.first = next;
        }
    }

    /// Reads a range of the kept publications; `None`: it exceeds `bytes_max`. The range begins
    /// after `since.offset` in either direction; the caller has compared the epoch. The cost
    /// depends on the length of the range only. `older` is what the store has of the range.
    pub fn read_range(
        &self,
        range: &HistoryRange,
        bytes_max: usize,
        older: &[Publication],
    ) -> Option<Vec<Publication>> {
        let kept = self.kept.len();
        // The kept offsets are consecutive up to the top.
        let from_first = |offset: u64| {
            let first = (self.top + 1).saturating_sub(kept as u64);
            usize::try_from(offset.saturating_sub(first)).unwrap_or(kept).min(kept)
        };
        let indexes = match range.since.map(|since| since.offset) {
            None => 0..kept,
            // As in Centrifugo: a range before an offset that is not next begins nowhere.
            Some(since) if range.reverse && since > self.next_offset() => 0..0,
            Some(since) if range.reverse => 0..from_first(since),
            Some(since) => from_first(since.saturating_add(1))..kept,
        };
        let mut left = bytes_max;
        let take = |publication: &Publication| {
            left = left.checked_sub(publication.size())?;
            Some(publication.clone())
        };
        let since = range.since.map(|since| since.offset);
        let within = |publication: &&Publication| {
            let offset = publication.offset().unwrap_or(0);
            since.is_none_or(|since| if range.reverse { offset < since } else { offset > since })
        };
        let nowhere = range.reverse && since.is_some_and(|since| since > self.next_offset());
        let older = self.older(if nowhere { &[] } else { older }).filter(within);
        let part = self.kept.range(indexes).map(|kept| &kept.publication);
        if range.reverse {
            part.rev().chain(older.rev()).take(range.limit).map(take).collect()
        } else {
            older.chain(part).take(range.limit).map(take).collect()
        }
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The publications after `since`, if all of them are kept and within the limits. `older` is
    /// what the store has of them.
    pub fn recover(
        &self,
        since: Position,
        (limit, bytes_max): (usize, usize),
        older: &[Publication],
    ) -> Recovery {
        let another_life = !since.epoch.is_unset() && since.epoch != self.epoch;
        let missed = match self.top.checked_sub(since.offset) {
            Some(missed) if !another_life => missed as usize,
            _ => return Recovery::default(),
        };
        let in_memory = missed.min(self.kept.len());
        if missed > limit || (missed > in_memory && older.is_empty()) {
            return Recovery::default();
        }
        let older = self.older(older).filter(|one| one.offset() > Some(since.offset));
        let newer = self.kept.range(self.kept.len() - in_memory..).map(|kept| &kept.publication);
        let publications: Vec<Publication> = older.chain(newer).cloned().collect();
        if publications.len() != missed || Publication::total_size(&publications) > bytes_max {
            return Recovery::default();
        }
        Recovery { recovered: true, publications }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::publication::{NewPublication, PublicationExtra};
    use crate::wire::filter::{self, FilterNode};

    const RETENTION: Retention = Retention { size: 3, ttl: 100, meta_ttl: 1000, durable: false };

    fn stream(publications: u64) -> Stream {
        let mut stream = Stream::new(Epoch::parse("aaaaaaaa"), &RETENTION, 0);
        for offset in 1..=publications {
            let position = Some(Position { offset, epoch: stream.epoch });
            let draft =
                NewPublication { channel: "c", data: b"1", position, ..NewPublication::default() };
            stream.push(Publication::new(draft), &RETENTION, offset);
        }
        stream
    }

    fn check(since: u64, epoch: &str, expected: Option<&[u64]>) {
        let since = Position { offset: since, epoch: Epoch::parse(epoch) };
        let recovery = stream(5).recover(since, (10, 1 << 20), &[]);
        let offsets: Vec<u64> =
            recovery.publications.iter().filter_map(Publication::offset).collect();
        assert_eq!(recovery.recovered.then_some(&offsets[..]), expected, "{since:?}");
    }

    #[test]
    fn recovery_has_no_gap_or_is_refused() {
        check(5, "aaaaaaaa", Some(&[]));
        check(4, "aaaaaaaa", Some(&[5]));
        check(2, "aaaaaaaa", Some(&[3, 4, 5]));
        check(2, "", Some(&[3, 4, 5]));
        check(1, "aaaaaaaa", None);
        check(6, "aaaaaaaa", None);
        check(4, "bbbbbbbb", None);
    }

    #[test]
    fn history_ranges_are_read_in_both_directions() {
        let check = |limit, since: Option<u64>, reverse, expected: &[u64]| {
            let since = since.map(|offset| Position { offset, epoch: Epoch::default() });
            let range =
                stream(5).read_range(&HistoryRange { limit, since, reverse }, 1000, &[]).unwrap();
            let offsets: Vec<u64> = range.iter().filter_map(Publication::offset).collect();
            assert_eq!(offsets, expected, "{limit} {since:?} {reverse}");
        };
        check(10, None, false, &[3, 4, 5]);
        check(10, None, true, &[5, 4, 3]);
        check(2, None, false, &[3, 4]);
        check(2, None, true, &[5, 4]);
        check(10, Some(3), false, &[4, 5]);
        check(10, Some(4), true, &[3]);
        check(10, Some(5), false, &[]);
        check(0, None, false, &[]);
        check(10, Some(1), false, &[3, 4, 5]);
        check(10, Some(9), false, &[]);
        check(10, Some(6), true, &[5, 4, 3]);
        check(10, Some(7), true, &[]);
        check(10, Some(9), true, &[]);
        check(10, Some(2), true, &[]);
        check(10, Some(u64::MAX), false, &[]);
        let all = HistoryRange { limit: 9, ..HistoryRange::default() };
        assert!(stream(5).read_range(&all, stream(5).bytes() / 8, &[]).is_none());
    }

    #[test]
    fn recovery_in_cache_mode_returns_the_latest_publication() {
        let since = |offset, epoch| Position { offset, epoch: Epoch::parse(epoch) };
        let latest = |since| {
            let recovery = stream(5).recover_latest(since, None, 1, &[]);
            (recovery.recovered, recovery.publications.len())
        };
        assert_eq!(latest(since(1, "aaaaaaaa")), (true, 1));
        assert_eq!(latest(since(5, "aaaaaaaa")), (true, 0));
        assert_eq!(latest(since(5, "bbbbbbbb")), (true, 1));
        let mut empty = stream(5);
        empty.clear();
        assert_eq!(empty.bytes(), 0);
        assert!(!empty.recover_latest(since(1, ""), None, 1, &[]).recovered);
        assert_eq!(empty.position().offset, 5);
    }

    #[test]
    fn recovery_in_cache_mode_searches_a_bounded_part_for_the_filter() {
        let node = FilterNode {
            key: "k".into(),
            cmp: "eq".into(),
            val: "a".into(),
            ..FilterNode::default()
        };
        let filter = filter::compile(&node).unwrap();
        let epoch = Epoch::parse("aaaaaaaa");
        let retention = Retention { size: 10, ..RETENTION };
        let mut stream = Stream::new(epoch, &retention, 0);
        for (offset, tag) in (1..).zip(["a", "b", "a", "b", "b"]) {
            let tags = [("k".into(), tag.into())].into();
            let extra = Some(Arc::new(PublicationExtra { tags, ..PublicationExtra::default() }));
            let position = Some(Position { offset, epoch });
            let draft = NewPublication {
                channel: "c",
                data: b"1",
                extra,
                position,
                ..NewPublication::default()
            };
            stream.push(Publication::new(draft), &retention, 0);
        }
        let latest = |offset, limit| {
            let since = Position { offset, epoch };
            let recovery = stream.recover_latest(since, Some(&filter), limit, &[]);
            let offsets = recovery.publications.iter().map(|one| one.offset().unwrap());
            (recovery.recovered, offsets.collect::<Vec<_>>())
        };
        assert_eq!(latest(0, 10), (true, vec![3]), "the latest that matches");
        assert_eq!(latest(3, 10), (true, vec![3]));
        assert_eq!(latest(5, 10), (true, vec![]), "the client is at the top");
        assert_eq!(latest(0, 3), (true, vec![3]));
        assert_eq!(latest(0, 2), (false, vec![]), "the search is bounded");
    }

    #[test]
    fn a_recovery_over_a_limit_is_refused_not_truncated() {
        let since = Position { offset: 2, epoch: Epoch::default() };
        assert!(!stream(5).recover(since, (2, 1 << 20), &[]).recovered);
        assert!(!stream(5).recover(since, (10, 10), &[]).recovered);
    }

    #[test]
    fn counted_bytes_are_those_of_the_kept_publications() {
        let three = stream(5).bytes();
        assert_eq!(stream(6).bytes(), three);
        // The first publication is larger, because it carries the epoch.
        assert_eq!((stream(3).bytes() - stream(2).bytes()) * 3, three);
        assert!(stream(3).bytes() > three);
        let mut stream = stream(5);
        assert_eq!((stream.shed(0), stream.shed(1)), (0, 1));
        assert_eq!(stream.bytes() * 3, three * 2);
        assert!(
            stream
                .recover(Position { offset: 3, epoch: Epoch::default() }, (9, 9999), &[])
                .recovered
        );
        assert_eq!(stream.shed(usize::MAX), 2);
        assert_eq!((stream.bytes(), stream.position().offset), (0, 5));
    }

    #[test]
    fn a_publication_that_expires_while_another_one_is_added_takes_no_further_one_along() {
        let mut stream = stream(0);
        stream.stored = Some(Box::new(StoredPart { first: 1, ..StoredPart::default() }));
        let draft = |offset| {
            let position = Some(Position { offset, epoch: Epoch::parse("aaaaaaaa") });
            NewPublication { channel: "c", data: b"1", position, ..NewPublication::default() }
        };
        for (offset, now) in [(1, 0), (2, 50), (3, RETENTION.ttl)] {
            stream.push(Publication::new(draft(offset)), &RETENTION, now);
        }
        assert_eq!((stream.first_kept(), stream.stored().map(|stored| stored.first)), (2, Some(2)));
    }

    #[test]
    fn publications_expire_before_their_stream() {
        let mut stream = stream(5);
        assert_eq!(stream.next_expiry(), 103);
        assert!(!stream.expire(104));
        assert_eq!(stream.next_expiry(), 105);
        let since = Position { offset: 4, epoch: Epoch::default() };
        assert!(stream.recover(since, (10, 1 << 20), &[]).recovered);
        assert!(!stream.expire(105));
        assert!(!stream.recover(since, (10, 1 << 20), &[]).recovered);
        assert!(stream.expire(1005));
    }
}
