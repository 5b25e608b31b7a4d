//! A side table whose items count in a memory budget.
//!
//! Owns the items of the connections that have one. Never closes a connection: it finds the slot
//! with the largest item. The invariant: the counted bytes are the memory of the items.

use slab::Slab;

use crate::base::memory::ShardUsage;
use crate::base::ranking::BudgetedSizes;

/// An item whose memory is counted.
pub trait Measured {
    /// Frees spare capacity, and returns the bytes that the item has allocated.
    fn trimmed_bytes(&mut self) -> usize;
}

struct CountedItem<T> {
    slot: u32,
    /// Bytes counted for it.
    counted: usize,
    item: T,
}

impl<T: Measured> CountedItem<T> {
    /// Counts the memory of the item again; returns the bytes before and now.
    fn recount(&mut self) -> (usize, usize) {
        let now = size_of::<Self>() + self.item.trimmed_bytes();
        (std::mem::replace(&mut self.counted, now), now)
    }
}

/// The items of a shard, and their memory use.
pub struct CountedTable<T> {
    items: Slab<CountedItem<T>>,
    counted: BudgetedSizes,
}

impl<T: Measured> CountedTable<T> {
    /// Creates an empty table; `share` is its part of the memory budget.
    pub fn new(share: ShardUsage) -> Self {
        CountedTable { items: Slab::new(), counted: BudgetedSizes::new(share) }
    }

    /// Number of connections with an item.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether no connection has an item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Memory use of the items.
    pub fn usage(&self) -> &ShardUsage {
        self.counted.usage()
    }

    /// Adds the item of a slot; returns its index. Call [`CountedTable::settle`] afterwards.
    pub fn insert(&mut self, slot: u32, item: T) -> u32 {
        self.items.insert(CountedItem { slot, counted: 0, item }) as u32
    }

    /// An item.
    pub fn get(&self, at: u32) -> Option<&T> {
        self.items.get(at as usize).map(|found| &found.item)
    }

    /// An item. Call [`CountedTable::settle`] after a change.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.items.get_mut(at as usize).map(|found| &mut found.item)
    }

    /// Changes an item and counts its memory; returns the result of the change.
    pub fn change<R>(&mut self, at: u32, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let found = self.items.get_mut(at as usize)?;
        let changed = change(&mut found.item);
        let (before, now) = found.recount();
        if before != now {
            self.counted.change(at, before, now, true);
        }
        Some(changed)
    }

    /// Counts the memory of an item. Where the connection is not `closable`, the item is not a
    /// candidate for [`CountedTable::largest`].
    pub fn settle(&mut self, at: u32, closable: bool) {
        let Some(found) = self.items.get_mut(at as usize) else { return };
        let (before, now) = found.recount();
        self.counted.change(at, before, now, closable);
    }

    /// The items of a slot; searches all of them.
    pub fn of_slot(&self, slot: u32) -> impl Iterator<Item = &T> {
        let items = self.items.iter().filter(move |(_, found)| found.slot == slot);
        items.map(|(_, found)| &found.item)
    }

    /// Removes an item.
    pub fn remove(&mut self, at: u32) -> Option<T> {
        let found = self.items.try_remove(at as usize)?;
        self.counted.change(at, found.counted, 0, true);
        Some(found.item)
    }

    /// Slots with about the largest items, at most `most`.
    pub fn largest_slots(&self, most: usize) -> impl Iterator<Item = u32> {
        let items = self.counted.highest(most);
        items.filter_map(|at| self.items.get(at as usize).map(|found| found.slot))
    }

    /// The slot with the largest item.
    pub fn largest(&self) -> Option<u32> {
        self.items.get(self.counted.largest()? as usize).map(|found| found.slot)
    }
}
