//! What a connection is sent, wherever its output is at the moment, and how it ends.

use crate::base::budget::cost;
use crate::hub::Hub;
use crate::hub::connections::{Connection, NONE, Phase};
use crate::wire::frame;
use crate::wire::framing::Framing;
use crate::wire::protocol::reply::{Push, Reply};
use crate::wire::protocol::{self, Disconnect, Error};

/// Bytes that memory kept for writing messages has at most.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Bytes around one message on any transport, at most.
const FRAMING_BYTES: usize = 32;

/// Keeps memory for the next message, unless it is much.
pub(super) fn keep_buffer(scratch: &mut Vec<u8>, used: Vec<u8>) {
    if used.capacity() <= SCRATCH_BYTES {
        *scratch = used;
    }
}

impl Hub {
    /// Adds whole messages to a connection's output, wherever that is at the moment.
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

    /// Adds a message to a connection's output, unless it is longer than `most` bytes; returns
    /// whether it was added. Charges what it writes.
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

    /// Adds a reply to a connection's output.
    pub(super) fn reply(&mut self, slot: u32, command: u32, reply: &Reply<'_>) {
        let wire = self.connections[slot].wire;
        let write = |out: &mut Vec<u8>| protocol::write_reply(wire, command, reply, out);
        self.write_message(slot, usize::MAX, write);
    }

    /// Bytes that an answer to a connection may have: its outbox must be able to hold the answer
    /// behind everything that is not sent yet.
    pub(super) fn room_for_answer(&self, slot: u32) -> usize {
        let unsent = match self.connections.outbox(slot) {
            Some(outbox) => outbox.unsent().len(),
            None => self.turn.bytes_of(self.connections[slot].turn, &self.locals),
        };
        let held = self.connections.hold(slot).map_or(0, |hold| hold.output.len());
        self.settings.outbox_bytes.saturating_sub(unsent + held + FRAMING_BYTES)
    }

    /// Adds a reply to a connection's output; error 106 if the reply does not fit its outbox.
    pub(super) fn reply_if_it_fits(&mut self, slot: u32, command: u32, reply: &Reply<'_>) {
        let (wire, room) = (self.connections[slot].wire, self.room_for_answer(slot));
        let write = |out: &mut Vec<u8>| protocol::write_reply(wire, command, reply, out);
        if !self.write_message(slot, room, write) {
            self.reply_error(slot, command, Error::LIMIT_EXCEEDED);
        }
    }

    /// Adds a push to a connection's output.
    pub(super) fn push(&mut self, slot: u32, push: &Push<'_>) {
        let Connection { wire, transport, .. } = self.connections[slot];
        let alone = transport.is_unidirectional();
        let write = |out: &mut Vec<u8>| protocol::write_push(wire, alone, push, out);
        self.write_message(slot, usize::MAX, write);
    }

    /// Adds what a reply or push was written as to a connection's output.
    pub(super) fn write_body(&mut self, slot: u32, body: &[u8]) {
        let Connection { wire, transport, .. } = self.connections[slot];
        self.budget.charge(body.len() * cost::BYTES);
        self.write(slot, |out| Framing::of(transport).write(wire, body, out));
    }

    /// The same with the line of an event's id behind it, where there is one.
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

    /// Ends a connection that is too far behind: what was begun is finished, the rest dropped.
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

    /// What tells a client that there will be no more: a close frame, or a push where the
    /// transport has none.
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

    /// Closes a connection with a code of somebody else's choice.
    pub(super) fn disconnect_with(&mut self, slot: u32, code: u16, reason: &str) {
        let transport = self.connections[slot].transport;
        self.drop_hold(slot);
        self.end_session(slot, code, reason);
        if code == Disconnect::CONNECTION_CLOSED.code {
            // Its meaning is a transport that ended: nothing is said, as by Centrifugo.
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

    /// What was held back goes out, or is dropped if the connect was never answered.
    pub(super) fn drop_hold(&mut self, slot: u32) {
        self.connections.take_hold(slot);
    }

    /// What the end of a connection costs: it leaves every channel.
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
            // A frame that is half there stays, or the peer's close frame could not be told.
            inbound.commands = Vec::new();
            self.connections.unread.settle(at, true);
        }
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closing;
        connection.flags.set_paused(false);
        // A stream has said its last word; its peer has none.
        let ends = !connection.transport.is_websocket() || connection.flags.end_when_flushed();
        connection.flags.set_end_when_flushed(ends);
        if connection.flags.readable() {
            self.ring_requests.reads.push(slot);
        }
        self.set_deadline(slot, self.settings.close_timeout);
    }

    /// The peer is gone, or has had its time: no more output, the socket is taken down.
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

    /// Ends a connection as soon as nothing is left to be sent on it.
    pub(super) fn end_when_flushed(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        connection.flags.set_end_when_flushed(true);
        if connection.turn == NONE && connection.outbox == NONE {
            self.end(slot);
        }
    }

    /// The peer sends nothing more. One that called the API may still be waiting for its answer.
    pub fn peer_ended(&mut self, slot: u32) {
        let connection = &self.connections[slot];
        // A peer that has said all it had to say still gets its answer.
        if connection.phase == Phase::KeptAlive || connection.flags.lingering() {
            self.end_when_flushed(slot);
        } else {
            self.connection_lost(slot);
        }
    }

    /// The peer went away without closing.
    pub fn connection_lost(&mut self, slot: u32) {
        let connection = &self.connections[slot];
        if connection.takes_output() && connection.phase != Phase::KeptAlive {
            self.metrics.lost.add(1);
        }
        self.end(slot);
    }

    /// A client is connected no more.
    pub(super) fn count_disconnect(&mut self, slot: u32) {
        self.connections[slot].flags.set_counted(false);
        self.connection_limits.leave();
        self.metrics.clients.subtract(1);
    }
}
