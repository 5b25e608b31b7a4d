//! Random numbers that need no secrecy: xorshift64*.
//!
//! Owns the generator's state. Never reads a clock. Invariant: the same seed gives the same
//! numbers, and parts of a seed give numbers that are independent of each other.

use std::ops::RangeInclusive;

/// A generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Random(mixed(seed) | 1)
    }

    /// The numbers of a part of this seed, for example of the tenth episode of an activity.
    pub fn of_part(seed: u64, parts: [u64; 2]) -> Self {
        Random::new(parts.into_iter().fold(seed, |seed, part| mixed(seed ^ mixed(part))))
    }

    /// The next number of 48 bits.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number of this range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        low + self.number() % (high.saturating_sub(low) + 1)
    }

    /// One of these; `None` if there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.number() as usize % from.len().max(1))
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.number().is_multiple_of(count)
    }

    /// Exponentially distributed with mean 1: times between events that come at random.
    pub fn exponential(&mut self) -> f64 {
        let uniform = (self.number() % (1 << 32) + 1) as f64 / (1u64 << 32) as f64;
        -uniform.ln()
    }
}

/// Seeds that differ in one bit differ in about half of the bits afterwards (splitmix64).
fn mixed(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_times_have_the_wanted_mean_and_spread() {
        let mut random = Random::new(7);
        let values: Vec<f64> = (0..100_000).map(|_| random.exponential()).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        let beyond = values.iter().filter(|value| **value > 1.0).count();
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((36_000..37_600).contains(&beyond), "{beyond} of them, expected 1/e");
    }

    #[test]
    fn a_part_of_a_seed_repeats_and_differs_from_the_others() {
        let first = |parts| Random::of_part(1, parts).number();
        assert_eq!(first([2, 3]), first([2, 3]));
        let mut all: Vec<u64> = (0..32).flat_map(|a| (0..32).map(move |b| first([a, b]))).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 32 * 32);
    }

    #[test]
    fn numbers_cover_their_range_and_nothing_else() {
        let mut random = Random::new(1);
        let mut seen = [0; 5];
        (0..1_000).for_each(|_| seen[random.within(3..=7) as usize - 3] += 1);
        assert!(seen.iter().all(|count| (100..300).contains(count)), "{seen:?}");
        assert_eq!(random.within(4..=4), 4);
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
