//! Pauses between attempts: they double, and jitter spreads the attempts of many nodes.
//!
//! Owns the current pause. Never sleeps. The invariant: a pause is at least half of its maximum, so
//! attempts never come without a pause.

use std::time::Duration;

use super::sys;

/// Growing pauses.
#[derive(Clone, Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `least` to `most`.
    pub const fn new(least: Duration, most: Duration) -> Self {
        Backoff { least, most, next: least }
    }

    /// The next pause: between half and all of a time that doubles.
    pub fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (2 * whole).min(self.most);
        // Without random numbers all nodes wait the longest.
        let random = sys::random().map_or(u32::MAX, u32::from_ne_bytes);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Begins with the shortest pause again.
    pub fn reset(&mut self) {
        self.next = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(100), millis(400));
        for whole in [100, 200, 400, 400] {
            let pause = backoff.pause();
            assert!((millis(whole) / 2..=millis(whole)).contains(&pause), "{pause:?} of {whole}");
        }
        let spread: std::collections::BTreeSet<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(spread.len() > 10, "{spread:?}");
        backoff.reset();
        assert!(backoff.pause() <= millis(100));
    }
}
