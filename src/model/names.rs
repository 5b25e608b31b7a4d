//! Channel names and user names: their hashes, and the shard that is their home.
//!
//! Owns the rule that every endpoint of a node shares. Never keeps a name.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use crate::model::message::Endpoint;
use crate::model::revocation::RevocationScope;

/// Hashes channel names and finds their homes; the same on every endpoint of a node.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    key: [u8; 16],
    shards: u8,
}

impl Names {
    /// Homes spread over `shards` by a hash under `key`, so that no client can aim at one shard.
    pub fn new(key: [u8; 16], shards: u8) -> Self {
        assert!(shards > 0, "a node has a shard");
        Names { key, shards }
    }

    /// The hash of a name.
    pub fn hash(&self, name: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The hash of what a revocation names. Each kind of name begins with a byte of its own; a
    /// user's ends with one that no text has.
    pub fn subject(&self, subject: RevocationScope<'_>) -> u64 {
        let (kind, owner, channel) = match subject {
            RevocationScope::Token(name) => (1, name, None),
            RevocationScope::User(user) => (2, user, None),
            RevocationScope::Subscriber { user, channel } => (3, user, Some(channel)),
        };
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(kind);
        hasher.write(owner.as_bytes());
        hasher.write_u8(0xff);
        hasher.write(channel.unwrap_or_default().as_bytes());
        hasher.finish().max(1)
    }

    /// The shard that a hash is at home on. Tables use the low bits, so this uses the high ones.
    pub fn home(&self, hash: u64) -> Endpoint {
        ((hash >> 32) % u64::from(self.shards)) as Endpoint
    }
}
