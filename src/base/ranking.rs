//! Finds the largest of many items without a walk over all of them.
//!
//! Owns the size of every item. The key of an item is its index in a slab. Items of about the same
//! size form a class, so the largest item is in the highest class. Never owns the items. The
//! invariant: an item is in the class of its size, or in none if its size is 0.

use crate::base::memory::ShardUsage;

/// Number of size classes: two for each power of two. Sizes from 4 GiB on share the last class.
const CLASSES: usize = 64;
/// Number of items of the highest class that [`Ranking::largest`] compares.
const COMPARED: usize = 16;
/// A ranking that has become empty frees its memory if it has more entries than this.
const EMPTY_ENTRIES_MAX: usize = 1024;

#[derive(Clone, Copy, Default)]
struct Entry {
    size: u32,
    /// Index in the class of the size.
    index: u32,
}

/// The sizes of items, in classes.
#[derive(Default)]
pub struct Ranking {
    classes: Vec<Vec<u32>>,
    /// Bit n is set if class n has items.
    filled: u64,
    entries: Vec<Entry>,
    items: usize,
}

fn class(size: u32) -> usize {
    let bits = size.max(1).ilog2() as usize;
    let half = if bits > 0 { size as usize >> (bits - 1) & 1 } else { 0 };
    (2 * bits + half).min(CLASSES - 1)
}

impl Ranking {
    /// Sets the size of an item; 0 removes the item.
    pub fn set(&mut self, key: u32, size: usize) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        if size == 0 && self.entries.get(key as usize).is_none_or(|entry| entry.size == 0) {
            return;
        }
        if self.classes.is_empty() {
            self.classes.resize_with(CLASSES, Vec::new);
        }
        if self.entries.len() <= key as usize {
            self.entries.resize(key as usize + 1, Entry::default());
        }
        let before = self.entries[key as usize];
        if before.size == 0 || size == 0 || class(before.size) != class(size) {
            self.remove(before);
            self.insert(key, size);
        } else {
            self.entries[key as usize].size = size;
        }
        if self.items == 0 && self.entries.len() > EMPTY_ENTRIES_MAX {
            *self = Ranking::default();
        }
    }

    fn remove(&mut self, entry: Entry) {
        if entry.size == 0 {
            return;
        }
        let class = class(entry.size);
        let keys = &mut self.classes[class];
        keys.swap_remove(entry.index as usize);
        if let Some(moved) = keys.get(entry.index as usize) {
            self.entries[*moved as usize].index = entry.index;
        }
        if keys.is_empty() {
            self.filled &= !(1 << class);
        }
        self.items -= 1;
    }

    fn insert(&mut self, key: u32, size: u32) {
        let mut entry = Entry { size, index: 0 };
        if size > 0 {
            let class = class(size);
            entry.index = self.classes[class].len() as u32;
            self.classes[class].push(key);
            self.filled |= 1 << class;
            self.items += 1;
        }
        self.entries[key as usize] = entry;
    }

    /// The key and the size of the largest item, or of an item that is at most a third smaller.
    pub fn largest(&self) -> Option<(u32, usize)> {
        let class = self.filled.checked_ilog2()?;
        let keys = self.classes.get(class as usize)?.iter().rev().take(COMPARED);
        let sized = keys.map(|key| (*key, self.entries[*key as usize].size as usize));
        sized.max_by_key(|(_, size)| *size)
    }

    /// Keys of the items in the highest classes, at most `most`. An item that is left out is at
    /// most half larger than one that is found.
    pub fn highest(&self, most: usize) -> impl Iterator<Item = u32> {
        self.classes.iter().rev().flat_map(|keys| keys.iter().rev()).copied().take(most)
    }

    /// The lower bound of the highest class; 0: there are no items.
    pub fn largest_class(&self) -> usize {
        match self.filled.checked_ilog2() {
            None => 0,
            Some(class) => (2 + class as usize % 2) << (class / 2) >> 1,
        }
    }
}

/// The items of a shard that count in a memory budget, ranked by size.
pub struct BudgetedSizes {
    usage: ShardUsage,
    ranking: Ranking,
}

impl BudgetedSizes {
    /// Starts without items; `usage` counts their bytes.
    pub fn new(usage: ShardUsage) -> Self {
        BudgetedSizes { usage, ranking: Ranking::default() }
    }

    /// The bytes that the shard uses of the node's budget.
    pub fn usage(&self) -> &ShardUsage {
        &self.usage
    }

    /// Changes the size of an item from `before` bytes to `after`. Only `eligible` items are
    /// ranked: those that the shard can free.
    pub fn change(&mut self, key: u32, before: usize, after: usize, eligible: bool) {
        self.usage.change(before, after);
        self.ranking.set(key, if eligible { after } else { 0 });
        self.usage.set_weight(self.ranking.largest_class());
    }

    /// Keys of about the largest items, at most `most`, see [`Ranking::highest`].
    pub fn highest(&self, most: usize) -> impl Iterator<Item = u32> {
        self.ranking.highest(most)
    }

    /// The key of the largest item.
    pub fn largest(&self) -> Option<u32> {
        self.ranking.largest().map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_item_is_found_after_items_change_and_go() {
        let mut ranking = Ranking::default();
        assert_eq!((ranking.largest(), ranking.largest_class()), (None, 0));
        for (key, size) in [(3, 10), (0, 70_000), (9, 65_000), (5, 1)] {
            ranking.set(key, size);
        }
        assert_eq!(ranking.largest(), Some((0, 70_000)));
        assert_eq!(ranking.largest_class(), 65_536);
        ranking.set(0, 0);
        assert_eq!((ranking.largest(), ranking.largest_class()), (Some((9, 65_000)), 49_152));
        assert_eq!(ranking.highest(2).collect::<Vec<_>>(), [9, 3]);
        ranking.set(9, 2);
        assert_eq!(ranking.largest(), Some((3, 10)));
        ranking.set(3, usize::MAX);
        assert_eq!(ranking.largest(), Some((3, u32::MAX as usize)));
        [3, 5, 9].into_iter().for_each(|key| ranking.set(key, 0));
        assert_eq!((ranking.largest(), ranking.items), (None, 0));
        ranking.set(100_000, 7);
        assert_eq!(ranking.largest(), Some((100_000, 7)));
        ranking.set(100_000, 0);
        assert!(ranking.entries.is_empty(), "an empty ranking frees its memory");
    }

    proptest! {
        #[test]
        fn the_found_item_is_at_most_a_third_smaller_than_the_largest(
            sets in proptest::collection::vec((0u32..40, 0usize..100_000), 1..200),
        ) {
            let (mut ranking, mut sizes) = (Ranking::default(), [0; 40]);
            for (key, size) in sets {
                ranking.set(key, size);
                sizes[key as usize] = size;
                let most = sizes.into_iter().max().unwrap_or(0);
                match ranking.largest() {
                    None => prop_assert_eq!(most, 0),
                    Some((key, size)) => {
                        prop_assert_eq!(sizes[key as usize], size);
                        prop_assert!(size * 3 >= most * 2, "{} of {}", size, most);
                        prop_assert!(ranking.largest_class() <= size && ranking.largest_class() * 3 >= most * 2);
                    }
                }
            }
        }
    }
}
