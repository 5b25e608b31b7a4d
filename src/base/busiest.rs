//! Finds the keys with the most traffic in a stream of keys, in bounded memory and time.
//!
//! Owns at most [`TRACKED`] counters (the Misra-Gries summary). Counts only while somebody watches:
//! otherwise a note costs one branch. The invariant: a key that has more than a `TRACKED + 1`-th of
//! all counted weight has a counter, and its count is too low by less than that part.

/// Number of counters.
const TRACKED: usize = 64;

/// The counters of a watched stream, in columns, so that a search is a walk over one array.
#[derive(Default)]
struct Counters {
    hashes: Vec<u64>,
    counts: Vec<u64>,
    names: Vec<Box<str>>,
}

/// The busiest keys of a stream since they were last taken.
#[derive(Default)]
pub struct Busiest(Option<Box<Counters>>);

impl Busiest {
    /// Begins or ends the watch.
    pub fn watch(&mut self, watched: bool) {
        match (watched, &self.0) {
            (true, None) => self.0 = Some(Box::default()),
            (false, Some(_)) => self.0 = None,
            _ => {}
        }
    }

    /// Adds weight to a key with this hash and name.
    #[inline]
    pub fn note(&mut self, hash: u64, name: &str, weight: u64) {
        if let Some(counters) = &mut self.0 {
            counters.add(hash, name, weight);
        }
    }

    /// Takes the keys with the largest counts, at most `most`, largest first. All counts start
    /// again at 0.
    pub fn take(&mut self, most: usize) -> Vec<(Box<str>, u64)> {
        let Some(counters) = &mut self.0 else { return Vec::new() };
        let Counters { names, counts, .. } = std::mem::take(&mut **counters);
        let mut found: Vec<_> = names.into_iter().zip(counts).collect();
        found.sort_unstable_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(&other.0)));
        found.truncate(most);
        found
    }
}

impl Counters {
    #[inline(never)]
    fn add(&mut self, hash: u64, name: &str, weight: u64) {
        // A key of another name with the same hash would share its counter; hashes are keyed.
        if let Some(at) = self.hashes.iter().position(|known| *known == hash) {
            self.counts[at] += weight;
            return;
        }
        if self.hashes.len() < TRACKED {
            return self.insert(hash, name, weight);
        }
        let removed = self.counts.iter().copied().min().unwrap_or(0).min(weight);
        self.counts.iter_mut().for_each(|count| *count -= removed);
        if weight > removed {
            self.remove_empty();
            self.insert(hash, name, weight - removed);
        } else if self.counts.contains(&0) {
            self.remove_empty();
        }
    }

    fn insert(&mut self, hash: u64, name: &str, weight: u64) {
        self.hashes.push(hash);
        self.counts.push(weight);
        self.names.push(name.into());
    }

    fn remove_empty(&mut self) {
        let mut at = 0;
        while at < self.counts.len() {
            if self.counts[at] == 0 {
                self.hashes.swap_remove(at);
                self.counts.swap_remove(at);
                self.names.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_counted_only_while_watched() {
        let mut busiest = Busiest::default();
        busiest.note(1, "a", 1);
        assert_eq!(busiest.take(9), []);
        busiest.watch(true);
        busiest.note(1, "a", 1);
        busiest.note(2, "b", 5);
        busiest.watch(true);
        busiest.note(1, "a", 1);
        assert_eq!(busiest.take(9), [("b".into(), 5), ("a".into(), 2)]);
        assert_eq!(busiest.take(9), [], "taken counts start again");
        busiest.note(1, "a", 1);
        busiest.watch(false);
        busiest.watch(true);
        assert_eq!(busiest.take(9), []);
    }

    #[test]
    fn a_million_rare_keys_take_the_memory_of_the_counters() {
        let mut busiest = Busiest::default();
        busiest.watch(true);
        for nth in 0..1_000_000u64 {
            busiest.note(nth + 7, "rare", 1);
            if nth % 20 == 0 {
                busiest.note(1, "common", 1);
            }
        }
        let counters = busiest.0.as_ref().unwrap();
        assert!(counters.names.len() <= TRACKED && counters.names.capacity() <= 2 * TRACKED);
        let found = busiest.take(3);
        assert_eq!(&*found[0].0, "common");
        assert!(found[0].1 >= 50_000 - 1_050_000 / (TRACKED as u64 + 1), "{found:?}");
    }

    proptest! {
        #[test]
        fn a_count_is_too_low_by_less_than_a_part_of_the_whole(
            notes in proptest::collection::vec((0u64..200, 1u64..1000), 0..2000),
        ) {
            let (mut busiest, mut exact) = (Busiest::default(), HashMap::new());
            busiest.watch(true);
            for (key, weight) in &notes {
                busiest.note(*key, &key.to_string(), *weight);
                *exact.entry(key.to_string()).or_insert(0) += weight;
            }
            let error = exact.values().sum::<u64>() / (TRACKED as u64 + 1);
            let found: HashMap<String, u64> =
                busiest.take(TRACKED).into_iter().map(|(name, count)| (name.into(), count)).collect();
            for (name, count) in exact {
                let counted = found.get(&name).copied().unwrap_or(0);
                prop_assert!(counted <= count && counted + error >= count, "{} {}", counted, count);
            }
        }
    }
}
