//! The stream of a channel: its epoch, its top offset and the kept publications.
//!
//! Owns the publications. Never reads a clock. The invariant: the kept offsets are consecutive and
//! end at the top, so a recovery has no gap or is refused.

use std::collections::VecDeque;

use crate::model::latest::Latest;
use crate::model::message::HistoryRange;
use crate::model::publication::Publication;
use crate::model::retention::Retention;
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
        Stream { epoch, top: 0, kept: VecDeque::new(), bytes: 0, version: None, expires }
    }

    /// The empty stream of a channel without publications; read only.
    pub fn empty(epoch: Epoch) -> Self {
        Stream { epoch, top: 0, kept: VecDeque::new(), bytes: 0, version: None, expires: u64::MAX }
    }

    /// The current position.
    pub fn position(&self) -> Position {
        Position { offset: self.top, epoch: self.epoch }
    }

    /// The offset that the next publication gets.
    pub fn next_offset(&self) -> u64 {
        self.top + 1
    }

    /// Adds a publication whose offset is the next one.
    pub fn push(&mut self, publication: Publication, retention: &Retention, now: u64) {
        assert_eq!(publication.offset(), Some(self.top + 1), "offsets are consecutive");
        self.top += 1;
        self.expire(now);
        let kept = HistoryEntry { publication, expires: now + retention.ttl };
        self.bytes += kept.size();
        self.kept.push_back(kept);
        while self.kept.len() > retention.size {
            self.drop_oldest();
        }
        self.expires = now + retention.meta_ttl;
    }

    /// Drops expired publications; returns whether the stream itself has expired.
    pub fn expire(&mut self, now: u64) -> bool {
        while self.kept.front().is_some_and(|kept| kept.expires <= now) {
            self.drop_oldest();
        }
        self.expires <= now
    }

    /// Like [`Stream::expire`], for at most `most` publications. The stream has not expired while
    /// expired publications are left.
    pub fn expire_some(&mut self, now: u64, most: usize) -> bool {
        for _ in 0..most {
            if self.kept.front().is_none_or(|kept| kept.expires > now) {
                return self.expires <= now;
            }
            self.drop_oldest();
        }
        false
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
        self.kept.front().map_or(self.expires, |kept| kept.expires)
    }

    /// Recovery in cache mode: the latest publication that passes the filter, or nothing if the
    /// subscriber is at the top already. The search looks at no more than `limit` publications.
    pub fn recover_latest(
        &self,
        since: Position,
        filter: Option<&Filter>,
        limit: usize,
    ) -> Recovery {
        let same_life = since.epoch.is_unset() || since.epoch == self.epoch;
        if same_life && since.offset == self.top && self.top > 0 {
            return Recovery { recovered: true, publications: Vec::new() };
        }
        let passes = |publication: &&Publication| {
            filter.is_none_or(|filter| filter.matches(publication.tags()))
        };
        let newest = self.kept.iter().rev().take(limit).map(|kept| &kept.publication);
        let latest = newest.into_iter().find(passes).cloned();
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
    }

    /// Reads a range of the kept publications; `None`: it exceeds `bytes_max`. The range begins
    /// after `since.offset` in either direction; the caller has compared the epoch. The cost
    /// depends on the length of the range only.
    pub fn read_range(&self, range: &HistoryRange, bytes_max: usize) -> Option<Vec<Publication>> {
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
        let mut take = |kept: &HistoryEntry| {
            left = left.checked_sub(kept.publication.size())?;
            Some(kept.publication.clone())
        };
        let part = self.kept.range(indexes);
        if range.reverse {
            part.rev().take(range.limit).map(&mut take).collect()
        } else {
            part.take(range.limit).map(&mut take).collect()
        }
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The publications after `since`, if all of them are kept and within the limits.
    pub fn recover(&self, since: Position, limit: usize, bytes_max: usize) -> Recovery {
        let another_life = !since.epoch.is_unset() && since.epoch != self.epoch;
        let missed = match self.top.checked_sub(since.offset) {
            Some(missed) if !another_life => missed as usize,
            _ => return Recovery::default(),
        };
        if missed > self.kept.len() || missed > limit {
            return Recovery::default();
        }
        let publications: Vec<Publication> = self
            .kept
            .range(self.kept.len() - missed..)
            .map(|kept| kept.publication.clone())
            .collect();
        if Publication::total_size(&publications) > bytes_max {
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

    const RETENTION: Retention = Retention { size: 3, ttl: 100, meta_ttl: 1000 };

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
        let recovery = stream(5).recover(since, 10, 1 << 20);
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
                stream(5).read_range(&HistoryRange { limit, since, reverse }, 1000).unwrap();
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
        assert!(stream(5).read_range(&all, stream(5).bytes() / 8).is_none());
    }

    #[test]
    fn recovery_in_cache_mode_returns_the_latest_publication() {
        let since = |offset, epoch| Position { offset, epoch: Epoch::parse(epoch) };
        let latest = |since| {
            let recovery = stream(5).recover_latest(since, None, 1);
            (recovery.recovered, recovery.publications.len())
        };
        assert_eq!(latest(since(1, "aaaaaaaa")), (true, 1));
        assert_eq!(latest(since(5, "aaaaaaaa")), (true, 0));
        assert_eq!(latest(since(5, "bbbbbbbb")), (true, 1));
        let mut empty = stream(5);
        empty.clear();
        assert_eq!(empty.bytes(), 0);
        assert!(!empty.recover_latest(since(1, ""), None, 1).recovered);
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
            let recovery = stream.recover_latest(since, Some(&filter), limit);
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
        assert!(!stream(5).recover(since, 2, 1 << 20).recovered);
        assert!(!stream(5).recover(since, 10, 10).recovered);
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
        assert!(stream.recover(Position { offset: 3, epoch: Epoch::default() }, 9, 9999).recovered);
        assert_eq!(stream.shed(usize::MAX), 2);
        assert_eq!((stream.bytes(), stream.position().offset), (0, 5));
    }

    #[test]
    fn publications_expire_before_their_stream() {
        let mut stream = stream(5);
        assert_eq!(stream.next_expiry(), 103);
        assert!(!stream.expire(104));
        assert_eq!(stream.next_expiry(), 105);
        let since = Position { offset: 4, epoch: Epoch::default() };
        assert!(stream.recover(since, 10, 1 << 20).recovered);
        assert!(!stream.expire(105));
        assert!(!stream.recover(since, 10, 1 << 20).recovered);
        assert!(stream.expire(1005));
    }
}
