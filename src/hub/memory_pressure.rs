//! What a shard frees when a memory budget of the node is exceeded.
//!
//! The shard that holds the largest item frees it: the connection with the largest outbox or the
//! most unread input is closed, the oldest publications and keys are dropped. A shard that notices
//! the excess and holds less wakes the shard that holds the most.

use crate::base::memory::ShardToFree;
use crate::hub::connections::{NONE, Phase};
use crate::hub::shard_state::Hub;
use crate::model::message::{Endpoint, Post};
use crate::wire::http::Status;
use crate::wire::protocol::Disconnect;

/// Maximum connections closed per budget and turn, without those that have just grown.
const CLOSES_PER_TURN: usize = 16;

impl Hub {
    /// Frees memory that the budgets demand from this shard, some per turn, and wakes other shards
    /// of which they demand it.
    pub(super) fn relieve(&mut self, post: &mut impl Post) {
        for _ in 0..CLOSES_PER_TURN {
            let (outbox, unread) = (self.close_largest_outbox(), self.close_largest_unread());
            if (!outbox && !unread) || self.is_spent() {
                break;
            }
        }
        self.home.relieve();
        for relief in self.reliefs() {
            if let ShardToFree::Other(shard) = relief {
                post.wake(shard as Endpoint);
            }
        }
    }

    fn reliefs(&self) -> [ShardToFree; 4] {
        let [history, keys] = self.home.reliefs();
        [
            self.connections.outboxes.usage().shard_to_free(),
            self.connections.unread.usage().shard_to_free(),
            history,
            keys,
        ]
    }

    /// Whether this shard must free more memory.
    pub(super) fn must_relieve(&self) -> bool {
        self.budgets.may_be_exceeded() && self.reliefs().contains(&ShardToFree::This)
    }

    /// Closes the connection with the most unread input if the budget demands it from this shard.
    pub(super) fn close_largest_unread(&mut self) -> bool {
        let here = self.connections.unread.usage().shard_to_free() == ShardToFree::This;
        let Some(slot) = here.then(|| self.connections.unread.largest()).flatten() else {
            return false;
        };
        self.metrics.unread_closed.add(1);
        self.close_unread_input(slot);
        true
    }

