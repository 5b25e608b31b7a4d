//! Output of a connection, wherever it is buffered at the moment, and the ways to end a connection.

use crate::base::work_budget::cost;
use crate::hub::connections::{Connection, NONE, Phase};
use crate::hub::shard_state::Hub;
use crate::wire::frame;
use crate::wire::framing::Framing;
use crate::wire::protocol::reply::{Push, Reply};
use crate::wire::protocol::{self, Disconnect, Error};

/// Maximum capacity of a buffer that is kept for later messages.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Maximum bytes of framing around a message on any transport.
const FRAMING_BYTES: usize = 32;

/// Keeps a buffer for the next message, unless it is large.
pub(super) fn keep_buffer(scratch: &mut Vec<u8>, used: Vec<u8>) {
    if used.capacity() <= SCRATCH_BYTES {
        *scratch = used;
    }
}

impl Hub {
    /// Appends whole messages to the hold, the outbox or the turn output of a connection.
    pub(super) fn write(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(hold) = self.connections.hold_mut(slot) {
            write(&mut hold.output);
        } else if self.connections[slot].outbox == NONE {
            self.turn.write_private(&mut self.connections[slot].turn, slot, write);
        } else {
            let mut frames = std::mem::take(&mut self.frames);
            frames.clear();
            write(&mut frames);
            self.append_outbox(slot, &frames);
            keep_buffer(&mut self.frames, frames);
        }
    }

    /// Appends a message, unless it has more than `most` bytes; returns whether it was appended.
    /// Charges its bytes.
    fn write_message(&mut self, slot: u32, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Connection { wire, transport, .. } = self.connections[slot];
        let mut bytes = 0;
        self.write(slot, |out| {
            let start = out.len();
            Framing::of(transport).write_with(wire, out, write);
            bytes = out.len() - start;
            out.truncate(if bytes <= most { out.len() } else { start });
        });
        self.budget.charge(bytes * cost::BYTES);
        bytes <= most
    }

    /// Appends a reply.
    pub(super) fn reply(&mut self, slot: u32, command: u32, reply: &Reply<'_>) {
        let wire = self.connections[slot].wire;
        let write = |out: &mut Vec<u8>| protocol::write_reply(wire, command, reply, out);
        self.write_message(slot, usize::MAX, write);
    }

    /// Maximum bytes of an answer: the outbox of the connection must have room for it after all
    /// unsent bytes.
    pub(super) fn room_for_answer(&self, slot: u32) -> usize {
        let unsent = match self.connections.outbox(slot) {
            Some(outbox) => outbox.unsent().len(),
            None => self.turn.bytes_of(self.connections[slot].turn, &self.locals),
        };
        let held = self.connections.hold(slot).map_or(0, |hold| hold.output.len());
        self.settings.outbox_bytes.saturating_sub(unsent + held + FRAMING_BYTES)
    }

    /// Appends a reply, or error 106 if the outbox has no room for it.
    pub(super) fn reply_if_it_fits(&mut self, slot: u32, command: u32, reply: &Reply<'_>) {
        let (wire, room) = (self.connections[slot].wire, self.room_for_answer(slot));
        let write = |out: &mut Vec<u8>| protocol::write_reply(wire, command, reply, out);
        if !self.write_message(slot, room, write) {
            self.reply_error(slot, command, Error::LIMIT_EXCEEDED);
        }
    }

    /// Appends a push.
    pub(super) fn push(&mut self, slot: u32, push: &Push<'_>) {
        let Connection { wire, transport, .. } = self.connections[slot];
        let alone = transport.is_unidirectional();
        let write = |out: &mut Vec<u8>| protocol::write_push(wire, alone, push, out);
        self.write_message(slot, usize::MAX, write);
    }

    /// Appends an encoded reply or push.
    pub(super) fn write_body(&mut self, slot: u32, body: &[u8]) {
        let Connection { wire, transport, .. } = self.connections[slot];
        self.budget.charge(body.len() * cost::BYTES);
        self.write(slot, |out| Framing::of(transport).write(wire, body, out));
    }

    /// Like [`Hub::write_body`], followed by the id line of an event if there is one.
    pub(super) fn write_event(&mut self, slot: u32, body: &[u8], id: &[u8]) {
        if id.is_empty() {
            return self.write_body(slot, body);
        }
        let Connection { wire, transport, .. } = self.connections[slot];
        self.write(slot, |out| {
            Framing::of(transport).open(wire, body.len(), out);
            [body, b"\n", id, b"\n"].iter().for_each(|part| out.extend_from_slice(part));
        });
    }

    pub(super) fn append_outbox(&mut self, slot: u32, frames: &[u8]) {
        let at = self.connections[slot].outbox;
        let copied = self.connections.outboxes.change(at, |outbox| outbox.append(frames));
        self.budget.charge(copied.unwrap_or(0));
        if self.connections.outboxes.unsent(at) > self.settings.outbox_bytes {
            self.close_slow(slot);
        } else {
            self.close_largest_outbox();
        }
    }

    /// Closes a slow consumer: the message that was begun is finished, the rest is dropped.
    pub(super) fn close_slow(&mut self, slot: u32) {
        if !self.connections[slot].takes_output() {
            return;
        }
        if self.connections[slot].is_plain_http() {
            return self.end(slot);
        }
        let last = self.closing_message(slot, Disconnect::SLOW);
        let at = self.connections[slot].outbox;
        self.connections.outboxes.change(at, |outbox| outbox.overflow(&last));
        self.metrics.slow.add(1);
        let Disconnect { code, reason } = Disconnect::SLOW;
        self.end_session(slot, code, reason);
        self.begin_closing(slot);
    }

