//! Epochs of streams, also of streams that do not exist yet.
//!
//! Owns a table of generation counters of a fixed size: one for each partition of the names that
//! have this home. Never keeps a channel. An epoch derives from the seed of the node, the hash of
//! the channel and a generation. So a subscriber of a channel without publications gets a position
//! while no stream is kept, and the first publication begins the stream in that epoch. The
//! invariant: when a stream ends, its channel gets a generation that the channel never had, so a
//! position in the old stream matches no later stream.
//!
//! The channels of a partition share a counter. The end of a stream therefore also renews the epoch
//! of unpublished channels without subscribers of the same partition. A client that returns to such
//! a channel gets `recovered: false` and subscribes afresh.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::ops::Range;

use crate::model::endpoint::Endpoint;
use crate::model::names::{PARTITIONS, partition};
use crate::wire::protocol::Epoch;

/// The epochs of one home's channels.
pub(super) struct Epochs {
    key: (u64, u64),
    /// Number of homes. Each has every nth partition.
    homes: usize,
    generations: Box<[u32]>,
}

impl Epochs {
    /// Creates the epochs of one of `homes` homes from the secret seed of the node.
    pub(super) fn new(seed: u64, homes: u8) -> Self {
        let homes = usize::from(homes.max(1));
        let generations = vec![0; PARTITIONS.div_ceil(homes)].into();
        Epochs { key: (seed, !seed), homes, generations }
    }

    /// Index of the counter of a channel.
    fn counter(&self, hash: u64) -> usize {
        partition(hash) / self.homes
    }

    /// The current generation of a channel without a record.
    pub(super) fn generation(&self, hash: u64) -> u32 {
        self.generations[self.counter(hash)]
    }

    /// Renews the generation after the end of a stream; returns the generation of the next stream.
    pub(super) fn renew(&mut self, hash: u64) -> u32 {
        let counter = self.counter(hash);
        let generation = &mut self.generations[counter];
        *generation = generation.wrapping_add(1);
        *generation
    }

    /// Of the counters in this range, the partitions of those that are not 0, and their
    /// generations. `home` is the index of the home. `None`: there is no such counter.
    pub(super) fn renewed(
        &self,
        home: Endpoint,
        range: Range<usize>,
    ) -> Option<impl Iterator<Item = (u32, u32)>> {
        let (from, end) = (range.start, range.end.min(self.generations.len()));
        let found = self.generations.get(from..end).filter(|found| !found.is_empty())?;
        let partition = move |at: usize| ((from + at) * self.homes + usize::from(home)) as u32;
        let renewed = found.iter().enumerate().filter(|(_, generation)| **generation != 0);
        Some(renewed.map(move |(at, generation)| (partition(at), *generation)))
    }

    /// Sets the generations of partitions.
    pub(super) fn restore(&mut self, generations: &[(u32, u32)]) {
        for (partition, generation) in generations {
            if let Some(found) = self.generations.get_mut(*partition as usize / self.homes) {
                *found = *generation;
            }
        }
    }

    /// The epoch of a channel's stream in a generation.
    pub(super) fn epoch(&self, hash: u64, generation: u32) -> Epoch {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write_u64(hash);
        hasher.write_u32(generation);
        Epoch::from_random(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::names::Names;

    #[test]
    fn epochs_differ_by_channel_generation_and_seed() {
        let mut epochs = Epochs::new(1, 3);
        let mut seen = HashSet::new();
        for hash in 0..100 {
            for generation in 0..100 {
                let epoch = epochs.epoch(hash, generation);
                assert_eq!(epoch, epochs.epoch(hash, generation));
                assert!(seen.insert(epoch.as_str().to_owned()), "{hash} {generation}");
            }
        }
        assert_ne!(Epochs::new(2, 3).epoch(7, 0), epochs.epoch(7, 0));
        assert_eq!((epochs.generation(7), epochs.renew(7), epochs.generation(7)), (0, 1, 1));
        assert_eq!(epochs.generation(8), 1, "they share a partition");
        assert_eq!(epochs.generation(7 + (3 << 32)), 0);
    }

    #[test]
    fn restored_generations_are_those_of_the_same_channels_with_another_number_of_homes() {
        let names = [2, 3].map(|shards| Names::new([1; 16], shards));
        let mut homes = [0, 1].map(|_| Epochs::new(1, 2));
        let hashes: Vec<u64> = (0..100).map(|nth: u32| names[0].hash(&nth.to_string())).collect();
        for (nth, hash) in hashes.iter().enumerate() {
            let home = &mut homes[usize::from(names[0].home(*hash))];
            (0..nth % 3).for_each(|_| _ = home.renew(*hash));
        }
        let saved = homes.iter().zip(0..).flat_map(|(epochs, home)| {
            let steps = (0..).map_while(move |nth| epochs.renewed(home, nth * 99..nth * 99 + 99));
            steps.flatten()
        });
        let saved: Vec<(u32, u32)> = saved.collect();
        let restored = [0, 1, 2].map(|home| {
            let mut epochs = Epochs::new(1, 3);
            let own = |(at, _): &&(u32, u32)| names[1].home_of_partition(*at as usize) == home;
            epochs.restore(&saved.iter().filter(own).copied().collect::<Vec<_>>());
            epochs
        });
        for hash in hashes {
            let before = homes[usize::from(names[0].home(hash))].generation(hash);
            let after = restored[usize::from(names[1].home(hash))].generation(hash);
            assert_eq!(before, after);
        }
    }

    #[test]
    fn every_partition_of_a_home_has_a_counter_of_its_own() {
        for homes in [1, 2, 3, 7, 64] {
            let mut epochs = Epochs::new(1, homes);
            let hashes = (0..PARTITIONS as u64).map(|partition| partition << 32);
            let own = hashes.filter(|hash| partition(*hash).is_multiple_of(usize::from(homes)));
            let count = own.map(|hash| assert_eq!(epochs.renew(hash), 1)).count();
            let all = epochs.renewed(0, 0..PARTITIONS).unwrap();
            assert_eq!(all.filter(|(at, _)| at.is_multiple_of(u32::from(homes))).count(), count);
        }
    }
}
