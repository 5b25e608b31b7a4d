//! One simulated shard: a hub, driven part by part in the order of a real shard's turn.
//!
//! Mirrors how `drumline::engine::shard` handles completions. The model clients own the sockets.

use std::collections::VecDeque;

use drumline::base::sys::Now;
use drumline::base::work_budget::Stage;
use drumline::hub::connections::Phase;
use drumline::hub::{Hub, Segments};
use drumline::model::message::{Endpoint, Message, RANKS, Rank};

use crate::bus::{Bells, Bus};
use crate::client::{Client, Taken};
use crate::faults::Fault;
use crate::random::Random;

/// A completion of the simulated kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Readable,
    Writable,
    Closed,
}

/// Parts of a turn.
const PARTS: usize = 9;
/// How late a deadline may be, in milliseconds, when the shard looks at its deadlines often.
const DEADLINE_AGE_MAX: u64 = 1_500;

pub struct Shard {
    pub hub: Hub,
    endpoint: Endpoint,
    part: usize,
    /// The time of a turn that is in progress.
    pub turn_began: Option<u64>,
    goes_on: bool,
    bells: Bells,
    stalled: [Option<Message>; RANKS],
    pub events: VecDeque<(Event, u32, u32)>,
    /// The client of each slot.
    pub owners: Vec<Option<usize>>,
    /// Whether some failed sends are reported in a later turn, as a kernel does that completes them
    /// asynchronously.
    tells_late: bool,
    /// Sends to report later: their slots may have other connections by then.
    late: Vec<(u32, u32)>,
    fault: Option<Fault>,
}

/// The rest of the node, for one step of a shard.
pub struct HomeContext<'a> {
    pub bus: &'a mut Bus,
    pub clients: &'a mut [Client],
    pub random: &'a mut Random,
    pub now: Now,
    /// Whether other shards of the worker use up the deadlines of every pass.
    pub pings_wait: bool,
    /// Whether the node comes to rest, and time may leap.
    pub settling: bool,
}

impl Shard {
    pub fn new(hub: Hub, endpoint: Endpoint, tells_late: bool, fault: Option<Fault>) -> Self {
        Shard {
            hub,
            endpoint,
            part: 0,
            turn_began: None,
            goes_on: false,
            bells: Bells::default(),
            stalled: Default::default(),
            events: VecDeque::new(),
            owners: Vec::new(),
            tells_late,
            late: Vec::new(),
            fault,
        }
    }

    /// A client's socket arrives.
    pub fn accept(&mut self, client: usize, entrance: u8) -> Option<(u32, u32)> {
        let (slot, generation) = self.hub.reserve_for(entrance)?;
        self.hub.socket_opened(slot);
        let at = slot as usize;
        self.owners.resize(self.owners.len().max(at + 1), None);
        self.owners[at] = Some(client);
        Some((slot, generation))
    }

    /// Runs the next part of the turn. After the last one, returns whether work is left.
    pub fn step(&mut self, around: &mut HomeContext<'_>) -> Result<Option<bool>, String> {
        let part = self.part;
        self.part = (part + 1) % PARTS;
        match part {
            0 => {
                around.bus.take_news(self.endpoint);
                // Small shares leave work for later turns. Some shares are large.
                let (work, large) = (around.random.between(1000, 60_000), around.random.one_in(3));
                self.hub.set_share(work, large);
                // Other shards of the worker may leave no deadlines.
                let share = around.random.between(0, 4);
                self.hub.set_deadline_share(if around.pings_wait { 0 } else { share });
                self.hub.begin_turn(around.now);
                self.turn_began = Some(around.now.millis);
            }
            1 => self.goes_on = self.take_messages(around),
            2 => {
                self.take_events(around);
                self.goes_on |= self.hub.expire();
                let late = self.hub.deadline_age();
                if late > DEADLINE_AGE_MAX && !around.settling {
                    return Err(format!("a deadline is late by {late} ms"));
                }
            }
            3 => self.hub.resume_paused(&mut around.bus.line(self.endpoint, &mut self.bells)),
            4 => self.hub.send_waiting(&mut around.bus.line(self.endpoint, &mut self.bells)),
            5 if around.random.one_in(3) => self.hub.fan_out(),
            5 => {
                let sends = around.random.between(1, 6);
                self.hub.fan_out_up_to(sends);
            }
            6 => self.transmit(around)?,
            7 => self.carry_out(around),
            _ => {
                around.bus.ring(&mut self.bells);
                self.turn_began = None;
                return self.sleep(around).map(Some);
            }
        }
        Ok(None)
    }

