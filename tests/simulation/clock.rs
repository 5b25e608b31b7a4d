//! The clocks of a run: the monotonic clock of each process, and the wall clock, which steps.
//!
//! The checks compare the time since a moment with lifetimes. The wall clock may have stepped since
//! then, so they use the longest time that the node can have seen.

use drumline::base::sys::Now;

/// Unix time in milliseconds at which a run begins.
const BEGIN: u64 = 10_000_000;

pub struct Clock {
    /// Milliseconds since the run began.
    pub now: u64,
    /// When the process started.
    started: u64,
    /// Moments at which the wall clock was set, and what it was set to.
    settings: Vec<(u64, u64)>,
}

impl Clock {
    pub fn new() -> Self {
        Clock { now: 0, started: 0, settings: vec![(0, BEGIN)] }
    }

    /// The clocks as the process reads them.
    pub fn read(&self) -> Now {
        let millis = self.now - self.started;
        Now { millis, micros: millis * 1000, unix: self.wall() }
    }

    /// The process ends, and the next one starts after `outage` milliseconds.
    pub fn restart(&mut self, outage: u64) {
        self.now += outage;
        self.started = self.now;
    }

    fn wall(&self) -> u64 {
        self.settings.last().map_or(0, |(since, at)| at + self.now - since)
    }

    /// Sets the wall clock forward or back.
    pub fn step_wall(&mut self, by: i64) {
        let wall = self.wall().saturating_add_signed(by);
        self.settings.push((self.now, wall));
    }

    /// How far the wall clock is behind the latest time that it has shown.
    pub fn behind(&self) -> u64 {
        let ends = self.settings.iter().skip(1).map(|(since, _)| *since).chain([self.now]);
        let latest = self.settings.iter().zip(ends).map(|((since, at), end)| at + end - since);
        latest.max().unwrap_or(0).saturating_sub(self.wall())
    }

    /// The longest time since a moment that a process can have measured, by either clock.
    pub fn longest_since(&self, moment: u64) -> u64 {
        let (mut least, mut most) = (u64::MAX, 0);
        let mut end = self.now;
        for (since, at) in self.settings.iter().rev() {
            least = least.min(at + moment.saturating_sub(*since));
            most = most.max(at + end - since);
            end = *since;
            // The wall clock may have been set at the moment itself, after it.
            if *since < moment {
                break;
            }
        }
        (self.now - moment).max(most - least.min(most))
    }
}
