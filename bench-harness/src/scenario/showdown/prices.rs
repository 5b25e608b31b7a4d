//! The prices that every way delivers.
//!
//! Owns their size and number. Never publishes.

/// Bytes of a price: the fewest that a stamped payload has.
pub(super) const BYTES: usize = crate::wire::PAYLOAD_MIN;
/// Channels that the prices are spread over, one per symbol.
pub(super) const SYMBOLS: u64 = 20;