    /// Drops the unread input of a connection and closes it. Later input is discarded, so that no
    /// reset hides the reason from the peer.
    fn close_unread_input(&mut self, slot: u32) {
        self.connections.take_inbound(slot);
        let connection = &mut self.connections[slot];
        let flushed = connection.turn == NONE && connection.outbox == NONE;
        match connection.phase {
            // The answer that it waits for is its last.
            Phase::AwaitingAnswer => connection.flags.set_shutting_down(true),
            Phase::ProxyHeader | Phase::Handshake => self.connection_lost(slot),
            Phase::Head | Phase::KeptAlive if flushed => self.refuse(slot, Status::Unavailable),
            Phase::Head | Phase::KeptAlive => self.end_when_flushed(slot),
            _ => {
                self.disconnect(slot, Disconnect::SLOW);
                self.connections[slot].flags.set_lingering(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};
    use crate::hub::tests::{LoneShardBus, hub_of, subscriber, transmit};
    use crate::model::message::tests::Recorder;
    use crate::wire::frame;

    const ROOMY: usize = 1 << 20;

    /// Has a hub give up what it must, on a bus without room; returns the shards that it wakes.
    fn relieve(hub: &mut Hub) -> Vec<Endpoint> {
        let mut bus = Recorder { full: true, ..Recorder::default() };
        hub.relieve(&mut bus);
        assert!(bus.sent.is_empty(), "nothing was reserved for {:?}", bus.sent);
        bus.nudged
    }

    fn budgets(kind: MemoryKind, bytes: usize, shards: usize) -> MemoryBudgets {
        MemoryBudgets::new(&MemoryLimits::all(1 << 40).with(kind, bytes), shards)
    }

    /// The front of a frame of 60,000 bytes, as a socket brings it.
    fn part_of_a_frame(hub: &mut Hub, slot: u32, bytes: usize) {
        let mut part = vec![0x82, 0xfe, 0xea, 0x60, 0, 0, 0, 0];
        part.resize(bytes, b' ');
        part.chunks_mut(4096)
            .for_each(|chunk| hub.receive(&mut LoneShardBus::default(), slot, chunk));
    }

    /// An unfinished message of one fragment.
    fn fragment(hub: &mut Hub, slot: u32, bytes: u16) {
        let mut frame = vec![0x01, 0xfe];
        frame.extend_from_slice(&bytes.to_be_bytes());
        frame.resize(8 + usize::from(bytes), 0);
        frame
            .chunks_mut(4096)
            .for_each(|chunk| hub.receive(&mut LoneShardBus::default(), slot, chunk));
    }

    fn phases(hub: &Hub, slots: &[u32]) -> Vec<Phase> {
        slots.iter().map(|slot| hub.connections[*slot].phase).collect()
    }

    #[test]
    fn unread_input_takes_about_the_bytes_received() {
        let mut hub = hub_of(ROOMY, ROOMY, &budgets(MemoryKind::Unread, ROOMY, 1), 0);
        let (part, fragments) = (subscriber(&mut hub), subscriber(&mut hub));
        transmit(&mut hub, &[]);
        part_of_a_frame(&mut hub, part, 60_007);
        let used = hub.resource_counts().inbound_bytes;
        assert!((60_007..69_000).contains(&used), "{used} bytes for a frame's part");
        fragment(&mut hub, fragments, 60_000);
        let used = hub.resource_counts().inbound_bytes - used;
        assert!((60_000..69_000).contains(&used), "{used} bytes for a fragment");
        hub.receive(&mut LoneShardBus::default(), fragments, &mut [0x80, 0x80, 0, 0, 0, 0]);
        hub.receive(&mut LoneShardBus::default(), part, &mut b" ".to_owned());
        transmit(&mut hub, &[]);
        assert_eq!(hub.resource_counts().inbound_bytes, 0, "it was used up");
    }

    #[test]
    fn the_connection_with_the_most_unread_input_is_closed_and_freed() {
        let mut hub = hub_of(ROOMY, ROOMY, &budgets(MemoryKind::Unread, 30_000, 1), 0);
        let clients = [(); 3].map(|()| subscriber(&mut hub));
        transmit(&mut hub, &[]);
        part_of_a_frame(&mut hub, clients[0], 4_000);
        fragment(&mut hub, clients[1], 14_000);
        assert_eq!(phases(&hub, &clients), [Phase::Connected; 3]);
        part_of_a_frame(&mut hub, clients[2], 11_000);
        assert_eq!(phases(&hub, &clients), [Phase::Connected, Phase::Closing, Phase::Connected]);
        assert_eq!(hub.metrics.unread_closed.get(), 1);
        let sent = transmit(&mut hub, &[]);
        assert!(sent.len() == 1 && sent[0].1.ends_with(b"\x0b\xc0slow"), "{sent:?}");
        fragment(&mut hub, clients[1], 14_000);
        assert_eq!(hub.resource_counts().inbound, 2, "what it sends is thrown away");
        let third = subscriber(&mut hub);
        assert_eq!(phases(&hub, &[third]), [Phase::Connected]);
    }

    #[test]
    fn an_endless_request_head_is_refused_when_memory_is_short() {
        let mut hub = hub_of(ROOMY, ROOMY, &budgets(MemoryKind::Unread, 10_000, 1), 0);
        let (slot, _) = hub.reserve().unwrap();
        hub.socket_opened(slot);
        let mut head = b"GET /w HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        head.resize(12_000, b'x');
        head.chunks_mut(4096)
            .for_each(|chunk| hub.receive(&mut LoneShardBus::default(), slot, chunk));
        let sent = transmit(&mut hub, &[]);
        assert!(sent[0].1.starts_with(b"HTTP/1.1 503 "), "{sent:?}");
        assert_eq!(
            (hub.resource_counts().inbound, phases(&hub, &[slot])),
            (0, vec![Phase::Closing])
        );
    }

    #[test]
    fn a_shard_with_little_unread_input_wakes_the_shard_with_the_most() {
        let budgets = budgets(MemoryKind::Unread, 40_000, 2);
        let mut hubs = [0, 1].map(|shard| hub_of(ROOMY, ROOMY, &budgets, shard));
        let [large, small] = &mut hubs;
        let greedy = subscriber(large);
        part_of_a_frame(large, greedy, 30_000);
        let modest = [(); 3].map(|()| subscriber(small));
        for slot in modest {
            part_of_a_frame(small, slot, 4_000);
        }
        for hub in [&mut *small, &mut *large] {
            transmit(hub, &[]);
        }
        assert_eq!(relieve(small), [0]);
        assert_eq!(phases(small, &modest), [Phase::Connected; 3]);
        assert!(large.is_busy(), "it has something to give up");
        assert!(relieve(large).is_empty());
        assert_eq!(phases(large, &[greedy]), [Phase::Closing]);
        assert!(relieve(small).is_empty(), "the budget holds again");
        transmit(large, &[]);
        assert!(large.is_busy(), "the channel is not released yet");
        large.send_waiting(&mut LoneShardBus::default());
        assert!(!large.is_busy());
    }

    #[test]
    fn the_largest_outbox_of_all_shards_is_closed() {
        let budgets = budgets(MemoryKind::Outboxes, 60_000, 2);
        let mut hubs = [0, 1].map(|shard| hub_of(ROOMY, ROOMY, &budgets, shard));
        let mut fill = |shard: usize, bytes: usize| {
            let hub: &mut Hub = &mut hubs[shard];
            let slot = subscriber(hub);
            transmit(hub, &[slot]);
            let mut message = Vec::new();
            frame::write_text(&vec![b'x'; bytes], &mut message);
            hub.append_outbox(slot, &message);
            slot
        };
        let largest = fill(0, 40_000);
        let others = [(); 4].map(|()| fill(1, 6_000));
        let [one, two] = &mut hubs;
        relieve(two);
        assert_eq!(phases(two, &others), [Phase::Connected; 4]);
        relieve(one);
        assert_eq!(phases(one, &[largest]), [Phase::Closing]);
        assert_eq!(budgets[MemoryKind::Outboxes].excess(), 0);
    }
}
