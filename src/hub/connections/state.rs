//! Everything that is kept of one slot, listed as plain data.
//!
//! The list is built from the tables, not from the indexes in the record of the connection: an
//! entry that the record does not refer to is listed too.

use std::sync::Arc;

use crate::base::address_limits::NOT_COUNTED;
use crate::hub::connections::connection::{
    AccessEntry, Connection, Flags, Hold, Identity, NONE, Phase,
};
use crate::hub::connections::outbox::Outbox;
use crate::hub::connections::tables::Connections;
use crate::hub::connections::unread::Inbound;
use crate::local::LocalChannels;
use crate::model::backend::BackendContext;
use crate::model::message::{Grant, LookupOutcome};
use crate::wire::event_id::{ConnectionEventId, LastEventId};
use crate::wire::http::Transport;
use crate::wire::protocol::Wire;

/// The state of a slot. The default is that of a free slot.
#[derive(Debug, Default)]
pub struct SlotState<'a> {
    /// The record; `None`: the slot is free.
    pub record: Option<ConnectionRecord<'a>>,
    /// Subscriptions, answered and pending.
    pub subscriptions: Vec<SubscriptionState<'a>>,
    /// Place of the count of its address.
    pub address_place: Option<u32>,
    /// Whether it has a TLS session.
    pub has_session: bool,
    /// Unprocessed input.
    pub unread: Vec<&'a Inbound>,
    /// Outboxes.
    pub outboxes: Vec<&'a Outbox>,
    /// The hold of its connect.
    pub hold: Option<&'a Hold>,
    /// The lookup that the connection waits for, and its outcome once it is known.
    pub awaited_answer: Option<&'a Option<Arc<LookupOutcome>>>,
    /// Positions of an SSE connection with several channels.
    pub event_positions: Option<&'a ConnectionEventId>,
    /// Last event id that a unidirectional client sent.
    pub last_event: Option<&'a Result<LastEventId, Box<str>>>,
    /// The origin of the page, if the head of its stream is not written.
    pub pending_head: Option<&'a Option<Box<str>>>,
    /// What the access log keeps.
    pub access: Option<&'a AccessEntry>,
    /// Context for requests to the backend.
    pub context: Option<&'a BackendContext>,
    /// Whether the index of users contains the slot.
    pub is_indexed: bool,
    /// Tick of its deadline.
    pub deadline: Option<u32>,
    /// Time in nanoseconds until which it has used its rate of commands.
    pub command_time: Option<u64>,
    /// Tick of its postponed ping.
    pub postponed_pings: Option<u32>,
}

/// The record of a connection.
#[derive(Debug)]
pub struct ConnectionRecord<'a> {
    /// Distinguishes successive connections of the slot.
    pub generation: u32,
    /// Phase.
    pub phase: Phase,
    /// Flags.
    pub flags: Flags,
    /// Transport.
    pub transport: Transport,
    /// Encoding of the protocol.
    pub wire: Wire,
    /// Index of its listener.
    pub entrance: u8,
    /// Number of operations in progress in the kernel.
    pub operations: u8,
    /// Number of its subscriptions.
    pub subscribed: u16,
    /// Whether this turn sends to the connection.
    pub has_output: bool,
    /// Identity.
    pub identity: Option<&'a Identity>,
}

/// One subscription of a connection.
#[derive(Debug)]
pub struct SubscriptionState<'a> {
    /// The channel.
    pub channel: &'a Arc<str>,
    /// Grant of the subscription.
    pub grant: Option<&'a Grant>,
}

impl SlotState<'_> {
    /// Whether nothing is kept of the slot.
    pub fn is_empty(&self) -> bool {
        let SlotState {
            record,
            subscriptions,
            address_place,
            has_session,
            unread,
            outboxes,
            hold,
            awaited_answer,
            event_positions,
            last_event,
            pending_head,
            access,
            context,
            is_indexed,
            deadline,
            command_time,
            postponed_pings,
        } = self;
        let tables = unread.is_empty()
            && outboxes.is_empty()
            && hold.is_none()
            && awaited_answer.is_none()
            && event_positions.is_none()
            && last_event.is_none()
            && pending_head.is_none()
            && access.is_none()
            && context.is_none();
        let times = deadline.is_none() && command_time.is_none() && postponed_pings.is_none();
        record.is_none()
            && address_place.is_none()
            && !has_session
            && subscriptions.is_empty()
            && tables
            && times
            && !is_indexed
    }
}

