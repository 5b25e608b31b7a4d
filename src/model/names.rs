//! Hashes of channel names and user IDs, and the shards that are their homes.
//!
//! Owns the hash function that all endpoints of a node share. Never stores a name. The invariant:
//! names of a partition have the same home, however many shards there are.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use crate::model::message::Endpoint;
use crate::model::revocation::RevocationScope;

/// Number of partitions of all names. It is far above the number of shards, so the homes get equal
/// parts.
pub const PARTITIONS: usize = 1 << 18;

/// The partition of a hash. It depends on the high bits, because hash tables use the low bits.
pub fn partition(hash: u64) -> usize {
    (hash >> 32) as usize % PARTITIONS
}

/// Hashes names and finds their homes. All endpoints of a node use the same key.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    key: [u8; 16],
    shards: u8,
}

impl Names {
    /// Spreads homes over `shards` by a hash under the secret `key`, so clients cannot choose names
    /// of one shard.
    pub fn new(key: [u8; 16], shards: u8) -> Self {
        assert!(shards > 0, "a node has at least one shard");
        Names { key, shards }
    }

    /// The hash of a name.
    pub fn hash(&self, name: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The hash of the scope of a revocation; never 0. The hashed bytes begin with the kind of
    /// scope. The byte 0xff, which UTF-8 never contains, ends the first name.
    pub fn subject(&self, subject: RevocationScope<'_>) -> u64 {
        let (kind, name, channel) = match subject {
            RevocationScope::Token(id) => (1, id, None),
            RevocationScope::User(user) => (2, user, None),
            RevocationScope::Subscriber { user, channel } => (3, user, Some(channel)),
        };
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(kind);
        hasher.write(name.as_bytes());
        hasher.write_u8(0xff);
        hasher.write(channel.unwrap_or_default().as_bytes());
        hasher.finish().max(1)
    }

    /// Number of shards.
    pub fn shards(&self) -> u8 {
        self.shards
    }

    /// The home shard of a hash.
    pub fn home(&self, hash: u64) -> Endpoint {
        self.home_of_partition(partition(hash))
    }

    /// The home shard of all names of a partition.
    pub fn home_of_partition(&self, partition: usize) -> Endpoint {
        (partition % usize::from(self.shards)) as Endpoint
    }
}
