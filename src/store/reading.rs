//! Answers to the questions of homes.
//!
//! Owns the reading of streams, publications and idempotency keys. Never writes. The invariants:
//! an answer comes from one view of the disk; what has expired is not part of it. The home of a
//! stream that is loaded names the offsets of its history: the record can be ahead of the home or
//! belong to a write that failed.

use std::ops::Range;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::model::names::Names;
use crate::model::storage::{
    CARRIED_MAX, LoadedStream, StoreAnswer, StoreFound, StoreQuery, StoreRead, StoreRefusal,
    StoredKey, StoredPublication, StreamRecord,
};
use crate::store::disk::{Fault, FaultKind, Order, Table, View};
use crate::store::layout::{self, Epochs};
use crate::store::records;
use crate::wire::protocol::{Epoch, Position};

/// Maximum number of idempotency keys of a channel that an answer has.
const KEYS_MAX: usize = 65_536;
/// Maximum bytes of these keys.
const KEYS_BYTES_MAX: usize = 8 << 20;
/// Bytes of an idempotency key besides its text.
const KEY_OVERHEAD: usize = 64;
/// Expired publications after which the search for the oldest one that is alive ends.
const EXPIRED_MAX: usize = 4096;

/// Reads the secret of the store.
///
/// # Errors
/// The disk cannot be read, or the secret is missing.
pub fn epochs(view: &impl View) -> Result<Epochs, Fault> {
    let secret = view.get(Table::State, layout::SECRET_KEY)?;
    let secret = secret.and_then(|secret| secret.try_into().ok());
    secret.map(Epochs::new).ok_or_else(|| Fault::corrupt("the secret of the store is missing"))
}

/// The record of a stream as the table of streams has it; publications may carry newer ones.
///
/// # Errors
/// The disk cannot be read, or the record cannot be decoded.
pub fn table_record(view: &impl View, channel: &str) -> Result<Option<StreamRecord>, Fault> {
    let record = view.get(Table::Streams, &layout::stream_key(channel))?;
    record.map(|record| records::read_stream(&record)).transpose()
}

/// The newest record of the stream of which the table of streams has `record`.
///
/// # Errors
/// The disk cannot be read, or a record cannot be decoded.
pub fn newest_record(
    view: &impl View,
    channel: &str,
    record: StreamRecord,
) -> Result<StreamRecord, Fault> {
    if planted(PlantedFault::CarriedRecordIgnored) {
        return Ok(record);
    }
    let next = record.top.saturating_add(1);
    let keys = layout::publication_keys(channel, &(next..next.saturating_add(CARRIED_MAX)));
    let keys = &keys.start[..]..&keys.end[..];
    let mut newest = None;
    view.scan(Table::Publications, keys, Order::Descending, &mut |_, value| {
        // A publication of an earlier stream that has ended can be left.
        newest = records::read_carried(value)?.filter(|carried| carried.epoch == record.epoch);
        Ok(newest.is_none())
    })?;
    Ok(newest.unwrap_or(record))
}

/// Answers a question. A fault of the disk is returned beside the refusal that it causes.
pub fn answer<V: View>(
    view: Result<V, Fault>,
    names: &Names,
    read: StoreRead,
) -> (StoreAnswer, Option<Fault>) {
    let StoreRead { tag, channel, now, query, .. } = read;
    let found = view.and_then(|view| {
        let reading = Reading { view, channel: &channel, hash: names.hash(&channel), now };
        match query {
            StoreQuery::Load { limit, bytes } => {
                Ok(Ok(StoreFound::Stream(reading.load((limit, bytes))?)))
            }
            StoreQuery::OldestAlive { offsets } => {
                Ok(Ok(StoreFound::OldestAlive(reading.alive(&offsets)?)))
            }
            StoreQuery::Range { offsets, limit, bytes, reverse } => {
                let order = if reverse { Order::Descending } else { Order::Ascending };
                Ok(reading.range(offsets, (limit, bytes), order)?.map(StoreFound::Publications))
            }
        }
    });
    let (result, fault) = match found {
        Ok(result) => (result, None),
        Err(fault) => (Err(StoreRefusal::Unavailable), Some(fault)),
    };
    let fault = fault.filter(|fault| fault.kind != FaultKind::Closed);
    (StoreAnswer { tag, channel, result, charge: None }, fault)
}

