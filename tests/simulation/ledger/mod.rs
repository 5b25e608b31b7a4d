//! The record of all publications of a run, by which every client checks its own view.
//!
//! Owns what was published, acknowledged, seen and removed. Never looks at the node. The invariant:
//! an offset of an epoch has one publication, and a publication has one place, whatever crashes.

mod durable;

use std::collections::BTreeMap;

use crate::client::View;
use crate::clock::Clock;

/// The publisher of the calls that the control plane makes. Its publications have no order.
pub const BACKEND: usize = 1_000_000;

/// A publication: its publisher, and the publisher's number for it.
pub type Source = (usize, u64);

/// An offset and its publication.
pub type Placed = (u64, Source);

/// What the node promises for its channels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// The channels have a history.
    pub history: bool,
    /// The store keeps it.
    pub durable: bool,
    pub size: usize,
    pub ttl: u64,
    pub meta_ttl: u64,
    /// Maximum number of publications of a recovery.
    pub recovery_limit: usize,
    /// Maximum bytes of an answer.
    pub answer_bytes: usize,
}

/// What became of a publication, as its publisher knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    /// In this step.
    Acknowledged(usize),
    /// By the process with this number.
    Refused(usize),
}

#[derive(Clone, Copy, Debug)]
struct Published {
    /// The step of the first request.
    at: usize,
    /// The earliest moment at which the node can have published it.
    since: u64,
    outcome: Outcome,
    /// Index of the epoch, and offset.
    place: Option<(usize, u64)>,
    /// Later publications of its publisher came without it.
    passed_over: bool,
    /// It has its number as its version.
    has_version: bool,
}

/// A part of a history: at most `limit` publications after an offset, or before it if `reverse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub limit: usize,
    pub since: Option<u64>,
    pub reverse: bool,
}

/// A stream of a channel, from its begin to its end.
#[derive(Default)]
struct Life {
    epoch: String,
    /// By offset.
    places: BTreeMap<u64, Source>,
    /// The highest offset that was seen.
    top: u64,
    /// Acknowledged removals: the offset through which they removed, and the step of the answer.
    removals: Vec<(u64, usize)>,
}

#[derive(Default)]
struct Channel {
    /// By publisher and its number.
    publications: BTreeMap<Source, Published>,
    /// The streams; the present one is the last.
    lives: Vec<Life>,
    /// Removals that are not answered.
    open_removals: usize,
    /// What was requested before this step may have been removed.
    removed_before: usize,
}

/// What was known of a channel when a request was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The step of the request.
    pub step: usize,
    /// Number of epochs.
    lives: usize,
    /// The highest offset that was seen.
    pub top: u64,
}

/// Every publication of a run.
pub struct Ledger {
    pub terms: Terms,
    pub clock: Clock,
    /// Counts everything that happens.
    pub step: usize,
    /// The earliest moment that a part of the node still takes for the present.
    pub oldest_turn: u64,
    /// Number of crashes so far.
    process: usize,
    channels: Vec<Channel>,
    /// Deliveries of all clients, for the account of the run.
    pub seen: usize,
    /// Hash of what clients read, and of the places of publications, in their order.
    pub trace: u64,
}

impl Ledger {
    pub fn new(channels: usize, terms: Terms) -> Self {
        Ledger {
            terms,
            clock: Clock::new(),
            step: 0,
            oldest_turn: 0,
            process: 0,
            channels: (0..channels).map(|_| Channel::default()).collect(),
            seen: 0,
            trace: 0,
        }
    }

    /// Adds bytes to the hash of what happened (FNV-1a).
    pub fn note(&mut self, bytes: &[u8]) {
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        self.trace = bytes.iter().fold(self.trace, mix);
    }

    /// The process has ended. Without a store, all streams have ended too.
    pub fn crashed(&mut self) {
        self.process += 1;
        for channel in &mut self.channels {
            channel.crashed(self.step);
            if !self.terms.durable {
                *channel = Channel::default();
            }
        }
    }

