//! Sends of a turn: the laps of channels, and outboxes.
//!
//! A connection has at most one send per turn: either its turn output, or the front of its outbox,
//! as far as the budget allows.

use crate::base::work_budget::{Stage, cost};
use crate::hub::connections::{Connection, NONE, Outbox, Phase};
use crate::hub::output::keep_buffer;
use crate::hub::shard_state::Hub;
use crate::hub::turn_output::{OutboxFlush, OutputEntry, SealedBytes, Segments};
use crate::local::Delivery;
use crate::wire::framing::Framing;

/// Maximum bytes of the fan-out per turn.
const FANOUT_BYTES: usize = 4 << 20;
/// Members of a group that are walked before the next group.
const FANOUT_QUANTUM: usize = 64;
/// Maximum bytes of an outbox per send.
const FLUSH_BYTES: usize = 256 * 1024;
/// Minimum bytes of an outbox per send, if it has as many.
const FLUSH_MIN: usize = 16 * 1024;

/// Maximum sends of the fan-out per turn: about a millisecond.
pub const FANOUT_SENDS: usize = 128;

impl Hub {
    /// Sends laps to their next members, up to the limit of a turn.
    pub fn fan_out(&mut self) {
        let _ = self.fan_out_up_to(FANOUT_SENDS);
    }

    /// Sends laps to at most `sends` of their next members, and chooses sends from outboxes;
    /// returns the number of members.
    #[inline]
    pub fn fan_out_up_to(&mut self, sends: usize) -> usize {
        let opens = self.locals.backlog() > self.settings.backlog_bytes;
        let walks = opens || self.locals.has_unsent() || !self.to_flush.is_empty();
        let given = if walks { self.walk_laps(opens, sends) } else { 0 };
        if self.settings.joins_uni_messages {
            self.join_messages();
        }
        given
    }

    /// Joins the messages that unidirectional WebSocket clients get in this turn.
    #[inline(never)]
    fn join_messages(&mut self) {
        for at in 0..self.turn.entries().len() {
            if self.joins_messages(self.turn.entries()[at].slot) {
                let copied = self.turn.join_messages(at, &self.locals);
                self.budget.charge(copied * cost::BYTES);
            }
        }
    }

    #[inline(never)]
    fn walk_laps(&mut self, opens: bool, sends: usize) -> usize {
        if opens {
            self.locals.flush_windows();
        }
        let mut deliveries = std::mem::take(&mut self.deliveries);
        let mut bytes = 0;
        let (mut given, mut publications) = (0, 0);
        while self.locals.has_unsent()
            && given < sends
            && self.turn.entries().len() < 2 * FANOUT_SENDS
            && bytes < FANOUT_BYTES
        {
            let quantum = FANOUT_QUANTUM.min(sends - given);
            let over = self.locals.step_lap(self.stamp(), quantum, &mut deliveries);
            given += deliveries.len().max(1);
            let (lap, mut direct) = (deliveries.first().map(|delivery| delivery.lap), 0);
            for delivery in deliveries.drain(..) {
                bytes += (delivery.end - delivery.start) as usize;
                publications += u64::from(delivery.publications);
                direct += u64::from(self.deliver(&delivery));
            }
            if let Some(shape) = lap.and_then(|lap| self.locals.lap_shape(lap)) {
                self.tally.end_step(shape, direct);
            }
            if let Some(began) = over {
                self.tally.end_lap(began);
            }
        }
        self.deliveries = deliveries;
        self.metrics.deliveries.add(publications);
        self.choose_flushes();
        given
    }

    /// Gives a member its range of a lap. Returns whether it is sent in this turn.
    fn deliver(&mut self, delivery: &Delivery) -> bool {
        let slot = delivery.slot;
        self.end_long_poll(slot);
        let connection = &mut self.connections[slot];
        self.tally.add_member(connection);
        let direct = connection.outbox == NONE && connection.hold == NONE;
        if direct {
            self.turn.push_delivery(&mut connection.turn, delivery, &self.locals);
        } else if connection.takes_output() {
            // A connection that was closed earlier in this step is skipped.
            let range = delivery.start as usize..delivery.end as usize;
            let mut frames = std::mem::take(&mut self.frames);
            frames.clear();
            frames.extend_from_slice(&self.locals.lap(delivery.lap)[range]);
            self.write_publications(slot, &frames);
            keep_buffer(&mut self.frames, frames);
        }
        if delivery.needs_event_id {
            self.write_event_id(slot, self.locals.lap_position(delivery.lap));
        }
        direct
    }

