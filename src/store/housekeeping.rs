//! Housekeeping: walks over the tables, a few entries at a time, and finds what can be removed.
//!
//! Owns the places of the walks. Never writes: what is found goes to the homes or into a later
//! batch, which looks again before it removes anything. The invariants: a step reads a bounded
//! number of entries, however large the store is; an entry that cannot be read keeps no walk from
//! going on.

use std::sync::Arc;

use crate::model::storage::StreamRecord;
use crate::store::disk::{Fault, FaultKind, Order, Table, View};
use crate::store::retention::Retention;
use crate::store::{layout, reading, records};

/// Records of streams that a step reads.
const RECORDS: usize = 1024;
/// Streams with something expired that a step names.
const DUE_MAX: usize = 16;
/// Streams with too long a history that a step names.
const TRIMS_MAX: usize = 128;
/// Channels whose publications a step looks at.
const CHANNELS: usize = 16;
/// Publications that a step removes.
const REMAINS_MAX: usize = 512;
/// Idempotency keys that a step removes.
const KEYS_MAX: usize = 1024;
/// Time in milliseconds after which a fault is told again: walks over a small store end soon.
const TOLD_AGAIN: u64 = 600_000;

/// Publications that do not belong to the stream of their channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The channel.
    pub channel: Arc<str>,
    /// Their offsets.
    pub offsets: Vec<u64>,
}

/// What a batch removes beside the changes of homes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// Publications.
    pub remains: Vec<Remains>,
    /// Keys on disk of idempotency keys that have expired.
    pub keys: Vec<Vec<u8>>,
}

impl Cleanup {
    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.remains.is_empty() && self.keys.is_empty()
    }
}

/// What a step has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Channels in whose streams something has expired.
    pub due: Vec<Arc<str>>,
    /// Channels whose histories must be shorter, and the first offsets that they keep.
    pub trims: Vec<(Arc<str>, u64)>,
    /// Bytes of all publications, at the end of a walk, if they are weighed.
    pub stored_bytes: Option<u64>,
    /// What can be removed.
    pub cleanup: Cleanup,
    /// Whether a walk over the streams has come to its end.
    pub is_round: bool,
    /// The first entry that could not be read, at the end of a walk over the streams.
    pub fault: Option<Fault>,
}

/// Entries that could not be read.
#[derive(Debug, Default)]
struct Faults {
    first: Option<Fault>,
    count: u64,
    /// When a fault was told last.
    told: Option<u64>,
}

impl Faults {
    /// Notes a fault.
    ///
    /// # Errors
    /// The database was closed, so nothing can be read.
    fn add(&mut self, fault: Fault) -> Result<(), Fault> {
        if fault.kind == FaultKind::Closed {
            return Err(fault);
        }
        self.count += 1;
        self.first.get_or_insert(fault);
        Ok(())
    }

    /// What was read; a fault is noted.
    ///
    /// # Errors
    /// The database was closed.
    fn note<T>(&mut self, found: Result<T, Fault>) -> Result<Option<T>, Fault> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(fault) => self.add(fault).map(|()| None),
        }
    }

    /// Ends a round. Returns its first fault, unless one was told not long ago.
    fn take(&mut self, now: u64) -> Option<Fault> {
        let count = std::mem::take(&mut self.count);
        let mut fault = self.first.take()?;
        if self.told.is_some_and(|told| told.abs_diff(now) < TOLD_AGAIN) {
            return None;
        }
        self.told = Some(now);
        if count > 1 {
            fault.text += &format!(" (and {} more faults)", count - 1);
        }
        Some(fault)
    }
}

/// Which walks have found as much as a step may find, so that more of it is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Behind {
    streams: bool,
    publications: bool,
    keys: bool,
}

/// The walks over the tables.
#[derive(Debug, Default)]
pub struct Housekeeper {
    /// The next keys of the walks; empty: the first one.
    stream: Vec<u8>,
    publication: Vec<u8>,
    key: Vec<u8>,
    retention: Retention,
    faults: Faults,
    behind: Behind,
}

