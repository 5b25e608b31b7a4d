//! What an operator asks a shard about its load, and the answers: its busiest channels, its slowest
//! consumers, and the subscribers of channels.
//!
//! Owns the types. Never walks over a table.

use std::sync::Arc;

/// Maximum number of entries of each list of an answer.
pub const WATCHED_MAX: usize = 16;

/// A query for the load of a shard since the query before it.
#[derive(Debug)]
pub struct Watch {
    /// Identifies the query; echoed in the answer.
    pub tag: u64,
    /// Whether the shard goes on counting for the next query.
    pub goes_on: bool,
}

/// A channel, and how much traffic it had.
pub type BusyChannel = (Box<str>, u64);

/// The answer to `Watch`. Each list has at most [`WATCHED_MAX`] entries, largest first.
#[derive(Debug, Default)]
pub struct Watched {
    /// Tag of the query.
    pub tag: u64,
    /// Channels whose home is the shard, and their publications.
    pub published: Vec<BusyChannel>,
    /// Channels with subscribers on the shard, and the deliveries to these subscribers.
    pub delivered: Vec<BusyChannel>,
    /// Connections whose socket does not take their output.
    pub slow: Vec<SlowConsumer>,
}

/// A connection with unsent output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowConsumer {
    /// Id of the client.
    pub client: Box<str>,
    /// Id of the user; empty: anonymous.
    pub user: Box<str>,
    /// Unsent bytes.
    pub unsent: usize,
    /// Number of subscriptions.
    pub subscriptions: u16,
}

/// Channels that a survey asks for.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Channels whose names match this glob; `None`: all channels. The shard answers with at most
    /// `most` channels.
    Matching {
        /// Glob.
        pattern: Option<String>,
        /// Maximum number of channels in the answer.
        most: usize,
    },
    /// The channels with these names.
    Named(Arc<[Arc<str>]>),
}
