//! Slots: how a socket gets one, and gives it back.

use crate::base::connection_limits::ConnectionPermit;
use crate::hub::connections::{Connection, Phase, SlotState};
use crate::hub::{Hub, REFUSAL_TIME};
use crate::wire::http::{Requester, Status};

impl Hub {
    /// Reserves a slot for a socket to come; returns it with its generation, `None` where all
    /// are taken.
    pub fn reserve(&mut self) -> Option<(u32, u32)> {
        if self.connections.len() >= self.settings.slots {
            return None;
        }
        Some(self.connections.reserve())
    }

    /// Slots that are not taken.
    pub fn room(&self) -> usize {
        self.settings.slots - self.connections.len()
    }

    /// Slots of connections are below this.
    pub fn slot_end(&self) -> u32 {
        self.connections.slot_end() as u32
    }

    /// Slots that are taken, reserved ones included.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether no slot is taken.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// The connection of a slot, if this generation of it still lives.
    pub fn connection(&mut self, slot: u32, generation: u32) -> Option<&mut Connection> {
        self.connections.get_current(slot, generation)
    }

    /// The generation of a slot's present life.
    pub fn generation(&self, slot: u32) -> u32 {
        self.connections.generation(slot)
    }

    /// Gives a slot back; its next life has another generation.
    pub fn free(&mut self, slot: u32) {
        self.connections.free(slot);
    }

    /// What is kept of a slot, taken or not.
    pub fn state(&self, slot: u32) -> SlotState<'_> {
        self.connections.state(slot, &self.locals)
    }

    /// A socket has arrived in a reserved slot; its request head is awaited.
    pub fn socket_opened(&mut self, slot: u32) {
        self.connections[slot].phase = Phase::Head;
        self.set_deadline(slot, self.settings.head_timeout);
    }

    /// A socket has arrived for which there is no room: its request is read, so that the answer
    /// is not lost to a reset, and answered 503.
    pub fn socket_opened_without_room(&mut self, slot: u32) {
        self.socket_opened(slot);
        self.connections[slot].flags.set_refusing(true);
        self.set_deadline(slot, REFUSAL_TIME);
    }

    /// A request that was to be handed over cannot be: it is answered 503.
    pub fn refuse_hand_over(&mut self, slot: u32) {
        self.connection_limits.give_place_back();
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Head;
        connection.flags.set_unwatched(false);
        let inbound = self.connections.take_inbound(slot);
        let bytes = inbound.map(|inbound| inbound.bytes).unwrap_or_default();
        self.refuse_to(slot, Status::Unavailable, Requester::of(&bytes));
    }

    /// Every slot that is taken.
    pub fn slots(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.connections.iter()
    }

    /// The bytes that came so far on a connection that is handed over, and its place on the
    /// control plane.
    pub fn take_for_hand_over(&mut self, slot: u32) -> (Vec<u8>, ConnectionPermit) {
        let inbound = self.connections.take_inbound(slot);
        let bytes = inbound.map(|inbound| inbound.bytes).unwrap_or_default();
        (bytes, ConnectionPermit::of_taken(&self.connection_limits))
    }
}
