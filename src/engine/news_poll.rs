//! Which shards of a worker have news in their rings, when the worker runs several: an epoll
//! instance with an eventfd per ring, on which the worker sleeps too.
//!
//! Owns the epoll instance and the eventfds. Never reads an eventfd: every write is a new event,
//! because the registrations are edge-triggered. So a look at 30 rings costs one system call and
//! touches the memory only of those with news. A ring may write to its eventfd except during a turn
//! of its shard; see `resume_writes` in `engine/wakeups.rs`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use crate::base::limits::SHARDS_MAX;
use crate::base::sys;

/// Data of the worker's doorbell. Shards have their index among those of the worker.
const DOORBELL: u64 = u64::MAX;

/// The epoll instance of a worker.
pub struct NewsPoll {
    instance: OwnedFd,
    /// The eventfds of the rings. Closing one would end its registration.
    eventfds: Vec<OwnedFd>,
    /// Memory for the events of all rings and of the doorbell.
    events: Vec<epoll::Event>,
}

impl NewsPoll {
    /// Creates an instance that wakes up when `doorbell` is written. Errors are those of the
    /// kernel.
    pub fn new(doorbell: impl AsFd) -> io::Result<Self> {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        add(&instance, doorbell, DOORBELL)?;
        let events = Vec::with_capacity(SHARDS_MAX + 1);
        Ok(NewsPoll { instance, eventfds: Vec::new(), events })
    }

    /// Makes an eventfd for the ring of the worker's next shard. Errors are those of the kernel.
    pub fn next_eventfd(&mut self) -> io::Result<&OwnedFd> {
        let eventfd = sys::doorbell()?;
        let nth = self.eventfds.len();
        add(&self.instance, &eventfd, nth as u64)?;
        self.eventfds.push(eventfd);
        self.eventfds.last().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The shards whose rings wrote to their eventfds since the last call; bit n is the nth shard.
    /// Waits for an event for at most `timeout`; `None` waits without limit.
    pub fn wait(&mut self, timeout: Option<Duration>) -> u64 {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        // A signal ends the wait without an event, and the worker looks for news anyway.
        let _ = epoll::wait(&self.instance, room, timeout.as_ref());
        let shards = self.events.iter().map(|event| event.data.u64());
        shards.fold(0, |all, nth| all | 1u64.checked_shl(nth as u32).unwrap_or(0))
    }
}

fn add(instance: &OwnedFd, eventfd: impl AsFd, data: u64) -> io::Result<()> {
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    Ok(epoll::add(instance, eventfd, epoll::EventData::new_u64(data), edges)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn each_write_is_one_event_without_a_read() {
        let doorbell = sys::doorbell().unwrap();
        let mut poll = NewsPoll::new(&doorbell).unwrap();
        let mut eventfd = || poll.next_eventfd().unwrap().try_clone().unwrap();
        let eventfds: Vec<_> = (0..64).map(|_| eventfd()).collect();
        assert_eq!(poll.wait(NOW), 0);
        for round in 0..3 {
            sys::ring_doorbell(&eventfds[0]);
            sys::ring_doorbell(&eventfds[63]);
            assert_eq!(poll.wait(None), 1 | 1 << 63, "round {round}");
            assert_eq!(poll.wait(NOW), 0, "round {round}");
        }
        sys::ring_doorbell(&doorbell);
        assert_eq!(poll.wait(None), 0, "the doorbell ends the wait and is no shard's news");
        assert_eq!(poll.wait(NOW), 0);
    }

    #[test]
    fn a_wait_ends_at_its_timeout() {
        let doorbell = sys::doorbell().unwrap();
        let mut poll = NewsPoll::new(&doorbell).unwrap();
        let begun = std::time::Instant::now();
        assert_eq!(poll.wait(Some(Duration::from_millis(15))), 0);
        assert!(begun.elapsed() >= Duration::from_millis(14));
    }
}
