//! A worker: one pinned thread that runs its shards.
//!
//! Owns its shards and the only wait among them. Never waits while a shard has work. It waits on
//! the ring of its first shard; the rings of the others write to an eventfd that this ring polls.
//! RLIMIT_NOFILE bounds the table of direct descriptors of a ring, so a node may need more rings
//! than it has processors; it never needs more threads.

use std::time::Duration;

use crate::base::sys::{self, Clock, Now};
use crate::engine::bus::ConsumerHandle;
use crate::engine::shard::{Shard, TurnShare, TurnUsage};
use crate::hub::{FANOUT_SENDS, WORK};

/// Minimum number of sends per turn of a shard, however many laps are open: fewer are not worth a
/// system call.
const FANOUT_SENDS_MIN: usize = 16;
/// Minimum work of a turn, however many shards have work.
const WORK_MIN: usize = 50_000;
/// Microseconds between two readings of the thread's processor time while passes are short. A
/// reading is a system call.
const MARK_INTERVAL: u64 = 2000;
/// Microseconds of processor time from which a pass counts as long.
const LONG_PASS: u64 = 5000;

/// How often a worker that is done checks whether the others are.
const OTHERS_DONE: Duration = Duration::from_millis(10);

/// How often a worker with connections checks whether the wall clock was changed.
const WALL_CLOCK: Duration = Duration::from_secs(1);

/// The shards of one thread.
pub struct Worker {
    /// The shard whose ring is waited on.
    leader: Shard,
    followers: Vec<Shard>,
    consumer: ConsumerHandle,
    clock: Clock,
    /// Time at the start of the last pass.
    now: Now,
    /// Clock and processor time in microseconds, read together.
    mark: (u64, u64),
    /// Number of passes; each gives the large share to another shard.
    passes: usize,
}

/// The budget that is left for the shards of a worker in a pass.
struct PassBudget {
    work: usize,
    sends: usize,
    /// Number of turns left in the pass.
    turns: usize,
    /// The turn that gets the large share, counted from the last.
    large: usize,
}

impl PassBudget {
    fn new(turns: usize, pass: usize) -> Self {
        PassBudget { work: WORK, sends: FANOUT_SENDS, turns, large: 1 + pass % turns }
    }

    /// Runs one turn. Budget that earlier turns left is shared by the later ones.
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
    /// Creates the worker of the shards that `consumer` serves. Errors are those of the kernel.
    pub fn new(
        mut leader: Shard,
        mut followers: Vec<Shard>,
        consumer: ConsumerHandle,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let doorbell = consumer
            .doorbell()
            .ok_or_else(|| std::io::Error::other("the control plane has no eventfd"))?;
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

    /// Runs a turn of every shard that has work; returns whether one had.
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
        // The followers may have sent messages to the leader.
        let leads = leads || has_work(&mut self.leader);
        if leads {
            pool.run_turn(|share| self.leader.turn(now, share));
        }
        // The wait submits the queue of the ring of the leader. Without a wait, submit it now.
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

    /// Updates the metrics of passes. Processor time is at most wall time, so only a pass that
    /// could be the longest is measured; it includes the work between the last mark and the pass,
    /// at most [`MARK_INTERVAL`].
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
        // Arm the eventfd before the last check for news, so that a later wake-up ends the wait.
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
