//! Walks over a whole store, for exports and reports.
//!
//! Owns the order: streams by channel. Never holds a view for longer than a few streams, so that a
//! walk keeps neither the database from being opened anew nor old tables from being removed. The
//! invariant: a stream and its publications come from one view.

use crate::base::failure::Failure;
use crate::model::storage::StreamRecord;
use crate::store::disk::{Disk, Fault, Order, Table, View};
use crate::store::folder::failure;
use crate::store::{layout, reading, records};

/// Entries of a table that come from one view.
const ENTRIES: usize = 64;

/// Calls `visit` with the view, the key and the value of each entry of a table.
///
/// # Errors
/// The disk cannot be read, or `visit` fails.
pub fn entries<'d, D: Disk>(
    disk: &'d D,
    table: Table,
    mut visit: impl FnMut(&D::View<'d>, &[u8], &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut next = Vec::new();
    loop {
        let view = disk.view().map_err(|fault| failure(&fault))?;
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(ENTRIES);
        let range = &next[..]..&layout::LAST_KEY[..];
        let scanned = view.scan(table, range, Order::Ascending, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(found.len() < ENTRIES)
        });
        scanned.map_err(|fault| failure(&fault))?;
        for (key, value) in &found {
            visit(&view, key, value)?;
        }
        match found.pop() {
            Some((last, _)) => next = layout::next_key(last),
            None => return Ok(()),
        }
    }
}

/// The newest record of a stream of which the table of streams has these bytes.
///
/// # Errors
/// The disk cannot be read, or a record cannot be decoded.
pub fn record(view: &impl View, channel: &str, bytes: &[u8]) -> Result<StreamRecord, Fault> {
    reading::newest_record(view, channel, records::read_stream(bytes)?)
}

/// Calls `visit` with the offset and the bytes of each publication of a channel.
///
/// # Errors
/// The disk cannot be read, or `visit` fails.
pub fn publications(
    view: &impl View,
    channel: &str,
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut stopped = Ok(());
    let end = layout::publications_end(channel);
    let range = &layout::publication_key(channel, 0)[..]..&end[..];
    let scanned = view.scan(Table::Publications, range, Order::Ascending, &mut |key, value| {
        if let Some((_, offset)) = layout::split_publication_key(key) {
            stopped = visit(offset, value);
        }
        Ok(stopped.is_ok())
    });
    scanned.map_err(|fault| failure(&fault))?;
    stopped
}