    /// A publication is requested for the first time.
    pub fn published(&mut self, channel: usize, what: Source, has_version: bool) {
        let published = Published {
            at: self.step,
            since: self.oldest_turn,
            outcome: Outcome::Open,
            place: None,
            passed_over: false,
            has_version,
        };
        trace!("  sends {what:?} to c{channel} step {}", self.step);
        self.channels[channel].publications.insert(what, published);
    }

    pub fn acknowledged(&mut self, channel: usize, what: Source) -> Result<(), String> {
        let step = self.step;
        let Some(found) = self.channels[channel].publications.get_mut(&what) else { return Ok(()) };
        if !matches!(found.outcome, Outcome::Acknowledged(_)) {
            found.outcome = Outcome::Acknowledged(step);
        }
        let is_late = found.passed_over;
        (!is_late).then_some(()).ok_or(format!("{what:?} in c{channel} came too late"))
    }

    /// A publisher was told that its publication failed.
    pub fn refused(&mut self, channel: usize, what: Source) -> Result<(), String> {
        let process = self.process;
        let Some(found) = self.channels[channel].publications.get_mut(&what) else { return Ok(()) };
        found.outcome = Outcome::Refused(process);
        let is_there = found.place.is_some();
        (!is_there).then_some(()).ok_or(format!("{what:?} in c{channel} is there and was refused"))
    }

    /// A client received a publication: some client must have published it.
    pub fn sent(&mut self, channel: usize, what: Source) -> Result<(), String> {
        self.seen += 1;
        let known = self.channels[channel].publications.contains_key(&what);
        known.then_some(()).ok_or(format!("{what:?} was never published in c{channel}"))
    }

    /// A client received number `n` of a publisher behind number `before`.
    pub fn passed_over(
        &mut self,
        channel: usize,
        (publisher, n): Source,
        before: u64,
    ) -> Result<(), String> {
        if publisher == BACKEND || n == before + 1 {
            return Ok(());
        }
        let error = format!("number {n} of publisher {publisher} behind {before}");
        if n <= before || !self.terms.durable {
            return Err(error);
        }
        for (_, missing) in
            self.channels[channel].publications.range_mut((publisher, before + 1)..(publisher, n))
        {
            if missing.place.is_some() || matches!(missing.outcome, Outcome::Acknowledged(_)) {
                return Err(error);
            }
            missing.passed_over = true;
        }
        Ok(())
    }

    /// All clients see the same publication at an offset, and see it nowhere else.
    pub fn placed(&mut self, channel: usize, offset: u64, what: Source) -> Result<(), String> {
        self.placed_in(channel, self.channels[channel].lives.len(), offset, what)
    }

    /// The node tells the position of a publication. One that `is_retried` may be part of an
    /// earlier stream, which nobody may have seen.
    pub fn located(
        &mut self,
        channel: usize,
        (epoch, offset): (&str, u64),
        (what, is_retried): (Source, bool),
    ) -> Result<(), String> {
        let lives = &self.channels[channel].lives;
        let earlier = lives.iter().position(|life| life.epoch == epoch);
        match earlier {
            Some(at) => self.placed_in(channel, at + 1, offset, what),
            None if is_retried => Ok(()),
            None => {
                self.epoch(channel, epoch)?;
                self.placed(channel, offset, what)
            }
        }
    }

    /// `index` is the number of the channel's stream, from 1.
    fn placed_in(
        &mut self,
        channel: usize,
        index: usize,
        offset: u64,
        what: Source,
    ) -> Result<(), String> {
        let process = self.process;
        for part in [channel as u64, offset, what.0 as u64, what.1] {
            self.note(&part.to_le_bytes());
        }
        let Channel { lives, publications, .. } = &mut self.channels[channel];
        let life = index.checked_sub(1).and_then(|at| lives.get_mut(at));
        let Some(life) = life else { return Err("a place without an epoch".into()) };
        life.top = life.top.max(offset);
        trace!("  placed c{channel} {offset} {what:?} step {}", self.step);
        let before = *life.places.entry(offset).or_insert(what);
        if before != what {
            return Err(format!("offset {offset} is {before:?} and {what:?}"));
        }
        check_versions(life, publications, (offset, what))?;
        let Some(found) = publications.get_mut(&what) else { return Ok(()) };
        let place = *found.place.get_or_insert((index, offset));
        if place != (index, offset) {
            let at = (index, offset);
            return Err(format!("{what:?} in c{channel} is at {place:?} and at {at:?}"));
        }
        if found.outcome == Outcome::Refused(process) || found.passed_over {
            return Err(format!("{what:?} in c{channel} was refused and is at {offset}"));
        }
        Ok(())
    }

