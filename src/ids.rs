//! Names of connections that need no memory: keyed hashes of where they live.
//!
//! Owns the node's key. The invariant: who does not have the key can neither guess a name nor
//! tell from one where its connection is.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// Where a connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its shard.
    pub shard: u8,
    /// Its slot there.
    pub slot: u32,
    /// Which life of the slot.
    pub generation: u32,
}

/// Makes names; the same on every shard of a node.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    key: [u8; 16],
}

impl Ids {
    /// Names under `key`.
    pub fn new(key: [u8; 16]) -> Self {
        Ids { key }
    }

    fn hash(&self, address: Address) -> (u64, u64) {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(address.shard);
        hasher.write_u32(address.slot);
        hasher.write_u32(address.generation);
        let hash = hasher.finish128();
        (hash.h1, hash.h2)
    }

    /// A client's id, in the form of a version 4 UUID.
    pub fn client(&self, address: Address) -> String {
        let (high, low) = self.hash(address);
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0x3fff | 0x8000,
            low & 0xffff_ffff_ffff,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_has_a_name_of_its_own_in_the_form_of_a_uuid() {
        let ids = Ids::new([7; 16]);
        let address = Address { shard: 1, slot: 2, generation: 3 };
        let name = ids.client(address);
        let lengths: Vec<usize> = name.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(name.as_bytes()[14], b'4');
        assert!(matches!(name.as_bytes()[19], b'8'..=b'b'));
        assert_eq!(ids.client(address), name);
        for other in [
            Address { shard: 2, ..address },
            Address { slot: 3, ..address },
            Address { generation: 4, ..address },
        ] {
            assert_ne!(ids.client(other), name);
        }
        assert_ne!(Ids::new([8; 16]).client(address), name);
    }
}
