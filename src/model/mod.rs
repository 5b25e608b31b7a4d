//! Rules and values of the domain: users, tokens, namespaces, publications, and the messages
//! between shards and the control plane.
//!
//! Never does I/O, and never holds the state of a connection or a channel.

pub mod auth;
pub mod backend;
pub mod channel_template;
pub mod duplicate_guard;
pub mod endpoint;
pub mod entrance;
pub mod glob;
pub mod grant;
pub mod hand_over;
pub mod ids;
pub mod message;
pub mod names;
pub mod namespaces;
pub mod orders;
pub mod own_queues;
pub mod publication;
pub mod latest;
pub mod channel_query;
pub mod retention;
pub mod storage;
pub mod snapshot;
pub mod revocation;
pub mod token;
pub mod lookup;
pub mod watch;
