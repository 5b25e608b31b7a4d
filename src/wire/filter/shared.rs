//! The filters of a shard's subscribers. Equal filters are stored and counted once.
//!
//! Owns no filter: it finds a filter in use by its bytes. The invariant: equal filters in use share
//! one allocation, which counts in the node's memory budget until its last user drops it.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use hashbrown::HashTable;

use super::compiled::{Compiled, Filter};
use crate::base::memory::MemoryBudget;

/// Bytes per filter besides its own: counters, lengths and the table entry.
const OVERHEAD: usize = 96;
/// Entries of dropped filters are kept until the table has this many entries.
const ENTRIES_MIN: usize = 64;

/// A table entry of a filter.
struct FilterEntry {
    hash: u64,
    filter: Weak<Compiled>,
}

/// The filters in use on one shard.
pub struct Filters {
    entries: HashTable<FilterEntry>,
    /// Number of entries at which the entries of dropped filters are removed.
    entries_max: usize,
    hasher: RandomState,
    budget: Arc<MemoryBudget>,
}

impl Filters {
    /// An empty collection; `budget` counts its filters.
    pub fn new(budget: Arc<MemoryBudget>) -> Self {
        let hasher = RandomState::new();
        Filters { entries: HashTable::new(), entries_max: ENTRIES_MIN, hasher, budget }
    }

    /// Returns the equal filter that is in use, or the filter itself after counting it. `None`: the
    /// memory budget has no room for the filter.
    pub fn share(&mut self, filter: Filter) -> Option<Filter> {
        let hash = self.hasher.hash_one(&filter.0.bytes);
        let equal = |entry: &FilterEntry| {
            let found = entry.filter.upgrade().map(Filter);
            found.is_some_and(|found| found == filter)
        };
        if let Some(found) = self.entries.find(hash, equal).and_then(|entry| entry.filter.upgrade())
        {
            return Some(Filter(found));
        }
        let charge = self.budget.charge(OVERHEAD + filter.0.bytes.len())?;
        let filter = Arc::new(Compiled { bytes: filter.0.bytes.clone(), charge: Some(charge) });
        if self.entries.len() >= self.entries_max {
            self.entries.retain(|entry| entry.filter.strong_count() > 0);
            self.entries.shrink_to(ENTRIES_MIN, |entry| entry.hash);
            self.entries_max = (2 * self.entries.len()).max(ENTRIES_MIN);
        }
        let entry = FilterEntry { hash, filter: Arc::downgrade(&filter) };
        self.entries.insert_unique(hash, entry, |entry| entry.hash);
        Some(Filter(filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};
    use crate::wire::filter::{FilterNode, compile};

    fn filter(value: &str) -> Filter {
        let (key, cmp, val) = ("a".into(), "eq".into(), value.into());
        compile(&FilterNode { key, cmp, val, ..FilterNode::default() }).unwrap()
    }

    #[test]
    fn equal_filters_count_once_until_the_last_is_dropped() {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(10_000), 1);
        let budget = &budgets[MemoryKind::Filters];
        let mut filters = Filters::new(budget.clone());
        let long = "x".repeat(9_000);
        let one = filters.share(filter(&long)).unwrap();
        let used = budget.used();
        assert!((9_000..9_200).contains(&used), "{used}");
        let two = filters.share(filter(&long)).unwrap();
        assert!(Arc::ptr_eq(&one.0, &two.0) && budget.used() == used);
        assert!(filters.share(filter(&"y".repeat(9_000))).is_none(), "no room");
        assert!(filters.share(filter("z")).is_some(), "a small one has room");
        drop(one);
        assert!(filters.share(filter(&long)).is_some());
        drop(two);
        assert_eq!(budget.used(), 0);
        assert!(filters.share(filter(&"y".repeat(9_000))).is_some());
    }

    #[test]
    fn entries_of_dropped_filters_are_removed() {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(1 << 20), 1);
        let mut filters = Filters::new(budgets[MemoryKind::Filters].clone());
        let kept: Vec<_> = (0..100).map(|nth| filters.share(filter(&nth.to_string()))).collect();
        for nth in 100..10_000 {
            assert!(filters.share(filter(&nth.to_string())).is_some());
        }
        assert!(filters.entries.len() <= 200, "{}", filters.entries.len());
        let budget = &budgets[MemoryKind::Filters];
        let used = budget.used();
        for (nth, one) in kept.iter().enumerate() {
            assert_eq!(filters.share(filter(&nth.to_string())), *one);
        }
        assert_eq!(budget.used(), used);
    }
}
