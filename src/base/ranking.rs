//! Finds the largest of many items without looking at all of them.
//!
//! Owns the sizes of items, each under a key of its own: an index of a slab. Items of about the
//! same size are in one class, so the largest is one of the highest class. The invariant: an item
//! is in exactly the class of its size, or in none where its size is 0.

use crate::base::memory::Share;

/// Two classes for each power of two; sizes from 4 GiB on share the last.
const CLASSES: usize = 64;
/// Items of the highest class that are compared.
const COMPARED: usize = 16;
/// A ranking without items gives its memory back if there was room for more than so many.
const KEPT: usize = 1024;

#[derive(Clone, Copy, Default)]
struct Place {
    size: u32,
    /// Index in its class.
    at: u32,
}

/// Items by their size.
#[derive(Default)]
pub struct Ranking {
    classes: Vec<Vec<u32>>,
    /// Bit n: class n has items.
    filled: u64,
    places: Vec<Place>,
    items: usize,
}

fn class(size: u32) -> usize {
    let bits = size.max(1).ilog2() as usize;
    let half = if bits > 0 { size as usize >> (bits - 1) & 1 } else { 0 };
    (2 * bits + half).min(CLASSES - 1)
}

impl Ranking {
    /// Says how large an item is; 0: it is not there any more.
    pub fn set(&mut self, key: u32, size: usize) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        if size == 0 && self.places.get(key as usize).is_none_or(|place| place.size == 0) {
            return;
        }
        if self.classes.is_empty() {
            self.classes.resize_with(CLASSES, Vec::new);
        }
        if self.places.len() <= key as usize {
            self.places.resize(key as usize + 1, Place::default());
        }
        let before = self.places[key as usize];
        if before.size == 0 || size == 0 || class(before.size) != class(size) {
            self.remove(before);
            self.insert(key, size);
        } else {
            self.places[key as usize].size = size;
        }
        if self.items == 0 && self.places.len() > KEPT {
            *self = Ranking::default();
        }
    }

    fn remove(&mut self, place: Place) {
        if place.size == 0 {
            return;
        }
        let class = class(place.size);
        let keys = &mut self.classes[class];
        keys.swap_remove(place.at as usize);
        if let Some(moved) = keys.get(place.at as usize) {
            self.places[*moved as usize].at = place.at;
        }
        if keys.is_empty() {
            self.filled &= !(1 << class);
        }
        self.items -= 1;
    }

    fn insert(&mut self, key: u32, size: u32) {
        let mut place = Place { size, at: 0 };
        if size > 0 {
            let class = class(size);
            place.at = self.classes[class].len() as u32;
            self.classes[class].push(key);
            self.filled |= 1 << class;
            self.items += 1;
        }
        self.places[key as usize] = place;
    }

    /// The key of the largest item, or of one that is not much smaller, and its size.
    pub fn largest(&self) -> Option<(u32, usize)> {
        let class = self.filled.checked_ilog2()?;
        let keys = self.classes.get(class as usize)?.iter().rev().take(COMPARED);
        let sized = keys.map(|key| (*key, self.places[*key as usize].size as usize));
        sized.max_by_key(|(_, size)| *size)
    }

    /// About the size of the largest item; 0: there is none.
    pub fn top(&self) -> usize {
        match self.filled.checked_ilog2() {
            None => 0,
            Some(class) => (2 + class as usize % 2) << (class / 2) >> 1,
        }
    }
}

/// Items of a shard that count in a memory budget, and which of them is the largest.
pub struct Counted {
    share: Share,
    ranking: Ranking,
}

impl Counted {
    /// No items yet; `share` counts them.
    pub fn new(share: Share) -> Self {
        Counted { share, ranking: Ranking::default() }
    }

    /// What the shard uses of the node's budget.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// The bytes of an item have changed. Only items that may be given up are `eligible` to be the
    /// largest.
    pub fn change(&mut self, key: u32, before: usize, after: usize, eligible: bool) {
        self.share.change(before, after);
        self.ranking.set(key, if eligible { after } else { 0 });
        self.share.weigh(self.ranking.top());
    }

    /// The largest item.
    pub fn largest(&self) -> Option<u32> {
        self.ranking.largest().map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_is_found_and_may_go() {
        let mut ranking = Ranking::default();
        assert_eq!((ranking.largest(), ranking.top()), (None, 0));
        for (key, size) in [(3, 10), (0, 70_000), (9, 65_000), (5, 1)] {
            ranking.set(key, size);
        }
        assert_eq!(ranking.largest(), Some((0, 70_000)));
        assert_eq!(ranking.top(), 65_536);
        ranking.set(0, 0);
        assert_eq!((ranking.largest(), ranking.top()), (Some((9, 65_000)), 49_152));
        ranking.set(9, 2);
        assert_eq!(ranking.largest(), Some((3, 10)));
        ranking.set(3, usize::MAX);
        assert_eq!(ranking.largest(), Some((3, u32::MAX as usize)));
        [3, 5, 9].into_iter().for_each(|key| ranking.set(key, 0));
        assert_eq!((ranking.largest(), ranking.items), (None, 0));
        ranking.set(100_000, 7);
        assert_eq!(ranking.largest(), Some((100_000, 7)));
        ranking.set(100_000, 0);
        assert!(ranking.places.is_empty(), "its memory is given back");
    }

    proptest! {
        #[test]
        fn the_largest_is_about_the_largest(
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
                        prop_assert!(ranking.top() <= size && ranking.top() * 3 >= most * 2);
                    }
                }
            }
        }
    }
}
