//! The local side of channels: a shard's own subscribers, grouped by encoding, and the laps that
//! carry publications to them.
//!
//! Owns subscriptions, groups and the bytes of laps. Never sends: a step says which slot gets
//! which range. The invariants: a lap gives one range to everybody who was a member when it
//! opened and is one still; a joiner gets nothing that was appended before it joined; nothing is
//! given to a member after it left.

mod groups;
mod pace;
pub mod watch;

use std::collections::VecDeque;
use std::hash::RandomState;
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

use self::groups::Filtered;
use self::pace::Pacing;
use crate::base::faults::{Planted, planted};
use crate::local::watch::Watches;
use crate::model::publication::{Encoding, Publication};
use crate::wire::deflate::{Compression, Deflater};
use crate::wire::delta::Differ;
use crate::wire::event_id::Ids;
use crate::wire::filter::Filter;
use crate::wire::protocol::Position;

/// No index.
pub const NONE: u32 = u32::MAX;
/// Member position of a subscription whose answer has not come.
const PENDING: u32 = u32::MAX;
/// Bit of a subscription's serial: its position is checked.
const POSITIONED: u32 = 1 << 31;
/// Members that left during a lap past which the whole list is walked when the lap ends.
const GONE_MAX: usize = 1024;
/// Slot of a member that left while a lap was open.
const TOMBSTONE: u32 = u32::MAX;

/// One connection's membership, or its wish for one.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    /// The channel while pending, the group once joined.
    place: u32,
    /// Index among the group's members.
    position: u32,
    /// The connection's next subscription.
    next: u32,
    /// Tells lives of this index apart; see [`POSITIONED`].
    serial: u32,
}

impl Subscription {
    fn is_pending(&self) -> bool {
        self.position == PENDING
    }
}

struct Channel {
    name: Arc<str>,
    hash: u64,
    /// First of its groups.
    group: u32,
    /// Subscribes on their way to the home and back.
    pending: u32,
    live: u32,
    /// Whether an answer has come: the home knows of this shard's interest.
    confirmed: bool,
    /// Whether it is in the list of channels to be released.
    idle: bool,
    /// Whether its subscribers' position is known and checked.
    watched: bool,
    /// Whether its publications may wait.
    paced: bool,
}

#[derive(Clone, Copy)]
struct Member {
    slot: u32,
    subscription: u32,
}

struct Group {
    channel: u32,
    next: u32,
    members: SmallVec<[Member; 2]>,
    /// What its members let through, if not everything.
    filtered: Option<Box<Filtered>>,
    /// What its members have got last, where they take differences; `None` too while a member
    /// has got nothing yet.
    last: Option<Publication>,
    /// Present while something is to be sent.
    fanout: Option<Box<Fanout>>,
    encoding: Encoding,
}

impl Group {
    /// Whether its filter lets a publication through; news of who comes and goes passes any.
    fn lets_through(&self, publication: &Publication) -> bool {
        let passes = |filter: &Filter| filter.matches(publication.tags());
        !publication.has_data() || self.filter().is_none_or(passes)
    }
}

/// From this member on, the range starts there.
#[derive(Clone, Copy)]
struct Start {
    member: u32,
    byte: u32,
}

#[derive(Default)]
struct Fanout {
    /// The lap being walked, by its key.
    lap: Option<usize>,
    lap_starts: Vec<Start>,
    /// Members of the lap: those that were there when it opened.
    lap_members: u32,
    cursor: u32,
    /// What the next lap will carry.
    pending: Vec<u8>,
    pending_publications: u32,
    /// Where the stream stands behind them, if their subscribers note that.
    pending_place: Option<Position>,
    pending_starts: Vec<Start>,
    /// Places of members that left since it began.
    gone: Vec<u32>,
}

/// Closes the places of members that left up, without changing the order of the others: ranges
/// start at some of them.
fn close_up(
    members: &mut SmallVec<[Member; 2]>,
    starts: &mut [Start],
    subscriptions: &mut Slab<Subscription>,
) {
    let mut starts = starts.iter_mut().peekable();
    let (mut kept, mut from) = (0u32, 0u32);
    members.retain(|member| {
        while let Some(start) = starts.next_if(|start| start.member == from) {
            start.member = kept;
        }
        from += 1;
        let stays = member.slot != TOMBSTONE;
        if stays {
            subscriptions[member.subscription as usize].position = kept;
            kept += 1;
        }
        stays
    });
}

