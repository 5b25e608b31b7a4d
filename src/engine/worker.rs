//! A worker: one pinned thread that runs its shards.
//!
//! Owns its shards and the only wait among them. Never waits while a shard has work. A pass turns
//! only the shards that have work: those with news on the bus, those whose rings have news, and
//! those that [`ReadySet`] holds. A worker with one shard waits on its ring, which polls the
//! worker's doorbell. A worker with several waits on a [`NewsPoll`]. RLIMIT_NOFILE bounds the table
//! of direct descriptors of a ring, so a node may need more rings than it has processors; it never
//! needs more threads.

use std::time::Duration;

use crate::base::histogram::DURATIONS;
use crate::base::limits::SHARDS_MAX;
use crate::base::sys::{self, Clock, Now};
use crate::engine::bus::ConsumerHandle;
use crate::engine::news_poll::NewsPoll;
use crate::engine::ready::ReadySet;
use crate::engine::ring::RingNews;
use crate::engine::shard::{Shard, TurnShare, TurnUsage};
use crate::engine::wakeups::{KernelNews, resume_writes};
use crate::hub::{FANOUT_SENDS, WORK, deadlines_of_pass};
use crate::model::message::endpoints;
use crate::model::snapshot::RestoredHome;

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
/// Microseconds of processor time from which a pass delays a ping noticeably, and is counted apart.
const SLOW_PASS: u64 = 1000;

/// Microseconds between two looks at the rings of a worker with several shards while it has other
/// work. A look is a system call.
const LOOK_INTERVAL: u64 = 50;

/// How often a worker that is done checks whether the others are.
const OTHERS_DONE: Duration = Duration::from_millis(10);

/// How often a worker with connections checks whether the wall clock was changed.
const WALL_CLOCK: Duration = Duration::from_secs(1);

/// The shards of one thread.
pub struct Worker {
    shards: Vec<Shard>,
    /// What the ring of each shard shows of its news.
    rings: Vec<RingNews>,
    /// How the worker learns of these news if it has several shards.
    poll: Option<NewsPoll>,
    /// Shards whose rings may have news, found since their last turns.
    found: u64,
    /// Microseconds of the clock at the last look at the rings.
    looked: u64,
    ready: ReadySet,
    /// Index of the shard of each endpoint.
    places: [u8; SHARDS_MAX + 1],
    consumer: ConsumerHandle,
    clock: Clock,
    /// The time and the microseconds of the clock, read at the end of a pass and of a wait.
    now: Now,
    micros: u64,
    /// Clock and processor time in microseconds, read together.
    mark: (u64, u64),
    /// Number of passes; each gives the large share to another shard.
    passes: usize,
}

/// The budget that is left for the shards of a worker in a pass.
struct PassBudget {
    work: usize,
    sends: usize,
    deadlines: usize,
    /// Number of turns left in the pass.
    turns: usize,
    /// The turn that gets the large share, counted from the last.
    large: usize,
}

impl PassBudget {
    /// The budget of so many turns. If events wait, deadlines get what is left over.
    fn new(turns: usize, pass: usize, events: bool) -> Self {
        PassBudget {
            work: WORK,
            sends: FANOUT_SENDS,
            deadlines: deadlines_of_pass(events),
            turns,
            large: 1 + pass % turns.max(1),
        }
    }

    /// Runs one turn. Budget that earlier turns left is shared by the later ones.
    fn run_turn(&mut self, messages: bool, turn: impl FnOnce(TurnShare) -> TurnUsage) {
        let turns = self.turns.max(1);
        let used = turn(TurnShare {
            messages,
            work: (self.work / turns).max(WORK_MIN),
            large: self.turns == self.large,
            sends: (self.sends / turns).max(FANOUT_SENDS_MIN),
            deadlines: self.deadlines,
        });
        self.work = self.work.saturating_sub(used.work);
        self.sends = self.sends.saturating_sub(used.sends);
        self.deadlines = self.deadlines.saturating_sub(used.deadlines);
        self.turns = self.turns.saturating_sub(1);
    }
}

