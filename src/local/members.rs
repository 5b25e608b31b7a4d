//! Subscriptions of a shard's channels: joins, leaves, releases and lost positions.
//!
//! Owns nothing: the tables are in `state`. A new member gets nothing that was appended before it
//! joined.

use std::sync::Arc;

use super::state::{
    ANNOUNCED, Channel, Group, LISTED, LocalChannels, Member, NONE, OutOfSyncSubscriber, PENDING,
    POSITIONED, RangeStart, Subscription, TOMBSTONE, number,
};
use crate::base::planted_faults::{PlantedFault, planted};
use crate::model::message::Visibility;
use crate::model::publication::Encoding;
use crate::model::watch::BusyChannel;
use crate::wire::deflate::{Compression, Deflater};
use crate::wire::filter::Filter;
use crate::wire::protocol::Position;

impl LocalChannels {
    /// Creates empty tables, with the compression of bidirectional and of unidirectional clients.
    pub fn new(compression: Compression, uni: Compression) -> Self {
        let deflaters = [Deflater::new(compression), Deflater::new(uni)];
        LocalChannels { deflaters, ..LocalChannels::default() }
    }

    /// The compressor of bidirectional or unidirectional clients.
    pub fn deflater(&mut self, unidirectional: bool) -> &mut Deflater {
        &mut self.deflaters[usize::from(unidirectional)]
    }

    /// Number of subscriptions, pending ones included.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    /// Bytes of publications that wait for a lap or are in one.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// Whether `key` is still the pending subscription with this `serial`.
    pub fn is_awaiting(&self, key: u32, serial: u32) -> bool {
        self.subscriptions.get(key as usize).is_some_and(|found| {
            found.is_pending()
                && (found.serial == serial || planted(PlantedFault::StaleAnswerJoins))
        })
    }

    /// Whether the answer for `key` has not arrived.
    pub fn is_pending(&self, key: u32) -> bool {
        self.subscriptions[key as usize].is_pending()
    }

    /// The serial of a subscription that waits for its home.
    pub fn pending_serial(&self, key: u32) -> Option<u32> {
        let found = &self.subscriptions[key as usize];
        found.is_pending().then_some(found.serial)
    }

    pub(super) fn find(&self, hash: u64, name: &str) -> Option<u32> {
        let channels = &self.channels;
        self.table.find(hash, |at| *channels[*at as usize].name == *name).copied()
    }

    pub(super) fn channel_of(&self, subscription: &Subscription) -> u32 {
        if subscription.is_pending() {
            subscription.place
        } else {
            self.groups[subscription.place as usize].channel
        }
    }

    /// The shared copy of the name, if the shard knows the channel.
    pub fn shared_name(&self, hash: u64, name: &str) -> Option<Arc<str>> {
        self.find(hash, name).map(|at| self.channels[at as usize].name.clone())
    }

    /// Name and hash of a subscription's channel.
    pub fn channel(&self, key: u32) -> (&Arc<str>, u64) {
        let channel = &self.channels[self.channel_of(&self.subscriptions[key as usize]) as usize];
        (&channel.name, channel.hash)
    }

    /// The number that replaces the name of the channel for clients. Another channel gets it only
    /// when this channel has no subscribers.
    pub fn channel_number(&self, key: u32) -> u32 {
        number(self.channel_of(&self.subscriptions[key as usize]))
    }

    /// The next subscription in the list of the connection, or [`NONE`].
    pub fn next_subscription(&self, key: u32) -> u32 {
        self.subscriptions[key as usize].next
    }

    /// Whether the home has recorded the interest of this shard, so that a join needs no request.
    pub fn is_confirmed(&self, hash: u64, name: &str) -> bool {
        self.find(hash, name).is_some_and(|at| self.channels[at as usize].confirmed)
    }

    /// The subscription to this channel in the list that starts at `head`.
    pub fn find_subscription(&self, head: u32, hash: u64, name: &str) -> Option<u32> {
        let channel = self.find(hash, name)?;
        let mut key = head;
        while key != NONE {
            let subscription = &self.subscriptions[key as usize];
            if self.channel_of(subscription) == channel {
                return Some(key);
            }
            key = subscription.next;
        }
        None
    }

    /// What the home of the channel was told about the visibility of a subscriber when it
    /// subscribed. The options of the channel may have changed since.
    pub fn visibility(&self, key: u32) -> Visibility {
        let serial = self.subscriptions[key as usize].serial;
        Visibility { listed: serial & LISTED != 0, announced: serial & ANNOUNCED != 0 }
    }

