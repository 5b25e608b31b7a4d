//! `drumline store import`: writes an export into a store.
//!
//! Owns the order of an import. Never changes a stream that the store has. The invariants: the
//! whole export is read and decoded before anything is written; every stream begins a new epoch and
//! keeps its offsets, so a client that has seen more than the export gets `recovered: false` and no
//! offset means two publications; a store whose import was interrupted does not open.

use std::fmt::Display;
use std::io::Read;

use crate::base::failure::Failure;
use crate::model::storage::StreamRecord;
use crate::store::disk::{Change, Disk, Fault, Table, View};
use crate::store::folder::failure;
use crate::store::layout::{self, Epochs};
use crate::store::records;
use crate::store::tools::archive::{ArchiveReader, Counts, Entry, Publication};
use crate::wire::protocol::Position;

/// Entries of a batch.
const BATCH_MAX: usize = 4096;
/// Bytes of a batch.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Reads a whole export, decodes its records, and checks that the store, if there is one, has none
/// of its channels.
///
/// # Errors
/// The export is damaged, or the store has one of its channels.
pub fn check(disk: Option<&impl Disk>, from: impl Read) -> Result<(), Failure> {
    let mut archive = ArchiveReader::new(from)?;
    let view = disk.map(Disk::view).transpose().map_err(|fault| failure(&fault))?;
    let mut stream = None;
    while let Some(entry) = archive.next_entry()? {
        decode(&mut stream, &entry)?;
        let (Some(view), Entry::Stream(stream)) = (&view, entry) else { continue };
        let found = view.get(Table::Streams, &layout::stream_key(&stream.channel));
        if found.map_err(|fault| failure(&fault))?.is_some() {
            return Err(Failure::new(
                format!("the store has a stream of channel `{}` already", stream.channel),
                "import into a new folder with --path, and point store.path there",
            ));
        }
    }
    Ok(())
}

/// Decodes the record of an entry. `stream` is the stream to which publications belong.
fn decode(stream: &mut Option<(String, StreamRecord)>, entry: &Entry) -> Result<(), Failure> {
    match entry {
        Entry::Stream(next) => {
            let record = records::read_stream(&next.record);
            let place = || format!("the stream of channel `{}`", next.channel);
            let record = record.map_err(|fault| undecodable(place(), &fault))?;
            let StreamRecord { first, top, .. } = record;
            if first == 0 || first > top.saturating_add(1) {
                let cause = format!("its first offset {first} does not fit its top {top}");
                return Err(damaged(format!("{}: {cause}", place())));
            }
            *stream = Some((next.channel.clone(), record));
            Ok(())
        }
        Entry::Publication(Publication { offset, record: bytes }) => {
            let Some((channel, record)) = stream else {
                let place = format!("a publication at offset {offset} has no stream");
                return Err(damaged(place));
            };
            let place = || format!("the publication of channel `{channel}` at offset {offset}");
            if !(record.first..=record.top).contains(offset) {
                let StreamRecord { first, top, .. } = record;
                let cause = "is outside the history of its stream";
                return Err(damaged(format!("{} {cause}, {first} to {top}", place())));
            }
            let position = Position { offset: *offset, epoch: record.epoch };
            let read = records::read_publication((channel, 0), position, bytes);
            let carried = read.and_then(|_| records::read_carried(bytes));
            carried.map(drop).map_err(|fault| undecodable(place(), &fault))
        }
        Entry::Key(key) => {
            let place = || format!("an idempotency key of channel `{}`", key.channel);
            let read = records::read_key(&key.record);
            read.map(drop).map_err(|fault| undecodable(place(), &fault))
        }
        Entry::Value(_) | Entry::End(_) => Ok(()),
    }
}

/// Writes an export that was checked. `secret` makes the new epochs; it must be random for each
/// import.
///
/// # Errors
/// The disk fails.
pub fn write(disk: &impl Disk, from: impl Read, secret: [u8; 16]) -> Result<Counts, Failure> {
    let mut import = Import {
        disk,
        epochs: Epochs::new(secret),
        channel: String::new(),
        batch: Vec::new(),
        bytes: 0,
    };
    let (table, mark) = (Table::State, layout::IMPORT_KEY.to_vec());
    import.put(table, mark.clone(), b"begun".to_vec())?;
    import.flush()?;
    let mut archive = ArchiveReader::new(from)?;
    while let Some(entry) = archive.next_entry()? {
        import.add(entry)?;
    }
    import.flush()?;
    import.batch.push(Change { table, key: mark, value: None });
    import.flush()?;
    Ok(archive.counts())
}

struct Import<'a, D> {
    disk: &'a D,
    epochs: Epochs,
    /// The channel of the publications that follow.
    channel: String,
    batch: Vec<Change>,
    bytes: usize,
}

impl<D: Disk> Import<'_, D> {
    fn add(&mut self, entry: Entry) -> Result<(), Failure> {
        match entry {
            Entry::Stream(stream) => {
                let old = records::read_stream(&stream.record).map_err(damaged)?;
                let epoch = self.epochs.after(&stream.channel, old.epoch);
                let record = records::write_stream(&StreamRecord { epoch, ..old });
                let key = layout::stream_key(&stream.channel);
                self.channel = stream.channel;
                self.put(Table::Streams, key, record)
            }
            Entry::Publication(publication) => {
                let key = layout::publication_key(&self.channel, publication.offset);
                self.put(Table::Publications, key, publication.record)
            }
            Entry::Key(key) => {
                let mut stored = records::read_key(&key.record).map_err(damaged)?;
                let Position { offset, epoch } = stored.position;
                let epoch = self.epochs.after(&key.channel, epoch);
                stored.position = Position { offset, epoch };
                let place = layout::idempotency_key(&key.channel, stored.place());
                self.put(Table::Keys, place, records::write_key(&stored))
            }
            Entry::Value(value) => self.put(Table::State, value.key, value.value),
            Entry::End(_) => Ok(()),
        }
    }

    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Result<(), Failure> {
        self.bytes += key.len() + value.len();
        self.batch.push(Change { table, key, value: Some(value) });
        match self.batch.len() < BATCH_MAX && self.bytes < BATCH_BYTES_MAX {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.disk.commit(batch).map_err(|fault| {
            let cause = format!("the import is not complete: {fault}");
            Failure::new(cause, format!("remove the folder, {}, import again", fault.cure()))
        })
    }
}

fn undecodable(place: String, fault: &Fault) -> Failure {
    damaged(format!("{place}: {fault}"))
}

fn damaged(cause: impl Display) -> Failure {
    Failure::new(format!("the export is damaged: {cause}"), "use another export, or export again")
}
