//! The slab of connections and its side tables, which change together.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::base::memory::ShardUsage;
use crate::base::planted_faults::{PlantedFault, planted};
use crate::base::wheel::Wheel;
use crate::hub::connections::address_places::AddressPlaces;
use crate::hub::connections::command_rates::{CommandLimit, CommandRates};
use crate::hub::connections::connection::{AccessEntry, Connection, Hold, NONE, Phase};
use crate::hub::connections::outbox::{Outbox, Outboxes};
use crate::hub::connections::sessions::Sessions;
use crate::hub::connections::unread::{Inbound, Unread};
use crate::model::backend::BackendContext;
use crate::model::message::{Grant, LookupOutcome};
use crate::model::names::Names;
use crate::wire::event_id::{ConnectionEventId, LastEventId};

/// Buckets of the deadline wheel.
const BUCKETS: usize = 512;

/// The connections of a shard and their side tables.
pub struct Connections {
    /// Record of each slot in use.
    pub(in crate::hub) slab: Slab<Connection>,
    /// Current generation of each slot, or the next one of a free slot.
    pub(super) generations: Vec<u32>,
    /// Places of the counts of addresses.
    pub(in crate::hub) address_places: AddressPlaces,
    /// TLS sessions.
    pub(in crate::hub) sessions: Sessions,
    /// Unprocessed input.
    pub(in crate::hub) unread: Unread,
    /// Outboxes.
    pub(in crate::hub) outboxes: Outboxes,
    /// Holds of connects.
    pub(in crate::hub) holds: Slab<Hold>,
    /// Grants by subscription key. A subscription that ends removes its grant.
    pub(in crate::hub) grants: HashMap<u32, Grant>,
    /// Connections that wait for a lookup, with its outcome once it is known.
    pub(in crate::hub) awaited_answers: HashMap<u32, Option<Arc<LookupOutcome>>>,
    /// Positions of SSE connections with several channels.
    pub(in crate::hub) event_positions: HashMap<u32, ConnectionEventId>,
    /// Last event ids that unidirectional clients sent; `Err` contains the beginning of an invalid
    /// id.
    pub(in crate::hub) last_events: HashMap<u32, Result<LastEventId, Box<str>>>,
    /// Streams whose head is written with the answer to their connect, and polls of pages: the
    /// origin of the page.
    pub(in crate::hub) pending_heads: HashMap<u32, Option<Box<str>>>,
    /// What the access log keeps of connections; empty while it is off.
    pub(in crate::hub) access: HashMap<u32, AccessEntry>,
    /// Context for requests to the backend.
    pub(in crate::hub) context: HashMap<u32, Arc<BackendContext>>,
    /// Slots by the hash of their user.
    pub(super) users: HashTable<u32>,
    /// Number of different users with connections here.
    pub(super) different_users: u64,
    /// Hashes users.
    pub(super) names: Names,
    /// The deadline of each slot.
    pub(in crate::hub) wheel: Wheel,
    /// The rate of commands of each slot.
    pub(in crate::hub) command_rates: CommandRates,
    /// Ticks of postponed pings: the deadline of these slots is an earlier expiry.
    pub(in crate::hub) postponed_pings: HashMap<u32, u32>,
}

impl Index<u32> for Connections {
    type Output = Connection;

    #[inline]
    fn index(&self, slot: u32) -> &Connection {
        &self.slab[slot as usize]
    }
}

impl IndexMut<u32> for Connections {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut Connection {
        &mut self.slab[slot as usize]
    }
}

impl Connections {
    /// Creates tables for `slots` connections. The shares are the parts of the budgets for input
    /// and output.
    pub fn new(slots: usize, names: Names, unread: ShardUsage, outboxes: ShardUsage) -> Self {
        Connections {
            slab: Slab::with_capacity(slots),
            generations: Vec::with_capacity(slots),
            address_places: AddressPlaces::default(),
            sessions: Sessions::new(slots),
            unread: Unread::new(unread),
            outboxes: Outboxes::new(outboxes),
            holds: Slab::new(),
            grants: HashMap::new(),
            awaited_answers: HashMap::new(),
            event_positions: HashMap::new(),
            last_events: HashMap::new(),
            pending_heads: HashMap::new(),
            access: HashMap::new(),
            context: HashMap::new(),
            users: HashTable::new(),
            different_users: 0,
            names,
            wheel: Wheel::new(BUCKETS),
            command_rates: CommandRates::default(),
            postponed_pings: HashMap::new(),
        }
    }

