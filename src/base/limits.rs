//! Bounds that the design of the node sets, whatever the machine offers.
//!
//! Owns constants. Never reads a setting.

/// Shards of a node at most: each has a bit in a word of 64 that says which endpoints of the bus
/// have news, and the control plane has the last one.
pub const SHARDS_MAX: usize = 63;

/// Slots of a ring at most: the kernel's table of direct descriptors has no more (2^20).
pub const RING_SLOTS_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_know_the_same_number_of_shards() {
        let line = format!("\nSHARDS_MAX={SHARDS_MAX}\n");
        for name in ["million.sh", "tune.sh"] {
            let path = format!("{}/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
            assert!(std::fs::read_to_string(path).unwrap().contains(&line), "{name}");
        }
    }
}
