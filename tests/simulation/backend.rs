//! Callers of the API on the simulated control plane: they publish, some with idempotency keys or
//! versions and with retries, read histories and remove them.
//!
//! Owns the calls. Never publishes again what the node may have forgotten.

use std::collections::{BTreeMap, VecDeque};

use drumline::home::idempotency_keys::HOLD_TIME;
use drumline::model::message::{
    ChannelAnswer, ChannelQuery, DuplicateGuard, Endpoint, HistoryRange, HomeAnswer, HomeQuery,
    Message, Post, Publish, Published, Rank, ReplyTo,
};
use drumline::model::names::Names;
use drumline::model::publication::{Publication, PublicationKind};
use drumline::model::retention::Retention;
use drumline::wire::protocol::{Epoch, Error, Position};

use crate::bus::Line;
use crate::ledger::{BACKEND, Known, Ledger, Placed, Range};
use crate::random::Random;

/// What keeps a publication from being published twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    None,
    Key,
    Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Publish { n: u64, guard: Guard },
    History(Range),
    Remove,
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    channel: usize,
    call: Call,
    /// What was known of the channel when the call was made.
    known: Known,
}

pub struct Backend {
    channels: usize,
    /// Calls that wait for room.
    waiting: VecDeque<Outstanding>,
    /// Calls that wait for their answers, by tag.
    outstanding: BTreeMap<u64, Outstanding>,
    /// Publications with keys to publish again.
    retries: Vec<Outstanding>,
    next_tag: u64,
    next_number: u64,
    /// Publications that were acknowledged.
    pub acknowledged: usize,
}

impl Backend {
    pub fn new(channels: usize) -> Self {
        Backend {
            channels,
            waiting: VecDeque::new(),
            outstanding: BTreeMap::new(),
            retries: Vec::new(),
            next_tag: 0,
            next_number: 0,
            acknowledged: 0,
        }
    }

