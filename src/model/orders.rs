//! What the backend orders about the connections of a user.
//!
//! Owns the types. Never finds a connection.

use std::sync::Arc;

use crate::model::grant::Grant;
use crate::wire::protocol::Position;

/// What the backend wants of the connections of a user.
#[derive(Debug)]
pub struct Order {
    /// Target.
    pub target: Target,
    /// What is to be done.
    pub action: Action,
}

/// Some connections of a user.
#[derive(Debug, Default)]
pub struct Target {
    /// The user.
    pub user: Box<str>,
    /// Only this client, unless it is empty.
    pub client: Box<str>,
    /// Only the client of this session, unless it is empty.
    pub session: Box<str>,
}

/// What can be done to connections.
#[derive(Debug)]
pub enum Action {
    /// They are closed, except these clients.
    Disconnect {
        /// Close code.
        code: u16,
        /// Its reason.
        reason: Box<str>,
        /// Clients that stay.
        except: Vec<Box<str>>,
    },
    /// They leave a channel.
    Unsubscribe {
        /// The channel.
        channel: Arc<str>,
    },
    /// They join a channel.
    Subscribe {
        /// The channel.
        channel: Arc<str>,
        /// What they have there.
        grant: Grant,
        /// Where they left off.
        since: Option<Position>,
    },
    /// Their connection has a new end, as unix time in seconds; `None`: it has none.
    Refresh {
        /// The new end.
        expires: Option<u64>,
        /// JSON text about the client from now on; `None`: as before.
        info: Option<Box<[u8]>>,
    },
}