impl Connections {
    /// Lists the state of a slot, in use or free. Searches the tables, so it is too slow for a
    /// turn.
    pub fn state<'a>(&'a self, slot: u32, locals: &'a LocalChannels) -> SlotState<'a> {
        // No `..` here: a table that is added must be listed.
        let Connections {
            slab,
            generations: _,
            address_places,
            sessions,
            unread,
            outboxes,
            holds,
            grants,
            awaited_answers,
            event_positions,
            last_events,
            pending_heads,
            access,
            context,
            users,
            different_users: _,
            names: _,
            wheel,
            command_rates,
            postponed_pings,
        } = self;
        let connection = slab.get(slot as usize);
        let mut key = connection.map_or(NONE, |connection| connection.subscriptions);
        let mut subscriptions = Vec::new();
        while key != NONE {
            let channel = locals.channel(key).0;
            subscriptions.push(SubscriptionState { channel, grant: grants.get(&key) });
            key = locals.next_subscription(key);
        }
        SlotState {
            record: connection.map(record),
            subscriptions,
            address_place: Some(address_places.get(slot)).filter(|place| *place != NOT_COUNTED),
            has_session: sessions.get(slot).is_some(),
            unread: unread.of_slot(slot).collect(),
            outboxes: outboxes.of_slot(slot).collect(),
            hold: holds.iter().map(|(_, hold)| hold).find(|hold| hold.slot == slot),
            awaited_answer: awaited_answers.get(&slot),
            event_positions: event_positions.get(&slot),
            last_event: last_events.get(&slot),
            pending_head: pending_heads.get(&slot),
            access: access.get(&slot),
            context: context.get(&slot).map(|context| &**context),
            is_indexed: users.iter().any(|indexed| *indexed == slot),
            deadline: wheel.deadline(slot),
            command_time: command_rates.time(slot),
            postponed_pings: postponed_pings.get(&slot).copied(),
        }
    }
}