    /// Whether calls wait for room.
    pub fn has_calls(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Makes a random call.
    pub fn act(&mut self, ledger: &mut Ledger, random: &mut Random) {
        let channel = random.below(self.channels);
        match random.below(12) {
            0..=4 => {
                let guard = random.pick(&[Guard::None, Guard::Key, Guard::Key, Guard::Version]);
                self.publish(channel, guard, ledger);
            }
            5..=6 if !self.retries.is_empty() => {
                let again = self.retries.swap_remove(random.below(self.retries.len()));
                self.retry(again, ledger);
            }
            7 if ledger.terms.history => self.read(channel, Range::ALL, ledger),
            10 if ledger.terms.history => {
                let range = Range::random(ledger.known(channel).top, random);
                self.read(channel, range, ledger);
            }
            8 if random.one_in(6) && ledger.terms.history => self.remove(channel, ledger),
            // A caller that has waited too long calls again.
            9 => {
                let late = self.outstanding.values().next().copied();
                if let Some(late) = late.filter(is_guarded) {
                    self.retry(late, ledger);
                }
            }
            _ => {}
        }
    }

    fn call(&mut self, channel: usize, call: Call, known: Known) {
        self.waiting.push_back(Outstanding { channel, call, known });
    }

    pub fn publish(&mut self, channel: usize, guard: Guard, ledger: &mut Ledger) {
        self.next_number += 1;
        let n = self.next_number;
        ledger.published(channel, (BACKEND, n), guard == Guard::Version);
        self.call(channel, Call::Publish { n, guard }, ledger.known(channel));
    }

    /// Reads a history.
    pub fn read(&mut self, channel: usize, range: Range, ledger: &Ledger) {
        self.call(channel, Call::History(range), ledger.known(channel));
    }

    fn remove(&mut self, channel: usize, ledger: &mut Ledger) {
        let known = ledger.removing(channel);
        self.call(channel, Call::Remove, known);
    }

    /// Publishes again what may have been published, as long as its key or version is kept.
    fn retry(&mut self, again: Outstanding, ledger: &Ledger) {
        let Outstanding { channel, call, .. } = again;
        let Call::Publish { n, guard } = call else { return };
        let kept = match guard {
            Guard::Version => ledger.terms.meta_ttl,
            _ => HOLD_TIME,
        };
        if ledger.longest_since(channel, (BACKEND, n)).is_some_and(|age| age < kept) {
            self.call(channel, call, ledger.known(channel));
        }
    }

    /// The process has ended, and so have the calls. Callers without a key do not know what became
    /// of their publications.
    pub fn crashed(&mut self, is_durable: bool) {
        let calls =
            self.waiting.drain(..).chain(std::mem::take(&mut self.outstanding).into_values());
        self.retries.extend(calls.filter(is_guarded));
        if !is_durable {
            self.retries.clear();
        }
    }

    /// Sends a call, if there is room for it and for its answer.
    pub fn send(
        &mut self,
        (line, control): (&mut Line<'_>, Endpoint),
        names: &Names,
        retention: Option<Retention>,
    ) {
        let Some(call) = self.waiting.front().copied() else { return };
        let name = format!("c{}", call.channel);
        let hash = names.hash(&name);
        let home = names.home(hash);
        if !line.reserve(control, Rank::Delivery) {
            return;
        }
        if !line.reserve(home, Rank::Request) {
            return line.cancel(control, Rank::Delivery);
        }
        self.waiting.pop_front();
        self.next_tag += 1;
        let reply_to = ReplyTo::Control(self.next_tag);
        let durable = retention.is_some_and(|retention| retention.durable);
        let ask = |query| {
            let channel = name.as_str().into();
            Message::HomeQuery(Box::new(HomeQuery { channel, hash, reply_to, durable, query }))
        };
        let message = match call.call {
            Call::Publish { n, guard } => {
                let (key, version) = match guard {
                    Guard::None => (String::new(), 0),
                    Guard::Key => (key_of(n), 0),
                    Guard::Version => (String::new(), n),
                };
                let duplicates =
                    DuplicateGuard { key: key.into(), version, ..DuplicateGuard::default() };
                Message::Publish(Box::new(Publish {
                    channel: name.as_str().into(),
                    hash,
                    data: format!(r#"{{"p":{BACKEND},"n":{n}}}"#).into_bytes().into(),
                    kind: PublicationKind::Data,
                    delta: false,
                    extra: None,
                    retention,
                    guard: (guard != Guard::None).then(|| Box::new(duplicates)),
                    reply_to,
                    accepted: 0,
                }))
            }
            Call::History(Range { limit, since, reverse }) => {
                let epoch = Epoch::default();
                let since = since.map(|offset| Position { offset, epoch });
                ask(ChannelQuery::History(HistoryRange { limit, since, reverse }))
            }
            Call::Remove => ask(ChannelQuery::RemoveHistory),
        };
        line.send(home, message);
        self.outstanding.insert(self.next_tag, call);
    }

    /// Takes an answer.
    pub fn answered(&mut self, message: Message, ledger: &mut Ledger) -> Result<(), String> {
        let reply_to = match &message {
            Message::Published(published) => published.reply_to,
            Message::HomeAnswer(answer) => answer.reply_to,
            other => return Err(format!("the control plane was sent {other:?}")),
        };
        let ReplyTo::Control(tag) = reply_to else { return Err("not an answer to a call".into()) };
        let call = self.outstanding.remove(&tag).ok_or("an answer to nothing")?;
        trace!("  answer {call:?} {message:?}");
        let checked = match message {
            Message::Published(published) => self.published(call, *published, ledger),
            Message::HomeAnswer(answer) => found(call, *answer, ledger),
            _ => Ok(()),
        };
        checked.map_err(|error| format!("{error}; the call was {call:?}"))
    }

    fn published(
        &mut self,
        call: Outstanding,
        answer: Published,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let Outstanding { channel, call: Call::Publish { n, guard }, .. } = call else {
            return Err("the answer to a publication".into());
        };
        let what = (BACKEND, n);
        match answer.outcome {
            // The position may be that of a publication with a later version.
            Ok(position)
                if guard == Guard::Version && position.is_some() == ledger.terms.history =>
            {
                Ok(())
            }
            Ok(Some(Position { offset, epoch })) if ledger.terms.history => {
                self.acknowledged += 1;
                let has_key = guard == Guard::Key;
                ledger.located(channel, (epoch.as_str(), offset), (what, has_key))?;
                ledger.acknowledged(channel, what)
            }
            Ok(None) if !ledger.terms.history => ledger.acknowledged(channel, what),
            Err(Error::INTERNAL) if guard != Guard::None => {
                self.retries.push(call);
                Ok(())
            }
            Err(Error::INTERNAL) if ledger.terms.durable => ledger.refused(channel, what),
            _ => Err("not what was asked for".into()),
        }
    }
}

/// Whether a call may be made again.
fn is_guarded(call: &Outstanding) -> bool {
    matches!(call.call, Call::Publish { guard: Guard::Key | Guard::Version, .. })
}

/// The idempotency key of a publication.
fn key_of(n: u64) -> String {
    format!("k{n}")
}

/// The number of the publication with an idempotency key.
pub fn number_of(key: &str) -> Option<u64> {
    key.strip_prefix('k')?.parse().ok()
}

fn found(call: Outstanding, answer: HomeAnswer, ledger: &mut Ledger) -> Result<(), String> {
    let Outstanding { channel, call, known } = call;
    match (call, answer.result) {
        (Call::History(range), Ok(ChannelAnswer::History(found, position))) => {
            let found: Option<Vec<_>> = found.iter().map(place_of).collect();
            let found = found.ok_or("a publication that nobody sent")?;
            let position = (position.epoch.as_str(), position.offset);
            ledger.history(channel, (range, found), position, known)
        }
        (Call::Remove, Ok(ChannelAnswer::HistoryRemoved)) => {
            ledger.removed(channel, known, true);
            Ok(())
        }
        (Call::Remove, Err(Error::INTERNAL)) if ledger.terms.durable => {
            ledger.removed(channel, known, false);
            Ok(())
        }
        (Call::History(_), Err(Error::INTERNAL)) if ledger.terms.durable => Ok(()),
        (Call::History(_), Err(Error::LIMIT_EXCEEDED)) if ledger.terms.answer_bytes < 100_000 => {
            Ok(())
        }
        _ => Err("not what was asked for".into()),
    }
}

/// Offset, publisher and number of a publication.
fn place_of(publication: &Publication) -> Option<Placed> {
    let data: serde_json::Value = serde_json::from_slice(publication.data()).ok()?;
    let what = (data["p"].as_u64()? as usize, data["n"].as_u64()?);
    Some((publication.offset()?, what))
}
