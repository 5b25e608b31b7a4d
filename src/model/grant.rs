//! What a subscription has beside its place in the channel.
//!
//! Owns the types. Never decides what is granted.

use crate::model::revocation::TokenFingerprint;

/// What a subscription has beside its place in the channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Its end, as unix time in seconds.
    pub expires: Option<u64>,
    /// JSON text about the client in this channel.
    pub info: Option<Box<[u8]>>,
    /// JSON text for the subscriber alone.
    pub data: Option<Box<[u8]>>,
    /// Whether the server has subscribed the client.
    pub server_side: bool,
    /// Whether the connection token named the channel.
    pub by_connection_token: bool,
    /// The subscription's token.
    pub token: TokenFingerprint,
    /// Overrides of the channel's options.
    pub overrides: Overrides,
}

/// Overrides of a channel's options for one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Whether it is known to be there.
    pub presence: Option<bool>,
    /// Whether its coming and going is told.
    pub join_leave: Option<bool>,
    /// Whether it is told of others' unasked.
    pub force_push_join_leave: Option<bool>,
    /// Whether its position is checked unasked.
    pub force_positioning: Option<bool>,
    /// Whether it may recover unasked.
    pub force_recovery: Option<bool>,
}
