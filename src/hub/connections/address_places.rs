//! Where the counts of addresses of a shard's connections are, by slot.
//!
//! Owns the places, not the counts. Takes no memory before the first connection whose address is
//! counted.

use crate::base::address_limits::NOT_COUNTED;

/// Places of counts by slot.
#[derive(Debug, Default)]
pub struct AddressPlaces(Vec<u32>);

impl AddressPlaces {
    /// The place of the count of a connection's address, or [`NOT_COUNTED`].
    pub fn get(&self, slot: u32) -> u32 {
        self.0.get(slot as usize).copied().unwrap_or(NOT_COUNTED)
    }

    /// Keeps the place of the count of a connection's address.
    pub fn set(&mut self, slot: u32, place: u32) {
        let slot = slot as usize;
        match self.0.get_mut(slot) {
            Some(kept) => *kept = place,
            None if place == NOT_COUNTED => {}
            None => {
                self.0.resize(slot + 1, NOT_COUNTED);
                self.0[slot] = place;
            }
        }
    }

    /// Takes the place of the count of a connection's address.
    pub fn take(&mut self, slot: u32) -> u32 {
        let kept = self.0.get_mut(slot as usize);
        kept.map_or(NOT_COUNTED, |kept| std::mem::replace(kept, NOT_COUNTED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_until_it_is_taken_and_nothing_is_kept_without_one() {
        let mut places = AddressPlaces::default();
        places.set(7, NOT_COUNTED);
        assert_eq!(
            (places.0.capacity(), places.get(7), places.take(7)),
            (0, NOT_COUNTED, NOT_COUNTED)
        );
        places.set(7, 3);
        assert_eq!((places.get(6), places.get(7), places.get(8)), (NOT_COUNTED, 3, NOT_COUNTED));
        assert_eq!((places.take(7), places.take(7)), (3, NOT_COUNTED));
    }
}
