//! The connections of each user on the node, counted by the user's home where they are limited.
//!
//! Owns the addresses of the connections. Users are found only by the keyed hash of their name:
//! among a million users, two share a hash with a chance of one in thirty million. The invariant: a
//! connection is counted from its admission until its shard reports that it is gone.

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::model::ids::Address;

/// Limit of the connections per user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimit {
    /// Maximum number of connections per user; 0: no limit.
    pub most: usize,
    /// A new connection of a user replaces the previous one.
    pub single: bool,
}

impl UserLimit {
    /// Whether connections are counted at all.
    pub fn counts(&self) -> bool {
        self.most > 0 || self.single
    }
}

struct CountedUser {
    hash: u64,
    connections: SmallVec<[Address; 1]>,
}

/// The users at home on one shard.
#[derive(Default)]
pub struct Users {
    table: HashTable<CountedUser>,
}

impl Users {
    /// Number of users that have a connection.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no user has a connection.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The connection that a new connection of this user would replace.
    pub fn replaced(&self, hash: u64, limit: UserLimit) -> Option<Address> {
        let user = self.table.find(hash, |user| user.hash == hash).filter(|_| limit.single)?;
        user.connections.first().copied()
    }

    /// Counts a new connection of a user, in place of the connection that it replaces. Returns
    /// whether the limit admits it.
    pub fn admit(&mut self, hash: u64, address: Address, limit: UserLimit) -> bool {
        if let Some(replaced) = self.replaced(hash, limit) {
            self.depart(hash, replaced);
        }
        let entry = self.table.entry(hash, |user| user.hash == hash, |user| user.hash);
        let mut entry = entry.or_insert_with(|| CountedUser { hash, connections: SmallVec::new() });
        let connections = &mut entry.get_mut().connections;
        let admits = limit.most == 0 || connections.len() < limit.most;
        if admits {
            connections.push(address);
        }
        admits
    }

    /// Removes a connection of a user. A connection that is not counted is ignored.
    pub fn depart(&mut self, hash: u64, address: Address) {
        let Ok(mut entry) = self.table.find_entry(hash, |user| user.hash == hash) else { return };
        let connections = &mut entry.get_mut().connections;
        connections.retain(|one| *one != address);
        if connections.is_empty() {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(slot: u32) -> Address {
        Address { shard: 1, slot, generation: 2 }
    }

    #[test]
    fn connections_over_the_limit_of_a_user_are_refused() {
        let limit = UserLimit { most: 2, single: false };
        let mut users = Users::default();
        let admitted: Vec<bool> = (0..3).map(|slot| users.admit(7, at(slot), limit)).collect();
        assert_eq!(admitted, [true, true, false]);
        assert!(users.admit(8, at(3), limit), "another user");
        users.depart(7, at(2));
        assert!(!users.admit(7, at(4), limit), "who was refused does not count");
        users.depart(7, at(0));
        assert!(users.admit(7, at(4), limit));
        [at(1), at(4)].into_iter().for_each(|address| users.depart(7, address));
        users.depart(8, at(3));
        assert!(users.is_empty());
    }

    #[test]
    fn a_new_connection_replaces_the_previous_one() {
        let limit = UserLimit { most: 1, single: true };
        let mut users = Users::default();
        assert!(users.admit(7, at(0), limit));
        assert_eq!(users.replaced(7, limit), Some(at(0)));
        assert!(users.admit(7, at(1), limit));
        users.depart(7, at(0));
        assert_eq!(users.replaced(7, limit), Some(at(1)));
        assert_eq!(users.replaced(7, UserLimit::default()), None);
        users.depart(7, at(1));
        assert_eq!(users.len(), 0);
    }
}
