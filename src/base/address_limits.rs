//! Limits of connections and connects per client address, for all shards of a node together.
//!
//! Owns the counts. Never reads a clock. A table of fixed size holds 4 bytes for each address with
//! connections: a part of the address's hash and its count. So two addresses can share a count, one
//! pair in 16,000, and no memory depends on how many addresses clients have. The hash is keyed, so
//! no client can choose to share. The invariants: a count is raised only for a connection that is
//! admitted, and lowered once for each; an attempt that is refused changes nothing; a table that a
//! limit has needed stays, because connections have places in it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Maximum of a limit of connections per address.
pub const CONNECTIONS_MAX: u64 = COUNT as u64;
/// Maximum of a limit of connects per second and address.
pub const RATE_MAX: u64 = u16::MAX as u64;

/// Parts of the table; each has a lock of its own.
const PARTS: usize = 64;
/// Entries of a bucket. An address can be in one of two buckets.
const BUCKET: usize = 16;
/// Bits of an entry that count; the others are part of the hash.
const COUNT: u32 = (1 << 14) - 1;
/// Entries of a part for addresses that connected in this second, and those of a bucket.
const RECENT: usize = 1024;
const RECENT_BUCKET: usize = 8;

/// No place in the table.
pub const NOT_COUNTED: u32 = u32::MAX;

/// The address has reached a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRefused;

/// The limits and the counts of addresses.
#[derive(Debug)]
pub struct AddressLimits {
    /// Maximum connections of an address; 0: no limit.
    connections_max: AtomicU32,
    /// Maximum connects of an address per second; 0: no limit.
    rate_max: AtomicU32,
    hasher: RandomState,
    /// Entries of each part that count connections.
    entries: usize,
    parts: Box<[Mutex<Part>]>,
}

#[derive(Debug, Default)]
struct Part {
    /// Part of the hash and number of connections; 0: free.
    connections: Box<[u32]>,
    /// Addresses that connected lately.
    recent: Box<[Recent]>,
}

/// The connects of an address in one second.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    tag: u32,
    second: u16,
    count: u16,
}

impl AddressLimits {
    /// Limits for a node with room for this many connections; 0: no limit.
    pub fn new(connections_max: u64, rate_max: u64, slots: usize) -> Self {
        // Half as many entries more than connections: with two buckets for each address, hardly
        // any address finds both full.
        let entries = (slots + slots / 2).div_ceil(PARTS).div_ceil(BUCKET) * BUCKET;
        let limits = AddressLimits {
            connections_max: AtomicU32::new(0),
            rate_max: AtomicU32::new(0),
            hasher: RandomState::new(),
            entries,
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
        };
        limits.set(connections_max, rate_max);
        limits
    }

