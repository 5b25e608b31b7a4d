//! Upper bounds that the design of the node sets, independent of the machine.
//!
//! Owns constants. Never reads a setting.

/// Maximum number of shards of a node. A word of 64 bits marks the endpoints of the bus that have
/// waiting messages: one bit per shard, and the last two bits for the control plane and the store.
pub const SHARDS_MAX: usize = 62;

/// Maximum number of slots of a ring: the kernel limits its table of direct descriptors to 2^20.
pub const RING_SLOTS_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_use_the_same_maximum_number_of_shards() {
        let line = format!("\nSHARDS_MAX={SHARDS_MAX}\n");
        for name in ["million.sh", "tune.sh"] {
            let path = format!("{}/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
            assert!(std::fs::read_to_string(path).unwrap().contains(&line), "{name}");
        }
    }
}
