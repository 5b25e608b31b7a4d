//! The simulated threads of the store: the real state, batches and reading, over a simulated disk.
//!
//! Mirrors `drumline::store::thread`: commits take many steps and may fail, the disk is opened
//! again after a while, and questions are answered in any order. The invariant: a step that does
//! nothing leaves the store asleep.

use std::collections::VecDeque;
use std::sync::Arc;

use drumline::model::message::{Endpoint, Message, Post, Rank};
use drumline::model::names::Names;
use drumline::model::storage::{StoreAnswer, StoreRead};
use drumline::store::disk::{Change, Fault as DiskFault, FaultKind};
use drumline::store::housekeeping::Housekeeper;
use drumline::store::reading;
use drumline::store::state::{StoreState, Work};

use crate::bus::{Bells, Bus};
use crate::disk::{Crash, Disk, Outcome};
use crate::faults::Fault;
use crate::random::Random;

/// How often the disk fails: once in so many times, or never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    pub commits: Option<usize>,
    pub reads: Option<usize>,
    pub opens: Option<usize>,
    /// Maximum number of steps that a commit takes.
    pub sync_steps: usize,
}

impl Trouble {
    pub fn random(random: &mut Random) -> Self {
        let mut rate = || if random.one_in(2) { Some(random.pick(&[3, 10, 40])) } else { None };
        let (commits, reads, opens) = (rate(), rate(), rate());
        Trouble { commits, reads, opens, sync_steps: random.pick(&[0, 3, 30]) }
    }
}

/// A batch that is being written.
struct Commit {
    changes: Vec<Change>,
    steps: usize,
    outcome: Outcome,
}

pub struct Store {
    endpoint: Endpoint,
    bells: Bells,
    state: StoreState,
    names: Names,
    /// Those of the process before, if streams are lost with their homes.
    names_before: Option<Names>,
    pub disk: Disk,
    trouble: Trouble,
    commit: Option<Commit>,
    /// Whether a batch is on disk, and the state does not know it yet.
    is_kept: bool,
    housekeeper: Housekeeper,
    /// Whether a step of the housekeeping is due.
    pub is_due: bool,
    /// Answers that are not sent yet.
    answers: VecDeque<(Endpoint, StoreAnswer)>,
}

impl Store {
    /// A store that has not opened its disk yet.
    pub fn new(
        endpoint: Endpoint,
        (names, names_before): (Names, Option<Names>),
        disk: Disk,
        random: &mut Random,
    ) -> Self {
        Store {
            endpoint,
            bells: Bells::default(),
            state: StoreState::new(usize::from(endpoint) - 1, names, Arc::default()),
            names,
            names_before,
            disk,
            trouble: Trouble::random(random),
            commit: None,
            is_kept: false,
            housekeeper: Housekeeper::new(0),
            is_due: false,
            answers: VecDeque::new(),
        }
    }

    /// Takes messages, and continues the commit and some questions. `works`: the disk does not fail
    /// any more. `now` is unix time.
    pub fn step(
        &mut self,
        bus: &mut Bus,
        (works, now): (bool, u64),
        random: &mut Random,
    ) -> Result<(), String> {
        bus.take_news(self.endpoint);
        let trouble = match works {
            true => Trouble { sync_steps: self.trouble.sync_steps, ..Trouble::default() },
            false => self.trouble,
        };
        let is_empty = self.take_messages(bus, random);
        self.commit(bus, trouble, random)?;
        self.read(bus, trouble, random)?;
        self.keep_house(bus, now)?;
        if !self.state.is_open() && happens(Some(4), random) && !happens(trouble.opens, random) {
            trace!("  store reopens");
            self.disk.reopen();
            self.state.opened();
        }
        bus.ring(&mut self.bells);
        if is_empty && self.is_idle() {
            bus.sleep(self.endpoint);
        }
        Ok(())
    }

    /// Whether nothing is left to do without a message.
    fn is_idle(&self) -> bool {
        let is_writing = self.commit.is_some() || self.is_kept || self.state.has_batch();
        let is_clean = self.state.is_clean() && !self.is_due;
        let is_reading = self.state.has_read() || !self.answers.is_empty();
        self.state.is_open() && is_clean && !is_writing && !is_reading
    }

    /// Takes some messages; returns whether the inbox is empty.
    fn take_messages(&mut self, bus: &mut Bus, random: &mut Random) -> bool {
        self.state.send_answers(&mut bus.line(self.endpoint, &mut self.bells));
        let mut is_empty = false;
        for _ in 0..random.between(1, 5) {
            let Some(message) = bus.take(self.endpoint, Rank::Store, &mut self.bells) else {
                is_empty = true;
                break;
            };
            trace!("  store takes {message:?}");
            self.state.take(message, &mut bus.line(self.endpoint, &mut self.bells));
        }
        self.state.send_answers(&mut bus.line(self.endpoint, &mut self.bells));
        is_empty
    }

