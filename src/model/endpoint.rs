//! Addresses on the bus.
//!
//! Owns the type. Never sends a message.

/// Address on the bus: the index of a shard; the number of shards for the control plane; one more
/// for the store.
pub type Endpoint = u8;

/// The endpoints whose bits are set in `mask`, lowest first.
pub fn endpoints(mut mask: u64) -> impl Iterator<Item = Endpoint> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let endpoint = mask.trailing_zeros() as Endpoint;
            mask &= mask - 1;
            endpoint
        })
    })
}
