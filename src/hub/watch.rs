//! The load of this shard for an operator: its busiest channels and its slowest consumers.
//!
//! Owns no state. The work is bounded: both come from tables that know their largest entries.

use crate::base::work_budget::cost;
use crate::hub::shard_state::Hub;
use crate::model::message::{Message, Post};
use crate::model::watch::{SlowConsumer, WATCHED_MAX, Watch, Watched};

impl Hub {
    /// Answers a query for the load. The control plane has reserved room for the answer.
    pub(super) fn answer_watch(&mut self, post: &mut impl Post, watch: &Watch) {
        let Watch { tag, goes_on } = *watch;
        let published = self.home.take_busiest(WATCHED_MAX, goes_on);
        let delivered = self.locals.take_busiest(WATCHED_MAX, goes_on);
        let slow = self.slow_consumers();
        self.budget.charge(3 * WATCHED_MAX * cost::LOOK);
        let watched = Watched { tag, published, delivered, slow };
        post.send(self.control, Message::Watched(Box::new(watched)));
    }

    /// The connections with the largest outboxes, largest first.
    fn slow_consumers(&self) -> Vec<SlowConsumer> {
        let slots = self.connections.outboxes.largest_slots(WATCHED_MAX);
        let mut found: Vec<SlowConsumer> = slots
            .filter_map(|slot| {
                let connection = self.connections.get(slot)?;
                Some(SlowConsumer {
                    client: self.client_id(slot).into(),
                    user: connection.user().into(),
                    unsent: self.connections.outboxes.unsent(connection.outbox),
                    subscriptions: connection.subscribed,
                })
            })
            .collect();
        found.sort_by_key(|consumer| std::cmp::Reverse(consumer.unsent));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::tests::{LoneShardBus, ROOMY, hub, publish, subscriber, transmit};
    use crate::model::message::tests::Recorder;

    fn watch(hub: &mut Hub, goes_on: bool) -> Watched {
        let mut post = Recorder::default();
        hub.handle(&mut post, Message::Watch(Watch { tag: 5, goes_on })).unwrap();
        let Some((_, Message::Watched(watched))) = post.sent.pop() else { panic!("an answer") };
        assert_eq!(watched.tag, 5);
        *watched
    }

    #[test]
    fn a_watched_shard_counts_deliveries_of_its_channels() {
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let (one, _two) = (subscriber(&mut hub), subscriber(&mut hub));
        transmit(&mut hub, &[]);
        publish(&mut hub, one, 3);
        assert!(watch(&mut hub, true).delivered.is_empty(), "nobody watched");
        publish(&mut hub, one, 3);
        publish(&mut hub, one, 3);
        let watched = watch(&mut hub, false);
        assert_eq!(watched.delivered, [("c".into(), 4)]);
        assert_eq!(watched.published, [("c".into(), 2)]);
        publish(&mut hub, one, 3);
        assert!(watch(&mut hub, false).delivered.is_empty());
        hub.fan_out();
        hub.send_waiting(&mut LoneShardBus::default());
    }

    #[test]
    fn the_slowest_consumers_come_first() {
        let mut hub = hub(ROOMY, ROOMY, ROOMY);
        let slots: Vec<u32> = (0..3).map(|_| subscriber(&mut hub)).collect();
        transmit(&mut hub, &[]);
        for (nth, slot) in slots.iter().enumerate() {
            hub.write(*slot, |out| out.extend_from_slice(&vec![b'x'; 3_000 * (nth + 1)]));
        }
        transmit(&mut hub, &slots);
        let slow = watch(&mut hub, false).slow;
        assert_eq!(slow.len(), 3);
        assert_eq!(*slow[0].client, *hub.client_id(*slots.last().unwrap()));
        assert!(slow.is_sorted_by(|one, other| one.unsent >= other.unsent), "{slow:?}");
        assert!(slow.iter().all(|consumer| consumer.unsent >= 3_000), "{slow:?}");
        assert_eq!(slow[0].subscriptions, 1);
    }
}
