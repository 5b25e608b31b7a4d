//! How many deadlines a pass and a turn handle: most of them send a ping, which can wait.
//!
//! Owns nothing. Events (input, messages) come first: a pass with events handles few deadlines, so
//! that a burst of pings does not delay a publication. A deadline that is late gets a share that
//! grows with its age, so pings are late by little more than [`LATE`] under full load.

use crate::base::planted_faults::{PlantedFault, planted};

/// Deadlines of a pass with events: some 32 us of sends.
const WITH_EVENTS: usize = 4;
/// Deadlines of a pass without events: the next pass looks for events again.
const WITHOUT_EVENTS: usize = 16;
/// Age in milliseconds from which each shard handles at least [`WITH_EVENTS`] deadlines per turn.
/// The share doubles with each further [`STEP`].
const LATE: u64 = 500;
const STEP: u64 = 250;
/// Maximum deadlines of a turn: some half a millisecond of sends.
const MOST: usize = 64;

/// Deadlines that all shards of a pass share, as long as none is late.
pub fn deadlines_of_pass(events: bool) -> usize {
    if events { WITH_EVENTS } else { WITHOUT_EVENTS }
}

/// Deadlines of a turn: what is left of the share of the pass, and more if the oldest deadline is
/// late by `age` milliseconds.
pub(super) fn deadlines_of_turn(left: usize, age: u64) -> usize {
    let late = age.checked_sub(LATE).filter(|_| !planted(PlantedFault::LateDeadlinesStarve));
    let Some(late) = late else { return left.min(MOST) };
    let doublings = (late / STEP).min(8) as u32;
    left.max(WITH_EVENTS << doublings).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_deadline_gets_a_share_that_grows_to_a_bound() {
        assert_eq!(deadlines_of_turn(0, LATE - 1), 0, "nothing is left over");
        assert_eq!(deadlines_of_turn(3, 0), 3);
        let shares = [0, 1, 2, 4, 40].map(|steps| deadlines_of_turn(0, LATE + steps * STEP));
        assert_eq!(shares, [4, 8, 16, 64, 64]);
        assert_eq!(deadlines_of_turn(1000, 0), MOST);
    }

    /// A worker under full load: every pass has events and takes `pass` microseconds beside pings
    /// of 8 us. Returns the greatest age of a ping in milliseconds, and the share of pings sent.
    fn under_load(shards: usize, pings_per_second: u64, pass: u64) -> (u64, f64) {
        let mut queues = vec![std::collections::VecDeque::new(); shards];
        let (mut now, mut made, mut sent, mut oldest) = (0u64, 0u64, 0u64, 0);
        while now < 60_000_000 {
            while made * 1_000_000 < now * pings_per_second {
                queues[made as usize % shards].push_back(now);
                made += 1;
            }
            let (mut left, mut handled) = (deadlines_of_pass(true), 0);
            for queue in &mut queues {
                let age = |due: &u64| (now - due) / 1000;
                let turn = deadlines_of_turn(left, queue.front().map_or(0, age));
                for _ in 0..turn.min(queue.len()) {
                    oldest = oldest.max(queue.pop_front().as_ref().map_or(0, age));
                    handled += 1;
                    left = left.saturating_sub(1);
                }
            }
            sent += handled;
            now += pass + 8 * handled;
        }
        (oldest, sent as f64 / made as f64)
    }

    #[test]
    fn pings_of_a_loaded_worker_are_sent_within_five_seconds() {
        for (shards, pings, pass) in [(1, 20_000, 100), (28, 20_000, 1_000), (28, 20_000, 100)] {
            let (oldest, share) = under_load(shards, pings, pass);
            assert!(oldest < 5_000 && share >= 0.99, "{shards} shards: {oldest} ms, {share}");
        }
    }

    #[test]
    fn pings_that_keep_up_stand_behind_few_events() {
        // A pass of 100 us leaves room for 4 pings, which is more than are due.
        assert!(under_load(28, 10_000, 100).0 < LATE);
    }
}
