//! `drumline store check` and `drumline store stats`: read a whole store.
//!
//! Owns the rules by which records belong together. Never writes to the store.

use std::fmt::{self, Display};
use std::path::Path;
use std::{fs, io};

use crate::base::failure::Failure;
use crate::model::storage::StreamRecord;
use crate::store::disk::{Disk, Fault, Table, View};
use crate::store::tools::walk;
use crate::store::{layout, reading, records};
use crate::wire::protocol::Position;

/// Faults that a report describes; further ones are counted.
const FAULTS_MAX: usize = 20;

/// What a store contains.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Streams.
    pub streams: u64,
    /// Publications of these streams.
    pub publications: u64,
    /// Publications that belong to no stream, and that the housekeeping removes.
    pub remains: u64,
    /// Idempotency keys.
    pub keys: u64,
    /// Small values of other parts of the server.
    pub values: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Descriptions of the first faults.
    pub faults: Vec<String>,
    /// Number of faults.
    pub faults_found: u64,
}

impl Report {
    fn fault(&mut self, what: impl Display) {
        self.faults_found += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(what.to_string());
        }
    }

    /// Notes a fault of an entry, or returns its value.
    fn note<T>(&mut self, place: impl Display, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.fault(format!("{place}: {fault}"))).ok()
    }

    fn measure(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(found) if found.is_dir() => self.measure(&entry.path())?,
                Ok(found) => {
                    use std::os::unix::fs::MetadataExt as _;
                    self.bytes += found.blocks() * 512;
                    self.files += 1;
                }
                // The database has removed the file.
                Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { streams, publications, remains, keys, values, bytes, files, .. } = self;
        writeln!(f, "streams:          {streams}")?;
        writeln!(f, "publications:     {publications}")?;
        writeln!(f, "remains:          {remains}")?;
        writeln!(f, "idempotency keys: {keys}")?;
        writeln!(f, "other values:     {values}")?;
        writeln!(f, "bytes on disk:    {bytes}")?;
        writeln!(f, "files:            {files}")?;
        for fault in &self.faults {
            writeln!(f, "fault: {fault}")?;
        }
        let more = self.faults_found - self.faults.len() as u64;
        if more > 0 {
            writeln!(f, "fault: {more} more")?;
        }
        Ok(())
    }
}

/// Counts what a store contains, without a look into the records.
///
/// # Errors
/// The disk cannot be read.
pub fn stats(disk: &impl Disk, folder: &Path) -> Result<Report, Failure> {
    let mut report = Report::default();
    report.measure(folder).map_err(|error| unreadable(folder, &error))?;
    walk::entries(disk, Table::Streams, |view, key, bytes| {
        report.streams += 1;
        let Some((channel, _)) = layout::split_channel(key) else { return Ok(()) };
        let first = walk::record(view, channel, bytes).map_or(0, |record| record.first);
        walk::publications(view, channel, |offset, _| {
            let count = match offset < first {
                true => &mut report.remains,
                false => &mut report.publications,
            };
            *count += 1;
            Ok(())
        })
    })?;
    walk::entries(disk, Table::Keys, |_, _, _| {
        report.keys += 1;
        Ok(())
    })?;
    walk::entries(disk, Table::State, |_, key, _| {
        report.values += u64::from(!layout::is_own(key));
        Ok(())
    })?;
    Ok(report)
}

/// Reads every record and finds those that do not belong together.
///
/// # Errors
/// The disk cannot be read at all.
pub fn check(disk: &impl Disk, folder: &Path) -> Result<Report, Failure> {
    let mut report = Report::default();
    report.measure(folder).map_err(|error| unreadable(folder, &error))?;
    let secret = disk.view().and_then(|view| reading::epochs(&view));
    report.note("secret", secret);
    walk::entries(disk, Table::Streams, |view, key, bytes| {
        check_stream(&mut report, view, key, bytes)
    })?;
    check_remains(&mut report, disk)?;
    walk::entries(disk, Table::Keys, |_, key, bytes| {
        report.keys += 1;
        let read = records::read_key(bytes);
        let Some(stored) = report.note("an idempotency key", read) else { return Ok(()) };
        let channel = key.get(4..).and_then(layout::split_channel);
        let expected = channel.map(|(channel, _)| layout::idempotency_key(channel, stored.place()));
        if expected.as_deref() != Some(key) {
            report.fault(format!("idempotency key `{}` is in the wrong place", stored.key));
        }
        Ok(())
    })?;
    walk::entries(disk, Table::State, |_, key, _| {
        report.values += u64::from(!layout::is_own(key));
        Ok(())
    })?;
    Ok(report)
}

fn check_stream(
    report: &mut Report,
    view: &impl View,
    key: &[u8],
    bytes: &[u8],
) -> Result<(), Failure> {
    report.streams += 1;
    let Some((channel, [])) = layout::split_channel(key) else {
        report.fault("a key of a stream is no channel");
        return Ok(());
    };
    let record = report.note(channel, walk::record(view, channel, bytes));
    let Some(StreamRecord { epoch, top, first, .. }) = record else { return Ok(()) };
    if first == 0 || first > top.saturating_add(1) {
        report.fault(format!("{channel}: the first offset {first} does not fit the top {top}"));
    }
    let mut next = first;
    walk::publications(view, channel, |offset, bytes| {
        let position = Position { offset, epoch };
        let read = records::read_publication((channel, 0), position, bytes);
        report.note(format_args!("{channel}, offset {offset}"), read);
        if offset < first {
            report.remains += 1;
            return Ok(());
        }
        report.publications += 1;
        if offset != next {
            report.fault(format!("{channel}: offset {offset} follows where {next} is expected"));
        }
        next = offset.saturating_add(1);
        Ok(())
    })?;
    if next != top.saturating_add(1) {
        report.fault(format!("{channel}: offsets end before {next}, the top is {top}"));
    }
    Ok(())
}

/// Counts the publications of channels without a record.
fn check_remains(report: &mut Report, disk: &impl Disk) -> Result<(), Failure> {
    let mut last: Option<(String, bool)> = None;
    walk::entries(disk, Table::Publications, |view, key, _| {
        let Some((channel, _)) = layout::split_publication_key(key) else {
            report.fault("a key of a publication has no offset");
            return Ok(());
        };
        let known =
            last.as_ref().filter(|(of, _)| of == channel).map(|(_, has_stream)| *has_stream);
        let has_stream = match known {
            Some(has_stream) => has_stream,
            None => {
                let found = view.get(Table::Streams, &layout::stream_key(channel));
                let has_stream = report.note(channel, found).flatten().is_some();
                last = Some((channel.to_owned(), has_stream));
                has_stream
            }
        };
        report.remains += u64::from(!has_stream);
        Ok(())
    })
}

fn unreadable(folder: &Path, error: &io::Error) -> Failure {
    Failure::new(
        format!("cannot read {}: {error}", folder.display()),
        "name the folder of a store that this user may read",
    )
}
