//! Filters that subscribers of a shard have, each kept and counted once.
//!
//! Owns no filter: it finds one that is in use by its bytes. The invariant: two filters in use that
//! are equal are one allocation, which is counted in the node's budget until its last user is gone.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use hashbrown::HashTable;

use super::compiled::{Compiled, Filter};
use crate::base::memory::MemoryBudget;

/// Bytes that a filter takes beside its own: counts, lengths, and its place in the table.
const BESIDE: usize = 96;
/// Places of filters that are gone are kept until the table holds so many.
const PLACES_MIN: usize = 64;

struct Place {
    hash: u64,
    filter: Weak<Compiled>,
}

/// The filters in use on one shard.
pub struct Filters {
    places: HashTable<Place>,
    /// Places past which those of filters that are gone are removed.
    places_max: usize,
    hasher: RandomState,
    budget: Arc<MemoryBudget>,
}

impl Filters {
    /// None yet; `budget` counts them.
    pub fn new(budget: Arc<MemoryBudget>) -> Self {
        let hasher = RandomState::new();
        Filters { places: HashTable::new(), places_max: PLACES_MIN, hasher, budget }
    }

    /// Takes a compiled filter in: returns the equal one that is in use, or the filter itself,
    /// which counts from now on. `None`: the budget has no room for it.
    pub fn share(&mut self, filter: Filter) -> Option<Filter> {
        let hash = self.hasher.hash_one(&filter.0.bytes);
        let equal = |place: &Place| {
            let found = place.filter.upgrade().map(Filter);
            found.is_some_and(|found| found == filter)
        };
        if let Some(found) = self.places.find(hash, equal).and_then(|one| one.filter.upgrade()) {
            return Some(Filter(found));
        }
        let charge = self.budget.charge(BESIDE + filter.0.bytes.len())?;
        let filter = Arc::new(Compiled { bytes: filter.0.bytes.clone(), charge: Some(charge) });
        if self.places.len() >= self.places_max {
            self.places.retain(|place| place.filter.strong_count() > 0);
            self.places.shrink_to(PLACES_MIN, |place| place.hash);
            self.places_max = (2 * self.places.len()).max(PLACES_MIN);
        }
        let place = Place { hash, filter: Arc::downgrade(&filter) };
        self.places.insert_unique(hash, place, |place| place.hash);
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
    fn equal_filters_count_once_until_the_last_is_gone() {
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
    fn filters_that_are_gone_leave_no_places() {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(1 << 20), 1);
        let mut filters = Filters::new(budgets[MemoryKind::Filters].clone());
        let kept: Vec<_> = (0..100).map(|nth| filters.share(filter(&nth.to_string()))).collect();
        for nth in 100..10_000 {
            assert!(filters.share(filter(&nth.to_string())).is_some());
        }
        assert!(filters.places.len() <= 200, "{}", filters.places.len());
        let budget = &budgets[MemoryKind::Filters];
        let used = budget.used();
        for (nth, one) in kept.iter().enumerate() {
            assert_eq!(filters.share(filter(&nth.to_string())), *one);
        }
        assert_eq!(budget.used(), used);
    }
}
