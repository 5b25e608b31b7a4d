//! Idempotency keys: a publication with a known key is not published again.
//!
//! Owns the keys and the positions of their publications. Never knows what was published. The
//! invariant: a key is kept for five minutes, or until newer keys need its memory.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::base::memory::{ShardToFree, ShardUsage};
use crate::home::durable::stored::Times;
use crate::model::snapshot::SavedKey;
use crate::wire::protocol::Position;

/// Milliseconds for which a key is kept.
pub const HOLD_TIME: u64 = 300_000;
/// Maximum number of keys dropped per call.
const DROPPED_MAX: usize = 256;
/// Milliseconds between two times at which expired keys are dropped: many expire in each.
const EXPIRY_STEP: u64 = 1_000;
/// Bytes per key beside its text and its records: reference counts and allocator overhead.
const KEY_OVERHEAD: usize = 32;

struct KeyRecord {
    /// Hash of channel and key; kept so that a growing table hashes no text.
    hash: u64,
    channel: u64,
    key: Arc<str>,
    position: Option<Position>,
    until: u64,
}

struct KeyExpiry {
    hash: u64,
    key: Arc<str>,
    until: u64,
}

/// Bytes of memory per key. The factor 2: the table can be half empty, and the queue doubles when
/// it grows.
fn size(key: &str) -> usize {
    KEY_OVERHEAD + key.len() + 2 * (size_of::<KeyRecord>() + size_of::<KeyExpiry>())
}

/// The idempotency keys of the channels at home on one shard.
pub struct IdempotencyKeys {
    records: HashTable<KeyRecord>,
    order: VecDeque<KeyExpiry>,
    /// Number of keys that were in front of `order` before.
    dropped: u64,
    hasher: RandomState,
    share: ShardUsage,
}

impl IdempotencyKeys {
    /// Creates an empty table; `share` is its part of the memory budget.
    pub fn new(share: ShardUsage) -> Self {
        let (records, order) = (HashTable::new(), VecDeque::new());
        IdempotencyKeys { records, order, dropped: 0, hasher: RandomState::new(), share }
    }

    /// Memory use of the keys.
    pub fn share(&self) -> &ShardUsage {
        &self.share
    }

    /// The position of the publication that came with this key, if the key is known. `Some(None)`:
    /// the publication was made without history.
    pub fn find(&self, channel: u64, key: &str, now: u64) -> Option<Option<Position>> {
        let hash = self.hasher.hash_one((channel, key));
        let same =
            |done: &KeyRecord| done.channel == channel && *done.key == *key && done.until > now;
        self.records.find(hash, same).map(|done| done.position)
    }

    /// Stores the key of a publication with its position.
    pub fn note(&mut self, channel: u64, key: &str, position: Option<Position>, now: u64) {
        self.expire(now);
        self.insert(channel, key, position, now + HOLD_TIME);
    }

    /// Stores a key that the store has kept over a restart. A key that is known stays as it is.
    pub fn restore(&mut self, channel: u64, key: &str, position: Option<Position>, until: u64) {
        let hash = self.hasher.hash_one((channel, key));
        let same = |done: &KeyRecord| done.channel == channel && *done.key == *key;
        if self.records.find(hash, same).is_none() {
            self.insert(channel, key, position, until);
        }
    }

    /// The key with this number or the next one that is kept, and the number after it; `None`:
    /// there is none. Keys are numbered in their order. A key that is kept no more is `None`.
    pub fn next_saved(&self, number: u64, times: Times) -> Option<(u64, Option<SavedKey>)> {
        let number = number.max(self.dropped);
        let noted = self.order.get(usize::try_from(number - self.dropped).ok()?)?;
        let found = self.records.find(noted.hash, |done| Arc::ptr_eq(&done.key, &noted.key));
        let saved = |done: &KeyRecord| SavedKey {
            hash: done.channel,
            key: done.key.clone(),
            position: done.position,
            until: times.unix_of(done.until),
        };
        Some((number + 1, found.filter(|done| done.until > times.now).map(saved)))
    }

    fn insert(&mut self, channel: u64, key: &str, position: Option<Position>, until: u64) {
        let hash = self.hasher.hash_one((channel, key));
        let key: Arc<str> = key.into();
        self.share.change(0, size(&key));
        self.order.push_back(KeyExpiry { hash, key: key.clone(), until });
        let done = KeyRecord { hash, channel, key, position, until };
        self.records.insert_unique(hash, done, |done| done.hash);
        self.relieve();
    }

