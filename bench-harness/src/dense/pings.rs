//! Pings by connection: how many were due in a window, how many came, and how late.
//!
//! Owns the time of the last ping of each connection. Never sends. Invariant: a ping is due one
//! interval after the ping before it; within a window the due times follow from the last ping
//! before the window, so a late ping does not postpone the next one.

use std::ops::AddAssign;

/// A period in which pings are due, in ms since the start of the run.
#[derive(Debug, Clone, Copy)]
pub struct PingWindow {
    /// First moment.
    pub begun_ms: u64,
    /// End, not included.
    pub end_ms: u64,
    /// Time between two pings of a connection.
    pub interval_ms: u64,
}

/// The pings of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PingTally {
    /// Pings that were due.
    pub due: u64,
    /// Of them, those that came.
    pub came: u64,
    /// The longest time from a due time to its ping, or to now if the ping has not come.
    pub latest_ms: u64,
}

impl AddAssign for PingTally {
    fn add_assign(&mut self, other: Self) {
        self.due += other.due;
        self.came += other.came;
        self.latest_ms = self.latest_ms.max(other.latest_ms);
    }
}

/// Pings of one connection.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    /// Time of the last ping before the window, in ms; 0: none.
    last_ms: u32,
    /// Pings since.
    came: u8,
}

/// The pings of the connections of a lane.
pub(super) struct Pings {
    heard: Vec<Heard>,
    /// The interval, while a window is open.
    interval_ms: Option<u64>,
    /// The latest ping of the window.
    latest_ms: u64,
}

impl Pings {
    pub(super) fn new(count: u32) -> Self {
        Pings { heard: vec![Heard::default(); count as usize], interval_ms: None, latest_ms: 0 }
    }

    /// Notes a ping.
    pub(super) fn note(&mut self, slot: u32, now_ns: u64) {
        let now_ms = now_ns / 1_000_000;
        let Some(heard) = self.heard.get_mut(slot as usize) else { return };
        let Some(interval_ms) = self.interval_ms else {
            heard.last_ms = now_ms as u32;
            return;
        };
        heard.came = heard.came.saturating_add(1);
        let due_ms = u64::from(heard.last_ms) + u64::from(heard.came) * interval_ms;
        if heard.last_ms > 0 {
            self.latest_ms = self.latest_ms.max(now_ms.saturating_sub(due_ms));
        }
    }

    /// Opens a window.
    pub(super) fn begin(&mut self, interval_ms: u64) {
        (self.interval_ms, self.latest_ms) = (Some(interval_ms), 0);
    }

    /// Closes the window: the next window counts from the last ping of this one.
    pub(super) fn end(&mut self) {
        let Some(interval_ms) = self.interval_ms.take() else { return };
        for heard in &mut self.heard {
            let passed = u64::from(std::mem::take(&mut heard.came)) * interval_ms;
            heard.last_ms += passed as u32;
        }
    }

    /// The pings of the window until now, of the slots that are `live`.
    pub(super) fn tally(
        &self,
        window: PingWindow,
        now_ms: u64,
        live: impl Fn(u32) -> bool,
    ) -> PingTally {
        let mut sum = PingTally { latest_ms: self.latest_ms, ..PingTally::default() };
        for (slot, heard) in (0..).zip(&self.heard) {
            if live(slot) {
                sum += of_connection(*heard, window, now_ms);
            }
        }
        sum
    }
}

/// The pings of one connection. A connection without a ping before the window counts as one
/// missing ping.
fn of_connection(heard: Heard, window: PingWindow, now_ms: u64) -> PingTally {
    let PingWindow { begun_ms, end_ms, interval_ms } = window;
    let last_ms = u64::from(heard.last_ms);
    if last_ms == 0 || interval_ms == 0 {
        return PingTally { due: 1, came: 0, latest_ms: end_ms.saturating_sub(begun_ms) };
    }
    // Numbers of the first ping that is due in the window, and of the first after it.
    let number = |ms: u64| ms.saturating_sub(last_ms).div_ceil(interval_ms).max(1);
    let (first, end) = (number(begun_ms), number(end_ms));
    let came = u64::from(heard.came) + 1;
    let missing = last_ms + came * interval_ms;
    let is_due = (first..end).contains(&came);
    PingTally {
        due: end - first,
        came: came.clamp(first, end) - first,
        latest_ms: if is_due { now_ms.saturating_sub(missing) } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: PingWindow = PingWindow { begun_ms: 1_000, end_ms: 1_300, interval_ms: 100 };

    fn pings(before_ms: u64, in_window_ms: &[u64]) -> PingTally {
        let mut pings = Pings::new(1);
        pings.note(0, before_ms * 1_000_000);
        pings.begin(100);
        in_window_ms.iter().for_each(|at| pings.note(0, at * 1_000_000));
        pings.tally(WINDOW, 1_350, |_| true)
    }

    #[test]
    fn pings_in_time_are_all_counted() {
        let tally = pings(950, &[1_050, 1_150, 1_250]);
        assert_eq!(tally, PingTally { due: 3, came: 3, latest_ms: 0 });
    }

    #[test]
    fn a_late_ping_counts_with_its_lateness_and_does_not_postpone_the_next() {
        let tally = pings(950, &[1_060, 1_170, 1_280]);
        assert_eq!(tally, PingTally { due: 3, came: 3, latest_ms: 30 });
    }

    #[test]
    fn a_ping_that_does_not_come_is_missing_and_late_until_now() {
        let tally = pings(950, &[1_050, 1_150]);
        assert_eq!(tally, PingTally { due: 3, came: 2, latest_ms: 100 });
        let never = Pings::new(1).tally(WINDOW, 1_350, |_| true);
        assert_eq!((never.due, never.came), (1, 0));
    }

    #[test]
    fn an_overdue_ping_of_before_the_window_does_not_count_in_it() {
        let tally = pings(850, &[1_050, 1_150, 1_250, 1_290]);
        assert_eq!((tally.due, tally.came), (3, 3));
    }

    #[test]
    fn the_next_window_continues_the_schedule() {
        let mut pings = Pings::new(1);
        pings.note(0, 950_000_000);
        pings.begin(100);
        pings.note(0, 1_050_000_000);
        pings.end();
        pings.begin(100);
        pings.note(0, 1_155_000_000);
        let window = PingWindow { begun_ms: 1_100, end_ms: 1_200, interval_ms: 100 };
        let tally = pings.tally(window, 1_200, |_| true);
        assert_eq!(tally, PingTally { due: 1, came: 1, latest_ms: 5 });
    }
}