    /// The last message of a connection: a close frame, or a disconnect push if the transport has
    /// no close frames.
    fn closing_message(&self, slot: u32, disconnect: Disconnect) -> Vec<u8> {
        let Connection { wire, transport, .. } = self.connections[slot];
        let Disconnect { code, reason } = disconnect;
        let mut message = Vec::new();
        if transport.is_websocket() {
            frame::write_close(Some(code), reason, &mut message);
            return message;
        }
        let (push, mut body) = (Push::Disconnect { code, reason }, Vec::new());
        protocol::write_push(wire, transport.is_unidirectional(), &push, &mut body);
        Framing::of(transport).write(wire, &body, &mut message);
        message
    }

    /// Closes a connection with a code.
    pub fn disconnect(&mut self, slot: u32, disconnect: Disconnect) {
        let connection = &self.connections[slot];
        if !connection.takes_output() {
            return;
        }
        if connection.is_plain_http() {
            return self.end(slot);
        }
        let Disconnect { code, reason } = disconnect;
        self.disconnect_with(slot, code, reason);
    }

    /// Closes a connection with a code and reason that the backend may have chosen.
    pub(super) fn disconnect_with(&mut self, slot: u32, code: u16, reason: &str) {
        let transport = self.connections[slot].transport;
        self.drop_hold(slot);
        self.end_session(slot, code, reason);
        if code == Disconnect::CONNECTION_CLOSED.code {
            // This code means that the transport ended: as in Centrifugo, nothing is sent.
            self.metrics.disconnects.add(1);
            self.begin_closing(slot);
            return self.end_when_flushed(slot);
        }
        if transport.is_unidirectional() || !transport.is_websocket() {
            self.push(slot, &Push::Disconnect { code, reason });
        }
        if transport.is_websocket() {
            return self.write_close(slot, Some(code), reason);
        }
        self.metrics.disconnects.add(1);
        if self.connections[slot].takes_output() {
            self.begin_closing(slot);
        }
    }

    pub(super) fn write_close(&mut self, slot: u32, code: Option<u16>, reason: &str) {
        self.drop_hold(slot);
        self.write(slot, |out| frame::write_close(code, reason, out));
        self.metrics.disconnects.add(1);
        if self.connections[slot].takes_output() {
            self.begin_closing(slot);
        }
    }

    /// Drops the hold of a connection with its output.
    pub(super) fn drop_hold(&mut self, slot: u32) {
        self.connections.take_hold(slot);
    }

    /// Charges the cost of ending a connection, which leaves every channel.
    fn charge_close(&mut self, slot: u32) {
        let subscribed = usize::from(self.connections[slot].subscribed);
        self.budget.charge(cost::CLOSE + subscribed * cost::JOIN);
    }

    pub(super) fn begin_closing(&mut self, slot: u32) {
        self.charge_close(slot);
        self.drop_hold(slot);
        let Disconnect { code, reason } = Disconnect::CONNECTION_CLOSED;
        self.end_session(slot, code, reason);
        self.forget_user(slot);
        self.forget_answer(slot);
        let at = self.connections[slot].inbound;
        if let Some(inbound) = self.connections.unread.get_mut(at) {
            // A partial frame is kept, because the close frame of the peer comes after it.
            inbound.commands = Vec::new();
            self.connections.unread.settle(at, true);
        }
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closing;
        connection.flags.set_paused(false);
        // Emulation transports have no close frame of the peer to wait for.
        let ends = !connection.transport.is_websocket() || connection.flags.end_when_flushed();
        connection.flags.set_end_when_flushed(ends);
        if connection.flags.readable() {
            self.ring_requests.reads.push(slot);
        }
        self.set_deadline(slot, self.settings.close_timeout);
    }

    /// Ends a connection without further output: its socket is shut down.
    pub fn end(&mut self, slot: u32) {
        if matches!(self.connections[slot].phase, Phase::Ending | Phase::Leaving) {
            return;
        }
        self.charge_close(slot);
        self.drop_hold(slot);
        let Disconnect { code, reason } = Disconnect::CONNECTION_CLOSED;
        self.end_session(slot, code, reason);
        self.forget_user(slot);
        self.connections.empty(slot);
        self.connections[slot].phase = Phase::Ending;
        self.ring_requests.ends.push(slot);
    }

    /// Ends a connection as soon as its output is sent.
    pub(super) fn end_when_flushed(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        connection.flags.set_end_when_flushed(true);
        if connection.turn == NONE && connection.outbox == NONE {
            self.end(slot);
        }
    }

    /// Handles the end of input of the peer. An HTTP caller may still wait for its response.
    pub fn peer_ended(&mut self, slot: u32) {
        let connection = &self.connections[slot];
        // A peer that has sent its whole request still gets the response.
        if connection.phase == Phase::KeptAlive || connection.flags.lingering() {
            self.end_when_flushed(slot);
        } else {
            self.connection_lost(slot);
        }
    }

    /// Handles the loss of a connection without a close.
    pub fn connection_lost(&mut self, slot: u32) {
        let connection = &self.connections[slot];
        if connection.takes_output() && connection.phase != Phase::KeptAlive {
            self.metrics.lost.add(1);
        }
        self.end(slot);
    }

    /// Removes a client from the counts of connected clients.
    pub(super) fn count_disconnect(&mut self, slot: u32) {
        self.connections[slot].flags.set_counted(false);
        self.connection_limits.client_disconnected();
        self.metrics.clients.subtract(1);
    }

    pub(super) fn reply_error(&mut self, slot: u32, command: u32, error: Error) {
        self.metrics.errors.add(1);
        self.reply(slot, command, &Reply::Error(error));
    }
}
