//! Slots: how a socket gets one and frees it.

use crate::base::connection_limits::ControlPermit;
use crate::hub::connections::{Connection, Inbound, Phase, SlotState};
use crate::hub::http_answers::REFUSAL_TIME;
use crate::hub::shard_state::Hub;
use crate::wire::http::{Requester, Status};
use crate::wire::tls::{SealedConnection, TlsSession};

/// Milliseconds that a newcomer has during a drain for its handshake, its request and the answer.
const NEWCOMER_TIME: u64 = 5000;

impl Hub {
    /// Reserves a slot for a socket; returns it with its generation, `None` if all are in use.
    pub fn reserve(&mut self) -> Option<(u32, u32)> {
        self.reserve_for(0)
    }

    /// Reserves a slot for a socket of this entrance.
    pub fn reserve_for(&mut self, entrance: u8) -> Option<(u32, u32)> {
        if self.connections.len() >= self.settings.slots {
            return None;
        }
        let (slot, generation) = self.connections.reserve();
        self.connections[slot].entrance = entrance;
        Some((slot, generation))
    }

    /// Index of the listener of a slot in use.
    pub fn entrance(&self, slot: u32) -> u8 {
        self.connections.get(slot).map_or(0, |connection| connection.entrance)
    }

    /// Upper bound of the slots in use.
    pub fn slot_end(&self) -> u32 {
        self.connections.slot_end() as u32
    }

    /// Number of slots in use, including reserved ones.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether no slot is in use.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Number of slots in use whose connections are not refused.
    pub fn established(&self) -> usize {
        self.connections.len().saturating_sub(self.refusals)
    }

    /// Whether the only answer of a connection is 503.
    pub fn is_refused(&self, slot: u32) -> bool {
        self.connections.get(slot).is_some_and(|connection| connection.flags.refusing())
    }

    /// Milliseconds that a refused connection has for its request and the answer. A node that
    /// drains has room for slow ones.
    pub(super) fn refusal_time(&self) -> u64 {
        if self.draining { NEWCOMER_TIME } else { REFUSAL_TIME }
    }

    /// Current generation of a slot.
    pub fn generation(&self, slot: u32) -> u32 {
        self.connections.generation(slot)
    }

    /// Frees a slot; its next connection has another generation.
    pub fn free(&mut self, slot: u32) {
        self.release_address(slot);
        self.refusals -= usize::from(self.is_refused(slot));
        self.ping_plans.leave(self.connections[slot].ping_plan);
        self.connections.free(slot);
    }

    /// The state of a slot, in use or free.
    pub fn state(&self, slot: u32) -> SlotState<'_> {
        self.connections.state(slot, &self.locals)
    }

    /// Starts a connection in a reserved slot; what its entrance begins with is awaited.
    pub fn socket_opened(&mut self, slot: u32) {
        let entrance = self.settings.entrances.get(usize::from(self.entrance(slot)));
        if !entrance.is_some_and(|entrance| entrance.proxy_protocol) {
            return self.begin_entrance(slot);
        }
        self.connections[slot].phase = Phase::ProxyHeader;
        self.set_deadline(slot, self.settings.head_timeout);
    }

    /// Starts a connection whose PROXY header, if it needs one, was read: its TLS handshake or its
    /// request head is awaited.
    pub(super) fn begin_entrance(&mut self, slot: u32) {
        let entrance = self.settings.entrances.get(usize::from(self.entrance(slot)));
        let has_tls = entrance.is_some_and(|entrance| entrance.tls);
        self.metrics.tls_handshakes_open.add(u64::from(has_tls));
        let connection = &mut self.connections[slot];
        connection.flags.set_sealed(has_tls);
        connection.phase = if has_tls { Phase::Handshake } else { Phase::Head };
        let refusing = connection.flags.refusing();
        let time = if refusing { self.refusal_time() } else { self.settings.head_timeout };
        self.set_deadline(slot, time);
    }

    /// Starts a connection that comes from the control plane; with a TLS session, it goes on.
    pub fn socket_returned(&mut self, slot: u32, session: Option<TlsSession>) {
        let connection = &mut self.connections[slot];
        connection.flags.set_sealed(session.is_some());
        connection.phase = Phase::Head;
        self.set_deadline(slot, self.settings.head_timeout);
        if let Some(session) = session {
            self.connections.sessions.insert(slot, session);
        }
    }

    /// Answers 503 to a request that could not be handed over.
    pub fn refuse_hand_over(&mut self, slot: u32) {
        self.connection_limits.release_control();
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Head;
        connection.flags.set_unwatched(false);
        let inbound = self.connections.take_inbound(slot);
        let bytes = inbound.map(|inbound| inbound.bytes).unwrap_or_default();
        self.refuse_to(slot, Status::Unavailable, Requester::of(&bytes));
    }

    /// Every slot in use.
    pub fn slots(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.connections.iter()
    }

    /// The received bytes of a connection that is handed over, its TLS session, and its permit on
    /// the control plane.
    pub fn take_for_hand_over(
        &mut self,
        slot: u32,
    ) -> (Vec<u8>, Option<SealedConnection>, ControlPermit) {
        let Inbound { bytes, sealed, .. } = self.connections.take_inbound(slot).unwrap_or_default();
        let session = self.connections.sessions.remove(slot);
        let session = session.map(|session| SealedConnection { session, unopened: sealed });
        let forwarded = self.connections[slot].flags.forwarded();
        let place = self.take_address_place(slot);
        let permit = ControlPermit::from_reserved(&self.connection_limits);
        (bytes, session, permit.with_address(place, self.noted_address(slot), forwarded))
    }

    /// Hands the connection over to the control plane, which serves the request at the start of
    /// `input` and all later ones. Without a free place there, answers 503. Returns the number of
    /// bytes that are used up.
    pub(super) fn hand_over(&mut self, slot: u32, input: &[u8]) -> Option<usize> {
        if !self.connection_limits.reserve_control() {
            self.refuse_to(slot, Status::Unavailable, Requester::of(input));
            return Some(input.len());
        }
        self.connections.wheel.clear(slot);
        self.connections[slot].phase = Phase::Leaving;
        self.ring_requests.hand_overs.push(slot);
        None
    }
}