    /// Adds a pending subscription at the front of the list at `head`; returns its key and serial.
    pub fn begin_subscription(
        &mut self,
        head: &mut u32,
        (name, hash): (&Arc<str>, u64),
        seen: Visibility,
    ) -> (u32, u32) {
        let channel = self.find(hash, name).unwrap_or_else(|| {
            let channel = Channel {
                name: name.clone(),
                hash,
                group: NONE,
                pending: 0,
                subscribers: 0,
                confirmed: false,
                idle: false,
                position_checked: false,
                paced: false,
            };
            let at = self.channels.insert(channel) as u32;
            let channels = &self.channels;
            self.table.insert_unique(hash, at, |at| channels[*at as usize].hash);
            at
        });
        self.channels[channel as usize].pending += 1;
        self.serial = (self.serial + 1) % ANNOUNCED;
        let listed = if seen.listed { LISTED } else { 0 };
        let serial = self.serial | listed | if seen.announced { ANNOUNCED } else { 0 };
        let subscription = Subscription { place: channel, position: PENDING, next: *head, serial };
        *head = self.subscriptions.insert(subscription) as u32;
        (*head, serial)
    }

    /// Makes the pending subscription `key` a member. It gets only publications appended from now
    /// on.
    pub fn join(&mut self, key: u32, slot: u32, encoding: Encoding, filter: Option<&Filter>) {
        let channel = self.subscriptions[key as usize].place;
        let group = self.find_or_insert_group(channel, encoding, filter);
        let Group { members, fanout, last, .. } = &mut self.groups[group as usize];
        *last = None;
        let position = members.len() as u32;
        members.push(Member { slot, subscription: key });
        if let Some(fanout) = fanout
            && !fanout.pending.is_empty()
            && !planted(PlantedFault::JoinerGetsWholeLap)
        {
            let byte = fanout.pending.len() as u32;
            fanout.pending_starts.push(RangeStart { member: position, byte });
        }
        let subscription = &mut self.subscriptions[key as usize];
        (subscription.place, subscription.position) = (group, position);
        self.channels[channel as usize].subscribers += 1;
    }

    /// Starts to check the position of the pending subscription `key`, which joins at `top`. Must
    /// be called before the join.
    pub fn check_position(&mut self, key: u32, top: Position, times: (u64, u64)) {
        let subscription = &mut self.subscriptions[key as usize];
        subscription.serial |= POSITIONED;
        let channel = subscription.place;
        if !self.position_checks.join(channel, top, times) {
            self.mark_out_of_sync(channel);
            self.position_checks.join(channel, top, times);
        }
        self.channels[channel as usize].position_checked = true;
    }

    /// Marks all members of a channel as out of sync.
    pub fn mark_out_of_sync(&mut self, channel: u32) {
        self.end_position_check(channel);
        let mut at = self.channels[channel as usize].group;
        while at != NONE {
            let group = &self.groups[at as usize];
            let members = group.members.iter().filter(|member| member.slot != TOMBSTONE);
            let lost = |member: &Member| OutOfSyncSubscriber {
                slot: member.slot,
                subscription: member.subscription,
            };
            self.out_of_sync.extend(members.map(lost));
            at = group.next;
        }
    }

    pub(super) fn end_position_check(&mut self, channel: u32) {
        let state = &mut self.channels[channel as usize];
        if std::mem::take(&mut state.position_checked) {
            self.position_checks.end(channel);
        }
    }

    /// The next member that is out of sync and has not left.
    pub fn next_out_of_sync(&mut self) -> Option<OutOfSyncSubscriber> {
        while let Some(lost) = self.out_of_sync.pop_front() {
            let found = self.subscriptions.get(lost.subscription as usize);
            let Some(found) = found.filter(|found| !found.is_pending()) else { continue };
            let group = self.groups.get(found.place as usize);
            let member = group.and_then(|group| group.members.get(found.position as usize));
            if found.serial & POSITIONED != 0 && member.is_some_and(|one| one.slot == lost.slot) {
                return Some(lost);
            }
        }
        None
    }

    /// Whether members are out of sync.
    pub fn has_out_of_sync(&self) -> bool {
        !self.out_of_sync.is_empty()
    }

    /// Name and hash of the channel with this index.
    pub fn channel_name(&self, channel: u32) -> Option<(&Arc<str>, u64)> {
        self.channels.get(channel as usize).map(|channel| (&channel.name, channel.hash))
    }

