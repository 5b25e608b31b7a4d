//! Epochs of streams, also of streams that do not exist yet.
//!
//! Owns a table of generation counters of a fixed size. Never keeps a channel. An epoch derives
//! from the hash of the channel and a generation. So a subscriber of a channel without publications
//! gets a position while no stream is kept, and the first publication begins the stream in that
//! epoch. The invariant: when a stream ends, its channel gets a generation that the channel never
//! had, so a position in the old stream matches no later stream.
//!
//! Channels share counters. The end of a stream therefore also renews the epoch of unpublished
//! channels without subscribers that share the counter. A client that returns to such a channel
//! gets `recovered: false` and subscribes afresh.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use crate::wire::protocol::Epoch;

/// Number of counters per home: 64 KiB.
const COUNTERS: usize = 1 << 14;

/// The epochs of one home's channels.
pub(super) struct Epochs {
    key: (u64, u64),
    generations: Box<[u32]>,
}

impl Epochs {
    /// Creates epochs from a seed that is random for each run and home.
    pub(super) fn new(seed: u64) -> Self {
        Epochs { key: (seed, !seed), generations: vec![0; COUNTERS].into() }
    }

    /// Index of the counter of a channel. Homes are selected by the high bits of the hash.
    fn counter(hash: u64) -> usize {
        hash as usize % COUNTERS
    }

    /// The current generation of a channel without a record.
    pub(super) fn generation(&self, hash: u64) -> u32 {
        self.generations[Self::counter(hash)]
    }

    /// Renews the generation after the end of a stream; returns the generation of the next stream.
    pub(super) fn renew(&mut self, hash: u64) -> u32 {
        let generation = &mut self.generations[Self::counter(hash)];
        *generation = generation.wrapping_add(1);
        *generation
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
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn epochs_differ_by_channel_generation_and_home() {
        let mut epochs = Epochs::new(1);
        let mut seen = HashSet::new();
        for hash in 0..100 {
            for generation in 0..100 {
                let epoch = epochs.epoch(hash, generation);
                assert_eq!(epoch, epochs.epoch(hash, generation));
                assert!(seen.insert(epoch.as_str().to_owned()), "{hash} {generation}");
            }
        }
        assert_ne!(Epochs::new(2).epoch(7, 0), epochs.epoch(7, 0));
        assert_eq!((epochs.generation(7), epochs.renew(7), epochs.generation(7)), (0, 1, 1));
        assert_eq!(epochs.generation(7 + COUNTERS as u64), 1, "they share a counter");
        assert_eq!(epochs.generation(8), 0);
    }
}
