//! Paced channels: publications wait for others to be sent together, or for a later one that
//! replaces them.
//!
//! Owns the waiting publications per group. A group holds the publications that pass its own
//! filter, so each subscriber gets the latest of those that it requested. Never touches a channel
//! without a pace. The invariants: publications that are sent together keep their order, and a new
//! member gets only those after its join; of replaced publications the last is always sent; a group
//! without members keeps nothing beyond one interval.

use super::pace_timers::PaceWait;
use super::state::LocalChannels;
use crate::base::work_budget::{WorkBudget, cost};
use crate::model::namespaces::Pace;
use crate::model::publication::Publication;

/// Maximum number of due groups handled per turn.
const DUE_MAX: usize = 256;

impl LocalChannels {
    /// Sets the pace of the channel of this subscription.
    pub fn set_pace(&mut self, key: u32, pace: Pace) {
        let channel = self.channel_of(&self.subscriptions[key as usize]);
        self.channels[channel as usize].paced = true;
        self.pacing.paces.insert(channel, pace);
    }

    /// Adds a publication to a group at the pace of its channel. Joins and leaves are not delayed,
    /// except that they keep their order within a batch.
    pub(super) fn add_paced(&mut self, at: u32, channel: u32, publication: &Publication) {
        match self.pacing.paces.get(&channel).copied() {
            Some(Pace::Latest { interval }) if publication.has_data() => {
                match self.pacing.waits.get_mut(&at) {
                    Some((_, PaceWait::Gap(held))) => {
                        self.pacing.replaced += u64::from(held.is_some());
                        *held = Some(publication.clone());
                    }
                    _ => self.send_latest(at, interval, publication.clone()),
                }
            }
            Some(Pace::Together { window, publications }) => {
                let begins = !self.has_pending(at);
                self.write(at, publication);
                if begins {
                    self.pacing.begin(at, window, PaceWait::Window);
                }
                let fanout = self.groups[at as usize].fanout.as_ref();
                if fanout.is_some_and(|fanout| fanout.pending_publications >= publications) {
                    self.flush_window(at);
                }
            }
            _ => self.add(at, publication),
        }
    }

    fn has_pending(&self, at: u32) -> bool {
        let fanout = self.groups[at as usize].fanout.as_ref();
        fanout.is_some_and(|fanout| !fanout.pending.is_empty())
    }

    /// Sends the latest publication to a group, or keeps it waiting while the previous one is not
    /// sent.
    fn send_latest(&mut self, at: u32, interval: u64, publication: Publication) {
        let late = self.has_pending(at);
        if !late {
            self.add(at, &publication);
        }
        self.pacing.begin(at, interval, PaceWait::Gap(late.then_some(publication)));
    }

    /// Sends the batch of a group.
    fn flush_window(&mut self, at: u32) {
        let waited = self.pacing.has_window(at);
        self.pacing.end_window(at);
        let fanout = self.groups[at as usize].fanout.as_ref();
        // After the current lap it is sent anyway.
        if waited && fanout.is_some_and(|fanout| fanout.lap.is_none()) {
            self.unsent.push_back(at);
        }
    }

    /// Sends all batches at once: the backlog has no room for them.
    pub fn flush_windows(&mut self) {
        if self.pacing.windows == 0 {
            return;
        }
        let all: Vec<u32> = self.pacing.due.iter().map(|(_, group)| *group).collect();
        all.into_iter().for_each(|group| self.flush_window(group));
    }

    /// Sets the time and sends what has waited long enough, a bounded number of groups per call.
    /// Returns whether more groups are due.
    pub fn expire(&mut self, now: u64, budget: &mut WorkBudget) -> bool {
        self.pacing.now = now;
        for _ in 0..DUE_MAX {
            if budget.is_spent() {
                break;
            }
            let Some(&(until, at)) = self.pacing.due.first() else { return false };
            if until > now {
                return false;
            }
            budget.charge(cost::MESSAGE);
            match self.pacing.waits.get(&at) {
                Some((_, PaceWait::Window)) => self.flush_window(at),
                _ => self.end_gap(at),
            }
        }
        true
    }

    fn end_gap(&mut self, at: u32) {
        let Some(PaceWait::Gap(Some(publication))) = self.pacing.end(at) else { return };
        let group = &self.groups[at as usize];
        let pace = self.pacing.paces.get(&group.channel).copied();
        if let Some(Pace::Latest { interval }) = pace
            && !group.members.is_empty()
        {
            self.send_latest(at, interval, publication);
        }
    }

    /// When [`LocalChannels::expire`] has something to do next, in milliseconds.
    pub fn next_due(&self) -> Option<u64> {
        self.pacing.due.first().map(|(until, _)| *until)
    }

