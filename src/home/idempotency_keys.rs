//! Idempotency keys: a publication with a known key is not published again.
//!
//! Owns the keys and the positions of their publications. Never knows what was published. The
//! invariant: a key is kept for five minutes, or until keys that expire later need its memory.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::base::memory::{ShardToFree, ShardUsage};
use crate::home::durable::stored::Times;
use crate::model::snapshot::{KeyOrder, SavedKey};
use crate::wire::protocol::Position;

/// Milliseconds for which a key is kept.
pub const HOLD_TIME: u64 = 300_000;
/// Maximum number of keys dropped per call.
const DROPPED_MAX: usize = 256;
/// Milliseconds between two times at which expired keys are dropped: many expire in each.
const EXPIRY_STEP: u64 = 1_000;
/// Bytes per key beside its text and its records: allocator overhead, and inner nodes of the order.
const KEY_OVERHEAD: usize = 32;

struct KeyRecord {
    /// Hash of channel and key; kept so that a growing table hashes no text.
    hash: u64,
    channel: u64,
    key: Box<str>,
    position: Option<Position>,
    until: u64,
    serial: u64,
}

/// Bytes of memory per key. The factor 2: the table can be half empty, and so can the nodes of the
/// order.
fn size(key: &str) -> usize {
    KEY_OVERHEAD + key.len() + 2 * (size_of::<KeyRecord>() + size_of::<(KeyOrder, u64)>())
}

/// The idempotency keys of the channels at home on one shard.
pub struct IdempotencyKeys {
    records: HashTable<KeyRecord>,
    /// The hashes of the records, in the order in which they expire and are dropped. Keys of new
    /// publications go to its end.
    order: BTreeMap<KeyOrder, u64>,
    /// Number of keys that were stored so far.
    serial: u64,
    hasher: RandomState,
    share: ShardUsage,
}

impl IdempotencyKeys {
    /// Creates an empty table; `share` is its part of the memory budget.
    pub fn new(share: ShardUsage) -> Self {
        let (records, order) = (HashTable::new(), BTreeMap::new());
        IdempotencyKeys { records, order, serial: 0, hasher: RandomState::new(), share }
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
        let hash = self.hasher.hash_one((channel, key));
        self.insert(channel, (key, hash), position, now + HOLD_TIME);
    }

    /// Stores a key of an earlier publication, which is kept until the moment `until`, and no
    /// longer than one of a publication that is made now: the wall clock may have been wrong. A key
    /// that is known stays as it is. Past the budget, the keys that expire first are dropped, be
    /// they this one or others.
    pub fn restore(
        &mut self,
        channel: u64,
        key: &str,
        position: Option<Position>,
        (until, now): (u64, u64),
    ) {
        let hash = self.hasher.hash_one((channel, key));
        let same = |done: &KeyRecord| done.channel == channel && *done.key == *key;
        if self.records.find(hash, same).is_none() {
            self.insert(channel, (key, hash), position, until.min(now + HOLD_TIME));
        }
    }

    /// The first key at this place of the order or behind it, and the place behind that key;
    /// `None`: there is none. A key that has expired is `None`.
    pub fn next_saved(&self, from: KeyOrder, times: Times) -> Option<(KeyOrder, Option<SavedKey>)> {
        let (&(until, serial), &hash) = self.order.range(from..).next()?;
        let found = self.records.find(hash, |done| done.serial == serial);
        let saved = |done: &KeyRecord| SavedKey {
            hash: done.channel,
            key: (*done.key).into(),
            position: done.position,
            until: times.unix_of(done.until),
        };
        let found = found.filter(|done| done.until > times.now).map(saved);
        Some(((until, serial + 1), found))
    }

    fn insert(
        &mut self,
        channel: u64,
        (key, hash): (&str, u64),
        position: Option<Position>,
        until: u64,
    ) {
        self.serial += 1;
        let (serial, key): (_, Box<str>) = (self.serial, key.into());
        self.share.change(0, size(&key));
        self.order.insert((until, serial), hash);
        let done = KeyRecord { hash, channel, key, position, until, serial };
        self.records.insert_unique(hash, done, |done| done.hash);
        self.relieve();
    }