    /// Whether the turn has anything to send.
    pub fn has_output(&self) -> bool {
        !self.turn.entries().is_empty() || !self.flushes.is_empty()
    }

    /// Calls `send` once per slot that the turn sends to, with its generation and its bytes.
    pub fn for_each_send<'a>(&'a self, mut send: impl FnMut(u32, u32, Segments<'a>)) {
        for entry in self.turn.entries() {
            let Some(connection) = self.connections.get(entry.slot) else { continue };
            let segments = match connection.flags.sealed() {
                true => Segments::Whole(self.turn.sealed(entry.sealed)),
                false => Segments::Turn(self.turn.segments(entry, &self.locals)),
            };
            send(connection.generation, entry.slot, segments);
        }
        for flush in &self.flushes {
            let Some(connection) = self.connections.get(flush.slot) else { continue };
            // The connection may have ended, or its outbox may have been truncated.
            let Some(outbox) = self.connections.outboxes.get(connection.outbox) else { continue };
            let front = |bytes: &'a [u8]| &bytes[..flush.bytes.min(bytes.len())];
            let bytes = match connection.flags.sealed() {
                true if !outbox.sealed().is_empty() => front(outbox.sealed()),
                true => self.turn.sealed(flush.sealed),
                false => front(outbox.unsent()),
            };
            send(connection.generation, flush.slot, Segments::Whole(bytes));
        }
    }

    /// Handles a short or failed send: the socket took `taken` bytes; `None`: it is broken. A send
    /// to an earlier connection of the slot is ignored.
    pub fn send_fell_short(&mut self, slot: u32, generation: u32, taken: Option<usize>) {
        let Some(connection) = self.connection(slot, generation) else { return };
        let turn = connection.turn as usize;
        match taken {
            Some(sent) if connection.outbox != NONE => self.flush_fell_short(slot, sent),
            Some(sent) if turn < self.turn.entries().len() => self.fell_behind(slot, turn, sent),
            // Not a send of this turn: bytes of an earlier one are missing.
            _ => self.connection_lost(slot),
        }
    }

    fn flush_fell_short(&mut self, slot: u32, sent: usize) {
        let flush = self.flushes.iter_mut().find(|flush| flush.slot == slot);
        let (Some(_), Some(flush)) = (self.connections.outbox(slot), flush) else {
            return self.connection_lost(slot);
        };
        flush.short = true;
        let (sealed, plain) = (flush.sealed, flush.bytes);
        let at = self.connections[slot].outbox;
        if !self.advance_sealed(slot, sent) {
            let (sent, rest) = self.begun(slot, sealed, plain, sent);
            self.connections.outboxes.change(at, |outbox| {
                outbox.advance(sent);
                outbox.append_sealed(&rest);
            });
        }
        self.metrics.short_sends.add(1);
        self.ring_requests.writable.push(slot);
    }

    fn fell_behind(&mut self, slot: u32, turn: usize, sent: usize) {
        self.metrics.short_sends.add(1);
        let entry: OutputEntry = self.turn.entries()[turn];
        let plain = self.turn.bytes_of(turn as u32, &self.locals);
        let (sent, rest) = self.begun(slot, entry.sealed, plain, sent);
        let segments = self.turn.segments(&entry, &self.locals);
        let Connection { transport, wire, .. } = self.connections[slot];
        let framed = (Framing::of(transport), wire);
        let mut outbox = Outbox::new(segments, framed, entry.preface as usize, sent);
        outbox.append_sealed(&rest);
        if self.joins_messages(slot) {
            outbox.join_messages();
        }
        self.connections.keep_outbox(slot, outbox);
        self.ring_requests.writable.push(slot);
    }

