//! Laps: publications that wait in a group, and the ranges that carry them to its members.
//!
//! Owns nothing: the tables are in `state`. Never sends. A lap gives one range to every member that
//! was there when it began and has not left; a member gets nothing after it left. Who removes a
//! member asks first what the member is still owed.

use slab::Slab;
use smallvec::SmallVec;

use super::state::{
    Channel, Delivery, Fanout, Group, Lap, LapShape, LocalChannels, Member, NONE, Owed, RangeStart,
    Subscription, TOMBSTONE, number,
};
use crate::model::publication::Publication;
use crate::wire::event_id::EventIdMode;
use crate::wire::protocol::Position;

/// If more members than this left during a lap, its end compacts the whole list of members.
const GONE_MAX: usize = 1024;

/// Number of buffers kept for the next laps.
const SPARE_MAX: usize = 16;

/// Maximum capacity of a kept buffer.
const SPARE_BYTES: usize = 256 * 1024;

/// The bytes of a lap from the start of a member's range on.
fn rest<'a>(bytes: &'a [u8], starts: &[RangeStart], member: u32) -> &'a [u8] {
    let later = starts.partition_point(|start| start.member <= member);
    let start = later.checked_sub(1).map_or(0, |at| starts[at].byte);
    bytes.get(start as usize..).unwrap_or_default()
}

