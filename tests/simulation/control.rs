//! The simulated control plane: answers the shards' questions to the backend, in random order, and
//! checks their hook events.
//!
//! Invariant: the disconnect event of a connection is its last event, and comes once.

use std::collections::{HashMap, VecDeque};

use drumline::model::backend::{ProxyAnswer, ProxyEvent};
use drumline::model::message::{
    Endpoint, Lookup, LookupOutcome, LookupReply, LookupRequest, Message, Post, Rank,
};

use crate::bus::{Bells, Bus};
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
}

impl Control {
    pub fn new(endpoint: Endpoint) -> Self {
        Control {
            endpoint,
            bells: Bells::default(),
            answers: VecDeque::new(),
            ended: HashMap::new(),
            told: 0,
            reloads: VecDeque::new(),
            unconfirmed: Vec::new(),
            reloaded: Vec::new(),
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

    /// Takes some messages, and sends some answers in random order.
    pub fn step(&mut self, bus: &mut Bus, random: &mut Random) -> Result<(), String> {
        bus.take_news(self.endpoint);
        let mut empty = false;
        while let Some(message) = bus.take(self.endpoint, Rank::Delivery, &mut self.bells) {
            let Message::Ordered(tag) = message else {
                return Err(format!("the control plane was sent {message:?}"));
            };
            let Some(at) = self.unconfirmed.iter().position(|(_, sent)| *sent == tag) else {
                return Err(format!("settings {tag} were confirmed too often"));
            };
            self.reloaded.push(self.unconfirmed.remove(at));
        }
        self.announce(bus);
        for _ in 0..random.between(0, 4) {
            match bus.take(self.endpoint, Rank::Ingress, &mut self.bells) {
                None => empty = true,
                Some(Message::LookupRequest(consult)) => self.answers.push_back(answer(*consult)),
                Some(Message::HookEvent(notice)) => {
                    let address = notice.address;
                    let life = (usize::from(address.shard), address.slot, address.generation);
                    self.hear(life, &notice.request.event)?;
                }
                Some(other) => return Err(format!("the control plane was sent {other:?}")),
            }
        }
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
        bus.ring(&mut self.bells);
        if empty && self.answers.is_empty() && self.reloads.is_empty() {
            bus.sleep(self.endpoint);
        }
        Ok(())
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
