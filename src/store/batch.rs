//! A batch: changes of streams as changes of keys.
//!
//! Owns the translation. Never writes to a disk. The invariants: of several changes of a key in a
//! batch, the last counts, so the record of a stream is written once; when a record is removed, the
//! generation of its channel is renewed in the same batch, and the channel has the same next epoch
//! before and after it. What is damaged on disk fails no batch: an input/output error does.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::model::storage::{StoreWrite, StreamChange, StreamRecord};
use crate::store::disk::{Change, Fault, FaultKind, Order, Table, View};
use crate::store::layout::{self, Epochs};
use crate::store::records;

/// Erased offsets of a range that are written without a look at the disk.
const BLIND_ERASED_MAX: u64 = 1024;
/// Publications of a longer range that a change erases at once. Further ones are remains, which
/// are not delivered and which the housekeeping removes.
const ERASED_MAX: usize = 8192;

/// Keys with their new values, in the order of the keys.
type Changes = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

/// Collects the changes of a batch.
pub struct Batch<'a, V> {
    view: &'a V,
    epochs: Epochs,
    changes: Changes,
    publications: u64,
}

impl<'a, V: View> Batch<'a, V> {
    /// An empty batch on top of what is on disk.
    pub fn new(view: &'a V, epochs: Epochs) -> Self {
        Batch { view, epochs, changes: Changes::new(), publications: 0 }
    }

    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert((table, key), Some(value));
    }

    fn remove(&mut self, table: Table, key: Vec<u8>) {
        self.changes.insert((table, key), None);
    }

    /// Adds a change of a stream.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn add(&mut self, write: &StoreWrite) -> Result<(), Fault> {
        let StoreWrite { channel, change, .. } = write;
        let StreamChange { record, publication, is_carried, erased, key, erased_keys } = change;
        for offsets in erased {
            self.erase(channel, offsets)?;
        }
        for key in erased_keys {
            self.remove(Table::Keys, layout::idempotency_key(channel, *key));
        }
        if let Some(key) = key {
            let place = layout::idempotency_key(channel, key.place());
            self.put(Table::Keys, place, records::write_key(key));
        }
        match record {
            Some(record) => {
                if !is_carried {
                    let key = layout::stream_key(channel);
                    self.put(Table::Streams, key, records::write_stream(record));
                }
                if let Some(publication) = publication {
                    let key = layout::publication_key(channel, record.top);
                    let carried = is_carried.then_some(record);
                    let value = records::write_publication(publication, carried);
                    self.put(Table::Publications, key, value);
                    self.publications += 1;
                }
            }
            None => self.end(channel)?,
        }
        Ok(())
    }

    /// Removes the record of a stream, if there is one.
    fn end(&mut self, channel: &str) -> Result<(), Fault> {
        let generation = match unless_damaged(self.record(channel))? {
            Some(None) => return Ok(()),
            Some(Some(record)) => self.epochs.generation_after(channel, record.epoch),
            // The epoch is unknown.
            None => self.epochs.generation_after_damage(channel, self.generation(channel)?),
        };
        if !planted(PlantedFault::GenerationKept) {
            let key = self.epochs.generation_key(channel);
            self.put(Table::State, key, generation.to_be_bytes().to_vec());
        }
        self.remove(Table::Streams, layout::stream_key(channel));
        Ok(())
    }

    fn erase(&mut self, channel: &str, offsets: &Range<u64>) -> Result<(), Fault> {
        if offsets.is_empty() {
            return Ok(());
        }
        if offsets.end - offsets.start <= BLIND_ERASED_MAX {
            for offset in offsets.clone() {
                self.remove(Table::Publications, layout::publication_key(channel, offset));
            }
            return Ok(());
        }
        let Range { start, end } = layout::publication_keys(channel, offsets);
        let mut found = Vec::new();
        let range = &start[..]..&end[..];
        let scanned =
            self.view.scan(Table::Publications, range, Order::Ascending, &mut |key, _| {
                found.push(key.to_vec());
                Ok(found.len() < ERASED_MAX)
            });
        // Those behind a damaged one are remains, too.
        unless_damaged(scanned)?;
        for key in found {
            self.remove(Table::Publications, key);
        }
        let range = (Table::Publications, start)..(Table::Publications, end);
        for (_, value) in self.changes.range_mut(range) {
            *value = None;
        }
        Ok(())
    }

    /// Removes an idempotency key that has expired.
    pub fn remove_expired_key(&mut self, key: Vec<u8>) {
        self.remove(Table::Keys, key);
    }

    /// Removes publications that do not belong to the stream of their channel. Those of a channel
    /// whose record is damaged stay.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn remove_remains(&mut self, channel: &str, offsets: &[u64]) -> Result<(), Fault> {
        let settled = match unless_damaged(self.record(channel))? {
            Some(Some(record)) => record.settled,
            Some(None) => u64::MAX,
            // Any of them may belong to the stream.
            None => return Ok(()),
        };
        for offset in offsets.iter().filter(|offset| **offset < settled) {
            let key = (Table::Publications, layout::publication_key(channel, *offset));
            self.changes.entry(key).or_insert(None);
        }
        Ok(())
    }

    /// The record of a stream after the changes so far.
    fn record(&self, channel: &str) -> Result<Option<StreamRecord>, Fault> {
        let record = self.value(Table::Streams, layout::stream_key(channel))?;
        record.map(|record| records::read_stream(&record)).transpose()
    }

    /// The generation of a channel after the changes so far.
    fn generation(&self, channel: &str) -> Result<u64, Fault> {
        let generation = self.value(Table::State, self.epochs.generation_key(channel))?;
        Ok(layout::read_generation(generation))
    }

    /// The value of a key after the changes so far.
    fn value(&self, table: Table, key: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
        let key = (table, key);
        match self.changes.get(&key) {
            Some(value) => Ok(value.clone()),
            None => self.view.get(table, &key.1),
        }
    }

    /// Publications that the batch adds.
    pub fn publications(&self) -> u64 {
        self.publications
    }

    /// Bytes of the keys and values.
    pub fn bytes(&self) -> u64 {
        let values = self
            .changes
            .iter()
            .map(|((_, key), value)| key.len() + value.as_ref().map_or(0, Vec::len));
        values.sum::<usize>() as u64
    }

    /// The changes, in the order of the keys.
    pub fn into_changes(self) -> Vec<Change> {
        let changes = self.changes.into_iter();
        changes.map(|((table, key), value)| Change { table, key, value }).collect()
    }
}