    /// The longest time that the node can have measured since a publication was requested.
    pub fn longest_since(&self, channel: usize, what: Source) -> Option<u64> {
        let published = self.channels[channel].publications.get(&what)?;
        Some(self.clock.longest_since(published.since))
    }

    /// What is known of a channel now.
    pub fn known(&self, channel: usize) -> Known {
        let lives = &self.channels[channel].lives;
        Known { step: self.step, lives: lives.len(), top: lives.last().map_or(0, |life| life.top) }
    }

    /// The node tells the position of a channel, in the answer to a request.
    pub fn position(
        &mut self,
        channel: usize,
        (epoch, top): (&str, u64),
        known: Known,
    ) -> Result<(), String> {
        self.epoch(channel, epoch)?;
        let lives = &mut self.channels[channel].lives;
        let is_same = lives.len() == known.lives;
        if is_same && top < known.top {
            return Err(format!("c{channel} is at {top}, behind {}", known.top));
        }
        if let Some(life) = lives.last_mut() {
            life.top = life.top.max(top);
        }
        Ok(())
    }

    /// A channel stays in its epoch, until its stream has ended.
    pub fn epoch(&mut self, channel: usize, epoch: &str) -> Result<(), String> {
        let lives = &self.channels[channel].lives;
        if lives.last().is_some_and(|life| life.epoch == epoch) {
            return Ok(());
        }
        if !lives.is_empty() && !self.may_have_ended(channel) {
            let known = lives.last().map_or("", |life| &life.epoch);
            return Err(format!("epoch {epoch} of c{channel} after {known}"));
        }
        let life = Life { epoch: epoch.to_owned(), ..Life::default() };
        self.channels[channel].lives.push(life);
        Ok(())
    }

    /// A subscriber has every acknowledged publication since its subscribe reply.
    pub fn check_complete(&self, channel: usize, view: &View) -> Result<(), String> {
        let found = &self.channels[channel];
        for ((publisher, n), published) in &found.publications {
            let acknowledged = matches!(published.outcome, Outcome::Acknowledged(_));
            let due = acknowledged && published.at > view.since && *publisher != BACKEND;
            if due && view.seen.get(publisher).is_none_or(|seen| seen < n) {
                return Err(format!(
                    "number {n} of publisher {publisher} in c{channel} is missing"
                ));
            }
        }
        let top = found.lives.last().map_or(0, |life| life.top);
        let is_complete = !self.terms.history || view.offset >= top;
        let error = || format!("the position in c{channel} is {}, not {top}", view.offset);
        is_complete.then_some(()).ok_or_else(error)
    }
}

/// Versions increase with the offsets of a stream.
fn check_versions(
    life: &Life,
    publications: &BTreeMap<Source, Published>,
    (offset, what): Placed,
) -> Result<(), String> {
    let has_version = |what: &Source| publications.get(what).is_some_and(|one| one.has_version);
    if !has_version(&what) {
        return Ok(());
    }
    let before = life.places.range(..offset).rev().map(|(_, one)| one).find(|one| has_version(one));
    let after = life.places.range(offset + 1..).map(|(_, one)| one).find(|one| has_version(one));
    let is_ordered =
        before.is_none_or(|one| one.1 < what.1) && after.is_none_or(|one| one.1 > what.1);
    let error = || format!("version {} at {offset} is not in order", what.1);
    is_ordered.then_some(()).ok_or_else(error)
}