impl Housekeeper {
    /// Walks that begin. At most `bytes_max` bytes of publications stay; 0: any number.
    pub fn new(bytes_max: u64) -> Self {
        Housekeeper { retention: Retention::new(bytes_max), ..Housekeeper::default() }
    }

    /// The same walks, from their beginning.
    pub fn restarted(self) -> Self {
        let faults = Faults { told: self.faults.told, ..Faults::default() };
        Housekeeper { retention: self.retention.restarted(), faults, ..Housekeeper::default() }
    }

    /// Goes on with each walk. `now` is unix time in milliseconds. An entry that cannot be read is
    /// passed over.
    ///
    /// # Errors
    /// The database was closed.
    pub fn step(&mut self, view: &impl View, now: u64) -> Result<Findings, Fault> {
        self.behind = Behind { streams: true, publications: true, keys: true };
        self.hurry(view, now)
    }

    /// Goes on with the walks that are behind.
    ///
    /// # Errors
    /// The database was closed.
    pub fn hurry(&mut self, view: &impl View, now: u64) -> Result<Findings, Fault> {
        let mut findings = Findings::default();
        let behind = std::mem::take(&mut self.behind);
        if behind.streams {
            self.walk_streams(view, now, &mut findings)?;
        }
        if behind.publications {
            findings.cleanup.remains = self.walk_publications(view)?;
        }
        if behind.keys {
            findings.cleanup.keys = self.walk_keys(view, now)?;
        }
        let fault = if findings.is_round { self.faults.take(now) } else { None };
        Ok(Findings { fault, ..findings })
    }

    /// Whether a walk is behind: it found as much as a step may find, or the publications take more
    /// room than they may.
    pub fn is_behind(&self) -> bool {
        self.behind != Behind::default()
    }

    fn walk_streams(
        &mut self,
        view: &impl View,
        now: u64,
        findings: &mut Findings,
    ) -> Result<(), Fault> {
        let Findings { due, trims, .. } = findings;
        let Housekeeper { retention, faults, .. } = self;
        let (mut seen, mut last) = (0, Vec::new());
        let range = &self.stream[..]..&layout::LAST_KEY[..];
        let scanned = view.scan(Table::Streams, range, Order::Ascending, &mut |key, value| {
            let channel = layout::split_channel(key).map(|(channel, _)| channel);
            let looks = |record: &StreamRecord| record.due <= now || retention.is_bounded();
            let found = newest_if(view, channel, value, looks);
            if let (Some(channel), Some(Some(record))) = (channel, faults.note(found)?) {
                if record.due <= now {
                    due.push(channel.into());
                }
                if retention.is_bounded() {
                    let trim = retention.weigh(channel, &record);
                    trims.extend(trim.map(|first| (channel.into(), first)));
                }
            }
            seen += 1;
            last = key.to_vec();
            Ok(seen < RECORDS && due.len() < DUE_MAX && trims.len() < TRIMS_MAX)
        });
        let is_readable = faults.note(scanned)?.is_some();
        let has_found = due.len() >= DUE_MAX || trims.len() >= TRIMS_MAX;
        let is_full = seen >= RECORDS || has_found;
        self.stream = match (is_readable, is_full) {
            (true, true) => layout::next_key(last),
            (true, false) => Vec::new(),
            (false, _) if seen > 0 => layout::next_key(last),
            (false, _) => leap(view, Table::Publications, &self.stream),
        };
        findings.is_round = self.stream.is_empty();
        if findings.is_round && retention.is_bounded() {
            findings.stored_bytes = Some(retention.end_walk());
        }
        self.behind.streams = has_found || retention.is_exceeded();
        Ok(())
    }