    /// Limits the commands of each connection of `slots`.
    #[must_use]
    pub fn with_command_limit(mut self, limit: CommandLimit, slots: usize) -> Self {
        self.command_rates.set_limit(limit, slots);
        self
    }

    /// Reserves a slot; returns it with its generation.
    pub fn reserve(&mut self) -> (u32, u32) {
        let entry = self.slab.vacant_entry();
        let slot = entry.key();
        if self.generations.len() <= slot {
            self.generations.resize(slot + 1, 0);
        }
        let generation = self.generations[slot];
        entry.insert(Connection::reserved(generation));
        (slot as u32, generation)
    }

    /// Frees a slot. The next connection of the slot has another generation and no entry in any
    /// table.
    ///
    /// # Panics
    ///
    /// Panics if a subscription or the output of the turn refers to the slot: the next connection
    /// would get what was meant for this one.
    pub fn free(&mut self, slot: u32) {
        self.empty(slot);
        self.sessions.remove(slot);
        self.address_places.take(slot);
        let connection = self.slab.remove(slot as usize);
        let is_unused = connection.subscriptions == NONE && connection.turn == NONE;
        assert!(is_unused, "nothing refers to a slot that is given back");
        let generation = &mut self.generations[slot as usize];
        *generation = (*generation + 1) & 0xff_ffff;
    }

    /// Empties every side table of a slot whose subscriptions have ended; its record stays.
    pub(in crate::hub) fn empty(&mut self, slot: u32) {
        self.forget_user(slot);
        // No `..` here: a table that is added must say how it is emptied.
        let Connections {
            slab,
            generations: _,
            // A socket that stays is still counted; `free` removes the place.
            address_places: _,
            // The alert that ends the connection is sealed later; `free` removes the session.
            sessions: _,
            unread,
            outboxes,
            holds,
            // No subscription is left, and each removed its grant.
            grants: _,
            awaited_answers,
            event_positions,
            last_events,
            pending_heads,
            access,
            context,
            // The user was removed above.
            users: _,
            different_users: _,
            names: _,
            wheel,
            command_rates,
            postponed_pings,
        } = self;
        let connection = &mut slab[slot as usize];
        let take = |at: &mut u32| std::mem::replace(at, NONE);
        if !planted(PlantedFault::SideTableNotFreed) {
            unread.remove(take(&mut connection.inbound));
        }
        outboxes.remove(take(&mut connection.outbox));
        holds.try_remove(take(&mut connection.hold) as usize);
        wheel.clear(slot);
        command_rates.clear(slot);
        remove(awaited_answers, slot);
        remove(event_positions, slot);
        remove(last_events, slot);
        remove(pending_heads, slot);
        remove(access, slot);
        remove(context, slot);
        remove(postponed_pings, slot);
    }

