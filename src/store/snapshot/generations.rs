//! The generations of partitions, and the partitions of streams that are left out.
//!
//! Owns the rule for streams that a snapshot or a start leaves out. The invariant: their channels
//! begin a new epoch, because an offset would be given twice in the old one.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::names::partition;

/// Generations of partitions.
#[derive(Clone, Debug, Default)]
pub struct KnownGenerations {
    known: BTreeMap<u32, u32>,
    /// Partitions of streams that are left out.
    left_out: BTreeSet<u32>,
}

impl KnownGenerations {
    /// Adds partitions and their generations.
    pub fn add(&mut self, generations: impl IntoIterator<Item = (u32, u32)>) {
        self.known.extend(generations);
    }

    /// Leaves a stream out: the channel with this hash begins a new epoch.
    pub fn leave_out(&mut self, hash: u64) {
        self.left_out.insert(partition(hash) as u32);
    }

    /// All partitions whose generation is not 0, and the generations.
    pub fn finish(mut self) -> Vec<(u32, u32)> {
        for partition in self.left_out {
            // A stream has at most the generation of its partition.
            let generation = self.known.entry(partition).or_default();
            *generation = generation.wrapping_add(1);
        }
        self.known.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_a_stream_that_is_left_out_gets_another_generation() {
        let mut generations = KnownGenerations::default();
        generations.add([(3, 7), (4, 1)]);
        for partition in [3, 9, 9] {
            generations.leave_out(partition << 32);
        }
        assert_eq!(generations.finish(), [(3, 8), (4, 1), (9, 1)]);
    }
}
