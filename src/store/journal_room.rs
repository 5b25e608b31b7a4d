//! Room in the journal that fjall writes, so that its syncs are quick.
//!
//! Owns the length and the blocks of the newest journal behind its end. Never changes a byte: it
//! writes zeros where zeros are read. The reason: a sync of a file that has grown, or that has got
//! a new block, also writes the file's inode or extents, and takes longer. fjall makes a new
//! journal with its final length, but appends to one that it finds, and allocates no blocks ahead.
//! Failures cost speed alone, so they are ignored.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom};

use crate::base::sys;
use crate::store::journals;

/// Length that fjall gives a new journal.
const LENGTH: u64 = 64 << 20;
/// Bytes that are written with zeros at a time, besides what the next batch needs. The sync behind
/// them takes some milliseconds.
const STEP: u64 = 512 << 10;
/// Bytes that are read and written at a time.
const PIECE: usize = 64 << 10;

/// Zeros ahead of the end of the newest journal.
#[derive(Debug)]
pub struct JournalRoom {
    folder: PathBuf,
    /// Bytes for which there are zeros, as far as it is known: a new journal has none.
    left: u64,
}

impl JournalRoom {
    /// The room in the newest journal of a folder. fjall has just opened it and writes nothing
    /// meanwhile.
    pub fn new(folder: &Path) -> Self {
        let _ = stop_appending(folder);
        JournalRoom { folder: folder.to_owned(), left: 0 }
    }

    /// Makes room for a batch of so many bytes, and counts it. Nobody writes to the journal
    /// meanwhile.
    pub fn take(&mut self, bytes: u64) {
        if self.left < bytes {
            let _ = write_zeros(&self.folder, bytes + STEP);
            self.left = bytes + STEP;
        }
        self.left -= bytes;
    }
}

/// Path of the newest journal.
fn newest(folder: &Path) -> io::Result<PathBuf> {
    let journals = journals::list(folder)?.into_iter();
    let newest = journals.filter_map(|(id, path)| Some((id?, path))).max();
    newest.map(|(_, path)| path).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Makes fjall write at the end of the journal instead of appending to the file, and gives the file
/// its final length.
fn stop_appending(folder: &Path) -> io::Result<()> {
    let path = newest(folder)?.canonicalize()?;
    let journal = fs::metadata(&path)?;
    for file in sys::own_descriptors(&path)? {
        let found = file.metadata()?;
        let flags = rustix::fs::fcntl_getfl(&file)?;
        if (found.dev(), found.ino()) == (journal.dev(), journal.ino())
            && flags.contains(OFlags::APPEND)
        {
            rustix::fs::seek(&file, SeekFrom::End(0))?;
            rustix::fs::fcntl_setfl(&file, flags - OFlags::APPEND)?;
            file.set_len(found.len().max(LENGTH))?;
        }
    }
    Ok(())
}

/// Writes zeros from the first hole of the newest journal on, which allocates blocks.
fn write_zeros(folder: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(newest(folder)?)?;
    let mut place = rustix::fs::seek(&file, SeekFrom::Hole(0))?;
    let end = file.metadata()?.len().min(place.saturating_add(bytes));
    let mut piece = vec![0; PIECE];
    while place < end {
        let count = PIECE.min((end - place) as usize);
        let part = piece.get_mut(..count).unwrap_or_default();
        file.read_exact_at(part, place)?;
        if part.iter().any(|byte| *byte != 0) {
            // A file system that takes data for a hole.
            return Err(io::ErrorKind::InvalidData.into());
        }
        file.write_all_at(part, place)?;
        place += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::store::disk::{Disk as _, Table};
    use crate::store::fjall_disk::FjallDisk;
    use crate::store::fjall_disk::tests::{folder, keys, opened, put};

    fn commit(disk: &FjallDisk, key: &str, bytes: usize) {
        disk.commit(vec![put(Table::Keys, key, &vec![7; bytes])]).unwrap();
    }

    /// Length of the newest journal, and the bytes between its last batch and its first hole.
    fn extent(folder: &Path) -> (u64, u64) {
        let path = newest(&folder.join("data")).unwrap();
        let hole = rustix::fs::seek(File::open(&path).unwrap(), SeekFrom::Hole(0)).unwrap();
        let content = fs::read(path).unwrap();
        let last = content.iter().rposition(|byte| *byte != 0).unwrap();
        (content.len() as u64, hole.saturating_sub(last as u64))
    }

    #[test]
    fn the_journal_of_every_run_has_its_final_length_and_blocks_ahead() {
        let folder = folder();
        for run in 1..=3 {
            let disk = opened(folder.path());
            for (key, bytes) in [("small", 100), ("large", 2 * STEP as usize)] {
                commit(&disk, &format!("{key}-{run}"), bytes);
                let (length, room) = extent(folder.path());
                assert_eq!(length, LENGTH, "{key}, run {run}");
                assert!(room > STEP / 2, "{key}, run {run}: {room}");
            }
            if run == 2 {
                disk.close().unwrap();
            }
        }
        assert_eq!(keys(&opened(folder.path()), Table::Keys).len(), 6);
    }

    #[test]
    fn zeros_are_written_into_holes_alone() {
        let folder = folder();
        let path = folder.path().join("3.jnl");
        for name in ["2.jnl", "x.jnl", "4.txt"] {
            fs::write(folder.path().join(name), b"older").unwrap();
        }
        fs::write(&path, b"batch").unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(3 * STEP).unwrap();
        file.write_all_at(b"far", 2 * STEP).unwrap();
        assert!(write_zeros(folder.path(), 3 * STEP).is_err(), "data behind the hole");
        let content = fs::read(&path).unwrap();
        assert_eq!(
            (&content[..5], &content[2 * STEP as usize..][..3]),
            (&b"batch"[..], &b"far"[..])
        );
        assert!(content[5..2 * STEP as usize].iter().all(|byte| *byte == 0));
        assert_eq!(fs::read(folder.path().join("2.jnl")).unwrap(), b"older");
    }
}
