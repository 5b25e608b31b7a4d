//! A worker: one pinned thread that turns its shards.
//!
//! Owns its shards and the one wait among them. Never waits while a shard has work, and never for
//! anything but the first shard's ring: the rings of the others ring the doorbell that this one
//! watches. A table of direct descriptors is bounded by RLIMIT_NOFILE and belongs to one ring, so
//! a node may need more rings than it has processors; the invariant is that it never needs more
//! threads.

use std::time::Duration;

use crate::base::sys::{self, Clock, Now};
use crate::engine::bus::ConsumerHandle;
use crate::engine::shard::{Shard, TurnShare, TurnUsage};
use crate::hub::{FANOUT_SENDS, WORK};

/// Sends that a shard's turn may make however many laps are open: what an enter is worth.
const FANOUT_SENDS_MIN: usize = 16;
/// Units of work that a shard's turn may do however many shards have work.
const WORK_MIN: usize = 50_000;
/// Microseconds between two readings of the thread's processor time, which is a system call, while
/// passes are short.
const MARK_INTERVAL: u64 = 2000;
/// Microseconds of processor time past which a pass is a long one.
const LONG_PASS: u64 = 5000;

/// How often a worker that is done looks whether the others are.
const OTHERS_DONE: Duration = Duration::from_millis(10);

/// How often a worker with connections looks whether the wall clock has stepped: nobody says so.
const WALL_CLOCK: Duration = Duration::from_secs(1);

/// One thread's shards.
pub struct Worker {
    /// The one whose ring is waited on.
    leader: Shard,
    followers: Vec<Shard>,
    consumer: ConsumerHandle,
    clock: Clock,
    /// When the last pass began.
    now: Now,
    /// Microseconds of the clock and of the thread's processor time, read together.
    mark: (u64, u64),
    /// Passes so far: each gives the large share to another shard.
    passes: usize,
}

/// What the shards of a worker may still do in a pass.
struct PassBudget {
    work: usize,
    sends: usize,
    /// Turns that are still to come.
    turns: usize,
    /// The turn, counted from the last, that gets the large share.
    large: usize,
}

impl PassBudget {
    fn new(turns: usize, pass: usize) -> Self {
        PassBudget { work: WORK, sends: FANOUT_SENDS, turns, large: 1 + pass % turns }
    }

    /// Has a shard take its turn. What the turns before it have left is shared by those to come.
    fn run_turn(&mut self, turn: impl FnOnce(TurnShare) -> TurnUsage) {
        let turns = self.turns.max(1);
        let used = turn(TurnShare {
            work: (self.work / turns).max(WORK_MIN),
            large: self.turns == self.large,
            sends: (self.sends / turns).max(FANOUT_SENDS_MIN),
        });
        self.work = self.work.saturating_sub(used.work);
        self.sends = self.sends.saturating_sub(used.sends);
        self.turns = self.turns.saturating_sub(1);
    }
}

impl Worker {
    /// A worker of the shards that `consumer` is for. Errors are the kernel's.
    pub fn new(
        mut leader: Shard,
        mut followers: Vec<Shard>,
        consumer: ConsumerHandle,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let doorbell = consumer.doorbell().ok_or_else(|| std::io::Error::other("there is none"))?;
        let doorbell = doorbell.try_clone()?;
        followers.iter_mut().try_for_each(|shard| shard.ring_doorbell_on_news(&doorbell))?;
        leader.watch_doorbell(doorbell);
        Ok(Worker {
            leader,
            followers,
            consumer,
            clock,
            now: Now::default(),
            mark: (0, 0),
            passes: 0,
        })
    }

    /// Runs until the node shuts down and every connection of every shard is closed.
    pub fn run(mut self) {
        while !self.leader.is_node_done() {
            if !self.pass() {
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
    fn pass(&mut self) -> bool {
        let news = self.consumer.take_news();
        let (now, start) = self.clock.now_after(self.now);
        self.now = now;
        let has_work = |shard: &mut Shard| news >> shard.endpoint() & 1 != 0 || shard.has_work(now);
        let mut working = 0u64;
        for (nth, shard) in self.followers.iter_mut().enumerate() {
            working |= u64::from(has_work(shard)) << nth;
        }
        let leads = has_work(&mut self.leader);
        if working == 0 && !leads {
            return false;
        }
        if start.saturating_sub(self.mark.0) >= MARK_INTERVAL {
            self.mark = (start, sys::thread_micros());
        }
        let mut end = start;
        self.passes = self.passes.wrapping_add(1);
        let mut pool = PassBudget::new(working.count_ones() as usize + 1, self.passes);
        for (nth, shard) in self.followers.iter_mut().enumerate() {
            if working >> nth & 1 != 0 {
                pool.run_turn(|share| shard.turn(now, share));
                shard.submit();
                let began = std::mem::replace(&mut end, self.clock.micros());
                shard.report(end.saturating_sub(began));
            }
        }
        // The followers may have given it work.
        let leads = leads || has_work(&mut self.leader);
        if leads {
            pool.run_turn(|share| self.leader.turn(now, share));
        }
        // What the leader's ring was left with goes with the wait, unless there is none now.
        if working != 0 || self.leader.is_busy() {
            self.leader.submit();
        }
        let began = std::mem::replace(&mut end, self.clock.micros());
        if leads {
            self.leader.report(end.saturating_sub(began));
        }
        self.report(start, end);
        true
    }

    /// Tells the metrics of a pass. Its processor time is at most its wall time, so that only a
    /// pass which may be the longest is measured; what the thread did between the mark and the
    /// pass, [`MARK_INTERVAL`] at most, counts with it.
    fn report(&mut self, start: u64, end: u64) {
        let metrics = self.leader.metrics();
        metrics.passes.add(1);
        let took = end.saturating_sub(start);
        let longest = metrics.longest_pass_cpu_micros.get();
        if took > longest.min(LONG_PASS) {
            let marked = std::mem::replace(&mut self.mark, (end, sys::thread_micros()));
            let took = took.min(self.mark.1.saturating_sub(marked.1));
            metrics.longest_pass_cpu_micros.set(longest.max(took));
            metrics.long_passes.add(u64::from(took > LONG_PASS));
        }
    }

    fn sleep(&mut self) {
        // Armed before the last look: what rings behind it ends the wait.
        self.leader.arm_doorbell();
        if !self.consumer.prepare_to_sleep() {
            return;
        }
        if self.followers.iter_mut().any(Shard::has_news) {
            return self.consumer.wake_up();
        }
        let due = self.shards().filter_map(Shard::next_due).min();
        let due = due.map(|due| Duration::from_millis(due.saturating_sub(self.now.millis)));
        let looks = self.shards().any(Shard::has_connections).then_some(WALL_CLOCK);
        let due = due.into_iter().chain(looks).min();
        self.leader.wait(if self.is_done() { Some(OTHERS_DONE) } else { due });
        self.consumer.wake_up();
    }
}
