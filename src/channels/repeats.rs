//! Publications that backends send twice: what is known by its key is not published again.
//!
//! Owns the keys for as long as they hold. Never knows what was published. The invariant: a key
//! holds for five minutes, or until newer ones have come for which the node's budget has no room.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::memory::{Relief, Share};
use crate::protocol::Position;

/// Milliseconds that a key holds.
const HOLDS: u64 = 300_000;
/// Keys that make room at once.
const DROPPED_MAX: usize = 256;

type Key = (u64, Arc<str>);

struct Done {
    position: Option<Position>,
    until: u64,
}

/// Bytes that a key takes in memory: its text with the counts of it, and its places in the table,
/// which may be half empty, and in the queue, which doubles when it grows.
fn size(key: &Key) -> usize {
    key.1.len() + 32 + 2 * (size_of::<(Key, Done)>() + size_of::<(u64, Key)>())
}

/// The keys of the channels at home on one shard.
pub struct Repeats {
    done: HashMap<Key, Done>,
    order: VecDeque<(u64, Key)>,
    share: Share,
}

impl Repeats {
    /// None yet; `share` counts them.
    pub fn new(share: Share) -> Self {
        Repeats { done: HashMap::new(), order: VecDeque::new(), share }
    }

    /// What the keys use of the node's budget.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Where the publication went that came with this key into the channel of this hash, if one
    /// did.
    pub fn find(&self, hash: u64, key: &str, now: u64) -> Option<Option<Position>> {
        // A look-up by parts would need an owned key as well.
        let done = self.done.get(&(hash, key.into()))?;
        (done.until > now).then_some(done.position)
    }

    /// Notes where a publication went.
    pub fn note(&mut self, hash: u64, key: &str, position: Option<Position>, now: u64) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
        let until = now + HOLDS;
        let key = (hash, Arc::from(key));
        self.share.change(0, size(&key));
        self.order.push_back((until, key.clone()));
        self.done.insert(key, Done { position, until });
        self.relieve();
    }

    /// Drops the oldest keys while the node keeps too many and this shard keeps most, some at a
    /// time.
    pub fn relieve(&mut self) {
        for _ in 0..DROPPED_MAX {
            if self.share.relief() != Relief::Here {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((until, key)) = self.order.pop_front() {
            self.share.change(size(&key), 0);
            if self.done.get(&key).is_some_and(|done| done.until == until) {
                self.done.remove(&key);
            }
        }
        if self.order.is_empty() {
            (self.done, self.order) = (HashMap::new(), VecDeque::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Budgets, Kind, Limits};

    const LIMIT: usize = 100_000;

    fn repeats() -> Repeats {
        Repeats::new(Budgets::new(&Limits::all(LIMIT), 1).share(Kind::Keys, 0))
    }

    #[test]
    fn a_key_holds_for_its_channel_and_time() {
        let mut repeats = repeats();
        repeats.note(1, "k", None, 0);
        let there = |repeats: &Repeats, hash, key, now| repeats.find(hash, key, now).is_some();
        assert!(there(&repeats, 1, "k", HOLDS - 1));
        assert!(!there(&repeats, 1, "k", HOLDS));
        assert!(!there(&repeats, 2, "k", 1));
        assert!(!there(&repeats, 1, "l", 1));
        (0..1000).for_each(|key| repeats.note(3, &key.to_string(), None, 2));
        assert!(!there(&repeats, 1, "k", 3), "the oldest made room");
        assert!(there(&repeats, 3, "999", 3));
        repeats.note(4, "k", None, HOLDS + 2);
        assert_eq!((repeats.done.len(), repeats.order.len()), (1, 1));
    }

    #[test]
    fn a_key_that_is_noted_again_after_its_time_holds_again() {
        let mut repeats = repeats();
        repeats.note(1, "k", None, 0);
        repeats.note(2, "k", None, HOLDS - 1);
        repeats.note(1, "k", None, HOLDS);
        assert!([1, 2].iter().all(|hash| repeats.find(*hash, "k", HOLDS).is_some()));
    }

    #[test]
    fn long_keys_replace_each_other_within_the_budget() {
        let mut repeats = repeats();
        let key = |nth: usize| format!("{nth}{}", "k".repeat(LIMIT / 10));
        for nth in 0..30 {
            repeats.note(1, &key(nth), None, 0);
            assert!(repeats.share().used() <= LIMIT);
        }
        assert!(repeats.find(1, &key(0), 0).is_none() && repeats.find(1, &key(29), 0).is_some());
        assert_eq!(repeats.done.len(), repeats.order.len());
        repeats.note(1, "k", None, HOLDS + 1);
        assert!(repeats.share().used() < 1000, "{}", repeats.share().used());
    }
}
