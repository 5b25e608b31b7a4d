//! The channels that a shard was polled for, with the cells in which their homes show the latest
//! publications.
//!
//! Owns the list. Never changes a cell. The invariant: the list is bounded.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::latest::LatestCell;
use crate::model::publication::Publication;

/// Maximum number of channels. A full list is emptied: polls ask the homes and fill it again.
const CHANNELS_MAX: usize = 1024;

/// Channels by the hash of their name, which is keyed, so that clients cannot choose it.
#[derive(Debug, Default)]
pub(super) struct PolledChannels {
    channels: HashMap<u64, (Box<str>, Arc<LatestCell>)>,
}

impl PolledChannels {
    /// The latest publication of a channel, if any; `None`: ask its home.
    pub(super) fn read(&self, hash: u64, name: &str, now: u64) -> Option<Option<Publication>> {
        let (kept, cell) = self.channels.get(&hash)?;
        if **kept == *name { cell.read(now) } else { None }
    }

    /// Keeps the cell of a channel.
    pub(super) fn keep(&mut self, hash: u64, name: &str, cell: Arc<LatestCell>) {
        if self.channels.len() >= CHANNELS_MAX && !self.channels.contains_key(&hash) {
            self.channels.clear();
        }
        self.channels.insert(hash, (name.into(), cell));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_found_by_hash_and_name_and_the_list_is_bounded() {
        let mut polled = PolledChannels::default();
        let cell = Arc::new(LatestCell::default());
        cell.show(None);
        polled.keep(7, "a", cell.clone());
        assert!(polled.read(7, "a", 0).is_some_and(|latest| latest.is_none()));
        assert!(polled.read(7, "b", 0).is_none(), "another channel with the same hash");
        cell.end();
        assert!(polled.read(7, "a", 0).is_none(), "its home has ended it");
        for hash in 0..3 * CHANNELS_MAX as u64 {
            polled.keep(hash, "a", cell.clone());
            assert!(polled.channels.len() <= CHANNELS_MAX);
        }
    }
}
