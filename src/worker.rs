//! A worker: one pinned thread that turns its shards.
//!
//! Owns its shards and the one wait among them. Never waits while a shard has work, and never for
//! anything but the first shard's ring: the rings of the others ring the doorbell that this one
//! watches. A table of direct descriptors is bounded by RLIMIT_NOFILE and belongs to one ring, so
//! a node may need more rings than it has processors; the invariant is that it never needs more
//! threads.

use std::time::Duration;

use crate::bus::Watch;
use crate::hub::FANOUT_SENDS;
use crate::shard::Shard;
use crate::sys::Clock;

/// Sends that a shard's turn may make however many laps are open: what an enter is worth.
const FANOUT_SENDS_MIN: usize = 16;

/// How often a worker that is done looks whether the others are.
const OTHERS_DONE: Duration = Duration::from_millis(10);

/// How often a worker with connections looks whether the wall clock has stepped: nobody says so.
const WALL_CLOCK: Duration = Duration::from_secs(1);

/// One thread's shards.
pub struct Worker {
    /// The one whose ring is waited on.
    leader: Shard,
    followers: Vec<Shard>,
    watch: Watch,
    clock: Clock,
    /// When the last pass began, in milliseconds.
    now: u64,
}

impl Worker {
    /// A worker of the shards that `watch` is for. Errors are the kernel's.
    pub fn new(
        mut leader: Shard,
        mut followers: Vec<Shard>,
        watch: Watch,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let doorbell = watch.doorbell().expect("a worker's bell is a descriptor").try_clone()?;
        followers.iter_mut().try_for_each(|shard| shard.announce(&doorbell))?;
        leader.watch_doorbell(doorbell);
        Ok(Worker { leader, followers, watch, clock, now: 0 })
    }

    /// Runs until the node shuts down and every connection of every shard is closed.
    pub fn run(mut self) {
        let mut open = 1;
        while !self.leader.is_node_done() {
            let sends = (FANOUT_SENDS / open).max(FANOUT_SENDS_MIN);
            if self.pass(sends) {
                open = self.shards().filter(|shard| shard.is_busy()).count().max(1);
            } else {
                self.sleep();
            }
        }
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        std::iter::once(&self.leader).chain(&self.followers)
    }

    fn is_done(&self) -> bool {
        self.shards().all(Shard::is_done)
    }

    /// A turn of every shard that has work; returns whether one had.
    fn pass(&mut self, sends: usize) -> bool {
        let (news, now) = (self.watch.take_news(), self.clock.now());
        self.now = now.millis;
        let has_work = |shard: &mut Shard| news >> shard.endpoint() & 1 != 0 || shard.has_work(now);
        let mut worked = false;
        for shard in &mut self.followers {
            if has_work(shard) {
                shard.turn(now, sends);
                shard.submit();
                worked = true;
            }
        }
        let leads = has_work(&mut self.leader);
        if leads {
            self.leader.turn(now, sends);
        }
        // What the leader's ring was left with goes with the wait, unless there is none now.
        if worked || self.leader.is_busy() {
            self.leader.submit();
        }
        worked || leads
    }

    fn sleep(&mut self) {
        // Armed before the last look: what rings behind it ends the wait.
        self.leader.arm_doorbell();
        if !self.watch.prepare_to_sleep() {
            return;
        }
        if self.followers.iter_mut().any(Shard::has_news) {
            return self.watch.wake_up();
        }
        let due = self.shards().filter_map(Shard::next_due).min();
        let due = due.map(|due| Duration::from_millis(due.saturating_sub(self.now)));
        let looks = self.shards().any(Shard::has_connections).then_some(WALL_CLOCK);
        let due = due.into_iter().chain(looks).min();
        self.leader.wait(if self.is_done() { Some(OTHERS_DONE) } else { due });
        self.watch.wake_up();
    }
}
