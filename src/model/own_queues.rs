//! Messages of a shard to itself: one bounded queue per rank.
//!
//! Owns the messages until the shard takes them. Never exceeds its capacity: the shard reserves
//! room before it sends, as for the inboxes of other shards. The invariant: messages of one rank
//! leave in the order in which they were sent.

use std::collections::VecDeque;

use crate::model::message::{Message, RANKS, Rank};

/// Capacity of the queue of one rank. The shard serves the queues after every command, so they are
/// nearly always empty.
pub const OWN_MAX: usize = 256;

/// The queues of one shard.
#[derive(Debug)]
pub struct OwnQueues {
    queues: [VecDeque<Message>; RANKS],
    /// Reservations and queued messages, by rank.
    taken: [usize; RANKS],
    capacity: usize,
    /// A reservation failed since [`OwnQueues::was_full`] was last asked.
    refused: bool,
}

impl OwnQueues {
    /// Empty queues with this capacity each.
    pub fn new(capacity: usize) -> Self {
        OwnQueues { queues: Default::default(), taken: [0; RANKS], capacity, refused: false }
    }

    /// Reserves room for one message of a rank; `false`: the queue is full.
    pub fn reserve(&mut self, rank: Rank) -> bool {
        let taken = &mut self.taken[rank as usize];
        let room = *taken < self.capacity;
        *taken += usize::from(room);
        self.refused |= !room;
        room
    }

    /// Gives a reservation back.
    pub fn cancel(&mut self, rank: Rank) {
        let taken = &mut self.taken[rank as usize];
        *taken = taken.saturating_sub(1);
    }

    /// Queues a message into a reservation made before.
    pub fn send(&mut self, message: Message) {
        self.queues[message.rank() as usize].push_back(message);
    }

    /// Takes the oldest message of a rank.
    pub fn take(&mut self, rank: Rank) -> Option<Message> {
        let message = self.queues[rank as usize].pop_front()?;
        self.cancel(rank);
        Some(message)
    }

    /// Puts a message that cannot be handled yet back to the front of its queue.
    pub fn put_back(&mut self, message: Message) {
        let rank = message.rank() as usize;
        self.taken[rank] += 1;
        self.queues[rank].push_front(message);
    }

    /// Whether a reservation has failed since the last call.
    pub fn was_full(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    /// Number of queued messages and reservations.
    pub fn taken(&self) -> usize {
        self.taken.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Release;

    fn release(shard: u8) -> Message {
        Message::Release(Release { channel: "c".into(), hash: 1, shard })
    }

    fn shard(message: Option<Message>) -> Option<u8> {
        message.map(|message| match message {
            Message::Release(release) => release.shard,
            other => panic!("{other:?} was never sent"),
        })
    }

    #[test]
    fn a_full_queue_refuses_reservations_until_a_message_is_taken() {
        let mut own = OwnQueues::new(2);
        assert!(own.reserve(Rank::Request) && own.reserve(Rank::Request));
        assert!(!own.was_full());
        assert!(!own.reserve(Rank::Request), "two are reserved");
        assert!(own.reserve(Rank::Delivery), "each rank has a queue of its own");
        own.send(release(1));
        own.send(release(2));
        assert!(own.was_full() && !own.was_full());
        assert_eq!(shard(own.take(Rank::Request)), Some(1));
        assert!(own.reserve(Rank::Request));
        own.cancel(Rank::Request);
        own.cancel(Rank::Delivery);
        assert_eq!(own.taken(), 1);
    }

    #[test]
    fn a_message_that_is_put_back_comes_out_first() {
        let mut own = OwnQueues::new(2);
        for nth in [1, 2] {
            assert!(own.reserve(Rank::Request));
            own.send(release(nth));
        }
        let first = own.take(Rank::Request).unwrap();
        own.put_back(first);
        assert!(!own.reserve(Rank::Request), "the message takes its room again");
        assert_eq!(shard(own.take(Rank::Request)), Some(1));
        assert_eq!(shard(own.take(Rank::Request)), Some(2));
        assert_eq!(own.taken(), 0);
    }
}
