//! Which shards of a worker have work, so that a pass costs only what has news.
//!
//! Owns a bit and a due time per shard. Never reads a clock and does no I/O: the worker passes the
//! time, and reports each turn. The invariants: a shard whose last turn left work is ready in the
//! next pass; a shard is ready in the first pass at or after its due time; a step of the wall clock
//! makes every shard ready once. Due times are looked at only when the earliest of them is reached.

use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::sys::Now;
use crate::hub::CLOCK_STEP;

/// No due time.
const NEVER: u64 = u64::MAX;

/// The shards of a worker that have work without an event from outside. Bit n is the worker's nth
/// shard.
pub struct ReadySet {
    busy: u64,
    /// Due time of each shard, in milliseconds.
    dues: Box<[u64]>,
    /// A time that is at most the earliest due time.
    earliest: u64,
    /// Lead of the wall clock over the monotonic clock when all shards last followed it.
    lead: Option<i64>,
}

impl ReadySet {
    /// The state before the first turns: every shard is ready.
    pub fn new(shards: usize) -> Self {
        let all = all(shards);
        ReadySet { busy: all, dues: vec![NEVER; shards].into(), earliest: NEVER, lead: None }
    }

    /// The shards that are ready at this time. The caller must turn each of them.
    pub fn begin_pass(&mut self, now: Now) -> u64 {
        let lead = self.lead.get_or_insert(now.ahead());
        if now.ahead().abs_diff(*lead) >= CLOCK_STEP {
            *lead = now.ahead();
            return all(self.dues.len());
        }
        if self.earliest > now.millis { self.busy } else { self.busy | self.due(now.millis) }
    }

    fn due(&mut self, now: u64) -> u64 {
        self.earliest = self.dues.iter().copied().min().unwrap_or(NEVER);
        let bits = self.dues.iter().enumerate().map(|(nth, due)| u64::from(*due <= now) << nth);
        bits.fold(0, |all, bit| all | bit)
    }

    /// Notes what a turn left: whether work is left, and the time of the next turn without events.
    pub fn turned(&mut self, nth: usize, busy: bool, due: Option<u64>) {
        self.busy = self.busy & !(1 << nth) | u64::from(busy) << nth;
        let due = due.unwrap_or(NEVER);
        if let Some(noted) = self.dues.get_mut(nth) {
            *noted = due;
        }
        if !planted(PlantedFault::EarlierDeadlineForgotten) || self.earliest == NEVER {
            self.earliest = self.earliest.min(due);
        }
    }

    /// Whether the last turn of a shard left work.
    pub fn is_busy(&self, nth: usize) -> bool {
        self.busy >> nth & 1 != 0
    }

    /// The earliest due time, in milliseconds.
    pub fn next_due(&self) -> Option<u64> {
        self.dues.iter().copied().min().filter(|due| *due != NEVER)
    }
}

/// The bits of so many shards.
fn all(shards: usize) -> u64 {
    1u64.checked_shl(shards as u32).map_or(u64::MAX, |bit| bit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Now {
        Now { millis, micros: millis * 1000, unix: 1_000_000 + millis }
    }

    fn idle(shards: usize) -> ReadySet {
        let mut ready = ReadySet::new(shards);
        assert_eq!(ready.begin_pass(at(0)), all(shards), "every shard has its first turn");
        (0..shards).for_each(|nth| ready.turned(nth, false, None));
        ready
    }

    #[test]
    fn a_shard_that_left_work_is_ready_until_a_turn_leaves_none() {
        let mut ready = idle(3);
        assert_eq!(ready.begin_pass(at(1)), 0);
        ready.turned(1, true, None);
        for now in 2..4 {
            assert_eq!(ready.begin_pass(at(now)), 0b010);
            assert!(ready.is_busy(1) && !ready.is_busy(0));
        }
        ready.turned(1, false, None);
        assert_eq!(ready.begin_pass(at(5)), 0);
    }

    #[test]
    fn a_shard_is_ready_at_its_due_time_and_not_earlier() {
        let mut ready = idle(3);
        ready.turned(2, false, Some(50));
        ready.turned(0, false, Some(20));
        assert_eq!(ready.next_due(), Some(20));
        assert_eq!(ready.begin_pass(at(19)), 0);
        assert_eq!(ready.begin_pass(at(20)), 0b001);
        // A due time that moves away, and one that comes nearer.
        ready.turned(0, false, Some(90));
        assert_eq!(ready.begin_pass(at(49)), 0);
        ready.turned(1, false, Some(40));
        assert_eq!(ready.begin_pass(at(49)), 0b010);
        ready.turned(1, false, None);
        assert_eq!(ready.begin_pass(at(100)), 0b101, "two at once");
        assert_eq!(ready.begin_pass(at(100)), 0b101, "until they had their turns");
        ready.turned(0, false, None);
        ready.turned(2, false, None);
        assert_eq!((ready.begin_pass(at(200)), ready.next_due()), (0, None));
    }

    #[test]
    fn a_step_of_the_wall_clock_makes_every_shard_ready_once() {
        let mut ready = idle(2);
        let step = |millis, ahead: u64| Now {
            millis,
            micros: millis * 1000,
            unix: 1_000_000 + millis + ahead,
        };
        assert_eq!(ready.begin_pass(step(1, CLOCK_STEP - 1)), 0);
        assert_eq!(ready.begin_pass(step(2, CLOCK_STEP)), 0b11);
        assert_eq!(ready.begin_pass(step(3, CLOCK_STEP)), 0);
        assert_eq!(ready.begin_pass(step(4, 0)), 0b11, "back");
    }

    #[test]
    fn random_histories_agree_with_a_walk_over_all_shards() {
        let mut seed = 7u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut ready = idle(63);
        let mut dues = [NEVER; 63];
        let mut now = 0;
        for _ in 0..20_000 {
            now += random(3);
            let found = ready.begin_pass(at(now));
            for (nth, noted) in dues.iter_mut().enumerate() {
                assert_eq!(found >> nth & 1 != 0, *noted <= now, "shard {nth} at {now}");
                if found >> nth & 1 != 0 || random(20) == 0 {
                    let due = Some(now + random(200)).filter(|_| random(3) > 0);
                    ready.turned(nth, false, due);
                    *noted = due.unwrap_or(NEVER);
                }
            }
        }
    }
}
