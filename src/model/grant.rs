//! Rights and properties of a subscription.
//!
//! Owns the types. Never decides what is granted.

use crate::model::revocation::TokenFingerprint;

/// Rights and properties of a subscription, as granted by the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Expiry as Unix time in seconds; `None`: no expiry.
    pub expires: Option<u64>,
    /// JSON text about the client for other subscribers of the channel.
    pub info: Option<Box<[u8]>>,
    /// JSON text for the subscriber, sent with the reply.
    pub data: Option<Box<[u8]>>,
    /// Whether the server subscribed the client without a command.
    pub server_side: bool,
    /// Whether the connection token named the channel.
    pub by_connection_token: bool,
    /// Fingerprint of the subscription token, for revocations.
    pub token: TokenFingerprint,
    /// Overrides of channel options.
    pub overrides: Overrides,
}

/// Overrides of channel options for one subscription; `None`: the option of the channel applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Include the subscriber in the channel's presence.
    pub presence: Option<bool>,
    /// Publish join and leave pushes for the subscriber.
    pub join_leave: Option<bool>,
    /// Send join and leave pushes of others to the subscriber without a request.
    pub force_push_join_leave: Option<bool>,
    /// Check the position of the subscriber without a request.
    pub force_positioning: Option<bool>,
    /// Allow recovery to the subscriber without a request.
    pub force_recovery: Option<bool>,
}