    /// Goes from channel to channel, not from publication to publication.
    fn walk_publications(&mut self, view: &impl View) -> Result<Vec<Remains>, Fault> {
        let (mut remains, mut found) = (Vec::new(), 0);
        for _ in 0..CHANNELS {
            let mut first = None;
            let range = &self.publication[..]..&layout::LAST_KEY[..];
            let scan = view.scan(Table::Publications, range, Order::Ascending, &mut |key, _| {
                first = Some(key.to_vec());
                Ok(false)
            });
            if self.faults.note(scan)?.is_none() {
                self.publication = leap(view, Table::Streams, &self.publication);
                if self.publication.is_empty() {
                    break;
                }
                continue;
            }
            let Some(first) = first else {
                self.publication.clear();
                break;
            };
            let Some((channel, _)) = layout::split_channel(&first) else {
                self.faults.add(Fault::corrupt("a key of a publication has no channel"))?;
                self.publication = layout::next_key(first);
                continue;
            };
            let channel = Arc::<str>::from(channel);
            let offsets = remains_of(view, &channel, REMAINS_MAX - found);
            let offsets = offsets.map_err(|fault| named(&channel, fault));
            let offsets = self.faults.note(offsets)?.unwrap_or_default();
            found += offsets.len();
            if !offsets.is_empty() {
                remains.push(Remains { channel: channel.clone(), offsets });
            }
            if found >= REMAINS_MAX {
                self.behind.publications = true;
                // The next step goes on with this channel.
                self.publication = layout::stream_key(&channel);
                break;
            }
            self.publication = layout::publications_end(&channel);
        }
        Ok(remains)
    }

    /// Keys that were removed leave traces that a scan has to skip, so the walk does not begin
    /// anew each time. It stays at the keys of this step, because their removal may fail.
    fn walk_keys(&mut self, view: &impl View, now: u64) -> Result<Vec<Vec<u8>>, Fault> {
        let mut keys = Vec::new();
        let end = layout::bucket_key(layout::bucket_of(now));
        if self.key > end {
            // The clock was set back.
            self.key.clear();
        }
        if self.key == end {
            return Ok(keys);
        }
        let range = &self.key[..]..&end[..];
        let scanned = view.scan(Table::Keys, range, Order::Ascending, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(keys.len() < KEYS_MAX)
        });
        // The walk goes on with the next minute if the keys of this one cannot be read.
        self.faults.note(scanned)?;
        self.behind.keys = keys.len() >= KEYS_MAX;
        self.key = keys.first().cloned().unwrap_or(end);
        Ok(keys)
    }
}

/// The newest record of a stream, if its record in the table is one to look at.
fn newest_if(
    view: &impl View,
    channel: Option<&str>,
    value: &[u8],
    looks: impl FnOnce(&StreamRecord) -> bool,
) -> Result<Option<StreamRecord>, Fault> {
    let channel = channel.ok_or_else(|| Fault::corrupt("a key of a stream has no channel"))?;
    let newest = || {
        let record = records::read_stream(value)?;
        let is_wanted = looks(&record);
        is_wanted.then(|| reading::newest_record(view, channel, record)).transpose()
    };
    newest().map_err(|fault| named(channel, fault))
}

/// The fault with the name of the channel.
fn named(channel: &str, fault: Fault) -> Fault {
    Fault { text: format!("channel `{channel}`: {fault}"), ..fault }
}

/// Where a walk goes on when the entries at `place` cannot be read: at the next channel that the
/// other table has. Empty: it has none, or cannot be read either.
fn leap(view: &impl View, other: Table, place: &[u8]) -> Vec<u8> {
    let here = layout::split_channel(place).map(|(channel, _)| layout::publications_end(channel));
    let (here, mut next) = (here.unwrap_or_else(|| place.to_vec()), Vec::new());
    let range = &here[..]..&layout::LAST_KEY[..];
    let scanned = view.scan(other, range, Order::Ascending, &mut |key, _| {
        next = layout::split_channel(key).map_or(Vec::new(), |(name, _)| layout::stream_key(name));
        Ok(false)
    });
    scanned.map_or(Vec::new(), |()| next)
}

