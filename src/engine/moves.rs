//! Sockets that a shard accepts, keeps, moves to another shard or gets from one.
//!
//! Owns nothing: the lists are the shard's. A socket without a free slot here moves to the shard
//! with the most free slots. It is refused only if no shard has any.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use socket2::SockRef;

use crate::base::address_limits::NOT_COUNTED;
use crate::base::connection_limits::ControlPermit;
use crate::engine::ring::{Completion, Op, Token};
use crate::engine::shard::{MovingSocket, Shard};
use crate::hub::connections::Phase;
use crate::model::message::{
    Adopt, Endpoint, Message, Post, Rank, SlotOffer, SlotRelease, SlotRequest,
};
use crate::wire::tls::SealedConnection;

/// Milliseconds without accepts after a failed one: the kernel lacks a resource.
const ACCEPT_PAUSE: u64 = 20;

impl Shard {
    // ---- sockets that come ---------------------------------------------------------------

    pub(super) fn refill_accepts(&mut self) {
        let wants_accepts =
            !self.stopping && self.accepts < self.accepts_max * self.accepts_of.len();
        if !wants_accepts || (self.accept_after > 0 && self.now < self.accept_after) {
            return;
        }
        self.accept_after = 0;
        for entrance in 0..self.accepts_of.len() {
            let tells_peer = self.hub.wants_peer(entrance as u8);
            while self.accepts_of[entrance] < self.accepts_max {
                let Some((slot, generation)) = self.hub.reserve_for(entrance as u8) else { return };
                if !self.ring.accept(generation, slot, entrance, tells_peer) {
                    return self.hub.free(slot);
                }
                self.begin(slot, generation);
                self.accepts += 1;
                self.accepts_of[entrance] += 1;
            }
        }
    }

    pub(super) fn accepted(&mut self, completion: &Completion) {
        let Token { generation, slot, .. } = completion.token;
        self.accepts = self.accepts.saturating_sub(1);
        let entrance = self.hub.entrance(slot);
        if let Some(accepts) = self.accepts_of.get_mut(usize::from(entrance)) {
            *accepts = accepts.saturating_sub(1);
        }
        let peer = self.ring.accepted_peer(slot);
        if completion.result < 0 {
            if let Some(connection) = self.hub.connection(slot, generation) {
                connection.phase = Phase::Ending;
                connection.flags.set_unwatched(true);
            }
            self.accept_after = self.now + ACCEPT_PAUSE;
            return;
        }
        self.metrics.accepted.add(1);
        if self.stopping || !self.hub.admit_peer(slot, peer) {
            self.hub.socket_returned(slot, None);
            return self.hub.end(slot);
        }
        if self.draining {
            self.hub.socket_opened_to_refuse(slot);
            return self.watch(slot);
        }
        if self.hub.len().saturating_sub(self.accepts) <= self.kept_slots {
            self.hub.socket_opened(slot);
            return self.watch(slot);
        }
        if let Some(connection) = self.hub.connection(slot, generation) {
            connection.phase = Phase::Leaving;
        }
        self.sockets_to_move.push(MovingSocket { slot, generation });
    }

    /// Releases unused slots, and requests slots of other shards for sockets that cannot stay.
    pub(super) fn move_sockets(&mut self) {
        for (endpoint, release) in std::mem::take(&mut self.unused_slots) {
            if self.bus.reserve(endpoint, Rank::Request) {
                self.bus.send(endpoint, Message::SlotRelease(release));
            } else {
                self.unused_slots.push((endpoint, release));
            }
        }
        for socket in std::mem::take(&mut self.sockets_to_move) {
            let statuses = self.statuses.iter().map(|status| status.free.load(Ordering::Relaxed));
            let roomiest = statuses.enumerate().max_by_key(|(_, free)| *free);
            match roomiest {
                Some((to, free)) if free > 0 && to != usize::from(self.bus.endpoint()) => {
                    let to = to as Endpoint;
                    if self.bus.reserve(to, Rank::Request) {
                        let MovingSocket { slot, generation } = socket;
                        let entrance = self.hub.entrance(slot);
                        let (address_place, forwarded) = self.hub.address_place(slot);
                        let client = self.hub.noted_address(slot);
                        let shard = self.bus.endpoint();
                        self.bus.send(
                            to,
                            Message::SlotRequest(SlotRequest {
                                shard,
                                slot,
                                generation,
                                entrance,
                                address_place,
                                forwarded,
                                client,
                            }),
                        );
                    } else {
                        self.sockets_to_move.push(socket);
                    }
                }
                Some((_, free)) if free > 0 => self.keep_socket(socket),
                _ => self.refuse_socket(socket),
            }
        }
    }

    /// Keeps a socket for which a slot became free.
    pub(super) fn keep_socket(&mut self, socket: MovingSocket) {
        self.open_socket(socket.slot);
    }

    /// Starts the connection of a socket that comes from another shard, or that has waited to move
    /// there.
    fn open_socket(&mut self, slot: u32) {
        if self.draining {
            self.hub.socket_opened_to_refuse(slot);
        } else {
            self.hub.socket_opened(slot);
        }
        self.watch(slot);
    }

