//! The rate limit of log lines: per kind, which is the place in the code that logs.
//!
//! Owns the counts. Never locks. The invariant: a line that is left out is counted, and the next
//! line of its kind gets the number.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Maximum number of kinds, a power of two. Lines of further kinds are not limited.
const KINDS: usize = 512;

/// The limit and the counts of each kind.
pub struct RateLimit {
    /// Lines per second of each kind; 0: no limit.
    rate: AtomicU64,
    kinds: Box<[Kind]>,
    left_out: AtomicU64,
}

#[derive(Default)]
struct Kind {
    /// Address of the metadata of the kind; 0: a free place.
    key: AtomicUsize,
    second: AtomicU64,
    lines: AtomicU64,
    left_out: AtomicU64,
}

impl RateLimit {
    /// A limit of `rate` lines per second of each kind.
    pub fn new(rate: u64) -> Self {
        let kinds = (0..KINDS).map(|_| Kind::default()).collect();
        RateLimit { rate: rate.into(), kinds, left_out: AtomicU64::new(0) }
    }

    /// Changes the limit.
    pub fn set(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Number of lines left out since the start.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// `None`: too many lines of this kind in this second. Otherwise the number of lines left out
    /// before.
    pub fn admit(&self, key: usize, second: u64) -> Option<u64> {
        let rate = self.rate.load(Ordering::Relaxed);
        let Some(kind) = self.kind(key) else { return Some(0) };
        if kind.second.swap(second, Ordering::Relaxed) != second {
            kind.lines.store(0, Ordering::Relaxed);
        }
        if kind.lines.fetch_add(1, Ordering::Relaxed) >= rate && rate > 0 {
            kind.left_out.fetch_add(1, Ordering::Relaxed);
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(kind.left_out.swap(0, Ordering::Relaxed))
    }

    /// The counts of a kind; `None`: there is no place for it.
    fn kind(&self, key: usize) -> Option<&Kind> {
        let start = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - KINDS.ilog2());
        let order = (0..KINDS).map(|step| &self.kinds[(start + step) % KINDS]);
        order.into_iter().find(|kind| {
            let claim = kind.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed);
            claim.is_ok() || claim == Err(key)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_limit_and_the_next_line_says_how_many_were_left_out() {
        let limit = RateLimit::new(10);
        let admitted = |key, second| limit.admit(key, second);
        assert_eq!((0..10).filter(|_| admitted(8, 5) == Some(0)).count(), 10);
        assert_eq!((0..7).filter(|_| admitted(8, 5).is_none()).count(), 7);
        assert_eq!(admitted(16, 5), Some(0), "another kind");
        assert_eq!((admitted(8, 6), admitted(8, 6)), (Some(7), Some(0)));
        assert_eq!(limit.left_out(), 7);
    }

    #[test]
    fn a_limit_of_zero_admits_every_line_and_a_changed_limit_applies_at_once() {
        let limit = RateLimit::new(0);
        assert!((0..10_000).all(|_| limit.admit(8, 5) == Some(0)));
        limit.set(1);
        assert_eq!((limit.admit(8, 5), limit.admit(8, 6)), (None, Some(1)));
        limit.set(2);
        assert_eq!((limit.admit(8, 6), limit.admit(8, 6)), (Some(0), None));
    }

    #[test]
    fn kinds_beyond_the_maximum_are_not_limited() {
        let limit = RateLimit::new(1);
        let keys: Vec<usize> = (1..=KINDS + 1).map(|nth| nth * 8).collect();
        assert!(keys.iter().all(|key| limit.admit(*key, 5) == Some(0)));
        assert_eq!(keys.iter().filter(|key| limit.admit(**key, 5).is_some()).count(), 1);
    }
}