/// A subscriber that may have missed something, or stands in a stream that is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its connection.
    pub slot: u32,
    /// Its subscription there.
    pub subscription: u32,
}

/// A range of a lap for one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who gets it.
    pub slot: u32,
    /// Key of the lap, for [`Locals::lap`].
    pub lap: u32,
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
    /// Publications in the whole lap; a joiner's part may hold fewer.
    pub publications: u32,
    /// Whether the last event is open, for its connection's own id.
    pub open: bool,
}

struct Lap {
    bytes: Vec<u8>,
    publications: u32,
    /// The channel's hash, and where its stream stands behind this.
    place: Option<(u64, Position)>,
}

/// All channels that one shard has subscribers of.
#[derive(Default)]
pub struct Locals {
    table: HashTable<u32>,
    channels: Slab<Channel>,
    groups: Slab<Group>,
    /// The groups that have a filter, by channel, encoding and filter.
    filtered: HashTable<u32>,
    hasher: RandomState,
    subscriptions: Slab<Subscription>,
    /// Groups with something to send, in turn.
    open: VecDeque<u32>,
    laps: Slab<Lap>,
    /// Laps whose last range has been given out; recycled when the turn has been sent.
    walked: Vec<usize>,
    spare: Vec<Vec<u8>>,
    backlog: usize,
    /// Channels without subscribers whose home has not been told.
    idle: VecDeque<u32>,
    serial: u32,
    /// Where the subscribers stand whose positions are checked.
    pub watches: Watches,
    /// Members that do not stand where they should; some have left since.
    lost: VecDeque<Lost>,
    differ: Differ,
    pacing: Pacing,
    /// For bidirectional clients and for unidirectional ones.
    deflaters: [Deflater; 2],
    /// The compressed frame that was made last: groups whose filters differ share it.
    compressed: Option<(Publication, Encoding)>,
    compressed_frame: Vec<u8>,
}

/// The number of the channel with this index; 0 is none's.
fn number(channel: u32) -> u32 {
    channel + 1
}

/// Buffers kept for the next laps.
const SPARE_MAX: usize = 16;
/// A buffer that grew beyond this is not kept.
const SPARE_BYTES: usize = 256 * 1024;

impl Locals {
    /// No channels yet; what is said of compression is for bidirectional and unidirectional
    /// clients.
    pub fn new(compression: Compression, uni: Compression) -> Self {
        let deflaters = [Deflater::new(compression), Deflater::new(uni)];
        Locals { deflaters, ..Locals::default() }
    }

    /// What compresses for such clients.
    pub fn deflater(&mut self, unidirectional: bool) -> &mut Deflater {
        &mut self.deflaters[usize::from(unidirectional)]
    }

    /// Number of subscriptions, pending ones included.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    /// Bytes waiting for a lap or in one.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// Whether `key` still is the pending subscription that was given `serial`.
    pub fn awaits(&self, key: u32, serial: u32) -> bool {
        self.subscriptions.get(key as usize).is_some_and(|found| {
            found.is_pending() && (found.serial == serial || planted(Planted::StaleAnswerJoins))
        })
    }

    /// Whether the answer for `key` has not come yet.
    pub fn is_pending(&self, key: u32) -> bool {
        self.subscriptions[key as usize].is_pending()
    }

    fn find(&self, hash: u64, name: &str) -> Option<u32> {
        let channels = &self.channels;
        self.table.find(hash, |at| *channels[*at as usize].name == *name).copied()
    }

    fn channel_of(&self, subscription: &Subscription) -> u32 {
        if subscription.is_pending() {
            subscription.place
        } else {
            self.groups[subscription.place as usize].channel
        }
    }

    /// The channel's name as it is shared here, if the shard knows the channel.
    pub fn name(&self, hash: u64, name: &str) -> Option<Arc<str>> {
        self.find(hash, name).map(|at| self.channels[at as usize].name.clone())
    }

