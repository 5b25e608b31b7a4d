//! Publications that backends send twice: what is known by its key is not published again.
//!
//! Owns the keys for as long as they hold. Never knows what was published. The invariant: a key
//! holds for five minutes, or until more or longer newer ones have come than are kept.

use std::collections::{HashMap, VecDeque};

use crate::protocol::Position;

/// Milliseconds that a key holds.
const HOLDS: u64 = 300_000;
/// Keys kept at most; past it the oldest goes.
const KEYS_MAX: usize = 100_000;
/// Bytes of keys kept at most; past it the oldest go.
const BYTES_MAX: usize = 16 << 20;

type Key = (u64, Box<str>);

struct Done {
    position: Option<Position>,
    until: u64,
}

/// The keys of the channels at home on one shard.
#[derive(Default)]
pub struct Repeats {
    done: HashMap<Key, Done>,
    order: VecDeque<(u64, Key)>,
    /// Bytes of the keys.
    bytes: usize,
}

impl Repeats {
    /// Where the publication went that came with this key into the channel of this hash, if one
    /// did.
    pub fn find(&self, hash: u64, key: &str, now: u64) -> Option<Option<Position>> {
        // A look-up by parts would need an owned key as well.
        let done = self.done.get(&(hash, key.into()))?;
        (done.until > now).then_some(done.position)
    }

    /// Notes where a publication went.
    pub fn note(&mut self, hash: u64, key: &str, position: Option<Position>, now: u64) {
        while let Some((until, _)) = self.order.front()
            && (*until <= now || self.order.len() >= KEYS_MAX || self.bytes + key.len() > BYTES_MAX)
        {
            if let Some((_, key)) = self.order.pop_front() {
                self.bytes -= key.1.len();
                self.done.remove(&key);
            }
        }
        let until = now + HOLDS;
        self.bytes += key.len();
        let key = (hash, Box::from(key));
        self.order.push_back((until, key.clone()));
        self.done.insert(key, Done { position, until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_for_its_channel_and_time() {
        let mut repeats = Repeats::default();
        repeats.note(1, "k", None, 0);
        let there = |repeats: &Repeats, hash, key, now| repeats.find(hash, key, now).is_some();
        assert!(there(&repeats, 1, "k", HOLDS - 1));
        assert!(!there(&repeats, 1, "k", HOLDS));
        assert!(!there(&repeats, 2, "k", 1));
        assert!(!there(&repeats, 1, "l", 1));
        (0..KEYS_MAX).for_each(|key| repeats.note(3, &key.to_string(), None, 2));
        assert!(!there(&repeats, 1, "k", 3), "the oldest made room");
        repeats.note(4, "k", None, HOLDS + 2);
        assert_eq!((repeats.done.len(), repeats.order.len()), (1, 1));
    }

    #[test]
    fn long_keys_replace_each_other() {
        let mut repeats = Repeats::default();
        let key = |nth: usize| format!("{nth}{}", "k".repeat(BYTES_MAX / 10));
        for nth in 0..30 {
            repeats.note(1, &key(nth), None, 0);
            assert!(repeats.bytes <= BYTES_MAX);
        }
        assert!(repeats.find(1, &key(0), 0).is_none() && repeats.find(1, &key(29), 0).is_some());
        assert_eq!(repeats.done.len(), repeats.order.len());
    }
}
