//! Numbers that one thread writes and others read: single ones, and those with a code as label.
//!
//! Owns the numbers. Never blocks and never allocates: a reader may see a slightly older value.

use std::sync::atomic::{AtomicU64, Ordering};

/// Codes that a [`CodeCounters`] tells apart.
const CODES_MAX: usize = 48;

#[cfg(test)]
thread_local! {
    /// Relaxed writes of this thread.
    static WRITES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Relaxed writes of counters by this thread, to bound their number per delivery.
#[cfg(test)]
pub fn writes() -> u64 {
    WRITES.get()
}

/// A number written by one thread and read by others.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        // One writer: a load and a store suffice, without a locked instruction.
        self.set(self.0.load(Ordering::Relaxed).wrapping_add(n));
    }

    /// Subtracts `n`.
    pub fn subtract(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// Sets the value.
    pub fn set(&self, n: u64) {
        #[cfg(test)]
        WRITES.set(WRITES.get() + 1);
        self.0.store(n, Ordering::Relaxed);
    }

    /// Adds `n`, for a number that several threads of the control plane write.
    pub fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Subtracts `n`, for a number that several threads of the control plane write.
    pub fn subtract_shared(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter per code, written by one thread. The codes of backends are unbounded: those after the
/// first 48 different ones are counted together.
#[derive(Debug)]
pub struct CodeCounters {
    /// Each code plus one, in the order of their first events; 0: free.
    codes: [Counter; CODES_MAX],
    counts: [Counter; CODES_MAX],
    others: Counter,
}

impl Default for CodeCounters {
    fn default() -> Self {
        CodeCounters {
            codes: [const { Counter(AtomicU64::new(0)) }; CODES_MAX],
            counts: [const { Counter(AtomicU64::new(0)) }; CODES_MAX],
            others: Counter::default(),
        }
    }
}

impl CodeCounters {
    /// Counts an event with this code.
    pub fn add(&self, code: u64) {
        let places = self.codes.iter().zip(&self.counts);
        for (known, count) in places {
            match known.get() {
                0 => known.set(code + 1),
                found if found == code + 1 => {}
                _ => continue,
            }
            return count.add(1);
        }
        self.others.add(1);
    }

    /// Each code with its count. `None` stands for the codes that found no place.
    pub fn list(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let known = self.codes.iter().zip(&self.counts);
        let known = known.map(|(code, count)| (code.get(), count.get()));
        let known = known.take_while(|(code, _)| *code > 0).map(|(code, n)| (Some(code - 1), n));
        let others = Some((None, self.others.get())).filter(|(_, count)| *count > 0);
        known.chain(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_past_the_bound_are_counted_together() {
        let counters = CodeCounters::default();
        for code in (0..CODES_MAX as u64 + 5).chain([0, 3, 3]) {
            counters.add(code);
        }
        let list: Vec<_> = counters.list().collect();
        assert_eq!(list.len(), CODES_MAX + 1);
        assert_eq!(list[..4], [(Some(0), 2), (Some(1), 1), (Some(2), 1), (Some(3), 3)]);
        assert_eq!(list.last(), Some(&(None, 5)));
    }

    #[test]
    fn a_gauge_goes_down() {
        let gauge = Counter::default();
        gauge.add(3);
        gauge.subtract(1);
        assert_eq!(gauge.get(), 2);
        gauge.add_shared(5);
        gauge.subtract_shared(6);
        assert_eq!(gauge.get(), 1);
    }
}