    /// Begins a commit, or continues the one that was begun.
    fn commit(
        &mut self,
        bus: &mut Bus,
        trouble: Trouble,
        random: &mut Random,
    ) -> Result<(), String> {
        if std::mem::take(&mut self.is_kept) {
            self.state.committed(&mut bus.line(self.endpoint, &mut self.bells));
        }
        match &mut self.commit {
            Some(commit) if commit.steps > 0 => commit.steps -= 1,
            Some(_) => {
                let Some(Commit { changes, outcome, .. }) = self.commit.take() else {
                    return Ok(());
                };
                trace!("  store commit ends {outcome:?}");
                match self.disk.commit(changes, outcome) {
                    Ok(()) if self.is_early() => {}
                    Ok(()) => self.is_kept = true,
                    Err(_) => self.state.closed(&mut bus.line(self.endpoint, &mut self.bells)),
                }
            }
            None => {
                let work = self.state.next_batch();
                let is_quiet = work.is_none() && random.one_in(4);
                let work = work.or(if is_quiet { self.state.next_cleanup() } else { None });
                if let Some(work) = work {
                    let changes = self.changes(&work).map_err(|fault| fault.to_string())?;
                    let fails = happens(trouble.commits, random);
                    let outcome = match fails {
                        true => random.pick(&[Outcome::Lost, Outcome::Written]),
                        false => Outcome::Kept,
                    };
                    let steps = random.between(0, trouble.sync_steps);
                    self.disk.begin_commit(&changes);
                    self.commit = Some(Commit { changes, steps, outcome });
                    self.is_kept = self.is_early();
                }
            }
        }
        Ok(())
    }

    /// Whether a fault is planted: batches are acknowledged when their writing begins.
    fn is_early(&self) -> bool {
        self.disk.fault == Some(Fault::AcknowledgedBeforeWritten)
    }

    fn changes(&self, work: &Work) -> Result<Vec<Change>, DiskFault> {
        let view = self.disk.view()?;
        Ok(work.batch(&view)?.into_changes())
    }

    /// Makes a step of the housekeeping, if one is due.
    fn keep_house(&mut self, bus: &mut Bus, now: u64) -> Result<(), String> {
        if !self.is_due || !self.state.is_open() || !self.state.is_clean() {
            return Ok(());
        }
        self.is_due = false;
        let found = self.disk.view().and_then(|view| self.housekeeper.step(&view, now));
        let found = found.map_err(|fault| fault.to_string())?;
        self.state.take_findings(found, &mut bus.line(self.endpoint, &mut self.bells));
        Ok(())
    }

    /// Answers some questions, and sends some answers.
    fn read(&mut self, bus: &mut Bus, trouble: Trouble, random: &mut Random) -> Result<(), String> {
        for _ in 0..random.between(0, 2) {
            let Some(read) = self.state.next_read() else { break };
            let shard = read.shard;
            let answer = self.answer(read, happens(trouble.reads, random))?;
            self.answers.push_back((shard, answer));
        }
        for _ in 0..random.between(0, 2) {
            let at = random.below(self.answers.len().max(1));
            let Some((shard, answer)) = self.answers.remove(at) else { break };
            let mut line = bus.line(self.endpoint, &mut self.bells);
            line.send(shard, Message::StoreAnswer(Box::new(answer)));
        }
        Ok(())
    }

    fn answer(&self, mut read: StoreRead, fails: bool) -> Result<StoreAnswer, String> {
        let home = |names: Names| names.home(names.hash(&read.channel));
        if self.names_before.is_some_and(|before| home(before) != home(self.names)) {
            read.channel = format!("{} of another shard", read.channel).into();
        }
        let failed = || Err(DiskFault::new(FaultKind::Io, "a chosen fault"));
        let view = if fails { failed() } else { self.disk.view() };
        let (answer, fault) = reading::answer(view, &self.names, read);
        trace!("  store reads {answer:?}");
        match fault {
            Some(fault) if !fails => Err(format!("{} cannot be read: {fault}", answer.channel)),
            _ => Ok(answer),
        }
    }

    /// The process ends. Returns the disk, as the next process finds it.
    pub fn crash(mut self, crash: Crash, random: &mut Random) -> Disk {
        let writing = self.commit.take().map(|commit| commit.changes);
        self.disk.crash(crash, writing, random);
        self.disk
    }
}

fn happens(rate: Option<usize>, random: &mut Random) -> bool {
    rate.is_some_and(|rate| random.one_in(rate))
}