impl Worker {
    /// Creates the worker of the shards that `consumer` serves. Errors are those of the kernel.
    pub fn new(
        mut shards: Vec<Shard>,
        consumer: ConsumerHandle,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let doorbell = consumer
            .doorbell()
            .ok_or_else(|| std::io::Error::other("the control plane has no eventfd"))?;
        let poll = match &mut shards[..] {
            [only] => {
                only.watch_doorbell(doorbell.try_clone()?);
                None
            }
            several => {
                let mut poll = NewsPoll::new(doorbell)?;
                for shard in several {
                    shard.ring_doorbell_on_news(poll.next_eventfd()?)?;
                }
                Some(poll)
            }
        };
        let rings = shards.iter().map(Shard::news).collect::<Result<Vec<_>, _>>()?;
        let mut places = [0; SHARDS_MAX + 1];
        for (nth, shard) in shards.iter().enumerate() {
            places[usize::from(shard.endpoint())] = nth as u8;
        }
        let (ready, now, micros) = (ReadySet::new(shards.len()), Now::default(), 0);
        let (found, looked, mark, passes) = (0, 0, (0, 0), 0);
        Ok(Worker {
            shards,
            rings,
            poll,
            found,
            looked,
            ready,
            places,
            consumer,
            clock,
            now,
            micros,
            mark,
            passes,
        })
    }

    /// Gives the homes of the shards what they had before a restart. Call it before
    /// [`Worker::run`].
    pub fn restore(&mut self, homes: Vec<RestoredHome>) {
        self.read_clocks();
        for (shard, home) in self.shards.iter_mut().zip(homes) {
            shard.restore(home, self.now);
        }
    }

    /// Runs until the node shuts down and every connection of every shard is closed.
    pub fn run(mut self) {
        self.read_clocks();
        while !self.shards.first().is_none_or(Shard::is_node_done) {
            if !self.pass() {
                self.sleep();
            }
        }
    }

    fn is_done(&self) -> bool {
        self.shards.iter().all(Shard::is_done)
    }

    /// Reads both clocks, once per pass and per wait.
    fn read_clocks(&mut self) {
        (self.now, self.micros) = self.clock.now_after(self.now);
    }

    /// The shards with messages, or with room on the bus that they waited for.
    fn take_messages(&mut self) -> u64 {
        let news = endpoints(self.consumer.take_news());
        let places = news.map(|endpoint| self.places.get(usize::from(endpoint)));
        places.fold(0, |all, place| all | 1 << place.copied().unwrap_or(0))
    }

    /// The shards whose rings have news. Several rings are looked at only now and then while the
    /// worker has other work; without it, the sleep that follows looks at them.
    fn look_at_rings(&mut self, has_work: bool) -> u64 {
        let Some(poll) = &mut self.poll else { return u64::from(self.look_at_ring()) };
        if has_work && self.micros.saturating_sub(self.looked) >= LOOK_INTERVAL {
            self.looked = self.micros;
            self.found |= poll.wait(Some(Duration::ZERO));
        }
        let found = endpoints(std::mem::take(&mut self.found));
        // A turn for another reason may have taken the news that an event told of.
        let has_news = |nth: &u8| self.rings.get(usize::from(*nth)).is_some_and(RingNews::has_news);
        found.filter(has_news).fold(0, |all, nth| all | 1 << nth)
    }

    /// Whether the ring of a worker with one shard has completions. A wake-up of the worker is one
    /// too, and needs no turn.
    fn look_at_ring(&mut self) -> bool {
        let has_news = self.rings.first().is_some_and(RingNews::has_news);
        has_news && self.shards.first_mut().is_some_and(Shard::take_wake_up)
    }

