//! Housekeeping: walks over the tables, a few entries at a time, and finds what can be removed.
//!
//! Owns the places of the walks. Never writes: what is found goes to the homes or into a later
//! batch, which looks again before it removes anything. The invariant: a step reads a bounded
//! number of entries, however large the store is.

use std::sync::Arc;

use crate::store::disk::{Fault, Order, Table, View};
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
const KEYS_MAX: usize = 512;

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
}

/// The walks over the tables.
#[derive(Debug, Default)]
pub struct Housekeeper {
    /// The next keys of the walks; empty: the first one.
    stream: Vec<u8>,
    publication: Vec<u8>,
    key: Vec<u8>,
    retention: Retention,
}

impl Housekeeper {
    /// Walks that begin. At most `bytes_max` bytes of publications stay; 0: any number.
    pub fn new(bytes_max: u64) -> Self {
        Housekeeper { retention: Retention::new(bytes_max), ..Housekeeper::default() }
    }

    /// The same walks, from their beginning.
    pub fn restarted(&self) -> Self {
        Housekeeper { retention: self.retention.restarted(), ..Housekeeper::default() }
    }

    /// Walks on. `now` is unix time in milliseconds.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn step(&mut self, view: &impl View, now: u64) -> Result<Findings, Fault> {
        let mut findings = Findings::default();
        self.walk_streams(view, now, &mut findings)?;
        let remains = self.walk_publications(view)?;
        let keys = self.walk_keys(view, now)?;
        Ok(Findings { cleanup: Cleanup { remains, keys }, ..findings })
    }

    fn walk_streams(
        &mut self,
        view: &impl View,
        now: u64,
        findings: &mut Findings,
    ) -> Result<(), Fault> {
        let Findings { due, trims, .. } = findings;
        let (mut seen, mut last, retention) = (0, Vec::new(), &mut self.retention);
        let range = &self.stream[..]..&layout::LAST_KEY[..];
        view.scan(Table::Streams, range, Order::Ascending, &mut |key, value| {
            let record = records::read_stream(value)?;
            if (record.due <= now || retention.is_bounded())
                && let Some((channel, _)) = layout::split_channel(key)
            {
                let record = reading::newest_record(view, channel, record)?;
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
        })?;
        let is_round = seen < RECORDS && due.len() < DUE_MAX && trims.len() < TRIMS_MAX;
        self.stream = if is_round { Vec::new() } else { layout::next_key(last) };
        if is_round && retention.is_bounded() {
            findings.stored_bytes = Some(retention.end_walk());
        }
        findings.is_round = is_round;
        Ok(())
    }

    /// Goes from channel to channel, not from publication to publication.
    fn walk_publications(&mut self, view: &impl View) -> Result<Vec<Remains>, Fault> {
        let (mut remains, mut found) = (Vec::new(), 0);
        for _ in 0..CHANNELS {
            let mut first = None;
            let range = &self.publication[..]..&layout::LAST_KEY[..];
            view.scan(Table::Publications, range, Order::Ascending, &mut |key, _| {
                first = layout::split_channel(key).map(|(channel, _)| Arc::<str>::from(channel));
                Ok(false)
            })?;
            let Some(channel) = first else {
                self.publication.clear();
                break;
            };
            let offsets = remains_of(view, &channel, REMAINS_MAX - found)?;
            found += offsets.len();
            if !offsets.is_empty() {
                remains.push(Remains { channel: channel.clone(), offsets });
            }
            if found >= REMAINS_MAX {
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
        view.scan(Table::Keys, range, Order::Ascending, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(keys.len() < KEYS_MAX)
        })?;
        self.key = keys.first().cloned().unwrap_or(end);
        Ok(keys)
    }
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
    use super::*;
    use crate::model::storage::{StoreWrite, StoredKey, StreamChange, StreamRecord};
    use crate::store::batch::Batch;
    use crate::store::batch::tests::{change, commit, opened, publish, write};
    use crate::store::disk::Disk as _;
    use crate::store::layout::Epochs;
    use crate::store::memory_disk::MemoryDisk;
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
    fn idempotency_keys_are_found_again_if_their_removal_failed() {
        let disk = opened();
        (1..=3).for_each(|offset| write_key(&disk, offset));
        let mut keeper = Housekeeper::default();
        let found = keeper.step(&disk.view().unwrap(), 120_001).unwrap().cleanup.keys;
        assert_eq!(found.len(), 3);
        let removed = [0; 2].map(|_| remove_keys(&disk, &mut keeper, 120_001));
        assert_eq!(removed, [3, 0]);
    }
}