/// What was read; `None`: it is damaged.
fn unless_damaged<T>(found: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match found {
        Err(fault) if fault.kind == FaultKind::Corrupt => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::storage::{StoredKey, StoredPublication};
    use crate::store::disk::Disk as _;
    use crate::store::memory_disk::MemoryDisk;
    use crate::store::reading;
    use crate::store::records::tests::{record, stored};
    use crate::wire::protocol::{Epoch, Position};

    pub(crate) fn change() -> StreamChange {
        StreamChange::default()
    }

    pub(crate) fn write(channel: &str, change: StreamChange) -> StoreWrite {
        StoreWrite { shard: 0, serial: 1, term: 0, channel: channel.into(), change }
    }

    /// A publication of a stream whose first offset is `first`.
    pub(crate) fn publish(channel: &str, top: u64, first: u64) -> StoreWrite {
        let publication = Some(stored(channel, top, 500_000));
        let record = Some(record(top, first));
        write(channel, StreamChange { record, publication, ..change() })
    }

    pub(crate) fn opened() -> MemoryDisk {
        let disk = MemoryDisk::default();
        disk.reopen().unwrap();
        disk
    }

    pub(crate) fn commit(disk: &MemoryDisk, writes: &[StoreWrite]) {
        let view = disk.view().unwrap();
        let mut batch = Batch::new(&view, reading::epochs(&view).unwrap());
        writes.iter().for_each(|write| batch.add(write).unwrap());
        let changes = batch.into_changes();
        let keys: Vec<_> = changes.iter().map(|change| (change.table, &change.key)).collect();
        assert!(keys.is_sorted_by(|one, two| one < two), "no key twice: {keys:?}");
        disk.commit(changes).unwrap();
    }

    pub(crate) fn offsets(disk: &MemoryDisk, channel: &str) -> Vec<u64> {
        let entries = disk.entries(Table::Publications);
        let found = entries.iter().filter_map(|(key, _)| layout::split_publication_key(key));
        found.filter(|(of, _)| *of == channel).map(|(_, offset)| offset).collect()
    }

    fn key(offset: u64) -> StoredKey {
        let position = Position { offset, epoch: Epoch::from_random(1) };
        StoredKey { key: "k".into(), position, until: 90_000 }
    }

    #[test]
    fn of_several_changes_of_a_stream_the_last_record_is_written() {
        let disk = opened();
        commit(&disk, &[publish("a", 1, 1), publish("b", 1, 1), publish("a", 2, 1)]);
        let records = disk.entries(Table::Streams);
        assert_eq!(records.len(), 2);
        assert_eq!(records::read_stream(&records[0].1).unwrap(), record(2, 1));
        assert_eq!((offsets(&disk, "a"), offsets(&disk, "b")), (vec![1, 2], vec![1]));
    }

    #[test]
    fn a_publication_that_the_same_batch_erases_is_not_written() {
        let disk = opened();
        let mut second = publish("a", 2, 2);
        second.change.erased = [1..2, 7..8];
        commit(&disk, &[publish("a", 1, 1), second]);
        assert_eq!(offsets(&disk, "a"), [2]);
    }

    #[test]
    fn an_erased_offset_that_a_later_change_uses_again_is_written() {
        let disk = opened();
        commit(&disk, &[publish("a", 1, 1), publish("a", 2, 1)]);
        let mut again = publish("a", 2, 1);
        again.change.erased = [0..0, 2..4];
        let erasing = StreamChange { record: Some(record(1, 1)), erased: [2..4, 0..0], ..change() };
        commit(&disk, &[write("a", erasing), again]);
        assert_eq!(offsets(&disk, "a"), [1, 2]);
    }

    #[test]
    fn a_long_range_erases_what_is_on_disk_and_what_the_batch_has_written() {
        let disk = opened();
        commit(&disk, &[publish("a", 5, 1), publish("a", 6, 1), publish("b", 6, 1)]);
        let erasing =
            StreamChange { record: Some(record(7, 8)), erased: [1..u64::MAX, 0..0], ..change() };
        commit(&disk, &[publish("a", 7, 1), write("a", erasing)]);
        assert_eq!((offsets(&disk, "a"), offsets(&disk, "b")), (vec![], vec![6]));
    }

    #[test]
    fn the_end_of_a_stream_renews_its_generation() {
        let disk = opened();
        commit(&disk, &[publish("a", 1, 1)]);
        assert_eq!(disk.entries(Table::State).len(), 1, "the secret alone");
        let ending = StreamChange { erased: [1..2, 0..0], ..change() };
        commit(&disk, &[write("a", ending)]);
        assert!(disk.entries(Table::Streams).is_empty() && offsets(&disk, "a").is_empty());
        let generations = disk.entries(Table::State);
        let epochs = reading::epochs(&disk.view().unwrap()).unwrap();
        let generation = epochs.generation_after("a", record(1, 1).epoch);
        assert_eq!(generations[0].1, generation.to_be_bytes());
        commit(&disk, &[write("a", change())]);
        assert_eq!(disk.entries(Table::State), generations, "nothing has ended");
    }

    #[test]
    fn idempotency_keys_are_written_and_erased() {
        let disk = opened();
        let mut one = publish("a", 1, 1);
        one.change.key = Some(key(1));
        let mut two = publish("a", 2, 1);
        two.change.key = Some(key(2));
        commit(&disk, &[one, two]);
        assert_eq!(disk.entries(Table::Keys).len(), 2);
        let mut three = publish("a", 3, 1);
        three.change.erased_keys = vec![key(1).place()];
        commit(&disk, &[three]);
        let keys = disk.entries(Table::Keys);
        assert_eq!(records::read_key(&keys[0].1).unwrap(), key(2));
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn remains_are_removed_unless_the_stream_has_them() {
        let disk = opened();
        commit(&disk, &[publish("a", 1, 1), publish("a", 2, 2), publish("b", 1, 1)]);
        disk.set(Table::Publications, &layout::publication_key("c", 4), b"");
        let view = disk.view().unwrap();
        let mut batch = Batch::new(&view, reading::epochs(&view).unwrap());
        // A stream of `d` begins in the same batch.
        disk.set(Table::Publications, &layout::publication_key("d", 1), b"");
        batch.add(&publish("d", 1, 1)).unwrap();
        for (channel, found) in [("a", &[1, 2][..]), ("b", &[1]), ("c", &[4]), ("d", &[1])] {
            batch.remove_remains(channel, found).unwrap();
        }
        disk.commit(batch.into_changes()).unwrap();
        let left = ["a", "b", "c", "d"].map(|channel| offsets(&disk, channel));
        assert_eq!(left, [vec![2], vec![1], vec![], vec![1]]);
    }

    #[test]
    fn a_publication_of_a_batch_is_counted() {
        let view = opened().view().unwrap();
        let mut batch = Batch::new(&view, reading::epochs(&view).unwrap());
        let StoredPublication { publication, .. } = stored("a", 1, 1);
        batch.add(&publish("a", 1, 1)).unwrap();
        let bytes = batch.bytes() as usize;
        assert_eq!(batch.publications(), 1);
        assert!((publication.data().len()..300).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_damaged_record_fails_no_batch_and_its_stream_ends_with_a_new_epoch() {
        let disk = opened();
        commit(&disk, &[publish("a", 1, 1), publish("b", 1, 1)]);
        let epochs = reading::epochs(&disk.view().unwrap()).unwrap();
        let first = epochs.of_generation("a", 0);
        // Epochs that the stream can have had: each can follow the one before without its removal.
        let mut seen = vec![first, epochs.after("a", first)];
        for _ in 0..3 {
            disk.set(Table::Streams, &layout::stream_key("a"), b"\xff");
            let view = disk.view().unwrap();
            let mut batch = Batch::new(&view, epochs);
            batch.remove_remains("a", &[1]).unwrap();
            assert!(batch.into_changes().is_empty(), "it may belong to the stream");
            commit(&disk, &[write("a", change()), publish("b", 2, 1)]);
            assert_eq!(disk.entries(Table::Streams).len(), 1, "that of `b`");
            let generation = disk.view().unwrap().get(Table::State, &epochs.generation_key("a"));
            let generation = layout::read_generation(generation.unwrap());
            let next = epochs.of_generation("a", generation);
            assert!(!seen.contains(&next));
            seen.extend([next, epochs.after("a", next)]);
        }
    }

    /// A disk that reads nothing, for this cause.
    struct Unreadable(FaultKind);

    impl View for Unreadable {
        fn get(&self, table: Table, _: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
            match table {
                Table::State => Ok(None),
                _ => Err(Fault::new(self.0, "")),
            }
        }

        fn scan(
            &self,
            _: Table,
            _: Range<&[u8]>,
            _: Order,
            _: &mut crate::store::disk::Visitor<'_>,
        ) -> Result<(), Fault> {
            Err(Fault::new(self.0, ""))
        }
    }

    #[test]
    fn what_is_damaged_fails_no_batch_and_an_error_of_the_disk_does() {
        for (kind, is_kept) in [(FaultKind::Corrupt, true), (FaultKind::Io, false)] {
            let view = Unreadable(kind);
            let mut batch = Batch::new(&view, Epochs::new([1; 16]));
            assert_eq!(batch.remove_remains("a", &[1]).is_ok(), is_kept);
            assert_eq!(batch.add(&write("a", change())).is_ok(), is_kept);
            let erased = [1..u64::MAX, 0..0];
            let erasing = StreamChange { record: Some(record(1, 1)), erased, ..change() };
            assert_eq!(batch.add(&write("a", erasing)).is_ok(), is_kept);
        }
    }
}
