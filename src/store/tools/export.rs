//! `drumline store export`: writes everything that a store keeps.
//!
//! Owns the order of an export. Never writes to the store. The invariants: each stream is exported
//! as it was at one moment; streams that have ended, and publications before the first offset of
//! their stream, are left out.

use std::io::{self, Write};
use std::path::Path;

use crate::base::failure::Failure;
use crate::store::disk::{Disk, Table};
use crate::store::folder::failure;
use crate::store::tools::archive::{ArchiveWriter, Counts, Entry, Key, Publication, Stream, Value};
use crate::store::tools::walk;
use crate::store::{layout, records};

const UNWRITABLE_CURE: &str = "name a new file in a folder with room, or `-` for stdout";

/// Writes an export. `now` is unix time in milliseconds.
///
/// # Errors
/// The store cannot be read, or the output takes no data.
pub fn write(disk: &impl Disk, now: u64, to: impl Write) -> Result<Counts, Failure> {
    let mut archive = ArchiveWriter::new(to).map_err(|error| unwritable(&error))?;
    walk::entries(disk, Table::Streams, |view, key, bytes| {
        let Some((channel, _)) = layout::split_channel(key) else { return Ok(()) };
        let record = walk::record(view, channel, bytes).map_err(|fault| failure(&fault))?;
        if record.ends <= now {
            return Ok(());
        }
        let bytes = records::write_stream(&record);
        let stream = Stream { channel: channel.into(), record: bytes };
        archive.write(Entry::Stream(stream)).map_err(|error| unwritable(&error))?;
        walk::publications(view, channel, |offset, bytes| {
            if !(record.first..=record.top).contains(&offset) {
                return Ok(());
            }
            let publication = Publication { offset, record: bytes.to_vec() };
            let written = archive.write(Entry::Publication(publication));
            written.map_err(|error| unwritable(&error))
        })
    })?;
    walk::entries(disk, Table::Keys, |_, key, bytes| {
        let channel = key.get(4..).and_then(layout::split_channel);
        let Some((channel, _)) = channel else { return Ok(()) };
        if records::read_key(bytes).map_err(|fault| failure(&fault))?.until <= now {
            return Ok(());
        }
        let entry = Key { channel: channel.into(), record: bytes.to_vec() };
        archive.write(Entry::Key(entry)).map_err(|error| unwritable(&error))
    })?;
    walk::entries(disk, Table::State, |_, key, value| {
        if layout::is_own(key) {
            return Ok(());
        }
        let entry = Value { key: key.to_vec(), value: value.to_vec() };
        archive.write(Entry::Value(entry)).map_err(|error| unwritable(&error))
    })?;
    let (_, counts) = archive.finish().map_err(|error| unwritable(&error))?;
    Ok(counts)
}

/// The output takes no data.
pub fn unwritable(error: &io::Error) -> Failure {
    Failure::new(format!("cannot write the export: {error}"), UNWRITABLE_CURE)
}

/// The file cannot be created.
pub fn uncreatable(file: &Path, error: &io::Error) -> Failure {
    let cause = format!("cannot write the export to {}: {error}", file.display());
    Failure::new(cause, UNWRITABLE_CURE)
}