/// Offsets of publications that do not belong to the stream of the channel.
fn remains_of(view: &impl View, channel: &str, most: usize) -> Result<Vec<u64>, Fault> {
    let settled = reading::table_record(view, channel)?.map_or(u64::MAX, |record| record.settled);
    let mut offsets = Vec::new();
    let range = layout::publication_keys(channel, &(0..settled));
    let range = &range.start[..]..&range.end[..];
    view.scan(Table::Publications, range, Order::Ascending, &mut |key, _| {
        offsets.extend(layout::split_publication_key(key).map(|(_, offset)| offset));
        Ok(offsets.len() < most)
    })?;
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Range;

    use super::*;
    use crate::model::storage::{StoreWrite, StoredKey, StreamChange};
    use crate::store::batch::Batch;
    use crate::store::batch::tests::{change, commit, opened, publish, write};
    use crate::store::disk::{Disk as _, Visitor};
    use crate::store::layout::Epochs;
    use crate::store::memory_disk::{MemoryDisk, MemoryView};
    use crate::store::records::tests::record;
    use crate::wire::protocol::{Epoch, Position};

    /// Steps until a walk over the streams ends, and what all of them found.
    fn round(disk: &MemoryDisk, keeper: &mut Housekeeper, now: u64) -> Vec<Findings> {
        let mut steps = Vec::new();
        while steps.last().is_none_or(|last: &Findings| !last.is_round) {
            steps.push(keeper.step(&disk.view().unwrap(), now).unwrap());
        }
        steps
    }

    fn stream(channel: &str, due: u64) -> StoreWrite {
        let record = Some(StreamRecord { due, ..record(1, 1) });
        write(channel, StreamChange { record, ..change() })
    }

    #[test]
    fn a_walk_names_each_stream_with_something_expired_once_and_a_few_per_step() {
        let disk = opened();
        let due = |nth: u64| if nth.is_multiple_of(20) { 5 } else { 10 };
        let all: Vec<_> = (0..2000).map(|nth| stream(&format!("c{nth}"), due(nth))).collect();
        commit(&disk, &all);
        let mut keeper = Housekeeper::default();
        for _ in 0..2 {
            let steps = round(&disk, &mut keeper, 5);
            assert!(steps.iter().all(|step| step.due.len() <= DUE_MAX));
            let mut named: Vec<_> = steps.into_iter().flat_map(|step| step.due).collect();
            named.sort();
            named.dedup();
            assert_eq!(named.len(), 100);
        }
        assert!(round(&disk, &mut keeper, 4).iter().all(|step| step.due.is_empty()));
    }

    #[test]
    fn histories_that_take_too_much_room_are_named_with_what_they_keep() {
        let disk = opened();
        for nth in 0..10 {
            (1..=100).for_each(|top| commit(&disk, &[publish(&format!("c{nth}"), top, 1)]));
        }
        // The records count 100 bytes for each publication.
        let mut keeper = Housekeeper::new(50_000);
        let weighed = round(&disk, &mut keeper, 0);
        assert_eq!(weighed.last().and_then(|last| last.stored_bytes), Some(100_000));
        assert!(weighed.iter().all(|step| step.trims.is_empty()));
        let steps = round(&disk, &mut keeper, 0);
        let trims: Vec<_> = steps.into_iter().flat_map(|step| step.trims).collect();
        assert_eq!(trims.len(), 10);
        assert!(trims.iter().all(|(_, first)| (50..60).contains(first)), "{trims:?}");
        let weighs = round(&disk, &mut keeper.restarted(), 0);
        assert!(weighs.iter().all(|step| step.trims.is_empty()), "it begins with a sum");
    }

    #[test]
    fn publications_without_a_stream_and_before_its_first_offset_are_found() {
        let disk = opened();
        for nth in 0..40 {
            commit(&disk, &[publish(&format!("c{nth}"), 1, 1), publish("many", nth + 1, 31)]);
        }
        for offset in 1..=2 * REMAINS_MAX as u64 {
            disk.set(Table::Publications, &layout::publication_key("gone", offset), b"");
        }
        let mut keeper = Housekeeper::default();
        let (mut gone, mut many) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let remains = keeper.step(&disk.view().unwrap(), 0).unwrap().cleanup.remains;
            let found: usize = remains.iter().map(|found| found.offsets.len()).sum();
            assert!(found <= REMAINS_MAX);
            let view = disk.view().unwrap();
            let mut batch = Batch::new(&view, Epochs::new([0; 16]));
            for Remains { channel, offsets } in remains {
                batch.remove_remains(&channel, &offsets).unwrap();
                match &*channel {
                    "gone" => gone.extend(offsets),
                    "many" => many.extend(offsets),
                    other => panic!("{other}"),
                }
            }
            disk.commit(batch.into_changes()).unwrap();
        }
        assert_eq!(gone, (1..=2 * REMAINS_MAX as u64).collect::<Vec<_>>());
        assert_eq!(many, (1..=30).collect::<Vec<_>>());
        assert_eq!(disk.entries(Table::Publications).len(), 40 + 10);
    }

    fn write_key(disk: &MemoryDisk, offset: u64) {
        let position = Position { offset, epoch: Epoch::from_random(1) };
        let until = 60_000 + offset;
        let mut write = publish("a", offset, 1);
        write.change.key = Some(StoredKey { key: "k".into(), position, until });
        commit(disk, &[write]);
    }

    /// Makes a step, and removes the idempotency keys that it has found. Returns their number.
    fn remove_keys(disk: &MemoryDisk, keeper: &mut Housekeeper, now: u64) -> usize {
        let keys = keeper.step(&disk.view().unwrap(), now).unwrap().cleanup.keys;
        let view = disk.view().unwrap();
        let mut batch = Batch::new(&view, Epochs::new([0; 16]));
        keys.iter().for_each(|key| batch.remove_expired_key(key.clone()));
        disk.commit(batch.into_changes()).unwrap();
        assert!(keys.len() <= KEYS_MAX);
        keys.len()
    }

    #[test]
    fn idempotency_keys_are_found_when_their_minute_is_over() {
        let disk = opened();
        (1..=2000).for_each(|offset| write_key(&disk, offset));
        let mut keeper = Housekeeper::default();
        let mut found = |now| (0..10).map(|_| remove_keys(&disk, &mut keeper, now)).sum::<usize>();
        assert_eq!([found(61_000), found(120_000), found(120_001)], [0, 0, 2000]);
        write_key(&disk, 1);
        assert_eq!(found(130_000), 0, "the walk does not begin anew");
        assert_eq!([found(110_000), found(130_000)], [0, 1], "the clock was set back");
    }

    #[test]
    fn a_walk_that_is_behind_goes_on_without_the_others() {
        let disk = opened();
        let all: Vec<_> = (0..40).map(|nth| stream(&format!("c{nth}"), 5)).collect();
        commit(&disk, &all);
        for nth in 0..2500_u32 {
            let key = [layout::bucket_key(1), nth.to_be_bytes().to_vec()].concat();
            disk.set(Table::Keys, &key, b"");
        }
        let (mut keeper, mut found) = (Housekeeper::default(), Vec::new());
        for nth in 0..5 {
            let view = disk.view().unwrap();
            let step = if nth == 0 { Housekeeper::step } else { Housekeeper::hurry };
            let findings = step(&mut keeper, &view, 600_000).unwrap();
            let mut batch = Batch::new(&view, Epochs::new([0; 16]));
            let keys = findings.cleanup.keys;
            keys.iter().for_each(|key| batch.remove_expired_key(key.clone()));
            disk.commit(batch.into_changes()).unwrap();
            found.push((findings.due.len(), keys.len(), keeper.is_behind()));
        }
        let expected =
            [(16, 1024, true), (16, 1024, true), (8, 452, false), (0, 0, false), (0, 0, false)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_store_with_too_much_is_walked_over_until_it_has_room() {
        let disk = opened();
        (1..=100).for_each(|top| commit(&disk, &[publish("a", top, 1)]));
        let (mut keeper, view) = (Housekeeper::new(5_000), disk.view().unwrap());
        assert!(keeper.step(&view, 0).unwrap().trims.is_empty() && keeper.is_behind());
        assert_eq!(keeper.hurry(&view, 0).unwrap().trims.len(), 1);
        assert!(keeper.is_behind(), "the history is as long as before");
        let mut keeper = Housekeeper::new(50_000);
        keeper.step(&view, 0).unwrap();
        assert!(!keeper.is_behind());
    }

    #[test]
    fn idempotency_keys_are_found_again_if_their_removal_failed() {
        let disk = opened();
        (1..=3).for_each(|offset| write_key(&disk, offset));
        let mut keeper = Housekeeper::default();
        let found = keeper.step(&disk.view().unwrap(), 120_001).unwrap().cleanup.keys;
        assert_eq!(found.len(), 3);
        let removed = [0; 2].map(|_| remove_keys(&disk, &mut keeper, 120_001));
        assert_eq!(removed, [3, 0]);
    }

    /// A disk of which a range of keys cannot be read.
    struct Damaged {
        view: MemoryView,
        table: Table,
        keys: Range<Vec<u8>>,
    }

    impl View for Damaged {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
            self.view.get(table, key)
        }

        fn scan(
            &self,
            table: Table,
            keys: Range<&[u8]>,
            order: Order,
            visit: &mut Visitor<'_>,
        ) -> Result<(), Fault> {
            self.view.scan(table, keys, order, &mut |key, value| match table == self.table
                && self.keys.contains(&key.to_vec())
            {
                true => Err(Fault::corrupt("a block is damaged")),
                false => visit(key, value),
            })
        }
    }

    /// Streams `c100` to `c899` that have expired, each with a publication before its first offset.
    fn many() -> MemoryDisk {
        let disk = opened();
        for name in (100..900).map(|nth| format!("c{nth}")) {
            commit(&disk, &[publish(&name, 1, 1), publish(&name, 2, 2)]);
        }
        disk
    }

    /// What steps name: streams with something expired, publications that remain, and faults.
    fn walked(view: &impl View, keeper: &mut Housekeeper) -> (BTreeSet<Arc<str>>, usize, usize) {
        let (mut due, mut remains, mut faults) = (BTreeSet::new(), BTreeSet::new(), 0);
        for _ in 0..400 {
            let findings = keeper.step(view, 600_000).unwrap();
            due.extend(findings.due);
            remains.extend(findings.cleanup.remains.into_iter().map(|found| found.channel));
            faults += usize::from(findings.fault.is_some());
        }
        (due, remains.len(), faults)
    }

    #[test]
    fn a_record_that_cannot_be_read_keeps_no_walk_from_going_on() {
        let disk = many();
        (1..=2000).for_each(|offset| write_key(&disk, offset));
        disk.set(Table::Streams, &layout::stream_key("c500"), b"\xff");
        disk.set(Table::Streams, b"\0\x01", b"");
        disk.set(Table::Publications, b"\0\x01", b"");
        // A publication that can carry a newer record.
        disk.set(Table::Publications, &layout::publication_key("c600", 3), b"\xff");
        let mut keeper = Housekeeper::default();
        let found: usize = (0..10).map(|_| remove_keys(&disk, &mut keeper, 200_000)).sum();
        assert_eq!(found, 2000);
        keeper = Housekeeper::default();
        let (due, remains, faults) = walked(&disk.view().unwrap(), &mut keeper);
        let missing = ["c500", "c600"].map(|name| due.contains(name));
        // The stream of the keys is `a`.
        assert_eq!((due.len(), missing), (799, [false; 2]));
        assert_eq!((remains, faults), (799, 1), "many rounds tell it once");
        let told: Vec<_> = round(&disk, &mut keeper, 600_000 + TOLD_AGAIN);
        let told: Vec<_> = told.into_iter().filter_map(|step| step.fault).collect();
        assert!(matches!(&told[..], [fault] if fault.text.contains("more faults")), "{told:?}");
        let told = round(&disk, &mut keeper.restarted(), 600_000 + TOLD_AGAIN);
        assert!(told.iter().all(|step| step.fault.is_none()), "a restart forgets nothing");
    }

    #[test]
    fn channels_behind_a_damaged_block_are_found() {
        let disk = many();
        for (first, last) in [(100, 400), (500, 520), (850, 899)] {
            for table in [Table::Streams, Table::Publications] {
                let [start, end] =
                    [first, last + 1].map(|nth| layout::stream_key(&format!("c{nth}")));
                let view = Damaged { view: disk.view().unwrap(), table, keys: start..end };
                let (due, remains, faults) = walked(&view, &mut Housekeeper::default());
                let readable = 800 - (last + 1 - first);
                let expected = match table {
                    Table::Streams => (readable, 800),
                    _ => (800, readable),
                };
                assert_eq!((due.len(), remains), expected, "{table:?} {first}");
                assert_eq!(faults, 1);
            }
        }
    }
}