    /// Notes the answer to a subscribe, also if the subscriber has left. Must be called after the
    /// join.
    pub fn subscribe_answered(&mut self, hash: u64, name: &str) {
        // A pending subscribe keeps its channel.
        let Some(channel) = self.find(hash, name) else { return };
        let state = &mut self.channels[channel as usize];
        state.pending = state.pending.saturating_sub(1);
        state.confirmed = true;
        self.note_if_idle(channel);
    }

    pub(super) fn note_if_idle(&mut self, channel: u32) {
        let state = &mut self.channels[channel as usize];
        let pending = state.pending > 0 && !planted(PlantedFault::ReleasedWhilePending);
        if state.subscribers == 0 && !pending && !state.idle {
            state.idle = true;
            self.idle.push_back(channel);
        }
        if self.channels[channel as usize].subscribers == 0 {
            self.end_position_check(channel);
        }
    }

    /// Ends the subscription `key` of the list at `head`. If it is pending, its answer will be
    /// ignored. Returns whether it existed.
    pub fn leave(&mut self, head: &mut u32, key: u32) -> bool {
        let Some(next) = self.subscriptions.get(key as usize).map(|found| found.next) else {
            return false;
        };
        if *head == key {
            *head = next;
        } else {
            let mut before = *head;
            while self.subscriptions[before as usize].next != key {
                before = self.subscriptions[before as usize].next;
            }
            self.subscriptions[before as usize].next = next;
        }
        let subscription = self.subscriptions.remove(key as usize);
        if !subscription.is_pending() {
            self.remove_member(&subscription);
        }
        true
    }

    pub(super) fn remove_member(&mut self, subscription: &Subscription) {
        let group = &mut self.groups[subscription.place as usize];
        let channel = group.channel;
        let position = subscription.position as usize;
        if let Some(fanout) = &mut group.fanout {
            if !planted(PlantedFault::LeaverStaysInGroup) {
                group.members[position].slot = TOMBSTONE;
                fanout.gone.push(position as u32);
            }
        } else {
            group.members.swap_remove(position);
            if let Some(moved) = group.members.get(position) {
                self.subscriptions[moved.subscription as usize].position = position as u32;
            } else if group.members.is_empty() {
                // A long list frees its memory when it becomes empty.
                group.members.shrink_to_fit();
                self.remove_if_abandoned(subscription.place);
            }
        }
        self.channels[channel as usize].subscribers -= 1;
        self.note_if_idle(channel);
    }

    /// Removes channels without subscribers. `release` sends the release to the home; if it returns
    /// `false`, the channel stays for a later try.
    pub fn release_idle(&mut self, mut release: impl FnMut(&Arc<str>, u64) -> bool) {
        for _ in 0..self.idle.len() {
            let Some(&at) = self.idle.front() else { break };
            let channel = &self.channels[at as usize];
            let pending = channel.pending > 0 && !planted(PlantedFault::ReleasedWhilePending);
            let busy = channel.subscribers > 0 || pending || self.has_fanout(channel.group);
            if !busy && !release(&channel.name, channel.hash) {
                break;
            }
            self.idle.pop_front();
            if busy {
                self.channels[at as usize].idle = false;
            } else {
                self.remove(at);
            }
        }
    }

    /// Whether a channel waits for its release.
    pub fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    pub(super) fn remove(&mut self, at: u32) {
        let channel = self.channels.remove(at as usize);
        if let Ok(entry) = self.table.find_entry(channel.hash, |other| *other == at) {
            entry.remove();
        }
        let mut group = channel.group;
        while group != NONE {
            if channel.paced {
                self.pacing.forget(at, group);
            }
            group = self.groups.remove(group as usize).next;
        }
    }

    /// Upper bound of the indexes of channels.
    pub fn channel_end(&self) -> u32 {
        self.channels.capacity() as u32
    }

    /// Name and number of subscribers of the channel with this index, if it has subscribers.
    pub fn subscriber_count(&self, channel: u32) -> Option<(&Arc<str>, u32)> {
        let channel =
            self.channels.get(channel as usize).filter(|channel| channel.subscribers > 0)?;
        Some((&channel.name, channel.subscribers))
    }

    /// Shared name and number of subscribers of a channel, if it has subscribers.
    pub fn subscribers_of(&self, hash: u64, name: &str) -> Option<(&Arc<str>, u32)> {
        self.subscriber_count(self.find(hash, name)?)
    }

    /// Takes the channels with the most deliveries since the last call, at most `most`. Counts on
    /// if the watch `goes_on`.
    pub fn take_busiest(&mut self, most: usize, goes_on: bool) -> Vec<BusyChannel> {
        let found = self.busiest.take(most);
        self.busiest.watch(goes_on);
        found
    }

    /// Number of channels known here.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether no channel is known here.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}
