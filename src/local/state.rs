//! The tables of a shard's own subscribers: channels, groups, subscriptions and laps.
//!
//! Owns the tables. Never changes them: each kind of change has a file of its own.

use std::collections::VecDeque;
use std::hash::RandomState;
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

use super::pace_timers::PaceTimers;
use super::position_checks::PositionChecks;
use crate::base::busiest::Busiest;
use crate::model::publication::{Encoding, Publication, PublicationKind};
use crate::wire::deflate::Deflater;
use crate::wire::delta::Differ;
use crate::wire::filter::Filter;
use crate::wire::protocol::Position;

/// No index.
pub const NONE: u32 = u32::MAX;

/// Member position of a subscription whose answer has not arrived.
pub(super) const PENDING: u32 = u32::MAX;

/// Bit of a subscription's serial: its stream position is checked.
pub(super) const POSITIONED: u32 = 1 << 31;

/// Bit of a subscription's serial: the subscriber is part of the channel's presence.
pub(super) const LISTED: u32 = 1 << 30;

/// Bit of a subscription's serial: the home pushes the subscriber's join and leave.
pub(super) const ANNOUNCED: u32 = 1 << 29;

/// Slot of a member that left during a lap.
pub(super) const TOMBSTONE: u32 = u32::MAX;

/// The subscription of a connection to a channel, answered or pending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    /// Index of the channel while pending, of the group after the join.
    pub(super) place: u32,
    /// Index among the members of the group.
    pub(super) position: u32,
    /// The next subscription of the connection.
    pub(super) next: u32,
    /// Distinguishes successive subscriptions with this index; see [`POSITIONED`], [`LISTED`] and
    /// [`ANNOUNCED`].
    pub(super) serial: u32,
}

impl Subscription {
    pub(super) fn is_pending(&self) -> bool {
        self.position == PENDING
    }
}

pub(super) struct Channel {
    pub(super) name: Arc<str>,
    pub(super) hash: u64,
    /// Index of its first group.
    pub(super) group: u32,
    /// Number of subscribes whose answer has not arrived.
    pub(super) pending: u32,
    pub(super) subscribers: u32,
    /// Whether an answer has arrived, so the home has recorded the interest of this shard.
    pub(super) confirmed: bool,
    /// Whether it is in the list of channels to release.
    pub(super) idle: bool,
    /// Whether the position of its subscribers is checked.
    pub(super) position_checked: bool,
    /// Whether a pace delays its publications.
    pub(super) paced: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Member {
    pub(super) slot: u32,
    pub(super) subscription: u32,
}

pub(super) struct Group {
    pub(super) channel: u32,
    pub(super) next: u32,
    pub(super) members: SmallVec<[Member; 2]>,
    /// The filter of its members, if they have one.
    pub(super) filtered: Option<Box<GroupFilter>>,
    /// The last publication that all members got, if they accept deltas; `None` while a member has
    /// not got any.
    pub(super) last: Option<Publication>,
    /// Present while publications wait for the members.
    pub(super) fanout: Option<Box<Fanout>>,
    pub(super) encoding: Encoding,
}

/// From this member on, the range of the lap starts at this byte.
#[derive(Clone, Copy)]
pub(super) struct RangeStart {
    pub(super) member: u32,
    pub(super) byte: u32,
}

#[derive(Default)]
pub(super) struct Fanout {
    /// Key of the current lap.
    pub(super) lap: Option<usize>,
    pub(super) lap_starts: Vec<RangeStart>,
    /// Number of members when the lap began; later members are not part of it.
    pub(super) lap_members: u32,
    pub(super) cursor: u32,
    /// Bytes of the next lap.
    pub(super) pending: Vec<u8>,
    pub(super) pending_publications: u32,
    pub(super) pending_shape: LapShape,
    /// When the lap began.
    pub(super) lap_began: u32,
    /// Position after the pending publications, if event ids need it.
    pub(super) pending_place: Option<Position>,
    pub(super) pending_starts: Vec<RangeStart>,
    /// Indexes of members that left during the lap.
    pub(super) gone: Vec<u32>,
}

/// A subscriber that may have missed a publication, or whose position belongs to an ended stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfSyncSubscriber {
    /// Its connection.
    pub slot: u32,
    /// Its subscription there.
    pub subscription: u32,
}

/// A range of a lap for one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The receiving slot.
    pub slot: u32,
    /// Key of the lap, for [`LocalChannels::lap`].
    pub lap: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Publications in the whole lap; a member that joined during the lap can get fewer.
    pub publications: u32,
    /// Whether the last event must be closed with the connection's own event id.
    pub needs_event_id: bool,
}

