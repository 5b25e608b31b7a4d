//! Slots: how a socket gets one and frees it.

use crate::base::connection_limits::ControlPermit;
use crate::hub::connections::{Connection, Phase, SlotState};
use crate::hub::http_answers::REFUSAL_TIME;
use crate::hub::shard_state::Hub;
use crate::model::ids::Address;
use crate::wire::http::{Requester, Status};

impl Hub {
    /// Reserves a slot for a socket; returns it with its generation, `None` if all are in use.
    pub fn reserve(&mut self) -> Option<(u32, u32)> {
        if self.connections.len() >= self.settings.slots {
            return None;
        }
        Some(self.connections.reserve())
    }

    /// Number of free slots.
    pub fn room(&self) -> usize {
        self.settings.slots - self.connections.len()
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

    /// The connection of a slot, if it has this generation.
    pub fn connection(&mut self, slot: u32, generation: u32) -> Option<&mut Connection> {
        self.connections.get_current(slot, generation)
    }

    /// Current generation of a slot.
    pub fn generation(&self, slot: u32) -> u32 {
        self.connections.generation(slot)
    }

    /// Frees a slot; its next connection has another generation.
    pub fn free(&mut self, slot: u32) {
        self.connections.free(slot);
    }

    /// The state of a slot, in use or free.
    pub fn state(&self, slot: u32) -> SlotState<'_> {
        self.connections.state(slot, &self.locals)
    }

    /// Starts a connection in a reserved slot; its request head is awaited.
    pub fn socket_opened(&mut self, slot: u32) {
        self.connections[slot].phase = Phase::Head;
        self.set_deadline(slot, self.settings.head_timeout);
    }

    /// Starts a connection for which the node has no room. Its request is read and answered 503;
    /// without reading it, the close would reset the response.
    pub fn socket_opened_without_room(&mut self, slot: u32) {
        self.socket_opened(slot);
        self.connections[slot].flags.set_refusing(true);
        self.set_deadline(slot, REFUSAL_TIME);
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

    /// The received bytes of a connection that is handed over, and its permit on the control plane.
    pub fn take_for_hand_over(&mut self, slot: u32) -> (Vec<u8>, ControlPermit) {
        let inbound = self.connections.take_inbound(slot);
        let bytes = inbound.map(|inbound| inbound.bytes).unwrap_or_default();
        (bytes, ControlPermit::from_reserved(&self.connection_limits))
    }

    /// The address of a connection.
    pub(super) fn address(&self, slot: u32) -> Address {
        let generation = self.connections[slot].generation;
        Address { shard: self.shard, slot, generation }
    }

    /// The id of a client.
    pub(super) fn client_id(&self, slot: u32) -> String {
        self.ids.client(self.address(slot))
    }
}
