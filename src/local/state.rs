//! What a shard knows about its own subscribers: channels, groups, subscriptions and laps.
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
use crate::model::publication::{Encoding, Publication};
use crate::wire::deflate::Deflater;
use crate::wire::delta::Differ;
use crate::wire::filter::Filter;
use crate::wire::protocol::Position;

/// No index.
pub const NONE: u32 = u32::MAX;

/// Member position of a subscription whose answer has not come.
pub(super) const PENDING: u32 = u32::MAX;

/// Bit of a subscription's serial: its position is checked.
pub(super) const POSITIONED: u32 = 1 << 31;

/// Slot of a member that left while a lap was open.
pub(super) const TOMBSTONE: u32 = u32::MAX;

/// One connection's membership, or its wish for one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    /// The channel while pending, the group once joined.
    pub(super) place: u32,
    /// Index among the group's members.
    pub(super) position: u32,
    /// The connection's next subscription.
    pub(super) next: u32,
    /// Tells lives of this index apart; see [`POSITIONED`].
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
    /// First of its groups.
    pub(super) group: u32,
    /// Subscribes on their way to the home and back.
    pub(super) pending: u32,
    pub(super) subscribers: u32,
    /// Whether an answer has come: the home knows of this shard's interest.
    pub(super) confirmed: bool,
    /// Whether it is in the list of channels to be released.
    pub(super) idle: bool,
    /// Whether its subscribers' position is known and checked.
    pub(super) position_checked: bool,
    /// Whether its publications may wait.
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
    /// What its members let through, if not everything.
    pub(super) filtered: Option<Box<GroupFilter>>,
    /// What its members have got last, where they take differences; `None` too while a member
    /// has got nothing yet.
    pub(super) last: Option<Publication>,
    /// Present while something is to be sent.
    pub(super) fanout: Option<Box<Fanout>>,
    pub(super) encoding: Encoding,
}

/// From this member on, the range starts there.
#[derive(Clone, Copy)]
pub(super) struct RangeStart {
    pub(super) member: u32,
    pub(super) byte: u32,
}

#[derive(Default)]
pub(super) struct Fanout {
    /// The lap being walked, by its key.
    pub(super) lap: Option<usize>,
    pub(super) lap_starts: Vec<RangeStart>,
    /// Members of the lap: those that were there when it opened.
    pub(super) lap_members: u32,
    pub(super) cursor: u32,
    /// What the next lap will carry.
    pub(super) pending: Vec<u8>,
    pub(super) pending_publications: u32,
    /// Where the stream stands behind them, if their subscribers note that.
    pub(super) pending_place: Option<Position>,
    pub(super) pending_starts: Vec<RangeStart>,
    /// Places of members that left since it began.
    pub(super) gone: Vec<u32>,
}

/// A subscriber that may have missed something, or stands in a stream that is no more.
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
    /// Who gets it.
    pub slot: u32,
    /// Key of the lap, for [`LocalChannels::lap`].
    pub lap: u32,
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
    /// Publications in the whole lap; a joiner's part may hold fewer.
    pub publications: u32,
    /// Whether the last event is open, for its connection's own id.
    pub needs_event_id: bool,
}

pub(super) struct Lap {
    pub(super) bytes: Vec<u8>,
    pub(super) publications: u32,
    /// The channel's hash, and where its stream stands behind this.
    pub(super) place: Option<(u64, Position)>,
}

/// All channels that one shard has subscribers of.
#[derive(Default)]
pub struct LocalChannels {
    pub(super) table: HashTable<u32>,
    pub(super) channels: Slab<Channel>,
    pub(super) groups: Slab<Group>,
    /// The groups that have a filter, by channel, encoding and filter.
    pub(super) filtered: HashTable<u32>,
    pub(super) hasher: RandomState,
    pub(super) subscriptions: Slab<Subscription>,
    /// Groups with something to send, in turn.
    pub(super) unsent: VecDeque<u32>,
    pub(super) laps: Slab<Lap>,
    /// Laps whose last range has been given out; recycled when the turn has been sent.
    pub(super) walked: Vec<usize>,
    pub(super) spare: Vec<Vec<u8>>,
    pub(super) backlog: usize,
    /// Channels without subscribers whose home has not been told.
    pub(super) idle: VecDeque<u32>,
    pub(super) serial: u32,
    /// Where the subscribers stand whose positions are checked.
    pub position_checks: PositionChecks,
    /// Members that do not stand where they should; some have left since.
    pub(super) out_of_sync: VecDeque<OutOfSyncSubscriber>,
    pub(super) differ: Differ,
    pub(super) pacing: PaceTimers,
    /// For bidirectional clients and for unidirectional ones.
    pub(super) deflaters: [Deflater; 2],
    /// The compressed frame that was made last: groups whose filters differ share it.
    pub(super) compressed: Option<(Publication, Encoding)>,
    pub(super) compressed_frame: Vec<u8>,
}

/// The filter of a group, and how the group is found and taken out by it.
pub(super) struct GroupFilter {
    pub(super) filter: Filter,
    pub(super) hash: u64,
    /// The group in front of it in its channel's list; [`NONE`]: the channel itself.
    pub(super) previous: u32,
}

impl Group {
    /// What its members let through, if not everything.
    pub(super) fn filter(&self) -> Option<&Filter> {
        self.filtered.as_ref().map(|filtered| &filtered.filter)
    }

    /// Whether its filter lets a publication through; news of who comes and goes passes any.
    pub(super) fn passes_filter(&self, publication: &Publication) -> bool {
        let passes = |filter: &Filter| filter.matches(publication.tags());
        !publication.has_data() || self.filter().is_none_or(passes)
    }
}

/// The number of the channel with this index; 0 is none's.
pub(super) fn number(channel: u32) -> u32 {
    channel + 1
}