    /// The connection of a slot in use.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Connection> {
        self.slab.get(slot as usize)
    }

    /// The connection of a slot, if it has this generation.
    #[inline]
    pub fn get_current(&mut self, slot: u32, generation: u32) -> Option<&mut Connection> {
        self.slab.get_mut(slot as usize).filter(|connection| connection.generation == generation)
    }

    /// Current generation of a slot.
    pub fn generation(&self, slot: u32) -> u32 {
        self.generations[slot as usize]
    }

    /// Upper bound of the slots in use.
    pub fn slot_end(&self) -> usize {
        self.generations.len()
    }

    /// Number of slots in use.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether no slot is in use.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Every slot in use.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.slab.iter().map(|(slot, connection)| (slot as u32, connection))
    }

    /// The hold of a connection whose connect waits for its channels.
    #[inline]
    pub(in crate::hub) fn hold_mut(&mut self, slot: u32) -> Option<&mut Hold> {
        self.holds.get_mut(self.slab[slot as usize].hold as usize)
    }

    /// The hold of a connection whose connect waits for its channels.
    #[inline]
    pub(in crate::hub) fn hold(&self, slot: u32) -> Option<&Hold> {
        self.holds.get(self.slab[slot as usize].hold as usize)
    }

    /// Stores the hold of a connection.
    pub(in crate::hub) fn keep_hold(&mut self, slot: u32, hold: Hold) {
        self[slot].hold = self.holds.insert(hold) as u32;
    }

    /// Removes the hold of a connection, if it has one.
    pub(in crate::hub) fn take_hold(&mut self, slot: u32) -> Option<Hold> {
        let at = std::mem::replace(&mut self[slot].hold, NONE);
        self.holds.try_remove(at as usize)
    }

    /// Unprocessed input of a connection. Call [`Unread::settle`] after a change.
    #[inline]
    pub(in crate::hub) fn inbound_mut(&mut self, slot: u32) -> Option<&mut Inbound> {
        self.unread.get_mut(self.slab[slot as usize].inbound)
    }

    /// Like [`Connections::inbound_mut`], but adds an entry if there is none.
    pub(in crate::hub) fn inbound_or_insert(&mut self, slot: u32) -> Option<&mut Inbound> {
        let connection = &mut self.slab[slot as usize];
        if connection.inbound == NONE {
            connection.inbound = self.unread.insert(slot, Inbound::default());
        }
        self.unread.get_mut(connection.inbound)
    }

    /// Removes the unprocessed input of a connection, if it has some.
    pub(in crate::hub) fn take_inbound(&mut self, slot: u32) -> Option<Inbound> {
        let at = std::mem::replace(&mut self[slot].inbound, NONE);
        self.unread.remove(at)
    }

    /// The outbox of a connection.
    #[inline]
    pub(in crate::hub) fn outbox(&self, slot: u32) -> Option<&Outbox> {
        self.outboxes.get(self.slab[slot as usize].outbox)
    }

    /// Stores the outbox of a connection.
    pub(in crate::hub) fn keep_outbox(&mut self, slot: u32, outbox: Outbox) {
        let at = self.outboxes.insert(slot, outbox);
        self.outboxes.settle(at, true);
        self[slot].outbox = at;
    }

    /// Drops the outbox of a connection, if it has one.
    pub(in crate::hub) fn drop_outbox(&mut self, slot: u32) {
        let at = std::mem::replace(&mut self[slot].outbox, NONE);
        self.outboxes.remove(at);
    }

    /// Context of a connection for requests to the backend.
    pub(in crate::hub) fn context_mut(&mut self, slot: u32) -> &mut BackendContext {
        Arc::make_mut(self.context.entry(slot).or_default())
    }

    /// Adds a slot to the index of users.
    pub(in crate::hub) fn index_user(&mut self, slot: u32) {
        let user = self[slot].user();
        if user.is_empty() {
            return;
        }
        let hash = self.names.hash(user);
        self.different_users += u64::from(!self.is_known(hash, user));
        let Connections { slab, names, users, .. } = self;
        let rehash = |slot: &u32| names.hash(slab[*slot as usize].user());
        users.insert_unique(hash, slot, rehash);
    }

    /// Removes the identity of a connection; returns the hash of its user.
    pub(in crate::hub) fn forget_user(&mut self, slot: u32) -> Option<u64> {
        let identity = self[slot].identity.take().filter(|found| !found.user.is_empty())?;
        let hash = self.names.hash(&identity.user);
        if let Ok(entry) = self.users.find_entry(hash, |at| *at == slot) {
            entry.remove();
        }
        self.different_users -= u64::from(!self.is_known(hash, &identity.user));
        Some(hash)
    }

    /// Whether a user has a connection here.
    fn is_known(&self, hash: u64, user: &str) -> bool {
        self.users.find(hash, |slot| self[*slot].user() == user).is_some()
    }

    /// Slots of connected clients of a user; those without a user are not found.
    pub(in crate::hub) fn of_user(&self, user: &str) -> Vec<u32> {
        let is_theirs = |slot: &u32| {
            let connection = &self[*slot];
            connection.user() == user && connection.phase == Phase::Connected
        };
        self.users.iter_hash(self.names.hash(user)).copied().filter(is_theirs).collect()
    }

    /// Number of connections with a user.
    pub(in crate::hub) fn with_user(&self) -> usize {
        self.users.len()
    }

    /// Number of different users with connections here.
    pub(in crate::hub) fn different_users(&self) -> u64 {
        self.different_users
    }
}

/// Removes an entry from a table that is mostly empty.
#[inline]
fn remove<T>(table: &mut HashMap<u32, T>, slot: u32) {
    if !table.is_empty() {
        table.remove(&slot);
    }
}