/// The record without its indexes into the tables.
fn record(connection: &Connection) -> ConnectionRecord<'_> {
    let &Connection {
        generation,
        subscriptions: _,
        stamp: _,
        ping_plan: _,
        turn,
        inbound: _,
        outbox: _,
        hold: _,
        subscribed,
        flags,
        operations,
        phase,
        transport,
        wire,
        entrance,
        ref identity,
    } = connection;
    ConnectionRecord {
        generation,
        phase,
        flags,
        transport,
        wire,
        entrance,
        operations,
        subscribed,
        has_output: turn != NONE,
        identity: identity.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::base::memory::{MemoryBudgets, MemoryKind, MemoryLimits};
    #[cfg(feature = "planted-faults")]
    use crate::base::planted_faults::{PlantedFault, plant};
    use crate::hub::connections::CommandLimit;
    use crate::model::names::Names;
    use crate::wire::framing::Framing;
    use crate::wire::tls::session::tests::session;

    fn connections() -> Connections {
        let budgets = MemoryBudgets::new(&MemoryLimits::all(1 << 20), 1);
        let share = |kind| budgets.shard_usage(kind, 0);
        Connections::new(
            4,
            Names::new([0; 16], 1),
            share(MemoryKind::Unread),
            share(MemoryKind::Outboxes),
        )
        .with_command_limit(CommandLimit { rate: 1, burst: 1 }, 4)
    }

    /// A connection that has an entry in every table.
    fn with_everything(connections: &mut Connections) -> u32 {
        let (slot, _) = connections.reserve();
        connections.address_places.set(slot, 7);
        connections.sessions.insert(slot, session());
        let expires = NonZeroU64::new(1);
        let identity = Identity { user: "u".into(), expires, ..Identity::default() };
        connections[slot].identity = Some(Box::new(identity));
        connections.index_user(slot);
        let inbound = connections.inbound_or_insert(slot).unwrap();
        inbound.commands = b"{}".to_vec();
        let at = connections[slot].inbound;
        connections.unread.settle(at, true);
        let framed = (Framing::WebSocket, Wire::Json);
        let outbox = Outbox::new([&b"unsent"[..]].into_iter(), framed, 0, 0);
        connections.keep_outbox(slot, outbox);
        connections.keep_hold(slot, Hold { slot, ..Hold::default() });
        connections.awaited_answers.insert(slot, None);
        connections.event_positions.insert(slot, ConnectionEventId::default());
        connections.last_events.insert(slot, Err("?".into()));
        connections.pending_heads.insert(slot, None);
        connections.access.insert(slot, AccessEntry::default());
        connections.context_mut(slot).meta = Some(Box::default());
        connections.wheel.set(slot, 5);
        connections.command_rates.count(slot, 1);
        connections.postponed_pings.insert(slot, 9);
        slot
    }

    /// How many entries each table has, apart from those of subscriptions.
    fn entries(connections: &Connections) -> Vec<usize> {
        // No `..` here: a table that is added must be counted.
        let Connections {
            slab,
            generations: _,
            address_places,
            sessions,
            unread,
            outboxes,
            holds,
            // Its keys are subscriptions, which end before their connection.
            grants: _,
            awaited_answers,
            event_positions,
            last_events,
            pending_heads,
            access,
            context,
            users,
            different_users,
            names: _,
            wheel,
            command_rates,
            postponed_pings,
        } = connections;
        let bytes = [unread.usage().used(), outboxes.usage().used()].map(|bytes| bytes.min(1));
        let tables =
            [slab.len(), sessions.len(), unread.len(), outboxes.len(), holds.len(), users.len()];
        let by_slot = [
            awaited_answers.len(),
            event_positions.len(),
            last_events.len(),
            pending_heads.len(),
            access.len(),
            context.len(),
            postponed_pings.len(),
        ];
        let rates = (0..4).filter(|slot| command_rates.time(*slot).is_some()).count();
        let places = (0..4).filter(|slot| address_places.get(*slot) != NOT_COUNTED).count();
        let is_due = usize::from(wheel.next_due().is_some());
        let times = [*different_users as usize, is_due, rates, places];
        [&bytes[..], &tables, &by_slot, &times].concat()
    }

    #[test]
    fn a_freed_slot_has_no_entry_in_any_table() {
        let (mut connections, locals) = (connections(), LocalChannels::default());
        assert!(connections.state(0, &locals).is_empty());
        let nothing = entries(&connections);
        assert!(nothing.iter().all(|number| *number == 0), "{nothing:?}");
        let slot = with_everything(&mut connections);
        let all = entries(&connections);
        assert!(all.iter().all(|number| *number == 1), "an entry in every table: {all:?}");
        let state = connections.state(slot, &locals);
        assert!(!state.is_empty());
        connections.free(slot);
        assert_eq!(entries(&connections), nothing);
        let state = connections.state(slot, &locals);
        assert!(state.is_empty(), "{state:?}");
    }

    #[test]
    fn the_next_connection_of_a_slot_starts_without_entries() {
        let (mut connections, locals) = (connections(), LocalChannels::default());
        let slot = with_everything(&mut connections);
        let other = with_everything(&mut connections);
        connections.free(slot);
        assert_eq!(connections.reserve(), (slot, 1));
        let state = connections.state(slot, &locals);
        let record = state.record.as_ref().map(|record| (record.generation, record.phase));
        assert_eq!(record, Some((1, Phase::Reserved)));
        let rest = SlotState { record: None, ..state };
        assert!(rest.is_empty(), "{rest:?}");
        let kept = connections.state(other, &locals);
        assert!(
            kept.is_indexed && kept.hold.is_some() && kept.postponed_pings == Some(9),
            "{kept:?}"
        );
        assert_eq!(connections.different_users(), 1, "the other connection is the same user's");
    }

    #[cfg(feature = "planted-faults")]
    #[test]
    fn an_entry_that_free_leaves_in_a_table_is_detected() {
        let (mut connections, locals) = (connections(), LocalChannels::default());
        let slot = with_everything(&mut connections);
        plant(Some(PlantedFault::SideTableNotFreed));
        connections.free(slot);
        plant(None);
        assert!(!connections.state(slot, &locals).is_empty());
    }
}
