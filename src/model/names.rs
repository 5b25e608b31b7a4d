//! Hashes of channel names and user IDs, and the shards that are their homes.
//!
//! Owns the hash function that all endpoints of a node share. Never stores a name.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use crate::model::message::Endpoint;
use crate::model::revocation::RevocationScope;

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

    /// The home shard of a hash. It depends on the high bits, because hash tables use the low bits.
    pub fn home(&self, hash: u64) -> Endpoint {
        ((hash >> 32) % u64::from(self.shards)) as Endpoint
    }
}
