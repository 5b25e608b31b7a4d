//! Housekeeping: walks over the tables, a few entries at a time, and finds what can be removed.
//!
//! Owns the places of the walks. Never writes: what is found goes to the homes or into a later
//! batch, which looks again before it removes anything. The invariant: a step reads a bounded
//! number of entries, however large the store is.

use std::sync::Arc;

use crate::store::disk::{Fault, Order, Table, View};
use crate::store::{layout, reading, records};

/// Records of streams that a step reads.
const RECORDS: usize = 1024;
/// Streams with something expired that a step names.
const DUE_MAX: usize = 16;
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
}

impl Housekeeper {
    /// Walks on. `now` is unix time in milliseconds.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn step(&mut self, view: &impl View, now: u64) -> Result<Findings, Fault> {
        let (due, is_round) = self.walk_streams(view, now)?;
        let remains = self.walk_publications(view)?;
        let keys = self.walk_keys(view, now)?;
        Ok(Findings { due, cleanup: Cleanup { remains, keys }, is_round })
    }

    fn walk_streams(&mut self, view: &impl View, now: u64) -> Result<(Vec<Arc<str>>, bool), Fault> {
        let (mut due, mut seen, mut last) = (Vec::new(), 0, Vec::new());
        let range = &self.stream[..]..&layout::LAST_KEY[..];
        view.scan(Table::Streams, range, Order::Ascending, &mut |key, value| {
            let record = records::read_stream(value)?;
            if record.due <= now
                && let Some((channel, _)) = layout::split_channel(key)
                && reading::newest_record(view, channel, record)?.due <= now
            {
                due.push(channel.into());
            }
            seen += 1;
            last = key.to_vec();
            Ok(seen < RECORDS && due.len() < DUE_MAX)
        })?;
        let is_round = seen < RECORDS && due.len() < DUE_MAX;
        self.stream = if is_round { Vec::new() } else { layout::next_key(last) };
        Ok((due, is_round))
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
    /// anew each time.
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
        self.key = keys.last().cloned().map_or(end, layout::next_key);
        Ok(keys)
    }
}

/// Offsets of publications that do not belong to the stream of the channel.
fn remains_of(view: &impl View, channel: &str, most: usize) -> Result<Vec<u64>, Fault> {
    let record = view.get(Table::Streams, &layout::stream_key(channel))?;
    let settled = match record {
        Some(record) => records::read_stream(&record)?.settled,
        None => u64::MAX,
    };
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

    #[test]
    fn idempotency_keys_are_found_when_their_minute_is_over() {
        let disk = opened();
        for offset in 1..=2000 {
            let position = Position { offset, epoch: Epoch::from_random(1) };
            let until = 60_000 + offset;
            let mut write = publish("a", offset, 1);
            write.change.key = Some(StoredKey { key: "k".into(), position, until });
            commit(&disk, &[write]);
        }
        let mut keeper = Housekeeper::default();
        let mut found = |now| {
            let keys: usize = (0..10)
                .map(|_| keeper.step(&disk.view().unwrap(), now).unwrap().cleanup.keys)
                .inspect(|keys| assert!(keys.len() <= KEYS_MAX))
                .map(|keys| keys.len())
                .sum();
            keys
        };
        assert_eq!([found(61_000), found(120_000), found(120_001)], [0, 0, 2000]);
        assert_eq!(found(130_000), 0, "the walk does not begin anew");
        assert_eq!([found(110_000), found(130_000)], [0, 2000], "the clock was set back");
    }
}
