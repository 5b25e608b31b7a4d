//! Publications that a connection gets outside the walk of a lap: into its hold or outbox, and at
//! the end of a subscription.
//!
//! Owns no state. The invariant: what ends a subscription comes behind the publications before it.

use crate::base::work_budget::cost;
use crate::hub::connections::{NONE, Phase};
use crate::hub::shard_state::Hub;
use crate::wire::http::Transport;
use crate::wire::protocol::Disconnect;

impl Hub {
    /// A long poll ends with the publications that it gets.
    pub(super) fn end_long_poll(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        if connection.transport == Transport::LongPolling && connection.phase == Phase::Connected {
            connection.flags.set_end_when_flushed(true);
        }
    }

    /// Writes frames of publications into the output of one connection.
    pub(super) fn write_publications(&mut self, slot: u32, frames: &[u8]) {
        if let Some(hold) = self.connections.hold_mut(slot) {
            hold.output.extend_from_slice(frames);
            if hold.output.len() > self.settings.outbox_bytes {
                self.metrics.slow.add(1);
                self.disconnect(slot, Disconnect::SLOW);
            }
        } else if self.connections[slot].outbox == NONE {
            let handle = &mut self.connections[slot].turn;
            self.turn.write_private(handle, slot, |out| out.extend_from_slice(frames));
        } else {
            self.append_outbox(slot, frames);
        }
    }

    /// Writes the publications that came before now and that the subscription `key` has not got
    /// yet: its end would drop them. Returns whether the connection still has its subscriptions: it
    /// may have been closed as slow.
    pub(super) fn write_owed(&mut self, slot: u32, key: u32) -> bool {
        // Nearly always empty, and then it takes no memory.
        let parts: Vec<_> = self
            .locals
            .owed(key)
            .map(|owed| (owed.bytes.to_vec(), owed.publications, owed.place, owed.needs_event_id))
            .collect();
        for (frames, publications, place, needs_event_id) in parts {
            if !self.connections[slot].takes_output() {
                break;
            }
            self.budget.charge(frames.len() * cost::BYTES);
            self.metrics.deliveries.add(publications.into());
            self.end_long_poll(slot);
            self.write_publications(slot, &frames);
            if needs_event_id {
                self.write_event_id(slot, place);
            }
        }
        self.connections[slot].subscriptions != NONE
    }

    /// Does [`Hub::write_owed`] for every subscription of a connection.
    pub(super) fn write_owed_of_all(&mut self, slot: u32) {
        let mut key = self.connections[slot].subscriptions;
        while key != NONE && self.write_owed(slot, key) {
            key = self.locals.next_subscription(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::hub::connections::NONE;
    use crate::hub::orders::SERVER_UNSUBSCRIBE;
    use crate::hub::tests::{ROOMY, hub, publish, subscriber, transmit};
    use crate::wire::http::Transport;

    #[test]
    fn a_connection_that_is_too_slow_for_what_it_is_owed_ends_once() {
        let outbox = 2_000;
        let mut hub = hub(outbox, ROOMY, ROOMY);
        let (slow, other) = (subscriber(&mut hub), subscriber(&mut hub));
        transmit(&mut hub, &[]);
        publish(&mut hub, other, 1_500);
        hub.fan_out();
        transmit(&mut hub, &[slow]);
        publish(&mut hub, other, 1_500);
        let key = hub.connections[slow].subscriptions;
        hub.end_subscription(slow, key, SERVER_UNSUBSCRIBE, "server unsubscribe");
        assert_eq!(hub.metrics.slow.get(), 1);
        assert_eq!(hub.connections[slow].subscriptions, NONE);
        assert!(!hub.connections[slow].takes_output());
    }

    #[test]
    fn a_long_poll_ends_with_what_it_is_owed() {
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let (slot, other) = (subscriber(&mut hub), subscriber(&mut hub));
        transmit(&mut hub, &[]);
        hub.connections[slot].transport = Transport::LongPolling;
        publish(&mut hub, other, 3);
        let key = hub.connections[slot].subscriptions;
        hub.end_subscription(slot, key, SERVER_UNSUBSCRIBE, "server unsubscribe");
        transmit(&mut hub, &[]);
        assert!(!hub.connections[slot].takes_output());
    }
}
