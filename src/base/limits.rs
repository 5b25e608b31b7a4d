//! Bounds that the design of the node sets, whatever the machine offers.
//!
//! Owns constants. Never reads a setting.

/// Shards of a node at most: each has a bit in a word of 64 that says which endpoints of the bus
/// have news, and the control plane has the last one.
pub const SHARDS_MAX: usize = 63;

/// Slots of a ring at most: the kernel's table of direct descriptors has no more (2^20).
pub const RING_SLOTS_MAX: usize = 1 << 20;