    /// Name and hash of a subscription's channel.
    pub fn channel(&self, key: u32) -> (&Arc<str>, u64) {
        let channel = &self.channels[self.channel_of(&self.subscriptions[key as usize]) as usize];
        (&channel.name, channel.hash)
    }

    /// The number that stands for a subscription's channel here. Another channel gets it only when
    /// nobody is subscribed to this one any more.
    pub fn number(&self, key: u32) -> u32 {
        number(self.channel_of(&self.subscriptions[key as usize]))
    }

    /// The subscription behind this one in its connection's list, or [`NONE`].
    pub fn next_subscription(&self, key: u32) -> u32 {
        self.subscriptions[key as usize].next
    }

    /// Whether the channel's home knows of this shard's interest, so that a join needs no
    /// request.
    pub fn is_confirmed(&self, hash: u64, name: &str) -> bool {
        self.find(hash, name).is_some_and(|at| self.channels[at as usize].confirmed)
    }

    /// The subscription of the list that starts at `head` which is on this channel.
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

    /// Adds a pending subscription in front of the list at `head`; returns its key and serial.
    pub fn begin(&mut self, head: &mut u32, hash: u64, name: &Arc<str>) -> (u32, u32) {
        let channel = self.find(hash, name).unwrap_or_else(|| {
            let channel = Channel {
                name: name.clone(),
                hash,
                group: NONE,
                pending: 0,
                live: 0,
                confirmed: false,
                idle: false,
                watched: false,
                paced: false,
            };
            let at = self.channels.insert(channel) as u32;
            let channels = &self.channels;
            self.table.insert_unique(hash, at, |at| channels[*at as usize].hash);
            at
        });
        self.channels[channel as usize].pending += 1;
        self.serial = (self.serial + 1) % POSITIONED;
        let subscription =
            Subscription { place: channel, position: PENDING, next: *head, serial: self.serial };
        *head = self.subscriptions.insert(subscription) as u32;
        (*head, self.serial)
    }

    /// The answer for `key` has come and the connection still wants it: joins behind everything
    /// that was appended so far.
    pub fn join(&mut self, key: u32, slot: u32, encoding: Encoding, filter: Option<&Filter>) {
        let channel = self.subscriptions[key as usize].place;
        let group = self.group(channel, encoding, filter);
        let Group { members, fanout, last, .. } = &mut self.groups[group as usize];
        *last = None;
        let position = members.len() as u32;
        members.push(Member { slot, subscription: key });
        if let Some(fanout) = fanout
            && !fanout.pending.is_empty()
            && !planted(Planted::JoinerStartsAtFront)
        {
            let byte = fanout.pending.len() as u32;
            fanout.pending_starts.push(Start { member: position, byte });
        }
        let subscription = &mut self.subscriptions[key as usize];
        (subscription.place, subscription.position) = (group, position);
        self.channels[channel as usize].live += 1;
    }

    /// The pending subscription `key` joins where its channel's stream stands, and is to be told
    /// if it ever does not stand there any more. Call it before the join.
    pub fn watch(&mut self, key: u32, top: Position, times: (u64, u64)) {
        let subscription = &mut self.subscriptions[key as usize];
        subscription.serial |= POSITIONED;
        let channel = subscription.place;
        if !self.watches.join(channel, top, times) {
            self.lose(channel);
            self.watches.join(channel, top, times);
        }
        self.channels[channel as usize].watched = true;
    }

    /// The members of a channel do not stand where its stream does.
    pub fn lose(&mut self, channel: u32) {
        self.end_watch(channel);
        let mut at = self.channels[channel as usize].group;
        while at != NONE {
            let group = &self.groups[at as usize];
            let members = group.members.iter().filter(|member| member.slot != TOMBSTONE);
            let lost =
                |member: &Member| Lost { slot: member.slot, subscription: member.subscription };
            self.lost.extend(members.map(lost));
            at = group.next;
        }
    }

    fn end_watch(&mut self, channel: u32) {
        let state = &mut self.channels[channel as usize];
        if std::mem::take(&mut state.watched) {
            self.watches.end(channel);
        }
    }

