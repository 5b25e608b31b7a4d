//! The end of a connection: what it held is released, and hooks and homes are informed.

use crate::base::counter::Counter;
use crate::base::memory::ShardToFree;
use crate::base::metrics::{Action, ClientCounters, Labelled, TRANSPORTS};
use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::work_budget::cost;
use crate::hub::connections::{Connection, NONE, Phase};
use crate::hub::hook_events::UnsubscribeReason;
use crate::hub::shard_state::Hub;
use crate::model::backend::ProxyEvent;
use crate::model::message::Depart;
use crate::wire::frame;
use crate::wire::framing::Framing;
use crate::wire::protocol::reply::Push;
use crate::wire::protocol::{self, Disconnect};

/// The connection ended.
const CLIENT_DISCONNECTED: UnsubscribeReason<'_> = (1, "client disconnected");

impl Hub {
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
        self.metrics.by.disconnects.add(code.into());
        if self.connections[slot].transport.is_websocket() {
            self.count_close(slot, code);
        }
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

    /// Counts a handshake that ends without a session.
    fn give_up_handshake(&self, slot: u32) {
        if self.connections[slot].phase == Phase::Handshake {
            self.metrics.tls_handshakes_failed.add(1);
            self.metrics.tls_handshakes_open.subtract(1);
        }
    }

    pub(super) fn begin_closing(&mut self, slot: u32) {
        self.give_up_handshake(slot);
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
        self.give_up_handshake(slot);
        self.charge_close(slot);
        self.drop_hold(slot);
        let Disconnect { code, reason } = Disconnect::CONNECTION_CLOSED;
        self.end_session(slot, code, reason);
        self.forget_user(slot);
        self.connections.empty(slot);
        self.connections[slot].phase = Phase::Ending;
        self.ring_requests.ends.push(slot);
    }

    /// Whether a connection with TLS that ends still owes its peer the alert that says so.
    pub(super) fn owes_alert(&self, slot: u32) -> bool {
        let flags = self.connections[slot].flags;
        let ends = flags.end_when_flushed() && !flags.alert_sealed();
        let forgotten = planted(PlantedFault::ClosingAlertForgotten);
        ends && !forgotten && self.connections.sessions.get(slot).is_some()
    }

    /// Ends a connection as soon as its output is sent.
    pub(super) fn end_when_flushed(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        connection.flags.set_end_when_flushed(true);
        if connection.turn == NONE && connection.outbox == NONE {
            if !self.owes_alert(slot) {
                return self.end(slot);
            }
            // The alert that ends the connection is its last output.
            self.turn.add_empty(&mut self.connections[slot].turn, slot);
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

    /// Drops the hold of a connection with its output.
    pub(super) fn drop_hold(&mut self, slot: u32) {
        self.connections.take_hold(slot);
    }

    /// Charges the cost of ending a connection, which leaves every channel.
    fn charge_close(&mut self, slot: u32) {
        let subscribed = usize::from(self.connections[slot].subscribed);
        self.budget.charge(cost::CLOSE + subscribed * cost::JOIN);
    }

    /// Removes a client from the counts of connected clients.
    pub(super) fn count_disconnect(&mut self, slot: u32) {
        self.connections[slot].flags.set_counted(false);
        self.metrics.by.actions[Action::RemoveClient as usize].add(1);
        self.clients_of(slot, |by| &by.connections_inflight).subtract(1);
        self.connection_limits.client_disconnected();
        self.metrics.clients.subtract(1);
    }

    /// The counter of the clients that are like the one of this connection.
    pub(super) fn clients_of(
        &self,
        slot: u32,
        of: fn(&Labelled) -> &[ClientCounters; TRANSPORTS],
    ) -> &Counter {
        let Connection { transport, wire, flags, .. } = &self.connections[slot];
        let (wire, named) = (*wire as usize, usize::from(flags.named()));
        let versioned = usize::from(flags.versioned());
        &of(&self.metrics.by)[*transport as usize][wire][named][versioned]
    }

    /// Ends the session of a connection: it leaves its channels and is no longer counted, and the
    /// disconnect hook is queued. A second call has no effect.
    pub(super) fn end_session(&mut self, slot: u32, code: u16, reason: &str) {
        while self.connections[slot].subscriptions != NONE {
            self.leave(slot, self.connections[slot].subscriptions, CLIENT_DISCONNECTED);
        }
        if self.connections[slot].flags.counted() {
            if let Some(upstream) = self.settings.proxies.disconnect_hook {
                self.queue_hook(
                    slot,
                    upstream,
                    ProxyEvent::Disconnect { code, reason: reason.into() },
                );
            }
            self.count_disconnect(slot);
            self.log_disconnect(slot, code, reason);
        }
        if !self.connections.context.is_empty() {
            self.connections.context.remove(&slot);
        }
    }

    /// Removes the identity of a connection and queues its departure.
    pub(super) fn forget_user(&mut self, slot: u32) {
        if let Some(user) = self.connections.forget_user(slot) {
            self.queue_departure(slot, user);
        }
    }

    /// Queues the departure of a connection for the home of its user.
    pub(super) fn queue_departure(&mut self, slot: u32, user: u64) {
        let address = self.address(slot);
        let flags = &mut self.connections[slot].flags;
        if flags.admitted() {
            flags.set_admitted(false);
            self.departures.push_back(Depart { user, address });
            self.queued_since_send = true;
        }
    }

    /// Closes the connection with the largest outbox if the budget demands it from this shard.
    pub(super) fn close_largest_outbox(&mut self) -> bool {
        let here = self.connections.outboxes.usage().shard_to_free() == ShardToFree::This;
        let Some(slot) = here.then(|| self.connections.outboxes.largest()).flatten() else {
            return false;
        };
        let connection = &mut self.connections[slot];
        match connection.phase {
            Phase::Ending | Phase::Leaving => self.connections.drop_outbox(slot),
            _ if connection.takes_output() => self.close_slow(slot),
            // It is closing already, and does not take its output.
            _ => {
                connection.flags.set_reset(true);
                self.end(slot);
            }
        }
        true
    }
}
