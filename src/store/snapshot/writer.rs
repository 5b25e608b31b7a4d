//! Writes a snapshot: to a file with another name, which gets its name when it is complete and on
//! disk.
//!
//! Owns the file while it is written, and counts what its bound leaves out. Never decides about
//! time. The invariants: a file with the name of a snapshot is complete; a writer that is dropped
//! leaves no file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::base::sys;
use crate::model::snapshot::{NodeSecrets, SavedKey, SavedStream};
use crate::model::storage::StoredPublication;
use crate::store::folder::sync_folder;
use crate::store::snapshot::blocks::BlockWriter;
use crate::store::snapshot::entries::Entries;
use crate::store::snapshot::files::{FILE, NEW_FILE, remove};
use crate::store::snapshot::generations::KnownGenerations;
use crate::store::snapshot::records::{Generations, Key, Kind, Node, Publication, Stream};

/// The file holds secrets: its owner alone may read it.
const MODE: u32 = 0o600;
/// Bytes that are kept for the length of a record, the head of its block and the end of the file.
const RECORD_OVERHEAD: usize = 64;
/// Bytes between two syncs, so that the last one is short.
const SYNC_BYTES: u64 = 32 << 20;
/// Partitions of a record.
const PARTITIONS_EACH: usize = 4096;

/// A snapshot that is being written.
pub struct SnapshotWriter {
    folder: PathBuf,
    /// `None`: the file has its name, or is removed.
    blocks: Option<BlockWriter<File>>,
    bytes_max: u64,
    generations: KnownGenerations,
    written: Entries,
    left_out: Entries,
    /// Bytes that are synced, and the time of the longest sync.
    synced: u64,
    longest_sync: Duration,
}

impl SnapshotWriter {
    /// Begins a snapshot in a folder. Removes an older one. Entries beyond `bytes_max` are left
    /// out.
    ///
    /// # Errors
    /// The disk is full, read-only or faulty.
    pub fn create(folder: &Path, secrets: NodeSecrets, bytes_max: u64) -> io::Result<Self> {
        remove(folder)?;
        let path = folder.join(NEW_FILE);
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path)?;
        let begun = BlockWriter::new(file).and_then(|mut blocks| {
            blocks.add(Kind::Node(Node::new(secrets, sys::unix_millis())))?;
            Ok(blocks)
        });
        let blocks = begun.inspect_err(|_| _ = fs::remove_file(&path))?;
        Ok(SnapshotWriter {
            folder: folder.to_owned(),
            blocks: Some(blocks),
            bytes_max,
            generations: KnownGenerations::default(),
            written: Entries::default(),
            left_out: Entries::default(),
            synced: 0,
            longest_sync: Duration::ZERO,
        })
    }

    fn blocks(&mut self) -> io::Result<&mut BlockWriter<File>> {
        self.blocks.as_mut().ok_or_else(|| io::Error::other("the snapshot is complete"))
    }

    fn write(&mut self, kind: Kind) -> io::Result<()> {
        self.blocks()?.add(kind)?;
        if self.bytes() >= self.synced + SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Writes a record if it fits; returns whether it does.
    fn write_within_bound(&mut self, kind: Kind) -> io::Result<bool> {
        let bytes = kind.encoded_len() + RECORD_OVERHEAD;
        let fits = self.bytes().saturating_add(bytes as u64) <= self.bytes_max;
        if fits {
            self.write(kind)?;
        }
        Ok(fits)
    }

    fn sync(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        self.blocks()?.out().sync_data()?;
        self.synced = self.bytes();
        self.longest_sync = self.longest_sync.max(begun.elapsed());
        Ok(())
    }

    /// Writes streams. Returns the number of each; `None`: it does not fit.
    ///
    /// # Errors
    /// The disk is full, read-only or faulty.
    pub fn add_streams(&mut self, streams: &[SavedStream]) -> io::Result<Vec<Option<u64>>> {
        let mut numbers = Vec::with_capacity(streams.len());
        for stream in streams {
            let number = self.written.streams;
            if self.write_within_bound(Kind::Stream(Stream::new(stream)))? {
                self.written.streams += 1;
                numbers.push(Some(number));
            } else {
                self.generations.leave_out(stream.hash);
                self.left_out.streams += 1;
                numbers.push(None);
            }
        }
        Ok(numbers)
    }

    /// Notes generations of partitions. [`SnapshotWriter::end_streams`] writes them.
    pub fn add_generations(&mut self, generations: Vec<(u32, u32)>) {
        self.generations.add(generations);
    }

    /// Writes the generations after all streams, at most 3 MB, whatever the bound is: without them
    /// epochs would be used twice.
    ///
    /// # Errors
    /// The disk is full, read-only or faulty.
    pub fn end_streams(&mut self) -> io::Result<()> {
        let all = std::mem::take(&mut self.generations).finish();
        for some in all.chunks(PARTITIONS_EACH) {
            let (partitions, generations) = some.iter().copied().unzip();
            self.write(Kind::Generations(Generations { partitions, generations }))?;
        }
        Ok(())
    }

    /// Writes idempotency keys, as far as they fit.
    ///
    /// # Errors
    /// The disk is full, read-only or faulty.
    pub fn add_keys(&mut self, keys: &[SavedKey]) -> io::Result<()> {
        for key in keys {
            let fits = self.write_within_bound(Kind::Key(Key::new(key)))?;
            self.written.keys += u64::from(fits);
            self.left_out.keys += u64::from(!fits);
        }
        Ok(())
    }

    /// Writes publications of the streams with these numbers, newest first. Returns whether all of
    /// them fit.
    ///
    /// # Errors
    /// The disk is full, read-only or faulty.
    pub fn add_publications(&mut self, all: &[(u64, StoredPublication)]) -> io::Result<bool> {
        for (stream, publication) in all {
            let record = Publication::new(*stream, publication);
            if !self.write_within_bound(Kind::Publication(record))? {
                return Ok(false);
            }
            self.written.publications += 1;
        }
        Ok(true)
    }

    /// Counts entries that were not offered.
    pub fn leave_out(&mut self, entries: Entries) {
        self.left_out.streams += entries.streams;
        self.left_out.publications += entries.publications;
        self.left_out.keys += entries.keys;
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.blocks.as_ref().map_or(0, BlockWriter::bytes)
    }

    /// What is written.
    pub fn written(&self) -> Entries {
        self.written
    }

    /// What is left out.
    pub fn left_out(&self) -> Entries {
        self.left_out
    }

    /// How long [`SnapshotWriter::finish`] may take.
    pub fn end_time(&self) -> Duration {
        2 * self.longest_sync
    }

    /// Syncs the file, gives it its name and syncs the folder. Returns its size in bytes.
    ///
    /// # Errors
    /// The disk is full, read-only or faulty. Then there is no snapshot.
    pub fn finish(mut self) -> io::Result<u64> {
        let Some(blocks) = self.blocks.take() else { return Ok(0) };
        let finished = self.name(blocks);
        if finished.is_err() {
            // The error that ended the snapshot matters more than one of the removal.
            let _ = remove(&self.folder);
        }
        finished
    }

    fn name(&self, blocks: BlockWriter<File>) -> io::Result<u64> {
        let file = blocks.finish()?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        fs::rename(self.folder.join(NEW_FILE), self.folder.join(FILE))?;
        sync_folder(&self.folder)?;
        Ok(bytes)
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.blocks.take().is_some() {
            // If this fails, the next start removes the file.
            let _ = fs::remove_file(self.folder.join(NEW_FILE));
        }
    }
}
