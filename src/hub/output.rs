//! Output of a connection, wherever it is buffered at the moment, and closes that send a reason.

use crate::base::metrics::FrameType;
use crate::base::work_budget::cost;
use crate::hub::connections::{Connection, NONE};
use crate::hub::shard_state::Hub;
use crate::wire::frame;
use crate::wire::framing::Framing;
use crate::wire::http::Transport;
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

    /// Whether messages of the connection that are sent together share a frame.
    pub(super) fn joins_messages(&self, slot: u32) -> bool {
        let connection = self.connections.get(slot);
        self.settings.joins_uni_messages
            && connection.is_some_and(|found| found.transport == Transport::UniWebSocket)
    }

    /// Takes the buffer that the next output of a connection without a hold is appended to, with
    /// the offset of that output. [`Hub::end_output`] must follow before any other output.
    pub(super) fn begin_output(&mut self, slot: u32) -> (Vec<u8>, usize) {
        if self.connections[slot].outbox == NONE {
            let bytes = self.turn.take_private();
            let start = bytes.len();
            return (bytes, start);
        }
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        (frames, 0)
    }

    /// Returns the buffer of [`Hub::begin_output`]. Whole messages follow `start`, or nothing.
    pub(super) fn end_output(&mut self, slot: u32, bytes: Vec<u8>, start: usize) {
        let connection = &mut self.connections[slot];
        if connection.outbox == NONE {
            return self.turn.return_private(&mut connection.turn, slot, bytes, start);
        }
        if !bytes.is_empty() {
            self.append_outbox(slot, &bytes);
        }
        keep_buffer(&mut self.frames, bytes);
    }

    /// Appends a message, unless it has more than `most` bytes; returns whether it was appended.
    /// Charges its bytes, and counts it as a message of this type.
    fn write_message(
        &mut self,
        slot: u32,
        most: usize,
        frame_type: FrameType,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let Connection { wire, transport, .. } = self.connections[slot];
        let mut bytes = 0;
        self.write(slot, |out| {
            let start = out.len();
            Framing::of(transport).write_with(wire, out, write);
            bytes = out.len() - start;
            out.truncate(if bytes <= most { out.len() } else { start });
        });
        self.budget.charge(bytes * cost::BYTES);
        let fits = bytes <= most;
        if fits {
            self.count_sent(slot, frame_type, bytes);
        }
        fits
    }

    /// Appends a reply of at most `most` bytes to the command that is being answered; returns
    /// whether it was appended.
    fn write_reply(&mut self, slot: u32, most: usize, command: u32, reply: &Reply<'_>) -> bool {
        let wire = self.connections[slot].wire;
        let (frame_type, began) = self.answering;
        let write = |out: &mut Vec<u8>| protocol::write_reply(wire, command, reply, out);
        let written = self.write_message(slot, most, frame_type, write);
        if written {
            self.command_answered(frame_type, began);
        }
        written
    }

    /// Appends a reply.
    pub(super) fn reply(&mut self, slot: u32, command: u32, reply: &Reply<'_>) {
        self.write_reply(slot, usize::MAX, command, reply);
    }

    /// Maximum bytes of an answer: the outbox of the connection must have room for it after all
    /// unsent bytes.
    pub(super) fn room_for_answer(&self, slot: u32) -> usize {
        let unsent = match self.connections.outbox(slot) {
            Some(outbox) => outbox.unsent_bytes(),
            None => self.turn.bytes_of(self.connections[slot].turn, &self.locals),
        };
        let held = self.connections.hold(slot).map_or(0, |hold| hold.output.len());
        self.settings.outbox_bytes.saturating_sub(unsent + held + FRAMING_BYTES)
    }

    /// Appends a reply, or error 106 if the outbox has no room for it.
    pub(super) fn reply_if_it_fits(&mut self, slot: u32, command: u32, reply: &Reply<'_>) {
        let room = self.room_for_answer(slot);
        if !self.write_reply(slot, room, command, reply) {
            self.reply_error(slot, command, Error::LIMIT_EXCEEDED);
        }
    }

    /// Appends a push.
    pub(super) fn push(&mut self, slot: u32, push: &Push<'_>) {
        let Connection { wire, transport, .. } = self.connections[slot];
        let alone = transport.is_unidirectional();
        let write = |out: &mut Vec<u8>| protocol::write_push(wire, alone, push, out);
        let frame_type = match push {
            Push::Connect(_) => FrameType::PushConnect,
            Push::Subscribe { .. } => FrameType::PushSubscribe,
            Push::Unsubscribe { .. } => FrameType::PushUnsubscribe,
            Push::Disconnect { .. } => FrameType::PushDisconnect,
            Push::Refresh(_) => FrameType::PushRefresh,
        };
        self.write_message(slot, usize::MAX, frame_type, write);
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
        self.metrics.by.disconnects.add(code.into());
        if !self.connections[slot].flags.counted() {
            self.log_disconnect(slot, code, reason);
        }
        self.end_session(slot, code, reason);
        if self.write_refusal(slot, code.into(), reason) {
            self.metrics.disconnects.add(1);
            return self.begin_closing(slot);
        }
        if code == Disconnect::CONNECTION_CLOSED.code {
            // This code means that the transport ended: as in Centrifugo, nothing is sent.
            self.metrics.disconnects.add(1);
            self.begin_closing(slot);
            return self.end_when_flushed(slot);
        }
        let pushes = transport.is_unidirectional() && self.settings.uni_websocket_disconnect_push;
        if pushes || !transport.is_websocket() {
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

    /// Refuses a connect with an HTTP response, if its transport does, and ends the connection.
    /// Returns whether it did.
    pub(super) fn refuse_connect(&mut self, slot: u32, code: u32, message: &str) -> bool {
        let written = self.write_refusal(slot, code, message);
        if written {
            self.count_error(code);
            self.begin_closing(slot);
        }
        written
    }

    pub(super) fn write_close(&mut self, slot: u32, code: Option<u16>, reason: &str) {
        self.drop_hold(slot);
        self.write(slot, |out| frame::write_close(code, reason, out));
        self.metrics.disconnects.add(1);
        // Without a code it answers the close frame of the client.
        if let Some(code) = code {
            self.count_close(slot, code);
        }
        if self.connections[slot].takes_output() {
            self.begin_closing(slot);
        }
    }

    pub(super) fn reply_error(&mut self, slot: u32, command: u32, error: Error) {
        self.count_error(error.code);
        self.reply(slot, command, &Reply::Error(error));
    }
}
