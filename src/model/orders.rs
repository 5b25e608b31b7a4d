//! Orders of the backend for the connections of a user, from the HTTP API.
//!
//! Owns the types. Never looks up a connection.

use std::sync::Arc;

use crate::model::grant::Grant;
use crate::wire::protocol::Position;

/// An action for connections of a user.
#[derive(Debug)]
pub struct Order {
    /// The connections.
    pub target: Target,
    /// The action.
    pub action: Action,
}

/// An order for a shard, which answers it when it is carried out.
#[derive(Clone, Debug)]
pub struct OrderRequest {
    /// Identifies the request; the answer.
    pub tag: u64,
    /// The order.
    pub order: Arc<Order>,
}

/// Selects connections of a user.
#[derive(Debug, Default)]
pub struct Target {
    /// User ID.
    pub user: Box<str>,
    /// Client ID; empty: all clients.
    pub client: Box<str>,
    /// Session ID; empty: all sessions.
    pub session: Box<str>,
}

/// An action for the selected connections.
#[derive(Debug)]
pub enum Action {
    /// Close the connections.
    Disconnect {
        /// Close code.
        code: u16,
        /// Close reason.
        reason: Box<str>,
        /// IDs of clients to keep connected.
        except: Vec<Box<str>>,
    },
    /// Unsubscribe from a channel.
    Unsubscribe {
        /// The channel.
        channel: Arc<str>,
    },
    /// Subscribe to a channel.
    Subscribe {
        /// The channel.
        channel: Arc<str>,
        /// Rights and properties of the subscriptions.
        grant: Grant,
        /// Recover publications after this position; `None`: no recovery.
        since: Option<Position>,
    },
    /// Set a new expiry.
    Refresh {
        /// Expiry as Unix time in seconds; `None`: no expiry.
        expires: Option<u64>,
        /// New JSON text about the client; `None`: unchanged.
        info: Option<Box<[u8]>>,
    },
}
