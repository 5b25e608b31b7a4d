//! The messages of a load: content, schedule and channels.
//!
//! Owns the schedule and which publisher sends which message. Never sends. Invariant: a message
//! carries its scheduled time as its stamp.

use std::net::SocketAddr;

use super::api::Api;
use crate::dense::Channels;
use crate::wire::{Data, Stamp};

/// A step through the channels that has no factor in common with any likely number of them: the
/// next message goes to another shard.
const STRIDE: u64 = 611_953;

/// The messages of a load: content, schedule, channels and server.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub server: SocketAddr,
    /// How messages reach the server.
    pub api: Api,
    /// Connections that publish.
    pub publishers: u64,
    /// Channels by number.
    pub channels: Channels,
    /// How many channels there are.
    pub channel_count: u64,
    /// Phase that the messages belong to.
    pub phase: u16,
    /// Data of each message.
    pub data: Data,
    /// The first message is due so long after the start of the run, in ns.
    pub first_ns: u64,
    /// Time between two messages, in ns.
    pub interval_ns: u64,
    /// Total number of messages.
    pub messages: u64,
    /// Publications that go out together, all due with the first: in one frame, or as requests
    /// that do not wait for each other's answers.
    pub per_frame: u64,
}

/// One message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) channel: String,
    pub(crate) stamp: Stamp,
}

impl Load {
    /// The number of the channel that message `index` goes to.
    fn channel(&self, index: u64) -> u64 {
        let step = if gcd(STRIDE, self.channel_count) == 1 { STRIDE } else { 1 };
        (u128::from(index) * u128::from(step) % u128::from(self.channel_count)) as u64
    }

    /// Whether `publisher` sends message `index`: over HTTP they take turns, otherwise a channel
    /// stays with one publisher, which keeps its order.
    fn is_of(&self, index: u64, publisher: u64) -> bool {
        match self.api {
            Api::Http(_) => index % self.publishers == publisher,
            _ => self.channel(index) % self.publishers == publisher,
        }
    }

    /// Message `index`.
    pub(crate) fn message(&self, index: u64) -> Message {
        let due_ns = self.first_ns + index / self.per_frame * self.per_frame * self.interval_ns;
        let sequence = (index / self.channel_count + 1) as u32;
        Message {
            channel: self.channels.nth(self.channel(index)),
            stamp: Stamp { due_ns, phase: self.phase, sequence },
        }
    }

    /// The messages of `publisher`, in the order of its schedule.
    pub(crate) fn of(&self, publisher: u64) -> impl Iterator<Item = Message> + '_ {
        // Whose turn comes so regularly need not be asked about the turns of others.
        let (first, step) = match self.api {
            Api::Http(_) => (publisher, self.publishers as usize),
            _ => (0, 1),
        };
        (first..self.messages)
            .step_by(step)
            .filter(move |index| self.is_of(*index, publisher))
            .map(|index| self.message(index))
    }

    /// Deliveries that the messages cause among `connections` connections, each on its channel.
    pub fn expected(&self, connections: u64) -> u64 {
        let subscribers = |channel: u64| match self.channels {
            Channels::Shared(_) => connections,
            Channels::Distinct | Channels::DistinctIn(_) => u64::from(channel < connections),
            Channels::Rooms(rooms) => connections.saturating_sub(channel).div_ceil(rooms),
        };
        (0..self.messages).map(|index| subscribers(self.channel(index))).sum()
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::super::api::Post;
    use super::*;

    fn load(api: Api, channels: Channels, channel_count: u64) -> Load {
        Load {
            server: SocketAddr::from(([127, 0, 0, 1], 1)),
            api,
            publishers: 3,
            channels,
            channel_count,
            phase: 2,
            data: Data::Filled(128),
            first_ns: 1000,
            interval_ns: 10,
            messages: 100,
            per_frame: 1,
        }
    }

    #[test]
    fn every_message_has_one_publisher_and_every_channel_its_order() {
        for api in [Api::WebSocket, Api::Http(Post::drumline("k"))] {
            let load = load(api.clone(), Channels::Rooms(7), 7);
            let all: Vec<Message> = (0..3).flat_map(|p| load.of(p).collect::<Vec<_>>()).collect();
            assert_eq!(all.len(), 100);
            let mut of_room: Vec<Message> =
                all.into_iter().filter(|message| message.channel == "r3").collect();
            if matches!(api, Api::Http(_)) {
                of_room.sort_by_key(|message| message.stamp.due_ns);
            }
            let sequences: Vec<u32> = of_room.iter().map(|m| m.stamp.sequence).collect();
            assert_eq!(sequences, (1..=sequences.len() as u32).collect::<Vec<_>>());
            assert!(of_room.is_sorted_by_key(|message| message.stamp.due_ns));
        }
    }

    #[test]
    fn messages_of_a_frame_are_due_together() {
        let mut load = load(Api::WebSocket, Channels::Shared("all".into()), 1);
        load.per_frame = 10;
        assert_eq!(load.message(9).stamp.due_ns, 1000);
        assert_eq!(load.message(10).stamp.due_ns, 1100);
        assert_eq!(load.message(10).stamp.sequence, 11);
    }
}