    /// Notes that a slot is writable.
    pub fn writable(&mut self, slot: u32) {
        if self.connections.outbox(slot).is_some() {
            self.to_flush.push_back(slot);
        }
    }

    /// Chooses the outboxes to send from in this turn, and how much, within the budget.
    pub fn choose_flushes(&mut self) {
        self.budget.begin(Stage::Sends);
        for _ in 0..self.to_flush.len() {
            if self.is_spent() {
                return;
            }
            let Some(slot) = self.to_flush.pop_front() else { return };
            let Some(connection) = self.connections.get(slot) else { continue };
            let Some(outbox) = self.connections.outboxes.get(connection.outbox) else { continue };
            if self.flushes.iter().any(|flush| flush.slot == slot) {
                continue;
            }
            let most = (self.budget.left() / cost::BYTES).clamp(FLUSH_MIN, FLUSH_BYTES);
            let bytes = match outbox.sealed().len() {
                0 => outbox.unsent().len().min(most),
                sealed => sealed.min(most),
            };
            self.budget.charge(cost::CONNECTION + bytes * cost::BYTES);
            let sealed = SealedBytes::default();
            self.flushes.push(OutboxFlush { slot, bytes, sealed, short: false });
        }
    }

    /// Ends the turn after all sends, including short ones, were handled.
    pub fn end_turn(&mut self) {
        // Sent bytes are removed first, before an outbox can be truncated.
        for flush in std::mem::take(&mut self.flushes) {
            if !flush.short {
                self.flushed(flush.slot, flush.bytes);
            }
            // A connection that never catches up has no entry below.
            if self.connections.outbox(flush.slot).is_some() {
                self.renew_old_keys(flush.slot);
            }
        }
        for at in 0..self.turn.entries().len() {
            let slot = self.turn.entries()[at].slot;
            if slot == NONE {
                continue;
            }
            let connection = &mut self.connections[slot];
            connection.turn = NONE;
            if connection.flags.sealed() {
                self.renew_old_keys(slot);
            }
            let connection = &self.connections[slot];
            if connection.flags.end_when_flushed() && connection.outbox == NONE {
                self.end(slot);
            } else if connection.outbox != NONE {
                self.check_outbox(slot);
            }
        }
        self.turn.clear();
        self.locals.end_turn();
    }

    fn check_outbox(&mut self, slot: u32) {
        let unsent = self.connections.outboxes.unsent(self.connections[slot].outbox);
        if self.connections[slot].phase == Phase::Ending {
            self.connections.drop_outbox(slot);
        } else if unsent > self.settings.outbox_bytes {
            self.close_slow(slot);
        } else {
            self.close_largest_outbox();
        }
    }