    /// Number of publications that a later one replaced.
    pub fn replaced_publications(&self) -> u64 {
        self.pacing.replaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::{TestChannels, given};

    const LATEST: Pace = Pace::Latest { interval: 100 };
    const TOGETHER: Pace = Pace::Together { window: 100, publications: 3 };

    #[test]
    fn only_the_latest_publication_of_an_interval_is_sent() {
        let mut channels = TestChannels::at_pace(LATEST);
        (0..2).for_each(|slot| channels.join(slot));
        channels.publish("1");
        assert_eq!(channels.step(9), given(&[(0, "1"), (1, "1")]), "the first waits for nobody");
        for (now, data) in [(0, "2"), (50, "3"), (99, "4")] {
            assert!(!channels.expire(now));
            channels.publish(data);
            assert!(!channels.locals.has_unsent());
        }
        assert_eq!(
            (channels.locals.next_due(), channels.locals.replaced_publications()),
            (Some(100), 2)
        );
        channels.expire(100);
        assert_eq!(channels.step(9), given(&[(0, "4"), (1, "4")]));
        channels.publish("5");
        channels.expire(199);
        assert!(!channels.locals.has_unsent());
        channels.expire(200);
        assert_eq!(channels.step(9), given(&[(0, "5"), (1, "5")]));
        channels.expire(300);
        assert_eq!(channels.locals.next_due(), None, "nothing is kept of a channel at rest");
        channels.publish("6");
        assert_eq!(channels.step(9), given(&[(0, "6"), (1, "6")]));
    }

    #[test]
    fn a_group_with_an_unsent_publication_gets_no_second_one() {
        let mut channels = TestChannels::at_pace(LATEST);
        (0..2).for_each(|slot| channels.join(slot));
        channels.publish("1");
        assert_eq!(channels.step(1), given(&[(0, "1")]));
        for (now, data) in [(100, "2"), (200, "3"), (300, "4")] {
            channels.expire(now);
            channels.publish(data);
        }
        assert_eq!(channels.step(9), given(&[(1, "1")]));
        assert_eq!(channels.step(9), given(&[(0, "2"), (1, "2")]));
        channels.expire(400);
        assert_eq!(channels.step(9), given(&[(0, "4"), (1, "4")]));
    }

    #[test]
    fn a_group_without_members_keeps_no_publication() {
        for pace in [LATEST, TOGETHER] {
            let mut channels = TestChannels::at_pace(pace);
            channels.join(0);
            channels.publish("1");
            channels.publish("2");
            if pace == LATEST {
                channels.step(9);
            }
            channels.leave(0);
            channels.expire(100);
            channels.step(9);
            channels.locals.end_turn();
            channels.expire(200);
            assert_eq!((channels.release(), channels.locals.len()), (1, 0));
            assert_eq!((channels.locals.backlog(), channels.locals.next_due()), (0, None));
        }
        let mut channels = TestChannels::at_pace(LATEST);
        channels.join(0);
        channels.publish("1");
        channels.publish("2");
        channels.step(9);
        channels.locals.end_turn();
        channels.leave(0);
        assert_eq!((channels.release(), channels.locals.next_due()), (1, None));
    }

    #[test]
    fn publications_of_a_batch_are_sent_together_in_order() {
        let mut channels = TestChannels::at_pace(TOGETHER);
        channels.join(0);
        channels.publish("1");
        assert!(!channels.locals.has_unsent());
        channels.expire(60);
        channels.join(1);
        channels.publish("2");
        channels.expire(99);
        assert!(!channels.locals.has_unsent());
        channels.expire(100);
        assert_eq!(channels.step(9), given(&[(0, "12"), (1, "2")]), "no gap and nothing twice");
        ["3", "4", "5"].iter().for_each(|data| channels.publish(data));
        assert_eq!(channels.step(9), given(&[(0, "345"), (1, "345")]), "as many as there may be");
        assert_eq!(channels.locals.next_due(), None);
    }

    #[test]
    fn a_batch_can_begin_during_a_lap() {
        for early in [false, true] {
            let mut channels = TestChannels::at_pace(TOGETHER);
            (0..2).for_each(|slot| channels.join(slot));
            channels.publish("1");
            channels.expire(100);
            assert_eq!(channels.step(1), given(&[(0, "1")]));
            channels.publish("2");
            if early {
                channels.expire(200);
            }
            assert_eq!(channels.step(9), given(&[(1, "1")]));
            assert_eq!(channels.locals.has_unsent(), early);
            channels.publish("3");
            channels.expire(200);
            assert_eq!(channels.step(9), given(&[(0, "23"), (1, "23")]));
            assert!(!channels.locals.has_unsent());
        }
    }

    #[test]
    fn batches_are_sent_at_once_when_the_backlog_is_full() {
        let mut channels = TestChannels::at_pace(TOGETHER);
        channels.join(0);
        channels.publish("1");
        channels.locals.flush_windows();
        assert_eq!(channels.step(9), given(&[(0, "1")]));
        channels.locals.end_turn();
        assert_eq!((channels.locals.backlog(), channels.locals.next_due()), (0, None));
    }
}
