//! The groups of a channel: one per encoding, and one per encoding and filter.
//!
//! Owns nothing: the tables are in `state`. Groups without a filter come first in the list of a
//! channel; there are at most as many as encodings. Groups with a filter are found by hash, because
//! clients choose any number of filters. The invariant: a group with a filter has members, or
//! publications on their way to members.

use std::hash::BuildHasher;

use smallvec::SmallVec;

use super::state::{Group, GroupFilter, LocalChannels, NONE};
use crate::model::publication::Encoding;
use crate::wire::filter::Filter;

impl LocalChannels {
    /// Finds the group of a channel for this encoding and filter, or adds it.
    pub(super) fn find_or_insert_group(
        &mut self,
        channel: u32,
        encoding: Encoding,
        filter: Option<&Filter>,
    ) -> u32 {
        let hash = filter.map(|filter| self.hasher.hash_one((channel, encoding, filter)));
        if let (Some(filter), Some(hash)) = (filter, hash) {
            let groups = &self.groups;
            let is_it = |at: &u32| {
                groups.get(*at as usize).is_some_and(|group| {
                    group.channel == channel
                        && group.encoding == encoding
                        && group.filter() == Some(filter)
                })
            };
            if let Some(at) = self.filtered.find(hash, is_it) {
                return *at;
            }
        }
        let mut last = NONE;
        let mut next = self.channels[channel as usize].group;
        while let Some(group) = self.groups.get(next as usize)
            && group.filtered.is_none()
        {
            if filter.is_none() && group.encoding == encoding {
                return next;
            }
            (last, next) = (next, group.next);
        }
        let filtered = filter.zip(hash).map(|(filter, hash)| {
            Box::new(GroupFilter { filter: filter.clone(), hash, previous: last })
        });
        let group = Group {
            channel,
            next,
            members: SmallVec::new(),
            filtered,
            last: None,
            fanout: None,
            encoding,
        };
        let at = self.groups.insert(group) as u32;
        self.link(channel, last, at);
        self.link(channel, at, next);
        if let Some(hash) = hash {
            let groups = &self.groups;
            let rehash = |at: &u32| {
                let filtered = groups.get(*at as usize).and_then(|one| one.filtered.as_ref());
                filtered.map_or(0, |filtered| filtered.hash)
            };
            self.filtered.insert_unique(hash, at, rehash);
        }
        at
    }

    /// Links `behind` after `before` in the list of a channel. `before` is [`NONE`] for the head,
    /// `behind` for the end.
    fn link(&mut self, channel: u32, before: u32, behind: u32) {
        match self.groups.get_mut(before as usize) {
            Some(group) => group.next = behind,
            None => self.channels[channel as usize].group = behind,
        }
        let behind = self.groups.get_mut(behind as usize);
        if let Some(filtered) = behind.and_then(|group| group.filtered.as_mut()) {
            filtered.previous = before;
        }
    }

    /// Removes a group with a filter that has no members and nothing to send.
    pub(super) fn remove_if_abandoned(&mut self, at: u32) {
        let Some(group) = self.groups.get(at as usize) else { return };
        let Some(filtered) = &group.filtered else { return };
        if !group.members.is_empty() || group.fanout.is_some() {
            return;
        }
        let (channel, hash) = (group.channel, filtered.hash);
        let (previous, next) = (filtered.previous, group.next);
        if let Ok(entry) = self.filtered.find_entry(hash, |other| *other == at) {
            entry.remove();
        }
        self.pacing.leave(at);
        self.link(channel, previous, next);
        self.groups.remove(at as usize);
    }
}

#[cfg(test)]
mod tests {
    use crate::local::tests::TestChannels;

    #[test]
    fn groups_with_a_filter_are_removed_with_their_last_member_in_any_order() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3], [2, 3, 1]] {
            let mut channels = TestChannels::new();
            channels.join(0);
            for slot in 1..4 {
                channels.join_filtered(slot, &slot.to_string());
            }
            channels.join_filtered(4, "1");
            channels.join(5);
            assert_eq!(channels.groups(), 4, "two share a filter");
            for slot in order {
                channels.leave(slot);
            }
            assert_eq!(channels.groups(), 2);
            channels.leave(4);
            assert_eq!(channels.groups(), 1);
            channels.publish("1");
            let slots: Vec<u32> = channels.step(9).into_iter().map(|(slot, _)| slot).collect();
            assert_eq!(slots, [0, 5]);
        }
    }

    #[test]
    fn a_group_stays_until_its_lap_has_ended() {
        let mut channels = TestChannels::new();
        channels.join(0);
        channels.join_filtered(1, "1");
        channels.publish_tagged("1", "k", "1");
        channels.leave(1);
        assert_eq!(channels.groups(), 2);
        while channels.locals.has_unsent() {
            channels.step(9);
        }
        channels.locals.end_turn();
        assert_eq!((channels.groups(), channels.locals.backlog()), (1, 0));
    }
}