/// Removes the members that left and keeps the order of the others, because ranges start at some of
/// them.
fn close_up(
    members: &mut SmallVec<[Member; 2]>,
    starts: &mut [RangeStart],
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

impl LocalChannels {
    /// Appends a publication for every group of its channel that has members.
    pub fn append(&mut self, publication: &Publication) {
        let Some(channel) = self.find(publication.hash(), publication.channel()) else { return };
        let Channel { group, subscribers, position_checked, paced, .. } =
            self.channels[channel as usize];
        if subscribers == 0 {
            return;
        }
        self.busiest.note(publication.hash(), publication.channel(), subscribers.into());
        if position_checked
            && let Some(position) = publication.position()
            && !self.position_checks.follow(channel, position)
        {
            self.mark_out_of_sync(channel);
        }
        let mut at = group;
        while at != NONE {
            let group = &self.groups[at as usize];
            let next = group.next;
            if group.members.is_empty() {
                // No member gets the publication.
            } else if !group.passes_filter(publication) {
                self.filtered_out += 1;
            } else if publication.concerns(group.encoding) {
                if paced {
                    self.add_paced(at, channel, publication);
                } else {
                    self.add(at, publication);
                }
            }
            at = next;
        }
    }

    /// Adds a publication to the pending bytes of a group, and queues the group.
    pub(super) fn add(&mut self, at: u32, publication: &Publication) {
        let idle = self.groups[at as usize].fanout.is_none();
        self.write(at, publication);
        if idle {
            self.unsent.push_back(at);
        }
    }

    /// Appends a publication to a group's pending bytes.
    pub(super) fn write(&mut self, at: u32, publication: &Publication) {
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
        fanout.pending_shape.add(publication, fanout.pending.len() - before);
        if encoding.event_ids == EventIdMode::Connection {
            fanout.pending_place = publication.position().or(fanout.pending_place);
        }
        self.backlog += fanout.pending.len() - before;
    }

    /// Whether a group has publications to send.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Walks at most `quota` members of the next group; appends what each gets to `deliveries`.
    /// `now` is any clock of the caller. Returns when the lap began, if it is over.
    pub fn step_lap(
        &mut self,
        now: u32,
        quota: usize,
        deliveries: &mut Vec<Delivery>,
    ) -> Option<u32> {
        let at = self.unsent.pop_front()?;
        let group = &mut self.groups[at as usize];
        let fanout = group.fanout.as_mut()?;
        let lap = *fanout.lap.get_or_insert_with(|| {
            let next = self.spare.pop().unwrap_or_default();
            let bytes = std::mem::replace(&mut fanout.pending, next);
            fanout.lap_starts = std::mem::take(&mut fanout.pending_starts);
            (fanout.lap_members, fanout.cursor) = (group.members.len() as u32, 0);
            let publications = std::mem::take(&mut fanout.pending_publications);
            let hash = self.channels[group.channel as usize].hash;
            let place = fanout.pending_place.take().map(|position| (hash, position));
            let shape = std::mem::take(&mut fanout.pending_shape);
            fanout.lap_began = now;
            self.laps.insert(Lap { bytes, publications, shape, place })
        });
        let needs_event_id = group.encoding.event_ids == EventIdMode::Connection;
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
                deliveries.push(Delivery {
                    slot,
                    lap: lap as u32,
                    start,
                    end,
                    publications,
                    needs_event_id,
                });
            }
        }
        fanout.cursor = until;
        if until < fanout.lap_members {
            self.unsent.push_back(at);
            return None;
        }
        let began = fanout.lap_began;
        self.close_lap(at);
        Some(began)
    }

    pub(super) fn close_lap(&mut self, at: u32) {
        let Group { members, fanout: state, channel, .. } = &mut self.groups[at as usize];
        let Some(fanout) = state.as_mut() else { return };
        self.walked.extend(fanout.lap.take());
        fanout.lap_starts.clear();
        let mut gone = std::mem::take(&mut fanout.gone);
        if fanout.pending_starts.is_empty() && gone.len() <= GONE_MAX {
            // In descending order, so that the member moved into a free index is one that stays.
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
                self.unsent.push_back(at);
            }
        } else if let Some(done) = state.take() {
            self.backlog -= done.pending.len();
            self.pacing.end_window(at);
            self.keep_spare(done.pending);
            self.remove_if_abandoned(at);
        }
        self.note_if_idle(channel);
    }

    pub(super) fn keep_spare(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && bytes.capacity() <= SPARE_BYTES {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// What the subscription `key` has not got yet of the publications that were appended before
    /// now, in order: the rest of a lap, and the publications that wait for the next.
    pub fn owed(&self, key: u32) -> impl Iterator<Item = Owed<'_>> {
        let subscription = self.subscriptions.get(key as usize).filter(|found| !found.is_pending());
        let group = subscription.and_then(|found| self.groups.get(found.place as usize));
        let fanout = group.and_then(|group| group.fanout.as_ref().map(|fanout| (group, fanout)));
        let member = subscription.map_or(0, |found| found.position);
        let parts = fanout.map(|(group, fanout)| {
            let needs_event_id = group.encoding.event_ids == EventIdMode::Connection;
            let hash = self.channels[group.channel as usize].hash;
            let walks = (fanout.cursor..fanout.lap_members).contains(&member);
            let lap = fanout.lap.filter(|_| walks).map(|lap| &self.laps[lap]);
            let of_lap = lap.map(|lap| Owed {
                bytes: rest(&lap.bytes, &fanout.lap_starts, member),
                publications: lap.publications,
                place: lap.place,
                needs_event_id,
            });
            let waiting = Owed {
                bytes: rest(&fanout.pending, &fanout.pending_starts, member),
                publications: fanout.pending_publications,
                place: fanout.pending_place.map(|position| (hash, position)),
                needs_event_id,
            };
            of_lap.into_iter().chain([waiting])
        });
        parts.into_iter().flatten().filter(|owed| !owed.bytes.is_empty())
    }

    /// Hash of the channel and position after a lap, if event ids need them.
    pub fn lap_position(&self, lap: u32) -> Option<(u64, Position)> {
        self.laps.get(lap as usize).and_then(|lap| lap.place)
    }

    /// Publications that filters kept from the members of groups, once per group.
    pub fn filtered_publications(&self) -> u64 {
        self.filtered_out
    }

    /// What a lap gives to each member.
    pub fn lap_shape(&self, lap: u32) -> Option<&LapShape> {
        self.laps.get(lap as usize).map(|lap| &lap.shape)
    }

    /// The bytes of a lap.
    pub fn lap(&self, lap: u32) -> &[u8] {
        &self.laps[lap as usize].bytes
    }

    /// Frees the laps that were walked to the end; called after the turn was sent.
    pub fn end_turn(&mut self) {
        while let Some(lap) = self.walked.pop() {
            let lap = self.laps.remove(lap);
            self.backlog -= lap.bytes.len();
            self.keep_spare(lap.bytes);
        }
    }

    pub(super) fn has_fanout(&self, mut group: u32) -> bool {
        while group != NONE {
            if self.groups[group as usize].fanout.is_some() {
                return true;
            }
            group = self.groups[group as usize].next;
        }
        false
    }
}