    /// Drops expired keys, a bounded number per call. Returns how many it has dropped.
    pub fn expire(&mut self, now: u64) -> usize {
        let mut dropped = 0;
        while dropped < DROPPED_MAX && self.first_until().is_some_and(|until| until <= now) {
            self.drop_first();
            dropped += 1;
        }
        dropped
    }

    /// When [`IdempotencyKeys::expire`] has something to do next, in milliseconds.
    pub fn next_expiry(&self) -> Option<u64> {
        Some(self.first_until()?.next_multiple_of(EXPIRY_STEP))
    }

    /// Drops the keys that expire first while the node exceeds its budget and this shard holds the
    /// most, a bounded number per call.
    pub fn relieve(&mut self) {
        for _ in 0..DROPPED_MAX {
            if self.share.shard_to_free() != ShardToFree::This {
                return;
            }
            self.drop_first();
        }
    }

    fn first_until(&self) -> Option<u64> {
        self.order.first_key_value().map(|((until, _), _)| *until)
    }

    fn drop_first(&mut self) {
        if let Some(((_, serial), hash)) = self.order.pop_first()
            && let Ok(found) = self.records.find_entry(hash, |done| done.serial == serial)
        {
            let (done, _) = found.remove();
            self.share.change(size(&done.key), 0);
        }
        if self.order.is_empty() {
            self.records = HashTable::new();
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

    fn is_known(repeats: &IdempotencyKeys, nth: usize, now: u64) -> bool {
        repeats.find(1, &nth.to_string(), now).is_some()
    }

    #[test]
    fn restored_keys_replace_no_keys_that_expire_later() {
        let mut repeats = repeats();
        let now = HOLD_TIME - 1;
        (0..50).for_each(|nth| repeats.note(1, &nth.to_string(), None, now));
        for nth in 1_000..2_000 {
            repeats.restore(1, &nth.to_string(), None, (now + nth as u64, now));
            assert!(repeats.share().used() <= LIMIT);
        }
        assert!((0..50).all(|nth| is_known(&repeats, nth, now)), "the newest keys");
        assert!(is_known(&repeats, 1_999, now) && !is_known(&repeats, 1_000, now));
        let used = repeats.share().used();
        repeats.restore(1, "late", None, (now + 1, now));
        assert!(repeats.find(1, "late", now).is_none(), "it would be the first to go");
        assert_eq!(repeats.share().used(), used);
        assert_eq!(repeats.records.len(), repeats.order.len());
    }

    #[test]
    fn a_key_of_a_wrong_clock_is_kept_for_five_minutes_and_delays_no_other_key() {
        let mut repeats = repeats();
        repeats.restore(1, "0", None, (100 * HOLD_TIME, 1));
        repeats.restore(1, "1", None, (1_000, 1));
        repeats.note(1, "2", None, 0);
        assert_eq!(repeats.next_expiry(), Some(1_000));
        assert_eq!([repeats.expire(1_000), repeats.expire(HOLD_TIME)], [1, 1]);
        assert!(is_known(&repeats, 0, HOLD_TIME));
        assert_eq!(repeats.expire(HOLD_TIME + 1), 1);
        assert_eq!((repeats.share().used(), repeats.records.len()), (0, 0));
    }

    #[test]
    fn saved_keys_come_in_the_order_in_which_they_expire() {
        let mut repeats = repeats();
        for (nth, until) in [500, 300, 400, 300, 10].into_iter().enumerate() {
            repeats.restore(1, &nth.to_string(), None, (until, 0));
        }
        let (times, mut from, mut saved) = (Times { now: 100, unix: 100 }, (0, 0), Vec::new());
        while let Some((next, key)) = repeats.next_saved(from, times) {
            from = next;
            saved.extend(key.map(|key| (key.key.to_string(), key.until)));
        }
        let expected = [("1", 300), ("3", 300), ("2", 400), ("0", 500)];
        assert_eq!(saved, expected.map(|(key, until)| (key.to_owned(), until)));
    }
}
