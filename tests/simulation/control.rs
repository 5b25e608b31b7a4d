//! The simulated control plane: answers the shards' questions to the backend, in random order,
//! checks their hook events, and carries the calls of the API.
//!
//! Invariant: the disconnect event of a connection is its last event, and comes once.

use std::collections::{HashMap, VecDeque};

use drumline::model::backend::{ProxyAnswer, ProxyEvent};
use drumline::model::message::{
    Endpoint, Lookup, LookupOutcome, LookupReply, LookupRequest, Message, Post, Rank,
};

use drumline::model::names::Names;
use drumline::model::retention::Retention;

use crate::backend::Backend;
use crate::bus::{Bells, Bus};
use crate::ledger::Ledger;
use crate::random::Random;

/// A connection: shard, slot and generation.
pub type Life = (usize, u32, u32);

pub struct Control {
    endpoint: Endpoint,
    bells: Bells,
    /// Answers that are not sent yet.
    answers: VecDeque<LookupReply>,
    /// Whether each connection with events has ended.
    ended: HashMap<Life, bool>,
    /// Events received.
    pub told: u64,
    /// Announcements of new settings that wait for room: shard and tag.
    reloads: VecDeque<(usize, u64)>,
    /// Announcements that wait for their answer, in the order in which they were sent.
    unconfirmed: Vec<(usize, u64)>,
    /// Answers that are not checked yet.
    pub reloaded: Vec<(usize, u64)>,
    /// Callers of the API.
    pub backend: Backend,
    names: Names,
}

impl Control {
    pub fn new(endpoint: Endpoint, names: Names, backend: Backend) -> Self {
        Control {
            endpoint,
            bells: Bells::default(),
            answers: VecDeque::new(),
            ended: HashMap::new(),
            told: 0,
            reloads: VecDeque::new(),
            unconfirmed: Vec::new(),
            reloaded: Vec::new(),
            backend,
            names,
        }
    }

    /// Announces new settings to a shard.
    pub fn reload(&mut self, shard: usize, tag: u64) {
        self.reloads.push_back((shard, tag));
    }

    /// Whether every announcement was answered.
    pub fn is_confirmed(&self) -> bool {
        self.reloads.is_empty() && self.unconfirmed.is_empty()
    }

    /// Sends an announcement, if there is room for it and for its answer.
    fn announce(&mut self, bus: &mut Bus) {
        let Some((shard, tag)) = self.reloads.front().copied() else { return };
        let mut line = bus.line(self.endpoint, &mut self.bells);
        if !line.reserve(self.endpoint, Rank::Delivery) {
            return;
        }
        if !line.reserve(shard as Endpoint, Rank::Delivery) {
            return line.cancel(self.endpoint, Rank::Delivery);
        }
        line.send(shard as Endpoint, Message::Reconfigure(tag));
        self.reloads.pop_front();
        self.unconfirmed.push((shard, tag));
    }

    /// Takes some messages, and sends some calls, and some answers in random order. `retention` is
    /// that of all channels.
    pub fn step(
        &mut self,
        bus: &mut Bus,
        retention: Option<Retention>,
        ledger: &mut Ledger,
        random: &mut Random,
    ) -> Result<(), String> {
        bus.take_news(self.endpoint);
        self.take_deliveries(bus, ledger)?;
        self.announce(bus);
        let empty = self.take_ingress(bus, random)?;
        for _ in 0..random.between(0, 2) {
            let line = (&mut bus.line(self.endpoint, &mut self.bells), self.endpoint);
            self.backend.send(line, &self.names, retention);
        }
        self.send_answers(bus, random);
        bus.ring(&mut self.bells);
        let has_sent = self.reloads.is_empty() && !self.backend.has_calls();
        if empty && self.answers.is_empty() && has_sent {
            bus.sleep(self.endpoint);
        }
        Ok(())
    }

    fn take_deliveries(&mut self, bus: &mut Bus, ledger: &mut Ledger) -> Result<(), String> {
        while let Some(message) = bus.take(self.endpoint, Rank::Delivery, &mut self.bells) {
            let Message::Ordered(tag) = message else {
                self.backend.answered(message, ledger)?;
                continue;
            };
            let Some(at) = self.unconfirmed.iter().position(|(_, sent)| *sent == tag) else {
                return Err(format!("settings {tag} were confirmed too often"));
            };
            self.reloaded.push(self.unconfirmed.remove(at));
        }
        Ok(())
    }

    /// Takes questions and events; returns whether none is left.
    fn take_ingress(&mut self, bus: &mut Bus, random: &mut Random) -> Result<bool, String> {
        for _ in 0..random.between(0, 4) {
            match bus.take(self.endpoint, Rank::Ingress, &mut self.bells) {
                None => return Ok(true),
                Some(Message::LookupRequest(consult)) => self.answers.push_back(answer(*consult)),
                Some(Message::HookEvent(notice)) => {
                    let address = notice.address;
                    let life = (usize::from(address.shard), address.slot, address.generation);
                    self.hear(life, &notice.request.event)?;
                }
                Some(other) => return Err(format!("the control plane was sent {other:?}")),
            }
        }
        Ok(false)
    }

    fn send_answers(&mut self, bus: &mut Bus, random: &mut Random) {
        for _ in 0..random.between(0, 2) {
            let at = random.below(self.answers.len().max(1));
            let Some(answer) = self.answers.get(at) else { break };
            let shard = answer.address.shard;
            let mut line = bus.line(self.endpoint, &mut self.bells);
            if line.reserve(shard, Rank::Delivery)
                && let Some(answer) = self.answers.remove(at)
            {
                line.send(shard, Message::LookupReply(Box::new(answer)));
            }
        }
    }

    fn hear(&mut self, life: Life, event: &ProxyEvent) -> Result<(), String> {
        self.told += 1;
        let ended = self.ended.entry(life).or_default();
        if *ended {
            return Err(format!("{event:?} of {life:?} arrived after its disconnect"));
        }
        *ended = matches!(event, ProxyEvent::Disconnect { .. });
        Ok(())
    }

    /// Whether the disconnect event of a connection arrived.
    pub fn has_ended(&self, life: Life) -> bool {
        self.ended.get(&life).copied().unwrap_or_default()
    }
}

/// The backend permits everything.
fn answer(consult: LookupRequest) -> LookupReply {
    let LookupRequest { address, lookup } = consult;
    let (Lookup::Command(request) | Lookup::Renewal(request)) = lookup else {
        unreachable!("no client needs a backend for its token")
    };
    let told = match request.event {
        ProxyEvent::Connect { .. } => ProxyAnswer::Connect(None),
        ProxyEvent::Subscribe { .. } => ProxyAnswer::Subscribe(Default::default(), None),
        ProxyEvent::Publish { .. } => ProxyAnswer::Publish(Box::default()),
        other => unreachable!("no proxy is configured for {other:?}"),
    };
    LookupReply { address, outcome: LookupOutcome::Command(Ok(told)) }
}
