//! Sockets that a shard accepts, keeps, moves to another shard or takes over.
//!
//! Owns nothing: the lists are the shard's. A socket that finds no slot here moves to the shard
//! with most room, and is turned away only when no shard has any.

use std::sync::atomic::Ordering;

use crate::engine::ring::{Completion, Op, Token};
use crate::engine::shard::{MovingSocket, Shard};
use crate::hub::connections::Phase;
use crate::model::message::{
    Adopt, Endpoint, Message, Post, Rank, SlotOffer, SlotRelease, SlotRequest,
};

/// Milliseconds without accepts after one failed: the kernel is out of something.
const ACCEPT_PAUSE: u64 = 20;

impl Shard {
    // ---- sockets that come ---------------------------------------------------------------

    pub(super) fn refill_accepts(&mut self) {
        let ring_requests = !self.draining && self.accepts < self.accepts_max;
        if !ring_requests || (self.accept_after > 0 && self.now < self.accept_after) {
            return;
        }
        self.accept_after = 0;
        while self.accepts < self.accepts_max {
            let Some((slot, generation)) = self.hub.reserve() else { return };
            if !self.ring.accept(generation, slot) {
                return self.hub.free(slot);
            }
            self.begin(slot, generation);
            self.accepts += 1;
        }
    }

    pub(super) fn accepted(&mut self, completion: &Completion) {
        let Token { generation, slot, .. } = completion.token;
        self.accepts = self.accepts.saturating_sub(1);
        if completion.result < 0 {
            if let Some(connection) = self.hub.connection(slot, generation) {
                connection.phase = Phase::Ending;
                connection.flags.set_unwatched(true);
            }
            self.accept_after = self.now + ACCEPT_PAUSE;
            return;
        }
        self.metrics.accepted.add(1);
        if self.draining {
            self.hub.opened(slot);
            return self.hub.end(slot);
        }
        if self.hub.len().saturating_sub(self.accepts) <= self.places {
            self.hub.opened(slot);
            return self.watch(slot);
        }
        if let Some(connection) = self.hub.connection(slot, generation) {
            connection.phase = Phase::Leaving;
        }
        self.movers.push(MovingSocket { slot, generation });
    }

    /// Asks shards with room for a place for sockets that cannot stay here.
    pub(super) fn move_sockets(&mut self) {
        for (endpoint, vacate) in std::mem::take(&mut self.vacant) {
            if self.line.reserve(endpoint, Rank::Request) {
                self.line.send(endpoint, Message::SlotRelease(vacate));
            } else {
                self.vacant.push((endpoint, vacate));
            }
        }
        for mover in std::mem::take(&mut self.movers) {
            let statuses = self.statuses.iter().map(|status| status.free.load(Ordering::Relaxed));
            let roomiest = statuses.enumerate().max_by_key(|(_, free)| *free);
            match roomiest {
                Some((to, free)) if free > 0 && to != usize::from(self.line.endpoint()) => {
                    let to = to as Endpoint;
                    if self.line.reserve(to, Rank::Request) {
                        let MovingSocket { slot, generation } = mover;
                        let shard = self.line.endpoint();
                        self.line.send(
                            to,
                            Message::SlotRequest(SlotRequest { shard, slot, generation }),
                        );
                    } else {
                        self.movers.push(mover);
                    }
                }
                Some((_, free)) if free > 0 => self.stay(mover),
                _ => self.turn_away(mover),
            }
        }
    }

    /// A place has become free here meanwhile.
    pub(super) fn stay(&mut self, mover: MovingSocket) {
        self.hub.opened(mover.slot);
        if self.draining {
            return self.hub.end(mover.slot);
        }
        self.watch(mover.slot);
    }

    pub(super) fn turn_away(&mut self, mover: MovingSocket) {
        self.hub.opened_without_room(mover.slot);
        self.watch(mover.slot);
    }

    /// Another shard asks for a slot.
    pub(super) fn give_room(&mut self, room: &SlotRequest) -> bool {
        if !self.line.reserve(room.shard, Rank::Delivery) {
            return false;
        }
        let target = if self.free_places() > 0 { self.hub.reserve() } else { None };
        let SlotRequest { slot, generation, shard } = *room;
        let place = SlotOffer { slot, generation, shard: self.line.endpoint(), target };
        self.line.send(shard, Message::SlotOffer(place));
        true
    }

    /// Another shard has given a slot, or has none.
    pub(super) fn take_place(&mut self, place: &SlotOffer) {
        let mover = MovingSocket { slot: place.slot, generation: place.generation };
        let Some((slot, generation)) = place.target else { return self.movers.push(mover) };
        let statuses = self.statuses.clone();
        let ring = statuses.get(usize::from(place.shard)).and_then(|status| status.ring.get());
        if let Some(ring) = ring.filter(|_| self.begin(mover.slot, mover.generation)) {
            let source = Token::new(Op::Pass, mover.generation, mover.slot);
            self.moving.push((mover, place.shard, slot, generation));
            self.ring.pass(source, ring, generation, slot);
        } else {
            self.vacant.push((place.shard, SlotRelease { slot, generation }));
        }
    }

    pub(super) fn passed(&mut self, completion: &Completion) {
        let Token { slot, generation, .. } = completion.token;
        let at = self.moving.iter().position(|(mover, ..)| mover.slot == slot);
        let Some((mover, shard, target, life)) = at.map(|at| self.moving.swap_remove(at)) else {
            return;
        };
        if completion.result < 0 {
            self.vacant.push((shard, SlotRelease { slot: target, generation: life }));
            return self.turn_away(mover);
        }
        self.metrics.relayed.add(1);
        if self.begin(slot, generation) {
            self.ring.close(generation, slot);
        }
    }

    /// A promised slot is not used. The kernel may have put the socket there before it failed to
    /// say so (-EOVERFLOW), so the slot is closed, whatever it holds, before it is given back.
    pub(super) fn vacated(&mut self, vacate: &SlotRelease) {
        let SlotRelease { slot, generation } = *vacate;
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        if connection.phase == Phase::Reserved {
            connection.phase = Phase::Ending;
            connection.operations = connection.operations.saturating_add(1);
            self.ring.close(generation, slot);
        }
    }

    pub(super) fn arrived(&mut self, slot: u32, generation: u32) {
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        if connection.phase != Phase::Reserved {
            return self.metrics.stale_completions.add(1);
        }
        self.metrics.accepted.add(1);
        self.hub.opened(slot);
        if self.draining {
            return self.hub.end(slot);
        }
        self.watch(slot);
    }

    /// The control plane hands a socket over.
    pub(super) fn adopt(&mut self, adopt: Adopt) {
        let room = !self.draining && self.free_places() > 0;
        let Some((slot, _)) = room.then(|| self.hub.reserve()).flatten() else {
            return self.metrics.refused.add(1);
        };
        if self.ring.place(slot, &adopt.socket).is_err() {
            self.metrics.refused.add(1);
            return self.hub.free(slot);
        }
        self.hub.opened(slot);
        self.watch(slot);
        self.hub.adopt(&mut self.line, slot, adopt.upgrade.as_ref());
        let mut bytes = adopt.bytes;
        if !bytes.is_empty() {
            self.hub.receive(&mut self.line, slot, &mut bytes);
        }
        self.read(slot);
    }
}
