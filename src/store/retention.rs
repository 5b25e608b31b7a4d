//! Retention by total bytes: what goes when the store keeps too many bytes.
//!
//! Owns the sums of the walk over all streams. Never reads a disk. Every history loses the same
//! share of its oldest publications, so no channel can push the others out. The invariant: after a
//! walk that asked homes to remove something, the next one only weighs, because what was asked for
//! may not be done yet.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::model::storage::StreamRecord;

/// Share of the maximum that is kept when histories must go, so that not every walk removes some.
const KEPT: f64 = 0.95;

/// The maximum, and what the walk has seen.
#[derive(Debug, Default)]
pub struct Retention {
    /// Maximum bytes; 0: there is none.
    most: u64,
    /// Bytes of the streams that the walk has passed.
    sum: u64,
    /// The share that this walk removes.
    share: f64,
    /// Walks so far.
    walks: u64,
    /// Whether the last walk has seen more bytes than the maximum.
    is_exceeded: bool,
}

impl Retention {
    /// Keeps at most so many bytes of publications; 0: any number.
    pub fn new(most: u64) -> Self {
        Retention { most, ..Retention::default() }
    }

    /// Whether there is a maximum, so that streams must be weighed.
    pub fn is_bounded(&self) -> bool {
        self.most > 0
    }

    /// Whether the last walk has seen more bytes than the maximum.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }

    /// The same maximum, and a walk that begins.
    pub fn restarted(&self) -> Self {
        Retention::new(self.most)
    }

    /// Notes a stream. Returns the first offset that stays, if older ones must go.
    pub fn weigh(&mut self, channel: &str, record: &StreamRecord) -> Option<u64> {
        let count = record.top.saturating_add(1).saturating_sub(record.first);
        self.sum = self.sum.saturating_add(record.bytes);
        // Rounded up as often as the fraction says, so that short histories lose their share, too.
        let removed = (count as f64 * self.share + self.chance(channel)) as u64;
        (removed > 0).then(|| record.first.saturating_add(removed.min(count)))
    }

    /// A number from 0 to below 1 that differs by channel and walk.
    fn chance(&self, channel: &str) -> f64 {
        if self.share == 0.0 {
            return 0.0;
        }
        let mut hasher = DefaultHasher::new();
        (channel, self.walks).hash(&mut hasher);
        (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The walk has passed all streams. Returns the bytes of their publications.
    pub fn end_walk(&mut self) -> u64 {
        let sum = std::mem::take(&mut self.sum);
        self.walks += 1;
        let has_removed = self.share > 0.0;
        self.is_exceeded = self.is_bounded() && sum > self.most;
        self.share = match !has_removed && self.is_exceeded {
            true => 1.0 - KEPT * self.most as f64 / sum as f64,
            false => 0.0,
        };
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::tests::record;

    /// Walks over streams of these lengths with 10 bytes per publication; returns what they lose.
    fn walk(retention: &mut Retention, lengths: &[u64]) -> (Vec<u64>, u64) {
        let lost = lengths.iter().enumerate().map(|(nth, length)| {
            let record = StreamRecord { bytes: 10 * length, ..record(100 + length, 101) };
            let kept = retention.weigh(&nth.to_string(), &record);
            kept.map_or(0, |first| first - 101)
        });
        let lost = lost.collect();
        (lost, retention.end_walk())
    }

    #[test]
    fn every_second_walk_removes_the_same_share_of_every_history() {
        let mut retention = Retention::new(1_000);
        assert_eq!(walk(&mut retention, &[40, 60]), (vec![0, 0], 1_000));
        assert!(!retention.is_exceeded());
        assert_eq!(walk(&mut retention, &[120, 80]), (vec![0, 0], 2_000));
        assert!(retention.is_exceeded());
        let (lost, _) = walk(&mut retention, &[120, 80]);
        // A share of 0.525: 63 and 42, or one more.
        assert!((63..65).contains(&lost[0]) && (42..44).contains(&lost[1]), "{lost:?}");
        assert_eq!(walk(&mut retention, &[120, 80]).0, [0, 0], "it only weighs");
        assert!(walk(&mut retention, &[120, 80]).0[0] > 0, "nothing was removed meanwhile");
    }

    #[test]
    fn short_histories_lose_their_share_on_average() {
        let mut retention = Retention::new(5_000);
        let lengths = [1; 1_000];
        walk(&mut retention, &lengths);
        let lost: u64 = walk(&mut retention, &lengths).0.into_iter().sum();
        assert!((470..580).contains(&lost), "{lost} of 1,000, 525 are expected");
    }

    #[test]
    fn without_a_maximum_nothing_goes() {
        let mut retention = Retention::new(0);
        for _ in 0..3 {
            assert_eq!(walk(&mut retention, &[1_000]).0, [0]);
        }
        assert!(!retention.is_bounded() && Retention::new(1).restarted().is_bounded());
    }
}