    pub(super) fn refuse_socket(&mut self, socket: MovingSocket) {
        self.metrics.accepts_shed.add(1);
        self.hub.socket_opened_to_refuse(socket.slot);
        self.watch(socket.slot);
    }

    /// Offers a slot to another shard, or answers that there is none.
    pub(super) fn offer_slot(&mut self, request: &SlotRequest) -> bool {
        if !self.bus.reserve(request.shard, Rank::Delivery) {
            return false;
        }
        let SlotRequest { slot, generation, shard, entrance, address_place, forwarded, client } =
            *request;
        let has_room = self.free_slots() > 0;
        let target = has_room.then(|| self.hub.reserve_for(entrance)).flatten();
        if let Some((target, _)) = target {
            self.hub.keep_address_place(target, address_place, forwarded);
            self.hub.note_address(target, client);
        }
        let offer = SlotOffer { slot, generation, shard: self.bus.endpoint(), target };
        self.bus.send(shard, Message::SlotOffer(offer));
        true
    }

    /// Moves a socket into the slot that another shard offered. Without an offer, the socket is
    /// tried again.
    pub(super) fn take_offer(&mut self, offer: &SlotOffer) {
        let socket = MovingSocket { slot: offer.slot, generation: offer.generation };
        let Some((slot, generation)) = offer.target else {
            return self.sockets_to_move.push(socket);
        };
        let statuses = self.statuses.clone();
        let ring = statuses.get(usize::from(offer.shard)).and_then(|status| status.ring.get());
        if let Some(ring) = ring.filter(|_| self.begin(socket.slot, socket.generation)) {
            let source = Token::new(Op::SendSocket, socket.generation, socket.slot);
            self.sockets_in_transit.push((socket, offer.shard, slot, generation));
            self.ring.send_socket(source, ring, generation, slot);
        } else {
            self.unused_slots.push((offer.shard, SlotRelease { slot, generation }));
        }
    }

    pub(super) fn socket_sent(&mut self, completion: &Completion) {
        let Token { slot, generation, .. } = completion.token;
        let at = self.sockets_in_transit.iter().position(|(socket, ..)| socket.slot == slot);
        let Some((socket, shard, target, life)) =
            at.map(|at| self.sockets_in_transit.swap_remove(at))
        else {
            return;
        };
        if completion.result < 0 {
            self.unused_slots.push((shard, SlotRelease { slot: target, generation: life }));
            return self.refuse_socket(socket);
        }
        self.metrics.relayed.add(1);
        if self.hub.connection(slot, generation).is_some() {
            // The count has moved along.
            self.hub.take_address_place(slot);
        }
        if self.begin(slot, generation) {
            self.ring.close(generation, slot);
        }
    }

    /// Frees an offered slot that is not used. After -EOVERFLOW the kernel may have put the socket
    /// there all the same, so the slot is closed first.
    pub(super) fn offer_released(&mut self, release: &SlotRelease) {
        let SlotRelease { slot, generation } = *release;
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        if connection.phase == Phase::Reserved {
            connection.phase = Phase::Ending;
            connection.operations = connection.operations.saturating_add(1);
            // The count has stayed with the socket.
            self.hub.take_address_place(slot);
            self.ring.close(generation, slot);
        }
    }

    pub(super) fn socket_arrived(&mut self, slot: u32, generation: u32) {
        let Some(connection) = self.hub.connection(slot, generation) else { return };
        if connection.phase != Phase::Reserved {
            return self.metrics.stale_completions.add(1);
        }
        self.metrics.accepted.add(1);
        self.open_socket(slot);
    }

    /// Takes over a socket from the control plane.
    pub(super) fn adopt(&mut self, adopt: Adopt) {
        let room = !self.stopping && self.free_slots() > 0;
        let Some((slot, _)) = room.then(|| self.hub.reserve_for(adopt.entrance)).flatten() else {
            return self.metrics.refused.add(1);
        };
        if self.ring.place(slot, &adopt.socket).is_err() {
            self.metrics.refused.add(1);
            return self.hub.free(slot);
        }
        let (session, mut unopened) = match adopt.sealed {
            Some(SealedConnection { session, unopened }) => (Some(session), unopened),
            None => (None, Vec::new()),
        };
        self.hub.socket_returned(slot, session);
        let mut permit = adopt.permit;
        let place = permit.as_mut().map_or(NOT_COUNTED, ControlPermit::take_address);
        self.hub.keep_address_place(slot, place, adopt.forwarded);
        if self.hub.settings().logs_access {
            let client = adopt.client.or_else(|| peer_address(&adopt.socket));
            self.hub.note_address(slot, client);
        }
        self.watch(slot);
        self.hub.adopt(&mut self.bus, slot, adopt.upgrade.as_ref());
        let mut bytes = adopt.bytes;
        if !bytes.is_empty() {
            self.hub.receive_opened(&mut self.bus, slot, &mut bytes);
        }
        if !unopened.is_empty() {
            self.hub.receive(&mut self.bus, slot, &mut unopened);
        }
        self.read(slot);
    }
}

/// The address of a socket's peer. A Unix socket has none.
fn peer_address(socket: &OwnedFd) -> Option<IpAddr> {
    let peer = SockRef::from(socket).peer_addr().ok()?.as_socket()?;
    Some(peer.ip().to_canonical())
}
