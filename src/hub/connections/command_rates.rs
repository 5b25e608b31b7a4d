//! The rate of commands of each connection, where it is limited.
//!
//! Owns a time per slot and the queue of connections that wait. Never reads a command. The
//! invariants: without a limit nothing is kept; within any time, a connection runs at most the
//! commands of its burst and those that the rate permits; a slot that is freed leaves no time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Maximum of the rate and of the burst.
pub const COMMAND_RATE_MAX: usize = 1_000_000;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// A limit of commands per connection. The default is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandLimit {
    /// Commands per second; 0: unlimited.
    pub rate: u64,
    /// Commands that a client may send at once after a pause; 0: as many as `rate`.
    pub burst: u64,
}

impl CommandLimit {
    /// Nanoseconds between two commands at the rate.
    fn interval(self) -> u64 {
        NANOS_PER_SECOND / self.rate.max(1)
    }

    /// Nanoseconds that a connection may be ahead of the rate.
    fn lead(self) -> u64 {
        let burst = if self.burst == 0 { self.rate } else { self.burst };
        burst.saturating_sub(1) * self.interval()
    }
}

/// The commands of each connection, measured by the rate (the generic cell rate algorithm).
#[derive(Debug, Default)]
pub struct CommandRates {
    limit: CommandLimit,
    /// When the commands of a slot so far would be done at the rate, in nanoseconds.
    times: Vec<u64>,
    /// Time in milliseconds when a connection continues, and its slot.
    waiting: BinaryHeap<Reverse<(u64, u32)>>,
}

impl CommandRates {
    /// Sets the limit of `slots` connections. With a new limit, every connection has its whole
    /// burst.
    pub fn set_limit(&mut self, limit: CommandLimit, slots: usize) {
        if limit != self.limit {
            self.limit = limit;
            self.times = vec![0; if limit.rate == 0 { 0 } else { slots }];
        }
    }

    /// Whether a connection may run a command now, at this time in microseconds.
    pub fn admits(&self, slot: u32, micros: u64) -> bool {
        let time = self.times.get(slot as usize);
        time.is_none_or(|time| *time <= micros * 1000 + self.limit.lead())
    }

    /// Counts a command of a connection.
    pub fn count(&mut self, slot: u32, micros: u64) {
        if let Some(time) = self.times.get_mut(slot as usize) {
            *time = (*time).max(micros * 1000) + self.limit.interval();
        }
    }

    /// Queues a connection until it may run its next command.
    pub fn wait(&mut self, slot: u32) {
        let time = self.times.get(slot as usize).copied().unwrap_or(0);
        let until = time.saturating_sub(self.limit.lead()).div_ceil(NANOS_PER_MILLI);
        self.waiting.push(Reverse((until, slot)));
    }

    /// Number of entries in the queue.
    pub fn waits(&self) -> usize {
        self.waiting.len()
    }

    /// Time in milliseconds when the first connection continues.
    pub fn next_due(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse((until, _))| *until)
    }

    /// Takes a connection that continues at this time in milliseconds.
    pub fn take_due(&mut self, now: u64) -> Option<u32> {
        let is_due = self.next_due().is_some_and(|until| until <= now);
        let Reverse((_, slot)) = if is_due { self.waiting.pop()? } else { return None };
        Some(slot)
    }

    /// Time in nanoseconds until which a slot has used its rate; `None`: it has run no command.
    pub fn time(&self, slot: u32) -> Option<u64> {
        self.times.get(slot as usize).copied().filter(|time| *time > 0)
    }

    /// Forgets the commands of a slot. If it waits, the entry stays in the queue until its time.
    pub fn clear(&mut self, slot: u32) {
        if let Some(time) = self.times.get_mut(slot as usize) {
            *time = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands that a connection runs within a millisecond.
    fn run(rates: &mut CommandRates, slot: u32, millis: u64) -> usize {
        let mut count = 0;
        while rates.admits(slot, millis * 1000) {
            rates.count(slot, millis * 1000);
            count += 1;
        }
        count
    }

    #[test]
    fn a_connection_runs_its_burst_and_then_the_rate() {
        let mut rates = CommandRates::default();
        rates.set_limit(CommandLimit { rate: 10, burst: 3 }, 2);
        assert_eq!(run(&mut rates, 0, 5000), 3);
        assert_eq!(run(&mut rates, 0, 5099), 0);
        assert_eq!(run(&mut rates, 0, 5100), 1);
        assert_eq!(run(&mut rates, 0, 5350), 2);
        assert_eq!(run(&mut rates, 0, 9_000_000), 3, "a pause saves up no more than the burst");
        assert_eq!(run(&mut rates, 1, 5000), 3, "each connection has a rate of its own");
        rates.clear(1);
        assert_eq!(run(&mut rates, 1, 5000), 3, "the next connection of the slot");
        rates.set_limit(CommandLimit { rate: 7, burst: 0 }, 2);
        assert_eq!(run(&mut rates, 1, 5000), 7, "the burst is the rate");
    }

    #[test]
    fn a_connection_waits_until_its_next_command_is_permitted() {
        let mut rates = CommandRates::default();
        rates.set_limit(CommandLimit { rate: 3, burst: 1 }, 2);
        for (slot, millis) in [(0, 1000), (1, 1010)] {
            assert_eq!(run(&mut rates, slot, millis), 1);
            rates.wait(slot);
        }
        assert_eq!(rates.next_due(), Some(1334));
        assert_eq!(rates.take_due(1333), None);
        assert_eq!((rates.take_due(1334), rates.take_due(1334)), (Some(0), None));
        assert_eq!(run(&mut rates, 0, 1334), 1);
        assert_eq!((rates.take_due(1344), rates.next_due()), (Some(1), None));
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let mut rates = CommandRates::default();
        rates.count(5, 1);
        assert!(rates.admits(5, 1) && rates.times.capacity() == 0);
        rates.set_limit(CommandLimit { rate: 1, burst: 0 }, 8);
        assert_eq!(rates.times.len(), 8);
        assert_eq!(size_of_val(&rates.times[..]), 8 * 8);
        rates.set_limit(CommandLimit::default(), 8);
        assert!(rates.admits(5, 1) && rates.times.capacity() == 0);
    }
}
