//! The slab of connections, its side tables, and what keeps them in step.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::base::faults::{Planted, planted};
use crate::base::memory::Share;
use crate::base::wheel::Wheel;
use crate::hub::connections::connection::{Connection, Hold, NONE, Phase};
use crate::hub::connections::outbox::{Outbox, Outboxes};
use crate::hub::connections::unread::{Inbound, Unread};
use crate::model::backend::BackendContext;
use crate::model::message::{Grant, LookupOutcome};
use crate::model::names::Names;
use crate::wire::event_id::{LastEvent, Trail};

/// Buckets of the wheel of deadlines.
const BUCKETS: usize = 512;

/// The connections of a shard and what is kept beside them.
pub struct Connections {
    /// The record of each slot that is taken.
    pub(in crate::hub) slab: Slab<Connection>,
    /// The generation of each slot's present life, or of its next.
    pub(super) generations: Vec<u32>,
    /// Input that could not be used up.
    pub(in crate::hub) unread: Unread,
    /// Output that the socket did not take.
    pub(in crate::hub) outboxes: Outboxes,
    /// Connects that wait for their channels.
    pub(in crate::hub) holds: Slab<Hold>,
    /// What few subscriptions have, by their keys. A subscription that ends takes its grant along.
    pub(in crate::hub) grants: HashMap<u32, Grant>,
    /// Connections for which something is being found out; what it is, once that is known.
    pub(in crate::hub) awaited_answers: HashMap<u32, Option<Arc<LookupOutcome>>>,
    /// Where event streams with several channels stand.
    pub(in crate::hub) event_positions: HashMap<u32, Trail>,
    /// What unidirectional clients gave as their last event's id; else what it begins with.
    pub(in crate::hub) last_events: HashMap<u32, Result<LastEvent, Box<str>>>,
    /// What is kept of connections for requests to the backend.
    pub(in crate::hub) context: HashMap<u32, Arc<BackendContext>>,
    /// Slots by the hashes of their users.
    pub(super) users: HashTable<u32>,
    /// Users that have connections here.
    pub(super) different_users: u64,
    /// How users are hashed.
    pub(super) names: Names,
    /// The one deadline of each slot.
    pub(in crate::hub) wheel: Wheel,
    /// Ticks of the pings of those that are looked at sooner, since something of theirs ends.
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
    /// No connections yet; there is room for `slots` of them. `unread` and `outboxes` count what
    /// their input and output take.
    pub fn new(slots: usize, names: Names, unread: Share, outboxes: Share) -> Self {
        Connections {
            slab: Slab::with_capacity(slots),
            generations: Vec::with_capacity(slots),
            unread: Unread::new(unread),
            outboxes: Outboxes::new(outboxes),
            holds: Slab::new(),
            grants: HashMap::new(),
            awaited_answers: HashMap::new(),
            event_positions: HashMap::new(),
            last_events: HashMap::new(),
            context: HashMap::new(),
            users: HashTable::new(),
            different_users: 0,
            names,
            wheel: Wheel::new(BUCKETS),
            postponed_pings: HashMap::new(),
        }
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

    /// Gives a slot back. Its next life has another generation, and finds nothing of this one.
    ///
    /// # Panics
    ///
    /// Panics if a subscription or the output of the turn still refers to the slot: whoever gets
    /// it next would be sent what was meant for this connection.
    pub fn free(&mut self, slot: u32) {
        self.empty(slot);
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
            unread,
            outboxes,
            holds,
            // A subscription takes its grant along, and there is none any more.
            grants: _,
            awaited_answers,
            event_positions,
            last_events,
            context,
            // The user was forgotten above.
            users: _,
            different_users: _,
            names: _,
            wheel,
            postponed_pings,
        } = self;
        let connection = &mut slab[slot as usize];
        let take = |at: &mut u32| std::mem::replace(at, NONE);
        if !planted(Planted::TableForgotten) {
            unread.remove(take(&mut connection.inbound));
        }
        outboxes.remove(take(&mut connection.outbox));
        holds.try_remove(take(&mut connection.hold) as usize);
        wheel.clear(slot);
        remove(awaited_answers, slot);
        remove(event_positions, slot);
        remove(last_events, slot);
        remove(context, slot);
        remove(postponed_pings, slot);
    }

    /// The connection of a slot, if one has it.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Connection> {
        self.slab.get(slot as usize)
    }

    /// The connection of a slot, if this generation of it still lives.
    #[inline]
    pub fn get_current(&mut self, slot: u32, generation: u32) -> Option<&mut Connection> {
        self.slab.get_mut(slot as usize).filter(|connection| connection.generation == generation)
    }

    /// The generation of a slot's present life.
    pub fn generation(&self, slot: u32) -> u32 {
        self.generations[slot as usize]
    }

    /// Slots of connections are below this.
    pub fn slot_end(&self) -> usize {
        self.generations.len()
    }

    /// Slots that are taken.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether no slot is taken.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Every slot that is taken.
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

    /// The connect of a connection waits for its channels.
    pub(in crate::hub) fn keep_hold(&mut self, slot: u32, hold: Hold) {
        self[slot].hold = self.holds.insert(hold) as u32;
    }

    /// Takes the hold of a connection away, if it has one.
    pub(in crate::hub) fn take_hold(&mut self, slot: u32) -> Option<Hold> {
        let at = std::mem::replace(&mut self[slot].hold, NONE);
        self.holds.try_remove(at as usize)
    }

    /// Input of a connection that could not be used up. Call [`Unread::settle`] after a change.
    #[inline]
    pub(in crate::hub) fn inbound_mut(&mut self, slot: u32) -> Option<&mut Inbound> {
        self.unread.get_mut(self.slab[slot as usize].inbound)
    }

    /// The same; there is a record for it afterwards.
    pub(in crate::hub) fn inbound_or_insert(&mut self, slot: u32) -> Option<&mut Inbound> {
        let connection = &mut self.slab[slot as usize];
        if connection.inbound == NONE {
            connection.inbound = self.unread.insert(slot);
        }
        self.unread.get_mut(connection.inbound)
    }

    /// Takes the unread input of a connection away, if it has some.
    pub(in crate::hub) fn take_inbound(&mut self, slot: u32) -> Option<Inbound> {
        let at = std::mem::replace(&mut self[slot].inbound, NONE);
        self.unread.remove(at)
    }

    /// The outbox of a connection that is behind.
    #[inline]
    pub(in crate::hub) fn outbox(&self, slot: u32) -> Option<&Outbox> {
        self.outboxes.get(self.slab[slot as usize].outbox)
    }

    /// Keeps what a socket did not take.
    pub(in crate::hub) fn keep_outbox(&mut self, slot: u32, outbox: Outbox) {
        self[slot].outbox = self.outboxes.insert(slot, outbox);
    }

    /// Drops the outbox of a connection, if it has one.
    pub(in crate::hub) fn drop_outbox(&mut self, slot: u32) {
        let at = std::mem::replace(&mut self[slot].outbox, NONE);
        self.outboxes.remove(at);
    }

    /// What is kept of a connection for requests to the backend.
    pub(in crate::hub) fn context_mut(&mut self, slot: u32) -> &mut BackendContext {
        Arc::make_mut(self.context.entry(slot).or_default())
    }

    /// Notes whose connection a slot is.
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

    /// A connection belongs to nobody any more; returns the hash of the user whose it was.
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

    /// Connections with a user.
    pub(in crate::hub) fn with_user(&self) -> usize {
        self.users.len()
    }

    /// Users that have connections here.
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