    /// A member that does not stand where it should.
    pub fn next_lost(&mut self) -> Option<Lost> {
        while let Some(lost) = self.lost.pop_front() {
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

    /// Whether some members do not stand where they should.
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Name and hash of the channel with this index.
    pub fn named(&self, channel: u32) -> Option<(&Arc<str>, u64)> {
        self.channels.get(channel as usize).map(|channel| (&channel.name, channel.hash))
    }

    /// An answer for a subscribe of this channel has come, whether or not anybody still wants
    /// it. Call it after the join.
    pub fn answered(&mut self, hash: u64, name: &str) {
        // A pending subscribe keeps its channel.
        let Some(channel) = self.find(hash, name) else { return };
        let state = &mut self.channels[channel as usize];
        state.pending = state.pending.saturating_sub(1);
        state.confirmed = true;
        self.note_if_idle(channel);
    }

    fn note_if_idle(&mut self, channel: u32) {
        let state = &mut self.channels[channel as usize];
        let pending = state.pending > 0 && !planted(Planted::ReleasedWhilePending);
        if state.live == 0 && !pending && !state.idle {
            state.idle = true;
            self.idle.push_back(channel);
        }
        if self.channels[channel as usize].live == 0 {
            self.end_watch(channel);
        }
    }

    /// Ends the subscription `key` of the list at `head`. A pending one is only forgotten: its
    /// answer is still to come. Returns whether it was there.
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

    fn remove_member(&mut self, subscription: &Subscription) {
        let group = &mut self.groups[subscription.place as usize];
        let channel = group.channel;
        let position = subscription.position as usize;
        if let Some(fanout) = &mut group.fanout {
            if !planted(Planted::LeaverStays) {
                group.members[position].slot = TOMBSTONE;
                fanout.gone.push(position as u32);
            }
        } else {
            group.members.swap_remove(position);
            if let Some(moved) = group.members.get(position) {
                self.subscriptions[moved.subscription as usize].position = position as u32;
            } else if group.members.is_empty() {
                // A list that once was long gives its memory back.
                group.members.shrink_to_fit();
                self.remove_if_abandoned(subscription.place);
            }
        }
        self.channels[channel as usize].live -= 1;
        self.note_if_idle(channel);
    }

    /// Appends a publication for every group of its channel that has members.
    pub fn append(&mut self, publication: &Publication) {
        let Some(channel) = self.find(publication.hash(), publication.channel()) else { return };
        let Channel { group, live, watched, paced, .. } = self.channels[channel as usize];
        if live == 0 {
            return;
        }
        if watched
            && let Some(position) = publication.position()
            && !self.watches.follow(channel, position)
        {
            self.lose(channel);
        }
        let mut at = group;
        while at != NONE {
            let group = &self.groups[at as usize];
            let next = group.next;
            if group.members.is_empty() || !group.lets_through(publication) {
                // Nobody there wants it.
            } else if publication.concerns(group.encoding) {
                if paced {
                    self.add_at_pace(at, channel, publication);
                } else {
                    self.add(at, publication);
                }
            }
            at = next;
        }
    }

    /// Adds a publication to what a group's members get next.
    fn add(&mut self, at: u32, publication: &Publication) {
        let idle = self.groups[at as usize].fanout.is_none();
        self.write(at, publication);
        if idle {
            self.open.push_back(at);
        }
    }

    /// Appends a publication to a group's pending bytes.
    fn write(&mut self, at: u32, publication: &Publication) {
        let group = &mut self.groups[at as usize];
        let number = number(group.channel);
        let fanout = group.fanout.get_or_insert_with(|| {
            let pending = self.spare.pop().unwrap_or_default();
            Box::new(Fanout { pending, ..Fanout::default() })
        });
        let before = fanout.pending.len();
        let encoding = group.encoding;
        if encoding.delta && publication.has_data() {
            let last = group.last.replace(publication.clone());
            let (differ, out) = (&mut self.differ, &mut fanout.pending);
            publication.write_difference((encoding, number), last.as_ref(), differ, out);
            if encoding.compressed {
                let deflater = &mut self.deflaters[usize::from(encoding.unidirectional)];
                deflater.compress_frame(&mut fanout.pending, before);
            }
        } else if encoding.compressed {
            let made = self.compressed.as_ref();
            if made.is_none_or(|(made, kind)| !made.is(publication) || *kind != encoding) {
                self.compressed_frame.clear();
                publication.write(encoding, number, &mut self.compressed_frame);
                let deflater = &mut self.deflaters[usize::from(encoding.unidirectional)];
                deflater.compress_frame(&mut self.compressed_frame, 0);
                self.compressed = Some((publication.clone(), encoding));
            }
            fanout.pending.extend_from_slice(&self.compressed_frame);
        } else {
            publication.write(encoding, number, &mut fanout.pending);
        }
        fanout.pending_publications += 1;
        if encoding.ids == Ids::Own {
            fanout.pending_place = publication.position().or(fanout.pending_place);
        }
        self.backlog += fanout.pending.len() - before;
    }

    /// Whether some group has something to send.
    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Walks the next group in turn for at most `quota` members; adds what each gets to
    /// `deliveries`.
    pub fn step(&mut self, quota: usize, deliveries: &mut Vec<Delivery>) {
        let Some(at) = self.open.pop_front() else { return };
        let group = &mut self.groups[at as usize];
        let Some(fanout) = group.fanout.as_mut() else { return };
        let lap = *fanout.lap.get_or_insert_with(|| {
            let next = self.spare.pop().unwrap_or_default();
            let bytes = std::mem::replace(&mut fanout.pending, next);
            fanout.lap_starts = std::mem::take(&mut fanout.pending_starts);
            (fanout.lap_members, fanout.cursor) = (group.members.len() as u32, 0);
            let publications = std::mem::take(&mut fanout.pending_publications);
            let hash = self.channels[group.channel as usize].hash;
            let place = fanout.pending_place.take().map(|position| (hash, position));
            self.laps.insert(Lap { bytes, publications, place })
        });
        let open = group.encoding.ids == Ids::Own;
        let (end, publications) = (self.laps[lap].bytes.len() as u32, self.laps[lap].publications);
        let mut late = fanout.lap_starts.partition_point(|start| start.member <= fanout.cursor);
        let until = fanout.lap_members.min(fanout.cursor.saturating_add(quota as u32));
        for member in fanout.cursor..until {
            while fanout.lap_starts.get(late).is_some_and(|start| start.member <= member) {
                late += 1;
            }
            let start = late.checked_sub(1).map_or(0, |late| fanout.lap_starts[late].byte);
            let slot = group.members[member as usize].slot;
            if slot != TOMBSTONE && start < end {
                deliveries.push(Delivery { slot, lap: lap as u32, start, end, publications, open });
            }
        }
        fanout.cursor = until;
        if until < fanout.lap_members {
            self.open.push_back(at);
        } else {
            self.close_lap(at);
        }
    }

    fn close_lap(&mut self, at: u32) {
        let Group { members, fanout: state, channel, .. } = &mut self.groups[at as usize];
        let Some(fanout) = state.as_mut() else { return };
        self.walked.extend(fanout.lap.take());
        fanout.lap_starts.clear();
        let mut gone = std::mem::take(&mut fanout.gone);
        if fanout.pending_starts.is_empty() && gone.len() <= GONE_MAX {
            // From behind, so that the member that fills a place is one that stays.
            gone.sort_unstable();
            for position in gone.into_iter().rev() {
                members.swap_remove(position as usize);
                if let Some(moved) = members.get(position as usize) {
                    self.subscriptions[moved.subscription as usize].position = position;
                }
            }
        } else {
            close_up(members, &mut fanout.pending_starts, &mut self.subscriptions);
        }
        let channel = *channel;
        if !fanout.pending.is_empty() && !members.is_empty() {
            if !self.pacing.has_window(at) {
                self.open.push_back(at);
            }
        } else if let Some(done) = state.take() {
            self.backlog -= done.pending.len();
            self.pacing.end_window(at);
            self.keep_spare(done.pending);
            self.remove_if_abandoned(at);
        }
        self.note_if_idle(channel);
    }

    fn keep_spare(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && bytes.capacity() <= SPARE_BYTES {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// The hash of a lap's channel, and where its stream stands behind the lap, if that is noted.
    pub fn place(&self, lap: u32) -> Option<(u64, Position)> {
        self.laps.get(lap as usize).and_then(|lap| lap.place)
    }

    /// The bytes of a lap.
    pub fn lap(&self, lap: u32) -> &[u8] {
        &self.laps[lap as usize].bytes
    }

    /// The turn has been sent: laps that were walked to their end are not looked at any more.
    pub fn end_turn(&mut self) {
        while let Some(lap) = self.walked.pop() {
            let lap = self.laps.remove(lap);
            self.backlog -= lap.bytes.len();
            self.keep_spare(lap.bytes);
        }
    }

    /// Takes one channel that has had no subscribers since it was noted; its record goes away
    /// and the home must be told. `told` is asked first and may refuse for now.
    pub fn release_idle(&mut self, mut told: impl FnMut(&Arc<str>, u64) -> bool) {
        for _ in 0..self.idle.len() {
            let Some(&at) = self.idle.front() else { break };
            let channel = &self.channels[at as usize];
            let pending = channel.pending > 0 && !planted(Planted::ReleasedWhilePending);
            let busy = channel.live > 0 || pending || self.has_fanout(channel.group);
            if !busy && !told(&channel.name, channel.hash) {
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

    /// Whether some channel waits for its home to be told.
    pub fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    fn has_fanout(&self, mut group: u32) -> bool {
        while group != NONE {
            if self.groups[group as usize].fanout.is_some() {
                return true;
            }
            group = self.groups[group as usize].next;
        }
        false
    }

    fn remove(&mut self, at: u32) {
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

    /// Indices of channels are below this.
    pub fn places(&self) -> u32 {
        self.channels.capacity() as u32
    }

    /// The channel with this index and the number of its subscribers, if it has some.
    pub fn subscribed(&self, channel: u32) -> Option<(&Arc<str>, u32)> {
        let channel = self.channels.get(channel as usize).filter(|channel| channel.live > 0)?;
        Some((&channel.name, channel.live))
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::budget::Budget;
    use crate::model::namespaces::Pace;
    use crate::model::publication::{Draft, Extra};
    use crate::wire::filter::{self, FilterNode};

    const HASH: u64 = 7;

    /// A shard with one channel, and the head of each slot's subscription list.
    pub(super) struct Fixture {
        pub(super) locals: Locals,
        heads: Vec<u32>,
        name: Arc<str>,
        pace: Option<Pace>,
    }

    impl Fixture {
        pub(super) fn new() -> Self {
            let (locals, heads) = (Locals::default(), vec![NONE; 8]);
            Fixture { locals, heads, name: "c".into(), pace: None }
        }

        pub(super) fn at_pace(pace: Pace) -> Self {
            Fixture { pace: Some(pace), ..Fixture::new() }
        }

        pub(super) fn join(&mut self, slot: u32) {
            let head = &mut self.heads[slot as usize];
            let (key, serial) = self.locals.begin(head, HASH, &self.name);
            assert!(self.locals.awaits(key, serial));
            if let Some(pace) = self.pace {
                self.locals.set_pace(key, pace);
            }
            let encoding = Encoding { unidirectional: true, ..Encoding::default() };
            self.locals.join(key, slot, encoding, None);
            self.locals.answered(HASH, &self.name);
        }

        pub(super) fn join_filtered(&mut self, slot: u32, value: &str) {
            let (key, cmp, val) = ("k".to_owned(), "eq".to_owned(), value.to_owned());
            let node = FilterNode { key, cmp, val, ..FilterNode::default() };
            let filter = filter::compile(&node).unwrap();
            let (key, _) = self.locals.begin(&mut self.heads[slot as usize], HASH, &self.name);
            self.locals.join(key, slot, Encoding::default(), Some(&filter));
            self.locals.answered(HASH, &self.name);
        }

        pub(super) fn expire(&mut self, now: u64) -> bool {
            self.locals.expire(now, &mut Budget::new(1_000_000, true))
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
            let extra = (!key.is_empty()).then(|| Arc::new(Extra { info: None, tags }));
            let draft = Draft { channel: "c", hash: HASH, data, extra, ..Draft::default() };
            self.locals.append(&Publication::new(draft));
        }

        /// Walks `quota` members; what each slot got, as the data of the publications.
        pub(super) fn step(&mut self, quota: usize) -> Vec<(u32, String)> {
            let mut deliveries = Vec::new();
            self.locals.step(quota, &mut deliveries);
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
    fn a_lap_carries_what_was_published_before_it_and_the_next_one_the_rest() {
        let mut fixture = Fixture::new();
        (0..3).for_each(|slot| fixture.join(slot));
        fixture.publish("1");
        fixture.publish("2");
        assert_eq!(fixture.step(2), given(&[(0, "12"), (1, "12")]));
        fixture.publish("3");
        fixture.publish("4");
        assert_eq!(fixture.step(2), given(&[(2, "12")]));
        assert_eq!(fixture.step(9), given(&[(0, "34"), (1, "34"), (2, "34")]));
        assert!(!fixture.locals.has_open());
        fixture.locals.end_turn();
        assert_eq!(fixture.locals.backlog(), 0);
    }

    #[test]
    fn a_joiner_gets_nothing_from_before_it_joined() {
        let mut fixture = Fixture::new();
        fixture.join(0);
        fixture.publish("1");
        fixture.join(1);
        fixture.publish("2");
        fixture.join(2);
        assert_eq!(fixture.step(1), given(&[(0, "12")]));
        fixture.publish("3");
        fixture.join(3);
        fixture.publish("4");
        assert_eq!(fixture.step(9), given(&[(1, "2")]), "slot 2 came behind all of it");
        let next = given(&[(0, "34"), (1, "34"), (2, "34"), (3, "4")]);
        assert_eq!(fixture.step(9), next);
    }

    #[test]
    fn a_leaver_gets_nothing_and_the_marks_of_joiners_stay_right() {
        let mut fixture = Fixture::new();
        (0..4).for_each(|slot| fixture.join(slot));
        fixture.publish("1");
        assert_eq!(fixture.step(1), given(&[(0, "1")]));
        fixture.leave(1);
        fixture.publish("2");
        fixture.join(4);
        fixture.publish("3");
        fixture.leave(0);
        fixture.join(5);
        assert_eq!(fixture.step(9), given(&[(2, "1"), (3, "1")]));
        fixture.leave(2);
        assert_eq!(fixture.step(9), given(&[(3, "23"), (4, "3")]));
        fixture.publish("4");
        let mut last = fixture.step(9);
        last.sort_unstable();
        assert_eq!(last, given(&[(3, "4"), (4, "4"), (5, "4")]), "in whatever order");
    }

    #[test]
    fn a_channel_is_released_once_nobody_is_in_it_or_on_the_way() {
        let mut fixture = Fixture::new();
        fixture.join(0);
        fixture.publish("1");
        fixture.leave(0);
        assert_eq!(fixture.release(), 0, "its lap is still open");
        assert_eq!(fixture.step(9), given(&[]));
        fixture.locals.end_turn();
        assert_eq!((fixture.release(), fixture.locals.len()), (1, 0));
        assert_eq!(fixture.locals.backlog(), 0);

        let (key, serial) = fixture.locals.begin(&mut fixture.heads[1], HASH, &fixture.name);
        assert!(fixture.locals.leave(&mut fixture.heads[1], key));
        assert!(!fixture.locals.awaits(key, serial));
        assert_eq!(fixture.release(), 0, "its answer is still to come");
        fixture.locals.answered(HASH, "c");
        assert_eq!((fixture.release(), fixture.locals.len()), (1, 0));
    }

    #[test]
    fn a_channel_keeps_no_group_for_a_filter_that_nobody_has() {
        let mut fixture = Fixture::new();
        fixture.join(0);
        for nth in 0..100 {
            fixture.join_filtered(1, &nth.to_string());
            fixture.publish("1");
            while fixture.locals.has_open() {
                fixture.step(10);
            }
            fixture.locals.end_turn();
            fixture.leave(1);
        }
        assert_eq!(fixture.groups(), 1);
    }

    #[test]
    fn a_release_that_finds_no_room_is_tried_again_and_a_joiner_undoes_it() {
        let mut fixture = Fixture::new();
        fixture.join(0);
        fixture.leave(0);
        fixture.locals.release_idle(|_, _| false);
        assert!(fixture.locals.has_idle());
        fixture.join(1);
        assert_eq!(fixture.release(), 0);
        fixture.leave(1);
        assert_eq!(fixture.release(), 1);
    }
}
