//! Bytes of writes, to bound batches.
//!
//! Owns the estimate. Never counts exactly: the encoding differs by a few bytes.

use crate::model::storage::StoreWrite;

/// Bytes of a write besides its texts and its data.
const OVERHEAD: usize = 128;
/// Bytes of an erased publication besides the name of its channel.
const ERASED_OVERHEAD: u64 = 16;

/// Bytes that a write adds to a batch.
pub fn of(write: &StoreWrite) -> usize {
    let change = &write.change;
    let publication = change.publication.as_ref().map_or(0, |stored| stored.publication.size());
    let key = change.key.as_ref().map_or(0, |key| key.key.len() + write.channel.len());
    let erased = change.erased.iter().map(|range| range.end.saturating_sub(range.start));
    let erased = erased.sum::<u64>().min(1024) * (ERASED_OVERHEAD + write.channel.len() as u64);
    OVERHEAD + 2 * write.channel.len() + publication + key + erased as usize
}
