//! Waiting until a message is due, to some microseconds.
//!
//! Owns one timerfd per publisher: the runtime's own timers have steps of a millisecond. Never
//! skips a message. Invariant: an overdue message is sent at once.

use std::fs::File;

use anyhow::{Context, Result};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::clock::RunClock;

pub(super) struct Pace {
    timer: monoio::fs::File,
    /// The same timer, to set it by.
    setter: std::os::fd::OwnedFd,
    clock: RunClock,
}

impl Pace {
    pub(super) fn new(clock: RunClock) -> Result<Self> {
        let setter = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)
            .context("cannot make a timer")?;
        let timer = setter.try_clone().context("cannot copy a timer")?;
        let timer = monoio::fs::File::from_std(File::from(timer)).context("cannot use a timer")?;
        Ok(Pace { timer, setter, clock })
    }

    /// Waits until `at_ns` after the start of the run.
    pub(super) async fn until(&self, at_ns: u64) -> Result<()> {
        let left = self.clock.until(at_ns);
        if left.is_zero() {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            },
        };
        timerfd_settime(&self.setter, TimerfdTimerFlags::empty(), &value)
            .context("cannot set a timer")?;
        let (read, _) = self.timer.read_at(vec![0u8; 8], 0).await;
        read.context("cannot wait for a timer")?;
        Ok(())
    }
}