    /// Drops expired keys, a bounded number per call. Returns how many it has dropped.
    pub fn expire(&mut self, now: u64) -> usize {
        let mut dropped = 0;
        while dropped < DROPPED_MAX && self.order.front().is_some_and(|noted| noted.until <= now) {
            self.drop_oldest();
            dropped += 1;
        }
        dropped
    }

    /// When [`IdempotencyKeys::expire`] has something to do next, in milliseconds.
    pub fn next_expiry(&self) -> Option<u64> {
        Some(self.order.front()?.until.next_multiple_of(EXPIRY_STEP))
    }

    /// Drops the oldest keys while the node exceeds its budget and this shard holds the most, a
    /// bounded number per call.
    pub fn relieve(&mut self) {
        for _ in 0..DROPPED_MAX {
            if self.share.shard_to_free() != ShardToFree::This {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(KeyExpiry { hash, key, .. }) = self.order.pop_front() {
            self.share.change(size(&key), 0);
            self.dropped += 1;
            let found = self.records.find_entry(hash, |done| Arc::ptr_eq(&done.key, &key));
            if let Ok(found) = found {
                found.remove();
            }
        }
        if self.order.is_empty() {
            (self.records, self.order) = (HashTable::new(), VecDeque::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};

    const LIMIT: usize = 100_000;

    fn repeats() -> IdempotencyKeys {
        IdempotencyKeys::new(
            MemoryBudgets::new(&MemoryLimits::all(LIMIT), 1).shard_usage(MemoryKind::Keys, 0),
        )
    }

    #[test]
    fn a_key_is_known_for_its_channel_until_it_expires() {
        let mut repeats = repeats();
        repeats.note(1, "k", None, 0);
        let there =
            |repeats: &IdempotencyKeys, hash, key, now| repeats.find(hash, key, now).is_some();
        assert!(there(&repeats, 1, "k", HOLD_TIME - 1));
        assert!(!there(&repeats, 1, "k", HOLD_TIME));
        assert!(!there(&repeats, 2, "k", 1));
        assert!(!there(&repeats, 1, "l", 1));
        (0..1000).for_each(|key| repeats.note(3, &key.to_string(), None, 2));
        assert!(!there(&repeats, 1, "k", 3), "the oldest made room");
        assert!(there(&repeats, 3, "999", 3));
        while repeats.expire(HOLD_TIME + 2) > 0 {}
        repeats.note(4, "k", None, HOLD_TIME + 2);
        assert_eq!((repeats.records.len(), repeats.order.len()), (1, 1));
    }

    #[test]
    fn an_expired_key_can_be_stored_again() {
        let mut repeats = repeats();
        repeats.note(1, "k", None, 0);
        repeats.note(2, "k", None, HOLD_TIME - 1);
        repeats.note(1, "k", None, HOLD_TIME);
        assert!([1, 2].iter().all(|hash| repeats.find(*hash, "k", HOLD_TIME).is_some()));
    }

    #[test]
    fn expired_keys_are_dropped_without_a_new_one_and_a_bounded_number_per_call() {
        let mut repeats = repeats();
        assert_eq!(repeats.next_expiry(), None);
        (0..300).for_each(|key| repeats.note(1, &key.to_string(), None, 1));
        let due = repeats.next_expiry().unwrap();
        assert_eq!((due, repeats.expire(HOLD_TIME)), (HOLD_TIME + EXPIRY_STEP, 0));
        assert_eq!([repeats.expire(due), repeats.expire(due)], [DROPPED_MAX, 300 - DROPPED_MAX]);
        assert_eq!((repeats.share().used(), repeats.next_expiry()), (0, None));
    }

    #[test]
    fn new_keys_replace_old_keys_within_the_budget() {
        let mut repeats = repeats();
        let key = |nth: usize| format!("{nth}{}", "k".repeat(LIMIT / 10));
        for nth in 0..30 {
            repeats.note(1, &key(nth), None, 0);
            assert!(repeats.share().used() <= LIMIT);
        }
        assert!(repeats.find(1, &key(0), 0).is_none() && repeats.find(1, &key(29), 0).is_some());
        assert_eq!(repeats.records.len(), repeats.order.len());
        repeats.note(1, "k", None, HOLD_TIME + 1);
        assert!(repeats.share().used() < 1000, "{}", repeats.share().used());
    }
}