/// Publications that a member has not got yet.
pub struct Owed<'a> {
    /// Their bytes.
    pub bytes: &'a [u8],
    /// Their number; fewer if the member joined after some of them.
    pub publications: u32,
    /// Hash of the channel and position after them, if event ids need them.
    pub place: Option<(u64, Position)>,
    /// Whether the last event must be closed with the connection's own event id.
    pub needs_event_id: bool,
}

/// Times of acceptance that a lap tells apart. Later publications count as accepted with the last.
const ACCEPTED_MAX: usize = 16;

/// What a lap gives to each member that was there when it began, for metrics.
#[derive(Clone, Debug, Default)]
pub struct LapShape {
    /// Publications, joins and leaves, each with its bytes.
    pub messages: [(u32, u32); 3],
    /// When publications were accepted, with their number.
    pub accepted: SmallVec<[(u32, u32); 2]>,
}

impl LapShape {
    /// Adds a publication that was encoded to so many bytes.
    pub(super) fn add(&mut self, publication: &Publication, bytes: usize) {
        let kind = match publication.kind() {
            PublicationKind::Data | PublicationKind::Binary => 0,
            PublicationKind::Join => 1,
            PublicationKind::Leave => 2,
        };
        let (messages, sum) = &mut self.messages[kind];
        (*messages, *sum) = (*messages + 1, sum.wrapping_add(bytes as u32));
        if kind == 0 {
            let (accepted, count) = (publication.accepted(), self.accepted.len());
            match self.accepted.last_mut() {
                Some((last, times)) if *last == accepted || count >= ACCEPTED_MAX => *times += 1,
                _ => self.accepted.push((accepted, 1)),
            }
        }
    }
}

pub(super) struct Lap {
    pub(super) bytes: Vec<u8>,
    pub(super) publications: u32,
    pub(super) shape: LapShape,
    /// Hash of the channel and position after this lap.
    pub(super) place: Option<(u64, Position)>,
}

/// All channels of which one shard has subscribers.
#[derive(Default)]
pub struct LocalChannels {
    pub(super) table: HashTable<u32>,
    /// Publications that the filter of a group kept from its members.
    pub(super) filtered_out: u64,
    pub(super) channels: Slab<Channel>,
    pub(super) groups: Slab<Group>,
    /// Groups with a filter, by channel, encoding and filter.
    pub(super) filtered: HashTable<u32>,
    pub(super) hasher: RandomState,
    pub(super) subscriptions: Slab<Subscription>,
    /// Groups with publications to send, in round-robin order.
    pub(super) unsent: VecDeque<u32>,
    pub(super) laps: Slab<Lap>,
    /// Laps whose last range was handed out; their buffers are reused when the turn has been sent.
    pub(super) walked: Vec<usize>,
    pub(super) spare: Vec<Vec<u8>>,
    pub(super) backlog: usize,
    /// Channels without subscribers that are to be released at their homes.
    pub(super) idle: VecDeque<u32>,
    pub(super) serial: u32,
    /// Positions of the subscribers, which are checked against the homes.
    pub position_checks: PositionChecks,
    /// Members that are out of sync; some may have left since.
    pub(super) out_of_sync: VecDeque<OutOfSyncSubscriber>,
    pub(super) differ: Differ,
    pub(super) pacing: PaceTimers,
    /// Compressors for bidirectional and for unidirectional clients.
    pub(super) deflaters: [Deflater; 2],
    /// The last compressed frame: groups that differ only in their filter share it.
    pub(super) compressed: Option<(Publication, Encoding)>,
    pub(super) compressed_frame: Vec<u8>,
    /// Channels with the most deliveries, while an operator watches.
    pub(super) busiest: Busiest,
}

/// The filter of a group, and what is needed to find and unlink the group.
pub(super) struct GroupFilter {
    pub(super) filter: Filter,
    pub(super) hash: u64,
    /// The previous group in the list of the channel; [`NONE`]: this group is the first.
    pub(super) previous: u32,
}

impl Group {
    /// The filter of its members, if they have one.
    pub(super) fn filter(&self) -> Option<&Filter> {
        self.filtered.as_ref().map(|filtered| &filtered.filter)
    }

    /// Whether the filter passes a publication. Joins and leaves pass every filter.
    pub(super) fn passes_filter(&self, publication: &Publication) -> bool {
        let passes = |filter: &Filter| filter.matches(publication.tags());
        !publication.has_data() || self.filter().is_none_or(passes)
    }
}

/// The number of the channel with this index; 0 means no number.
pub(super) fn number(channel: u32) -> u32 {
    channel + 1
}
