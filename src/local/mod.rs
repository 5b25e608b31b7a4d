//! The local side of channels: a shard's own subscribers, grouped by encoding, and the laps that
//! carry publications to them. Owns subscriptions, groups and the bytes of laps. Never sends: a
//! step returns which slot gets which range.

mod groups;
mod laps;
mod members;
mod paced_groups;
mod pace_timers;
mod state;
pub mod position_checks;

pub use self::state::{Delivery, LapShape, LocalChannels, NONE, OutOfSyncSubscriber, Owed};

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::work_budget::WorkBudget;
    use crate::model::message::Visibility;
    use crate::model::namespaces::Pace;
    use crate::model::publication::{Encoding, Publication};
    use crate::model::publication::{NewPublication, PublicationExtra};
    use crate::wire::filter::{self, FilterNode};

    const HASH: u64 = 7;

    /// A shard with one channel, and the head of the subscription list of each slot.
    pub(super) struct TestChannels {
        pub(super) locals: LocalChannels,
        heads: Vec<u32>,
        name: Arc<str>,
        pace: Option<Pace>,
    }

    impl TestChannels {
        pub(super) fn new() -> Self {
            let (locals, heads) = (LocalChannels::default(), vec![NONE; 8]);
            TestChannels { locals, heads, name: "c".into(), pace: None }
        }

        pub(super) fn at_pace(pace: Pace) -> Self {
            TestChannels { pace: Some(pace), ..TestChannels::new() }
        }

        fn begin_subscription(&mut self, slot: u32) -> (u32, u32) {
            let (head, channel) = (&mut self.heads[slot as usize], (&self.name, HASH));
            self.locals.begin_subscription(head, channel, Visibility::default())
        }

        pub(super) fn join(&mut self, slot: u32) {
            let (key, serial) = self.begin_subscription(slot);
            assert!(self.locals.is_awaiting(key, serial));
            if let Some(pace) = self.pace {
                self.locals.set_pace(key, pace);
            }
            let encoding = Encoding { unidirectional: true, ..Encoding::default() };
            self.locals.join(key, slot, encoding, None);
            self.locals.subscribe_answered(HASH, &self.name);
        }

        pub(super) fn join_filtered(&mut self, slot: u32, value: &str) {
            let (key, cmp, val) = ("k".to_owned(), "eq".to_owned(), value.to_owned());
            let node = FilterNode { key, cmp, val, ..FilterNode::default() };
            let filter = filter::compile(&node).unwrap();
            let (key, _) = self.begin_subscription(slot);
            self.locals.join(key, slot, Encoding::default(), Some(&filter));
            self.locals.subscribe_answered(HASH, &self.name);
        }

        pub(super) fn expire(&mut self, now: u64) -> bool {
            self.locals.expire(now, &mut WorkBudget::new(1_000_000, true))
        }

        pub(super) fn leave(&mut self, slot: u32) {
            let head = &mut self.heads[slot as usize];
            let key = *head;
            assert!(self.locals.leave(head, key));
        }

        pub(super) fn publish(&mut self, data: &str) {
            self.publish_tagged(data, "", "");
        }

        pub(super) fn publish_tagged(&mut self, data: &str, key: &str, value: &str) {
            let data = data.as_bytes();
            let tags = [(key.into(), value.into())].into();
            let extra = (!key.is_empty())
                .then(|| Arc::new(PublicationExtra { info: None, tags, version: 0 }));
            let draft = NewPublication {
                channel: "c",
                hash: HASH,
                data,
                extra,
                ..NewPublication::default()
            };
            self.locals.append(&Publication::new(draft));
        }

        /// Walks `quota` members; returns the data of the publications that each slot gets.
        pub(super) fn step(&mut self, quota: usize) -> Vec<(u32, String)> {
            let mut deliveries = Vec::new();
            self.locals.step_lap(0, quota, &mut deliveries);
            deliveries
                .iter()
                .map(|delivery| {
                    let range = delivery.start as usize..delivery.end as usize;
                    let text = String::from_utf8_lossy(&self.locals.lap(delivery.lap)[range]);
                    let digits =
                        text.split("\"data\":").skip(1).filter_map(|rest| rest.chars().next());
                    (delivery.slot, digits.collect())
                })
                .collect()
        }

        pub(super) fn groups(&self) -> usize {
            self.locals.groups.len()
        }

        pub(super) fn release(&mut self) -> usize {
            let mut released = 0;
            self.locals.release_idle(|_, _| {
                released += 1;
                true
            });
            released
        }
    }

    pub(super) fn given(expected: &[(u32, &str)]) -> Vec<(u32, String)> {
        expected.iter().map(|(slot, data)| (*slot, (*data).to_owned())).collect()
    }

    #[test]
    fn a_member_is_owed_the_rest_of_a_lap_and_what_waits_for_the_next() {
        let mut channels = TestChannels::new();
        (0..2).for_each(|slot| channels.join(slot));
        channels.publish("one");
        channels.join(2);
        channels.publish("two");
        let owed = |channels: &TestChannels, slot: usize| {
            let parts = channels.locals.owed(channels.heads[slot]);
            let text: Vec<u8> = parts.flat_map(|owed| owed.bytes.to_vec()).collect();
            let text = String::from_utf8_lossy(&text).into_owned();
            ["one", "two", "three"].map(|data| text.contains(data))
        };
        assert_eq!(owed(&channels, 0), [true, true, false]);
        assert_eq!(owed(&channels, 2), [false, true, false], "it joined after the first");
        channels.locals.step_lap(0, 1, &mut Vec::new());
        channels.publish("three");
        assert_eq!(owed(&channels, 0), [false, false, true], "the lap has passed it");
        assert_eq!(owed(&channels, 1), [true, true, true]);
        assert_eq!(owed(&channels, 2), [false, true, true]);
    }

    #[test]
    fn a_lap_carries_earlier_publications_and_the_next_lap_the_later_ones() {
        let mut channels = TestChannels::new();
        (0..3).for_each(|slot| channels.join(slot));
        channels.publish("1");
        channels.publish("2");
        assert_eq!(channels.step(2), given(&[(0, "12"), (1, "12")]));
        channels.publish("3");
        channels.publish("4");
        assert_eq!(channels.step(2), given(&[(2, "12")]));
        assert_eq!(channels.step(9), given(&[(0, "34"), (1, "34"), (2, "34")]));
        assert!(!channels.locals.has_unsent());
        channels.locals.end_turn();
        assert_eq!(channels.locals.backlog(), 0);
    }

    #[test]
    fn a_new_member_gets_only_publications_after_its_join() {
        let mut channels = TestChannels::new();
        channels.join(0);
        channels.publish("1");
        channels.join(1);
        channels.publish("2");
        channels.join(2);
        assert_eq!(channels.step(1), given(&[(0, "12")]));
        channels.publish("3");
        channels.join(3);
        channels.publish("4");
        assert_eq!(channels.step(9), given(&[(1, "2")]), "slot 2 came behind all of it");
        let next = given(&[(0, "34"), (1, "34"), (2, "34"), (3, "4")]);
        assert_eq!(channels.step(9), next);
    }

    #[test]
    fn a_member_that_left_gets_nothing_and_later_members_keep_their_start() {
        let mut channels = TestChannels::new();
        (0..4).for_each(|slot| channels.join(slot));
        channels.publish("1");
        assert_eq!(channels.step(1), given(&[(0, "1")]));
        channels.leave(1);
        channels.publish("2");
        channels.join(4);
        channels.publish("3");
        channels.leave(0);
        channels.join(5);
        assert_eq!(channels.step(9), given(&[(2, "1"), (3, "1")]));
        channels.leave(2);
        assert_eq!(channels.step(9), given(&[(3, "23"), (4, "3")]));
        channels.publish("4");
        let mut last = channels.step(9);
        last.sort_unstable();
        assert_eq!(last, given(&[(3, "4"), (4, "4"), (5, "4")]), "in whatever order");
    }

    #[test]
    fn a_channel_is_released_without_members_and_pending_subscribes() {
        let mut channels = TestChannels::new();
        channels.join(0);
        channels.publish("1");
        channels.leave(0);
        assert_eq!(channels.release(), 0, "its lap is still open");
        assert_eq!(channels.step(9), given(&[]));
        channels.locals.end_turn();
        assert_eq!((channels.release(), channels.locals.len()), (1, 0));
        assert_eq!(channels.locals.backlog(), 0);

        let (key, serial) = channels.begin_subscription(1);
        assert!(channels.locals.leave(&mut channels.heads[1], key));
        assert!(!channels.locals.is_awaiting(key, serial));
        assert_eq!(channels.release(), 0, "its answer is still to come");
        channels.locals.subscribe_answered(HASH, "c");
        assert_eq!((channels.release(), channels.locals.len()), (1, 0));
    }

    #[test]
    fn a_group_with_an_unused_filter_is_removed() {
        let mut channels = TestChannels::new();
        channels.join(0);
        for nth in 0..100 {
            channels.join_filtered(1, &nth.to_string());
            channels.publish("1");
            while channels.locals.has_unsent() {
                channels.step(10);
            }
            channels.locals.end_turn();
            channels.leave(1);
        }
        assert_eq!(channels.groups(), 1);
    }

    #[test]
    fn a_release_without_room_is_retried_and_a_join_cancels_it() {
        let mut channels = TestChannels::new();
        channels.join(0);
        channels.leave(0);
        channels.locals.release_idle(|_, _| false);
        assert!(channels.locals.has_idle());
        channels.join(1);
        assert_eq!(channels.release(), 0);
        channels.leave(1);
        assert_eq!(channels.release(), 1);
    }
}
