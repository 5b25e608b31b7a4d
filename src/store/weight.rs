//! Bytes of writes, to bound batches.
//!
//! Owns the estimate. Never counts exactly: the encoding differs by a few bytes.

use crate::model::storage::StoreWrite;

/// Bytes of a write besides its texts and its data.
const OVERHEAD: usize = 128;
/// Bytes of an erased entry besides the name of its channel.
const ERASED_OVERHEAD: usize = 16;
/// Maximum number of erased publications that are counted.
const ERASED_MAX: u64 = 1024;

/// Bytes that a write adds to a batch.
pub fn of(write: &StoreWrite) -> usize {
    let StoreWrite { channel, change, .. } = write;
    let erased = change.erased.iter().map(|range| range.end.saturating_sub(range.start));
    let erased = erased.sum::<u64>().min(ERASED_MAX) as usize + change.erased_keys.len();
    let names = 2 + usize::from(change.key.is_some());
    OVERHEAD + names * channel.len() + change.size() + erased * (ERASED_OVERHEAD + channel.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::storage::{KeyPlace, StoredKey};
    use crate::store::batch::tests::publish;
    use crate::wire::protocol::Position;

    #[test]
    fn a_write_weighs_its_version_and_its_keys() {
        let plain = of(&publish("a", 1, 1));
        let mut write = publish("a", 1, 1);
        let record = write.change.record.as_mut().unwrap();
        record.version = Some(Box::new((1, "v".repeat(200).into())));
        assert_eq!(of(&write), plain + 200);
        let key =
            StoredKey { key: "k".repeat(300).into(), position: Position::default(), until: 1 };
        write.change.key = Some(key.clone());
        assert_eq!(of(&write), plain + 200 + 300 + 1);
        write.change.erased_keys = vec![key.place()];
        let erased = size_of::<KeyPlace>() + 1 + ERASED_OVERHEAD;
        assert_eq!(of(&write), plain + 200 + 300 + 1 + erased);
    }
}