    /// Changes the limits; 0: no limit. Connections that were not counted stay so.
    pub fn set(&self, connections_max: u64, rate_max: u64) {
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            if connections_max > 0 && part.connections.is_empty() {
                part.connections = vec![0; self.entries].into();
            }
            if rate_max > 0 && part.recent.is_empty() {
                part.recent = vec![Recent::default(); RECENT].into();
            }
        }
        let connections_max = connections_max.min(CONNECTIONS_MAX) as u32;
        self.connections_max.store(connections_max, Ordering::Relaxed);
        self.rate_max.store(rate_max.min(RATE_MAX) as u32, Ordering::Relaxed);
    }

    /// Maximum connections of an address, and its connects per second; 0: no limit.
    fn limits(&self) -> (u32, u32) {
        let load = |limit: &AtomicU32| limit.load(Ordering::Relaxed);
        (load(&self.connections_max), load(&self.rate_max))
    }

    /// Whether one of the limits is set.
    pub fn is_on(&self) -> bool {
        self.limits() != (0, 0)
    }

    /// Counts a connection of an address at `now`, in milliseconds. Returns the place of its count,
    /// which must be released when the connection ends.
    pub fn admit(&self, address: u64, now: u64) -> Result<u32, AddressRefused> {
        let (connections_max, rate_max) = self.limits();
        let hash = self.hasher.hash_one(address);
        let index = hash as usize % PARTS;
        let Some(part) = self.parts.get(index) else { return Ok(NOT_COUNTED) };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let Part { connections, recent } = &mut *part;
        let recent = if rate_max == 0 { &mut [] } else { &mut recent[..] };
        let recent = self.recent(recent, hash, (now / 1000) as u16);
        if recent.as_ref().is_some_and(|recent| u32::from(recent.count) >= rate_max) {
            return Err(AddressRefused);
        }
        let connections = if connections_max == 0 { &mut [] } else { &mut connections[..] };
        let place = match self.entry(connections, hash) {
            Some((_, entry)) if *entry & COUNT >= connections_max => {
                return Err(AddressRefused);
            }
            Some((at, entry)) => {
                *entry += 1;
                (index * self.entries + at) as u32
            }
            None => NOT_COUNTED,
        };
        if let Some(recent) = recent {
            recent.count += 1;
        }
        Ok(place)
    }

    /// Ends the count of one connection.
    pub fn release(&self, place: u32) {
        let (place, entries) = (place as usize, self.entries.max(1));
        let Some(part) = self.parts.get(place / entries) else { return };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = part.connections.get_mut(place % entries)
            && *entry & COUNT > 0
        {
            *entry -= 1;
            if *entry & COUNT == 0 {
                *entry = 0;
            }
        }
    }

    /// Number of connections that are counted.
    pub fn counted(&self) -> u64 {
        let part = |part: &Mutex<Part>| {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            part.connections.iter().map(|entry| u64::from(entry & COUNT)).sum::<u64>()
        };
        self.parts.iter().map(part).sum()
    }

    /// The entry of an address, or a free one with its tag. `None`: connections are not counted,
    /// or both buckets are full.
    fn entry<'a>(&self, entries: &'a mut [u32], hash: u64) -> Option<(usize, &'a mut u32)> {
        let buckets = entries.len() / BUCKET;
        if buckets == 0 {
            return None;
        }
        // Bits that the choice of the part did not use.
        let [one, other] =
            [hash >> 6, hash >> 26].map(|bits| (bits as usize & 0xf_ffff) % buckets * BUCKET);
        let tag = (hash >> 32) as u32 & !COUNT;
        let found = [one, other].into_iter().flat_map(|start| start..start + BUCKET).find(|at| {
            entries.get(*at).is_some_and(|entry| entry & COUNT > 0 && entry & !COUNT == tag)
        });
        let used = |start: usize| {
            let bucket = entries.get(start..start + BUCKET).unwrap_or_default();
            bucket.iter().filter(|entry| **entry != 0).count()
        };
        let at = found.or_else(|| {
            let start = if used(other) < used(one) { other } else { one };
            (start..start + BUCKET).find(|at| entries.get(*at) == Some(&0))
        })?;
        let entry = entries.get_mut(at)?;
        if *entry == 0 {
            *entry = tag;
        }
        Some((at, entry))
    }

    /// The connects of an address in this second. If all entries of its bucket are of this second,
    /// the address with the fewest connects is forgotten.
    fn recent<'a>(
        &self,
        recent: &'a mut [Recent],
        hash: u64,
        second: u16,
    ) -> Option<&'a mut Recent> {
        let buckets = recent.len() / RECENT_BUCKET;
        let start = (hash >> 6) as usize % buckets.max(1) * RECENT_BUCKET;
        let bucket = recent.get_mut(start..start + RECENT_BUCKET)?;
        let tag = (hash >> 32) as u32;
        let order = |entry: &Recent| match entry {
            entry if entry.tag == tag && entry.second == second => 0,
            entry if entry.second != second => 1,
            entry => 2 + u32::from(entry.count),
        };
        let entry = bucket.iter_mut().min_by_key(|entry| order(entry))?;
        if entry.tag != tag || entry.second != second {
            *entry = Recent { tag, second, count: 0 };
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_an_address_are_limited_until_one_is_released() {
        let limits = AddressLimits::new(2, 0, 1000);
        let places = [limits.admit(7, 0), limits.admit(7, 0)].map(Result::unwrap);
        for _ in 0..1000 {
            assert_eq!(limits.admit(7, 0), Err(AddressRefused));
        }
        limits.admit(8, 0).unwrap();
        assert_eq!(limits.counted(), 3);
        limits.release(places[0]);
        assert_eq!(limits.admit(7, 0), Ok(places[1]));
        assert_eq!(limits.admit(7, 0), Err(AddressRefused));
        limits.release(NOT_COUNTED);
        assert_eq!(limits.counted(), 3);
    }

    #[test]
    fn attempts_that_are_refused_do_not_prolong_a_refusal() {
        let limits = AddressLimits::new(0, 3, 1000);
        for second in [10u64, 11, 12, 65_546, 200_000] {
            let admitted = (0..1000).filter(|at| limits.admit(7, second * 1000 + at).is_ok());
            assert_eq!(admitted.count(), 3, "{second}");
        }
        let both = AddressLimits::new(1, 2, 1000);
        let place = both.admit(1, 5000).unwrap();
        // Refused because of the connection: that costs nothing of the rate.
        assert!((0..100).all(|_| both.admit(1, 5000).is_err()));
        both.release(place);
        assert!(both.admit(1, 5000).is_ok());
    }

    #[test]
    fn a_full_node_of_different_addresses_is_counted_in_few_bytes() {
        let slots = 200_000;
        let limits = AddressLimits::new(10, 0, slots);
        let mut places = Vec::new();
        for address in 0..slots as u64 {
            places.push(limits.admit(address << 32, 0).unwrap());
        }
        let lost = places.iter().filter(|place| **place == NOT_COUNTED).count();
        assert!(lost < slots / 1000, "{lost} addresses found both buckets full");
        let bytes = limits.entries * PARTS * size_of::<u32>();
        assert!(bytes <= slots * 7, "{bytes}");
        // Addresses that share a count exist and are rare.
        let mut sorted = places.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert!(places.len() - sorted.len() < slots / 4000 + lost, "{}", sorted.len());
        places.into_iter().for_each(|place| limits.release(place));
        assert_eq!(limits.counted(), 0);
        assert!(
            limits
                .parts
                .iter()
                .all(|part| { part.lock().unwrap().connections.iter().all(|entry| *entry == 0) })
        );
    }

    #[test]
    fn many_addresses_within_a_second_leave_the_busiest_limited() {
        let limits = AddressLimits::new(0, 5, 1000);
        assert_eq!((0..100).filter(|_| limits.admit(1, 0).is_ok()).count(), 5);
        for address in 2..20_000 {
            assert!(limits.admit(address, 0).is_ok());
        }
        assert!(limits.admit(1, 0).is_err(), "others did not displace it");
    }

    #[test]
    fn limits_change_and_connections_without_a_count_stay_so() {
        let limits = AddressLimits::new(0, 0, 1000);
        let is_empty = |part: &Mutex<Part>| {
            let part = part.lock().unwrap();
            part.connections.is_empty() && part.recent.is_empty()
        };
        assert!(!limits.is_on() && limits.parts.iter().all(is_empty), "no limit needs no table");
        assert_eq!(limits.admit(7, 0), Ok(NOT_COUNTED));
        limits.set(1, 0);
        let place = limits.admit(7, 0).unwrap();
        assert!(limits.is_on() && place != NOT_COUNTED && limits.admit(7, 0).is_err());
        limits.set(2, 1);
        assert!(limits.admit(7, 0).is_ok() && limits.admit(7, 0).is_err(), "one per second");
        assert!(limits.admit(7, 1000).is_err(), "two at a time");
        limits.set(0, 0);
        assert_eq!((limits.admit(7, 1000), limits.counted()), (Ok(NOT_COUNTED), 2));
        limits.release(place);
        limits.set(2, 0);
        assert_eq!(limits.counted(), 1);
        assert!(limits.admit(7, 1000).is_ok() && limits.admit(7, 1000).is_err());
    }
}