    /// Runs a turn of every shard that has work; returns whether one had.
    fn pass(&mut self) -> bool {
        let messages = self.take_messages();
        let ready = self.ready.begin_pass(self.now);
        let completions = self.look_at_rings(messages | ready != 0);
        let working = completions | messages | ready;
        if working == 0 {
            return false;
        }
        let start = self.micros;
        if start.saturating_sub(self.mark.0) >= MARK_INTERVAL {
            self.mark = (start, sys::thread_micros());
        }
        self.passes = self.passes.wrapping_add(1);
        let turns = working.count_ones() as usize;
        let mut pool = PassBudget::new(turns, self.passes, completions | messages != 0);
        let (mut costliest, mut most) = (0, 0);
        for nth in endpoints(working).map(usize::from) {
            let work = pool.work;
            self.turn(nth, messages >> nth & 1 != 0, &mut pool);
            let used = work - pool.work;
            if used >= most {
                (costliest, most) = (nth, used);
            }
        }
        self.read_clocks();
        for nth in endpoints(working).map(usize::from) {
            if let Some(shard) = self.shards.get_mut(nth) {
                shard.end_pass(self.micros);
            }
        }
        self.report(start, turns, costliest);
        true
    }

    /// Runs a turn of the nth shard.
    fn turn(&mut self, nth: usize, messages: bool, pool: &mut PassBudget) {
        let (Some(shard), Some(ring)) = (self.shards.get_mut(nth), self.rings.get(nth)) else {
            return;
        };
        let has_eventfd = self.poll.is_some();
        if has_eventfd {
            ring.set_eventfd(false);
        }
        pool.run_turn(messages, |share| shard.turn(self.now, share));
        // The wait of a worker with one shard submits.
        if has_eventfd || shard.is_busy() {
            shard.submit();
        }
        self.ready.turned(nth, shard.is_busy(), shard.next_due());
        if has_eventfd && resume_writes(ring) {
            self.found |= 1 << nth;
        }
    }

    /// Updates the metrics of a pass and its turns. The turns of a pass are not timed one by one:
    /// the pass is the bound of its longest turn, and that is the turn with the most work.
    /// Processor time is at most wall time, so only a pass that could be the longest or slow is
    /// measured; it includes the work between the last mark and the pass, at most
    /// [`MARK_INTERVAL`].
    fn report(&mut self, start: u64, turns: usize, costliest: usize) {
        let Some(first) = self.shards.first() else { return };
        let (metrics, end) = (first.metrics(), self.micros);
        let took = end.saturating_sub(start);
        metrics.passes.add(1);
        metrics.pass_micros.add(took);
        metrics.by.passes.observe(&DURATIONS, took, 1);
        metrics.turns.add(turns as u64);
        let longest = metrics.longest_pass_cpu_micros.get();
        if took > longest.min(SLOW_PASS) {
            let marked = std::mem::replace(&mut self.mark, (end, sys::thread_micros()));
            let took = took.min(self.mark.1.saturating_sub(marked.1));
            metrics.longest_pass_cpu_micros.set(longest.max(took));
            metrics.long_passes.add(u64::from(took > LONG_PASS));
            metrics.slow_passes.add(u64::from(took > SLOW_PASS));
        }
        if let Some(shard) = self.shards.get(costliest) {
            shard.report(took);
        }
    }

    fn sleep(&mut self) {
        if self.poll.is_none()
            && let Some(only) = self.shards.first_mut()
        {
            // Arm the eventfd before the last look for news, so that a later wake-up ends the wait.
            only.arm_doorbell();
        }
        if !self.consumer.prepare_to_sleep() {
            return;
        }
        let timeout = self.patience();
        if let Some(first) = self.shards.first_mut() {
            first.metrics().sleeps.add(1);
            match &mut self.poll {
                Some(poll) => self.found |= poll.wait(timeout),
                None => first.wait(timeout),
            }
        }
        self.consumer.wake_up();
        self.read_clocks();
        self.looked = self.micros;
    }

    /// How long the worker may sleep; `None`: without limit.
    fn patience(&self) -> Option<Duration> {
        if self.is_done() {
            return Some(OTHERS_DONE);
        }
        let due = self.ready.next_due();
        let due = due.map(|due| Duration::from_millis(due.saturating_sub(self.now.millis)));
        let looks = self.shards.iter().any(Shard::has_connections).then_some(WALL_CLOCK);
        due.into_iter().chain(looks).min()
    }
}