    /// Sleeps if no work is left; returns whether some is.
    fn sleep(&mut self, around: &mut HomeContext<'_>) -> Result<bool, String> {
        let told = self.events.is_empty() && self.late.is_empty();
        let busy = self.goes_on || self.hub.is_busy() || !told;
        if !busy {
            around.bus.sleep(self.endpoint);
            let control = (self.hub.control(), Rank::Ingress);
            if self.hub.has_outgoing() && around.bus.oversleeps(self.endpoint, control) {
                return Err(format!("shard {} sleeps and keeps hook events", self.endpoint));
            }
        }
        Ok(busy)
    }

    fn take_events(&mut self, around: &mut HomeContext<'_>) {
        self.take_late(around);
        let most = around.random.between(1, 8);
        for _ in 0..most.min(self.events.len()) {
            let Some((event, slot, generation)) = self.events.pop_front() else { return };
            let stale = self.hub.generation(slot) != generation;
            if stale && self.fault != Some(Fault::StaleCompletion) {
                continue;
            }
            let generation = self.hub.generation(slot);
            let Some(connection) = self.hub.connection(slot, generation) else { continue };
            let gone = connection.phase == Phase::Ending;
            match event {
                Event::Closed if gone => self.free(slot),
                Event::Closed if stale => self.hub.connection_lost(slot),
                Event::Readable if !gone => self.read(slot, around),
                Event::Writable if !gone => self.hub.writable(slot),
                _ => {}
            }
        }
    }

    /// Reports sends of earlier turns as failed: their connections are lost.
    fn take_late(&mut self, around: &mut HomeContext<'_>) {
        for (slot, generation) in std::mem::take(&mut self.late) {
            if !around.random.one_in(4) {
                self.late.push((slot, generation));
                continue;
            }
            let generation = match self.fault {
                Some(Fault::LateSendIgnored) => continue,
                Some(Fault::LateSendHitsSuccessor) => self.hub.generation(slot),
                _ => generation,
            };
            if self.hub.connection(slot, generation).is_some() {
                self.hub.connection_lost(slot);
            }
        }
    }

    fn free(&mut self, slot: u32) {
        let generation = self.hub.generation(slot);
        if self.fault == Some(Fault::SlotForgotten) && generation % 4 == 3 {
            return;
        }
        self.owners[slot as usize] = None;
        self.hub.free(slot);
        let state = self.hub.state(slot);
        assert!(state.is_empty(), "a freed slot keeps {state:?}");
        if self.fault == Some(Fault::StaleCompletion) {
            self.events.push_back((Event::Closed, slot, generation));
        }
    }

    fn read(&mut self, slot: u32, around: &mut HomeContext<'_>) {
        let generation = self.hub.generation(slot);
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        let reads = matches!(connection.phase, Phase::Handshake | Phase::Closing);
        if !connection.takes_output() && !reads {
            return;
        }
        let later = connection.flags.paused();
        connection.flags.set_readable(later);
        let Some(client) = self.owners[slot as usize].filter(|_| !later) else { return };
        let socket = &mut around.clients[client].socket;
        let whole = socket.input.len();
        if whole == 0 && socket.ended {
            return self.hub.peer_ended(slot);
        }
        let cut = around.random.one_in(3) && whole > 0;
        let bytes = if cut { around.random.between(1, whole) } else { whole };
        let mut bytes: Vec<u8> = socket.input.drain(..bytes.min(4096)).collect();
        if !socket.input.is_empty() || socket.ended {
            self.events.push_back((Event::Readable, slot, generation));
        }
        if !bytes.is_empty() {
            let mut line = around.bus.line(self.endpoint, &mut self.bells);
            self.hub.receive(&mut line, slot, &mut bytes);
        }
    }

    /// Takes messages; returns whether some may be left.
    fn take_messages(&mut self, around: &mut HomeContext<'_>) -> bool {
        let mut left = false;
        self.hub.begin(Stage::Deliveries);
        self.hub.serve_own(&mut around.bus.line(self.endpoint, &mut self.bells));
        for rank in Rank::SERVED {
            self.hub.begin(match rank {
                Rank::Delivery => Stage::Deliveries,
                Rank::Store | Rank::Request => Stage::Requests,
                Rank::Ingress => Stage::Ingress,
            });
            left |= self.take_rank(rank, around);
        }
        left
    }

