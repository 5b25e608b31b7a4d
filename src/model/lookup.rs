//! Lookups that a shard delegates to the control plane: tokens to verify and backend requests.
//!
//! Owns the types. Never verifies a token.

use std::sync::Arc;

use crate::base::memory::Charge;
use crate::model::backend;
use crate::model::ids::Address;
use crate::model::token::{ConnectClaims, SubscribeClaims, TokenError};

/// A lookup for a connection. The shard delegates it because it would block or take too long.
#[derive(Debug)]
pub struct LookupRequest {
    /// The connection.
    pub address: Address,
    /// The lookup.
    pub lookup: Lookup,
}

/// Kind and input of a lookup.
#[derive(Debug)]
pub enum Lookup {
    /// Verify a token. The connection waits for the outcome.
    Token {
        /// The token.
        token: Box<str>,
        /// Whether this is a connection or a subscription token.
        purpose: TokenPurpose,
        /// Counts the token's memory while the lookup waits.
        charge: Charge,
    },
    /// Ask the backend about a command. The connection waits for the outcome.
    Command(backend::ProxyRequest),
    /// Ask the backend to extend a connection or a subscription. The connection does not wait.
    Renewal(backend::ProxyRequest),
}

/// A disconnect or unsubscribe for a hook of the backend.
#[derive(Debug)]
pub struct HookEvent {
    /// The connection. Events of one connection stay in order.
    pub address: Address,
    /// The request to the hook.
    pub request: backend::ProxyRequest,
}

/// Purpose of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPurpose {
    /// The token authenticates a connection.
    Connection,
    /// The token authorizes a subscription.
    Subscription,
}

/// The answer to a [`LookupRequest`].
#[derive(Debug)]
pub struct LookupReply {
    /// The connection.
    pub address: Address,
    /// The outcome.
    pub outcome: LookupOutcome,
}

/// Outcome of a lookup.
#[derive(Debug)]
pub enum LookupOutcome {
    /// The claims of a connection token.
    Connection(Result<ConnectClaims, TokenError>),
    /// The claims of a subscription token.
    Subscription(Result<SubscribeClaims, TokenError>),
    /// The backend's answer to a command.
    Command(Result<backend::ProxyAnswer, backend::ProxyFailure>),
    /// The backend's answer about the connection (`None`) or its subscription to this channel. On a
    /// failure the shard asks the backend again later.
    Renewal(Option<Arc<str>>, Result<backend::ProxyAnswer, backend::ProxyFailure>),
    /// The control plane has too many lookups; the client may try again.
    Busy,
}
