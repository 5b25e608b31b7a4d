//! The connections of a shard: a slab of records, and a side table for everything that only some
//! connections have.
//!
//! Owns each of these tables. Never sends, queries or decides anything: the hub does. The
//! invariant: [`Connections::free`] leaves no entry of a slot in any table, so the next connection
//! of the slot starts with none.

mod address_places;
mod command_rates;
mod connection;
mod counted_table;
mod outbox;
mod sessions;
mod state;
mod tables;
mod unread;

pub use self::command_rates::{COMMAND_RATE_MAX, CommandLimit, CommandRates};
pub use self::connection::{
    AccessEntry, Admission, Connection, Flags, Hold, Identity, NONE, Phase, ServerSubscription,
};
pub use self::outbox::{Outbox, Outboxes};
pub use self::sessions::Sessions;
pub use self::state::{ConnectionRecord, SlotState, SubscriptionState};
pub use self::tables::Connections;
pub use self::unread::{Inbound, Unread};