    fn take_rank(&mut self, rank: Rank, around: &mut HomeContext<'_>) -> bool {
        // A stalled message is retried in every turn, as in a real shard.
        let least = usize::from(self.stalled[rank as usize].is_some());
        for _ in 0..around.random.between(least, 4) {
            if rank == Rank::Delivery && !self.hub.takes_deliveries() {
                return true;
            }
            let waiting = self.stalled[rank as usize].take();
            let message = waiting.or_else(|| around.bus.take(self.endpoint, rank, &mut self.bells));
            let Some(message) = message else { return false };
            if !self.hub.affords(&message) {
                self.stalled[rank as usize] = Some(message);
                return true;
            }
            trace!("  shard {} takes {message:?}", self.endpoint);
            let mut line = around.bus.line(self.endpoint, &mut self.bells);
            if let Err(message) = self.hub.handle(&mut line, message) {
                self.stalled[rank as usize] = Some(message);
                return false;
            }
        }
        true
    }

    /// Whether a message waits for room elsewhere.
    pub fn is_stalled(&self) -> bool {
        self.stalled.iter().any(Option::is_some)
    }

    fn transmit(&mut self, around: &mut HomeContext<'_>) -> Result<(), String> {
        let mut outcomes: Vec<(u32, u32, Taken)> = Vec::new();
        let (owners, fault) = (&self.owners, self.fault);
        let mut failure = None;
        self.hub.seal_output();
        self.hub.for_each_send(|generation, slot, segments| {
            let bytes: Vec<u8> = match segments {
                Segments::Whole(bytes) => bytes.to_vec(),
                Segments::Turn(pieces) => pieces.flatten().copied().collect(),
            };
            if outcomes.iter().any(|(other, ..)| *other == slot) {
                failure = Some(format!("two sends to slot {slot} in one enter"));
            }
            let Some(client) = owners[slot as usize] else {
                failure = Some(format!("a send to slot {slot}, which has no client"));
                return;
            };
            let taken = around.clients[client].socket.take(&bytes, around.random);
            outcomes.push((slot, generation, taken));
        });
        let has_output = self.hub.has_output();
        for (slot, generation, taken) in outcomes {
            match taken {
                Taken::Whole => {}
                Taken::Part(_) if fault == Some(Fault::ShortSendNotTold) => {}
                _ if self.tells_late && around.random.one_in(3) => {
                    if let Some(client) = self.owners[slot as usize] {
                        around.clients[client].socket.cut = true;
                    }
                    self.late.push((slot, generation));
                }
                Taken::Part(bytes) => self.hub.send_fell_short(slot, generation, Some(bytes)),
                Taken::Refused => self.hub.send_fell_short(slot, generation, None),
            }
        }
        if has_output || fault != Some(Fault::TurnEndedOnlyWithOutput) {
            self.hub.end_turn();
        }
        failure.map_or(Ok(()), Err)
    }

    fn carry_out(&mut self, around: &mut HomeContext<'_>) {
        let mut ring_requests = std::mem::take(&mut self.hub.ring_requests);
        for slot in ring_requests.reads.drain(..) {
            if self.fault != Some(Fault::UnreadForgotten) {
                // A read completes in a later turn.
                self.events.push_back((Event::Readable, slot, self.hub.generation(slot)));
            }
        }
        for slot in ring_requests.writable.drain(..) {
            let generation = self.hub.generation(slot);
            let gone = self
                .hub
                .connection(slot, generation)
                .is_none_or(|connection| connection.phase == Phase::Ending);
            if let Some(client) = self.owners[slot as usize].filter(|_| !gone) {
                around.clients[client].socket.awaited = true;
            }
        }
        for slot in ring_requests.ends.drain(..) {
            let generation = self.hub.generation(slot);
            let reset =
                self.hub.connection(slot, generation).is_some_and(|found| found.flags.reset());
            if let Some(client) = self.owners[slot as usize] {
                let socket = &mut around.clients[client].socket;
                (socket.shut, socket.reset) = (true, reset);
            }
            self.events.push_back((Event::Closed, slot, generation));
        }
        self.hub.ring_requests = ring_requests;
    }
}