/// A question about a channel.
struct Reading<'a, V> {
    view: V,
    channel: &'a str,
    hash: u64,
    now: u64,
}

impl<V: View> Reading<'_, V> {
    fn load(&self, limits: (usize, usize)) -> Result<LoadedStream, Fault> {
        let record = table_record(&self.view, self.channel)?;
        let recorded = record.as_ref().map_or(0, |record| record.top);
        let newest = |record| newest_record(&self.view, self.channel, record);
        let record = record.map(newest).transpose()?;
        let ended = record.as_ref().filter(|record| record.ends <= self.now);
        let epoch = match (&record, ended) {
            (_, Some(ended)) => epochs(&self.view)?.after(self.channel, ended.epoch),
            (Some(record), None) => record.epoch,
            (None, None) => self.next_epoch()?,
        };
        let has_ended = ended.is_some();
        let record = record.filter(|_| !has_ended);
        let (newest, alive) = match &record {
            Some(record) => {
                let offsets = record.first..record.top.saturating_add(1);
                (self.newest(record, &offsets, limits)?, self.alive(&offsets)?)
            }
            None => (Vec::new(), None),
        };
        let oldest = self.oldest()?;
        let keys = self.keys()?;
        Ok(LoadedStream { record, recorded, has_ended, epoch, oldest, alive, newest, keys })
    }

    /// The epoch of the stream that the next publication begins.
    fn next_epoch(&self) -> Result<Epoch, Fault> {
        let epochs = epochs(&self.view)?;
        let generation = self.view.get(Table::State, &epochs.generation_key(self.channel))?;
        Ok(epochs.of_generation(self.channel, layout::read_generation(generation)))
    }

    /// Offset of the oldest publication on disk.
    fn oldest(&self) -> Result<Option<u64>, Fault> {
        let mut oldest = None;
        let end = layout::publications_end(self.channel);
        let keys = &layout::publication_key(self.channel, 0)[..]..&end[..];
        self.view.scan(Table::Publications, keys, Order::Ascending, &mut |key, _| {
            oldest = Some(self.offset_of(key)?);
            Ok(false)
        })?;
        Ok(oldest)
    }

    fn offset_of(&self, key: &[u8]) -> Result<u64, Fault> {
        let offset = layout::split_publication_key(key).map(|(_, offset)| offset);
        let cause = || format!("a key of a publication of `{}` has no offset", self.channel);
        offset.ok_or_else(|| Fault::corrupt(cause()))
    }

    /// Calls `visit` with the offsets and the bytes of publications.
    fn publications(
        &self,
        offsets: Range<u64>,
        order: Order,
        mut visit: impl FnMut(u64, &[u8]) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        if offsets.is_empty() {
            return Ok(());
        }
        let keys = layout::publication_keys(self.channel, &offsets);
        let keys = &keys.start[..]..&keys.end[..];
        self.view.scan(Table::Publications, keys, order, &mut |key, value| {
            visit(self.offset_of(key)?, value)
        })
    }

    fn read(&self, offset: u64, epoch: Epoch, bytes: &[u8]) -> Result<StoredPublication, Fault> {
        let position = Position { offset, epoch };
        records::read_publication((self.channel, self.hash), position, bytes)
    }

    /// The newest publications that have not expired, oldest first.
    fn newest(
        &self,
        record: &StreamRecord,
        offsets: &Range<u64>,
        (limit, bytes): (usize, usize),
    ) -> Result<Vec<StoredPublication>, Fault> {
        let mut newest = Vec::new();
        let (mut next, mut left) = (record.top, bytes);
        if limit == 0 {
            return Ok(newest);
        }
        self.publications(offsets.clone(), Order::Descending, |offset, value| {
            let stored = self.read(offset, record.epoch, value)?;
            let size = stored.publication.size();
            if offset != next || stored.expires <= self.now || size > left {
                return Ok(false);
            }
            (next, left) = (offset.saturating_sub(1), left - size);
            newest.push(stored);
            Ok(newest.len() < limit)
        })?;
        newest.reverse();
        Ok(newest)
    }

    /// Offset and expiry of the oldest publication of these offsets that is alive.
    fn alive(&self, offsets: &Range<u64>) -> Result<Option<(u64, u64)>, Fault> {
        let (mut alive, mut seen) = (None, 0);
        self.publications(offsets.clone(), Order::Ascending, |offset, value| {
            let expires = records::read_expiry(value)?;
            seen += 1;
            let ends = expires > self.now || seen > EXPIRED_MAX;
            alive = ends.then_some((offset, expires));
            Ok(!ends)
        })?;
        Ok(alive)
    }

    fn range(
        &self,
        wanted: Range<u64>,
        (limit, bytes): (usize, usize),
        order: Order,
    ) -> Result<Result<Vec<StoredPublication>, StoreRefusal>, Fault> {
        let Some(record) = table_record(&self.view, self.channel)? else {
            return Ok(Ok(Vec::new()));
        };
        let wanted = match planted(PlantedFault::RangeByRecord) {
            true => wanted.start.max(record.first)..wanted.end.min(record.top + 1),
            false => wanted,
        };
        let (mut found, mut left) = (Vec::new(), Some(bytes));
        if limit == 0 {
            return Ok(Ok(found));
        }
        self.publications(wanted, order, |offset, value| {
            let stored = self.read(offset, record.epoch, value)?;
            if stored.expires > self.now {
                left = left.and_then(|left| left.checked_sub(stored.publication.size()));
                found.push(stored);
            }
            Ok(left.is_some() && found.len() < limit)
        })?;
        Ok(left.map(|_| found).ok_or(StoreRefusal::TooLarge))
    }

    /// Idempotency keys that are valid, oldest first: the newest within the bounds.
    fn keys(&self) -> Result<Vec<StoredKey>, Fault> {
        let mut keys: Vec<StoredKey> = Vec::new();
        let mut left = KEYS_BYTES_MAX;
        let mut next = self.last_bucket(u32::MAX)?;
        while let Some(bucket) = next.filter(|bucket| *bucket >= layout::bucket_of(self.now)) {
            let start = layout::channel_bucket(bucket, self.channel);
            let range = &start[..]..&layout::end_of(&start)[..];
            self.view.scan(Table::Keys, range, Order::Descending, &mut |_, value| {
                let key = records::read_key(value)?;
                let size = key.key.len() + KEY_OVERHEAD;
                if key.until > self.now && size <= left {
                    left -= size;
                    keys.push(key);
                }
                Ok(keys.len() < KEYS_MAX && left > KEY_OVERHEAD)
            })?;
            if keys.len() >= KEYS_MAX || left <= KEY_OVERHEAD {
                break;
            }
            next = self.last_bucket(bucket)?;
        }
        keys.sort_by_key(|key| (key.until, key.position.offset));
        Ok(keys)
    }

    /// The last bucket of idempotency keys before `end` that is not empty.
    fn last_bucket(&self, end: u32) -> Result<Option<u32>, Fault> {
        let mut bucket = None;
        let range = &layout::bucket_key(0)[..]..&layout::bucket_key(end)[..];
        self.view.scan(Table::Keys, range, Order::Descending, &mut |key, _| {
            bucket = layout::split_bucket(key);
            Ok(false)
        })?;
        Ok(bucket)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::storage::{StoreWrite, StreamChange};
    use crate::store::batch::tests::{change, commit, opened, publish, write};
    use crate::store::disk::Disk as _;
    use crate::store::memory_disk::MemoryDisk;
    use crate::store::records::tests::{record, stored};

    pub(crate) fn question(channel: &str, now: u64, query: StoreQuery) -> StoreRead {
        StoreRead { shard: 0, tag: 9, channel: channel.into(), now, query }
    }

    fn ask(disk: &MemoryDisk, channel: &str, now: u64, query: StoreQuery) -> StoreAnswer {
        let names = Names::new([0; 16], 1);
        let (answer, fault) = answer(disk.view(), &names, question(channel, now, query));
        assert_eq!(fault, None);
        assert_eq!((answer.tag, &*answer.channel), (9, channel));
        answer
    }

    fn load(disk: &MemoryDisk, channel: &str, now: u64) -> LoadedStream {
        let all = StoreQuery::Load { limit: 100, bytes: 1 << 20 };
        match ask(disk, channel, now, all).result {
            Ok(StoreFound::Stream(stream)) => stream,
            other => panic!("{other:?}"),
        }
    }

    fn offsets(publications: &[StoredPublication]) -> Vec<u64> {
        publications.iter().filter_map(|stored| stored.publication.offset()).collect()
    }

    /// A stream of the offsets 1 to 9, of which those from 4 belong to the history. The one at
    /// `early` expires before the others.
    fn stream(early: u64) -> MemoryDisk {
        let disk = opened();
        for top in 1..10 {
            let expires = if top == early { 1000 } else { 500_000 };
            let publication = Some(stored("a", top, expires));
            let record = Some(record(top, top.min(4)));
            commit(&disk, &[write("a", StreamChange { record, publication, ..change() })]);
        }
        commit(&disk, &[publish("b", 1, 1)]);
        disk
    }

    #[test]
    fn a_load_has_the_stream_its_newest_publications_and_the_oldest_remain() {
        let disk = stream(0);
        let all = load(&disk, "a", 0);
        assert_eq!((all.record, all.oldest), (Some(record(9, 4)), Some(1)));
        assert_eq!((all.epoch, all.alive), (record(9, 4).epoch, Some((4, 500_000))));
        assert_eq!(offsets(&all.newest), [4, 5, 6, 7, 8, 9]);
        assert_eq!(all.newest[0].publication.data(), b"{\"n\":4}");
        assert_eq!(all.newest[0].publication.position().unwrap().epoch, record(9, 4).epoch);
        let hash = Names::new([0; 16], 1).hash("a");
        assert_eq!(all.newest[0].publication.hash(), hash);
    }

    /// A publication that carries the record, at this top.
    fn carrying(top: u64) -> StoreWrite {
        let mut carrying = publish("a", top, 2);
        carrying.change.is_carried = true;
        carrying
    }

    #[test]
    fn the_newest_record_is_the_one_that_the_newest_publication_carries() {
        let disk = opened();
        commit(&disk, &[publish("a", 5, 1), carrying(6), carrying(7)]);
        let found = load(&disk, "a", 0);
        assert_eq!((found.record, found.recorded), (Some(record(7, 2)), 5));
        assert_eq!(offsets(&found.newest), [5, 6, 7]);
        let removal = StreamChange { record: Some(record(7, 8)), ..change() };
        commit(&disk, &[write("a", removal)]);
        let removed = load(&disk, "a", 0);
        assert_eq!((removed.record, removed.recorded), (Some(record(7, 8)), 7));
        commit(&disk, &[carrying(7 + CARRIED_MAX)]);
        assert_eq!(load(&disk, "a", 0).record, Some(record(7 + CARRIED_MAX, 2)));
        commit(&disk, &[carrying(8 + CARRIED_MAX)]);
        assert_eq!(load(&disk, "a", 0).record, Some(record(7 + CARRIED_MAX, 2)), "too far");
    }

    #[test]
    fn a_publication_of_an_earlier_stream_carries_nothing() {
        let disk = opened();
        commit(&disk, &[publish("a", 5, 1), carrying(6), carrying(9)]);
        let epoch = Epoch::from_random(77);
        let begun = StreamRecord { epoch, ..record(1, 1) };
        commit(&disk, &[write("a", StreamChange { record: Some(begun.clone()), ..change() })]);
        assert_eq!(load(&disk, "a", 0).record, Some(begun.clone()));
        let mut next = carrying(2);
        let newest = StreamRecord { top: 2, ..begun };
        next.change.record = Some(newest.clone());
        commit(&disk, &[next]);
        let found = load(&disk, "a", 0);
        assert_eq!((found.record, found.recorded), (Some(newest), 1));
    }

    #[test]
    fn a_load_keeps_its_limits() {
        let disk = stream(0);
        let size = stored("a", 9, 0).publication.size();
        let cases = [
            (2, 1 << 20, vec![8, 9]),
            (100, 2 * size + 1, vec![8, 9]),
            (100, 2 * size - 1, vec![9]),
            (100, 0, vec![]),
            (0, 1 << 20, vec![]),
        ];
        for (limit, bytes, expected) in cases {
            let answer = ask(&disk, "a", 0, StoreQuery::Load { limit, bytes });
            let Ok(StoreFound::Stream(found)) = answer.result else { panic!("a stream") };
            assert_eq!(offsets(&found.newest), expected, "{limit} {bytes}");
            assert_eq!(found.alive, Some((4, 500_000)), "does not depend on the limits");
        }
    }

    #[test]
    fn the_oldest_that_is_alive_is_one_of_the_offsets_of_the_question() {
        let found = |offsets, now| {
            let query = StoreQuery::OldestAlive { offsets };
            let Ok(StoreFound::OldestAlive(alive)) = ask(&stream(6), "a", now, query).result else {
                panic!("what is alive")
            };
            alive
        };
        // The record, which may belong to a write that the home has not committed, begins at 4.
        assert_eq!(found(2..10, 1000), Some((2, 500_000)));
        assert_eq!(found(6..10, 999), Some((6, 1000)));
        assert_eq!(found(6..10, 1000), Some((7, 500_000)));
        assert_eq!((found(6..7, 1000), found(7..7, 0)), (None, None));
        assert_eq!(found(1..10, 500_000), None);
    }

    #[test]
    fn the_newest_publications_end_at_the_top_and_have_no_gap() {
        for (early, newest, alive) in [(4, 5..10, 5), (6, 7..10, 4), (9, 10..10, 4), (1, 4..10, 4)]
        {
            let found = load(&stream(early), "a", 1000);
            assert_eq!(offsets(&found.newest), newest.collect::<Vec<_>>(), "{early}");
            assert_eq!(found.alive, Some((alive, 500_000)), "{early}");
        }
        let expired = load(&stream(0), "a", 500_000);
        assert!(expired.newest.is_empty() && expired.alive.is_none() && expired.record.is_some());
    }

    #[test]
    fn a_channel_without_a_record_has_an_epoch_that_ends_with_its_stream() {
        let disk = opened();
        let before = load(&disk, "a", 0);
        assert!(before.record.is_none() && before.oldest.is_none() && before.newest.is_empty());
        assert_eq!(before.epoch, load(&disk, "a", 0).epoch, "it is the same after a restart");
        assert_ne!(before.epoch, load(&disk, "b", 0).epoch);
        let begun = StreamRecord { epoch: before.epoch, ..record(1, 1) };
        let beginning = StreamChange { record: Some(begun.clone()), ..change() };
        commit(&disk, &[write("a", beginning)]);
        // The stream has ended, and its record is still there.
        let ended = load(&disk, "a", begun.ends);
        assert!(ended.record.is_none() && ended.has_ended && ended.epoch != before.epoch);
        assert_eq!(ended.epoch, load(&disk, "a", begun.ends).epoch);
        commit(&disk, &[write("a", change())]);
        let removed = load(&disk, "a", 0);
        assert!(removed.record.is_none() && !removed.has_ended);
        assert_eq!(removed.epoch, ended.epoch, "subscribers may know it");
        commit(&disk, &[write("a", change())]);
        assert_eq!(load(&disk, "a", 0).epoch, ended.epoch, "nothing has ended");
    }

    #[test]
    fn a_range_has_the_wanted_publications_of_the_history() {
        let disk = stream(6);
        let size = stored("a", 9, 0).publication.size();
        let cases = [
            (4..10, 100, false, vec![4, 5, 7, 8, 9]),
            (4..10, 100, true, vec![9, 8, 7, 5, 4]),
            (5..9, 2, false, vec![5, 7]),
            (5..9, 2, true, vec![8, 7]),
            // A write that the home has not committed has moved the begin of the history to 4.
            (2..6, 100, false, vec![2, 3, 4, 5]),
            (9..9, 100, false, vec![]),
            (10..u64::MAX, 100, true, vec![]),
            (0..100, 0, false, vec![]),
        ];
        for (offsets_wanted, limit, reverse, expected) in cases {
            let offsets_asked = offsets_wanted.clone();
            let query =
                StoreQuery::Range { offsets: offsets_asked, limit, bytes: 1 << 20, reverse };
            let Ok(StoreFound::Publications(found)) = ask(&disk, "a", 1000, query).result else {
                panic!("publications")
            };
            assert_eq!(offsets(&found), expected, "{offsets_wanted:?} {limit} {reverse}");
        }
        let range = |bytes| StoreQuery::Range { offsets: 4..6, limit: 9, bytes, reverse: false };
        let too_large = ask(&disk, "a", 0, range(2 * size - 1)).result;
        assert_eq!(too_large.err(), Some(StoreRefusal::TooLarge));
        assert!(ask(&disk, "a", 0, range(2 * size)).result.is_ok());
        let Ok(StoreFound::Publications(missing)) = ask(&disk, "c", 0, range(9)).result else {
            panic!("publications")
        };
        assert!(missing.is_empty(), "there is no such stream");
    }

    #[test]
    fn a_load_has_the_valid_keys_of_the_channel_from_all_minutes() {
        let disk = opened();
        let key = |offset, until| {
            let position = Position { offset, epoch: Epoch::from_random(1) };
            StoredKey { key: format!("k{offset}").into(), position, until }
        };
        let until = [200_000, 60_000, 60_001, 130_000, 199_999];
        for (offset, until) in (1..).zip(until) {
            for channel in ["a", "b"] {
                let mut write = publish(channel, offset, 1);
                write.change.key = Some(key(offset, until));
                commit(&disk, &[write]);
            }
        }
        let expected = [key(3, 60_001), key(4, 130_000), key(5, 199_999), key(1, 200_000)];
        assert_eq!(load(&disk, "a", 60_000).keys, expected);
        assert_eq!(load(&disk, "a", 199_999).keys, expected[3..]);
        assert!(load(&disk, "a", 200_000).keys.is_empty());
        assert!(load(&disk, "ab", 0).keys.is_empty());
    }

    #[test]
    fn of_very_many_keys_the_newest_are_loaded() {
        let disk = opened();
        let text = "k".repeat(KEYS_BYTES_MAX / 8);
        for offset in 1..=10 {
            let position = Position { offset, epoch: Epoch::from_random(1) };
            let until = offset * 60_000;
            let key = StoredKey { key: text.as_str().into(), position, until };
            let mut write = publish("a", offset, 1);
            write.change.key = Some(key);
            commit(&disk, &[write]);
        }
        let keys = load(&disk, "a", 0).keys;
        let found: Vec<u64> = keys.iter().map(|key| key.position.offset).collect();
        assert_eq!(found, [4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn a_record_that_cannot_be_decoded_refuses_the_question_and_is_reported() {
        let disk = stream(0);
        disk.set(Table::Streams, &layout::stream_key("a"), b"\xff");
        let read = question("a", 0, StoreQuery::Load { limit: 1, bytes: 1000 });
        let (answer, fault) = answer(disk.view(), &Names::new([0; 16], 1), read);
        assert_eq!(answer.result.err(), Some(StoreRefusal::Unavailable));
        assert_eq!(fault.unwrap().kind, FaultKind::Corrupt);
    }
}
