//! Questions of a shard that the control plane answers: tokens to verify, and the backend's word.
//!
//! Owns the types. Never verifies a token.

use std::sync::Arc;

use crate::base::memory::Charge;
use crate::model::backend;
use crate::model::ids::Address;
use crate::model::token::{ConnectClaims, SubscribeClaims, TokenError};

/// What a shard cannot find out itself, or not in time.
#[derive(Debug)]
pub struct LookupRequest {
    /// The connection that it is about.
    pub address: Address,
    /// What is to be found out.
    pub lookup: Lookup,
}

/// What is to be found out.
#[derive(Debug)]
pub enum Lookup {
    /// What a token says; the connection waits.
    Token {
        /// The token.
        token: Box<str>,
        /// What it is for.
        purpose: TokenPurpose,
        /// Counts it while it waits.
        charge: Charge,
    },
    /// What the backend says to a client's command; the connection waits.
    Command(backend::ProxyRequest),
    /// How much longer the connection holds, or its subscription to a channel; nobody waits.
    Renewal(backend::ProxyRequest),
}

/// News of a client for the backend.
#[derive(Debug)]
pub struct HookEvent {
    /// The connection; what is said of it stays in order.
    pub address: Address,
    /// What is said.
    pub request: backend::ProxyRequest,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPurpose {
    /// A connection.
    Connection,
    /// A subscription.
    Subscription,
}

/// What was found out.
#[derive(Debug)]
pub struct LookupReply {
    /// The connection that it is about.
    pub address: Address,
    /// What it was.
    pub outcome: LookupOutcome,
}

/// What was found out, or why nothing was.
#[derive(Debug)]
pub enum LookupOutcome {
    /// What a token says about a connection.
    Connection(Result<ConnectClaims, TokenError>),
    /// What a token says about a subscription.
    Subscription(Result<SubscribeClaims, TokenError>),
    /// What the backend says to a command.
    Command(Result<backend::ProxyAnswer, backend::ProxyFailure>),
    /// How much longer the connection holds, or its subscription to the channel; without an answer
    /// the backend is asked again later.
    Renewal(Option<Arc<str>>, Result<backend::ProxyAnswer, backend::ProxyFailure>),
    /// There is too much to find out; it may be tried again.
    Busy,
}
