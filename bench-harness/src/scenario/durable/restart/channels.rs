//! The names of the stored channels.
//!
//! Owns the rule. Never publishes.

/// The name of a channel.
pub(super) fn channel(number: u64) -> String {
    format!("c{number}")
}