    fn flushed(&mut self, slot: u32, bytes: usize) {
        let at = self.connections[slot].outbox;
        if self.connections.outboxes.get(at).is_none() {
            return;
        }
        if !self.advance_sealed(slot, bytes) {
            self.connections.outboxes.change(at, |outbox| outbox.advance(bytes));
        }
        if self.connections.outboxes.unsent(at) > 0 || self.owes_alert(slot) {
            return self.writable(slot);
        }
        self.connections.drop_outbox(slot);
        if self.connections[slot].flags.end_when_flushed() {
            self.end(slot);
        } else if matches!(self.connections[slot].phase, Phase::KeptAlive | Phase::Head) {
            self.resume_later(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::settings::HubSettings;
    use crate::hub::shard_state::WORK;
    use crate::hub::tests::{
        LoneShardBus, ROOMY, hub, publish, subscriber, transmit, uni_subscriber,
    };
    use crate::wire::frame;
    use std::sync::Arc;

    #[test]
    fn a_connection_that_ends_before_its_flush_is_not_sent_to() {
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let slot = subscriber(&mut hub);
        transmit(&mut hub, &[slot]);
        hub.writable(slot);
        hub.connection_lost(slot);
        assert_eq!(transmit(&mut hub, &[]), []);
        hub.free(slot);
        assert_eq!(hub.resource_counts().outbox_bytes, 0);
    }

    #[test]
    fn an_outbox_that_overflows_before_its_flush_ends_with_the_close_frame() {
        let mut hub = hub(1000, ROOMY, ROOMY);
        let slot = subscriber(&mut hub);
        transmit(&mut hub, &[slot]);
        hub.writable(slot);
        publish(&mut hub, slot, 1000);
        hub.fan_out();
        let sent = transmit(&mut hub, &[]);
        assert!(sent[0].1.ends_with(b"\x0b\xc0slow"), "{sent:?}");
        assert_eq!(hub.resource_counts().outboxes, 0);
    }

    #[test]
    fn the_close_of_a_slow_consumer_behind_the_sends_to_homes_causes_another_turn() {
        let mut hub = hub(1000, ROOMY, ROOMY);
        let slot = subscriber(&mut hub);
        transmit(&mut hub, &[slot]);
        publish(&mut hub, slot, 1000);
        hub.send_waiting(&mut LoneShardBus::default());
        hub.fan_out();
        transmit(&mut hub, &[]);
        assert_eq!(hub.connections[slot].phase, Phase::Closing);
        assert!(hub.is_busy(), "the channel is not released yet");
        hub.set_share(WORK, true);
        hub.send_waiting(&mut LoneShardBus::default());
        assert!(!hub.is_busy());
    }

    #[test]
    fn an_outbox_that_was_sent_is_not_closed_for_the_budget() {
        let behind = |budget| {
            let mut hub = hub(ROOMY, budget, ROOMY);
            let (one, two) = (subscriber(&mut hub), subscriber(&mut hub));
            transmit(&mut hub, &[one]);
            (hub, one, two)
        };
        let budget = behind(ROOMY).0.resource_counts().outbox_bytes;
        let (mut hub, one, two) = behind(budget);
        hub.writable(one);
        publish(&mut hub, two, 10);
        transmit(&mut hub, &[two]);
        assert_eq!(hub.resource_counts().outboxes, 1, "only two is behind");
        assert_eq!(hub.connections[one].phase, Phase::Connected);
    }

    /// The number of messages of each text frame that was sent to a slot after the response head.
    fn messages_of_frames(sent: &[(u32, Vec<u8>)], slot: u32) -> Vec<usize> {
        let (_, bytes) = sent.iter().find(|(to, _)| *to == slot).unwrap();
        let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
        let (mut rest, mut counts) = (&bytes[head..], Vec::new());
        while !rest.is_empty() {
            let (first, others) = rest.split_at(frame::server_frame_bytes(rest).unwrap());
            let payload = frame::server_payload(first).unwrap();
            assert_eq!(first[0], 0x81);
            assert!(payload.split(|byte| *byte == b'\n').all(|line| line.starts_with(b"{\"")));
            counts.push(payload.split(|byte| *byte == b'\n').count());
            rest = others;
        }
        counts
    }

    #[test]
    fn messages_of_unidirectional_clients_join_if_enabled() {
        for joins in [false, true] {
            let mut hub = hub(ROOMY, ROOMY, ROOMY);
            let settings = HubSettings { joins_uni_messages: joins, ..(*hub.settings).clone() };
            hub.settings = Arc::new(settings);
            let (uni, other) = (uni_subscriber(&mut hub), subscriber(&mut hub));
            let mut publish_and_send = |times, short: &[u32]| {
                (0..times).for_each(|_| publish(&mut hub, other, 5));
                hub.fan_out();
                let sent = transmit(&mut hub, short);
                assert!(messages_of_frames(&sent, other).iter().all(|count| *count == 1));
                messages_of_frames(&sent, uni)
            };
            let joined = |messages| if joins { vec![messages] } else { vec![1; messages] };
            assert_eq!(publish_and_send(2, &[]), joined(3), "a connect and two publications");
            assert_eq!(publish_and_send(1, &[]), [1]);
            assert_eq!(publish_and_send(4, &[uni]), joined(4));
            publish(&mut hub, other, 5);
            publish(&mut hub, other, 5);
            hub.fan_out();
            transmit(&mut hub, &[]);
            hub.writable(uni);
            let later = messages_of_frames(&transmit(&mut hub, &[]), uni);
            let expected = if joins { vec![4, 2] } else { vec![1; 6] };
            assert_eq!(later, expected, "the outbox joins what it gets");
        }
    }
}
