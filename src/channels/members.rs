//! Who is in a channel: its presence, kept by its home.
//!
//! Owns the members of one channel. Never keeps a client's id, which follows from where it lives.
//! The invariants: a connection is a member once, and a user is counted once, however many
//! connections it has; coming and going take the same time however many there are.

use hashbrown::HashTable;
use slab::Slab;

use crate::ids::{Address, Ids};
use crate::protocol::reply::{ClientInfo, Stats};

/// JSON texts about a member, where it has any.
#[derive(Debug, Default, PartialEq, Eq)]
struct Infos {
    connection: Option<Box<[u8]>>,
    channel: Option<Box<[u8]>>,
}

struct Member {
    address: Address,
    user: u32,
    infos: Option<Box<Infos>>,
}

struct User {
    name: Box<str>,
    hash: u64,
    connections: u32,
}

/// The members of one channel.
#[derive(Default)]
pub struct Members {
    by_address: HashTable<u32>,
    members: Slab<Member>,
    by_name: HashTable<u32>,
    users: Slab<User>,
}

/// Spreads addresses, of which no client chooses its own (SplitMix64's last steps).
fn hash(address: Address) -> u64 {
    let mut mixed = u64::from(address.slot) << 32 | u64::from(address.generation) << 8;
    mixed |= u64::from(address.shard);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Members {
    /// Adds a connection, whose user's name has this hash; one that is there already stays as
    /// it is.
    pub fn insert(&mut self, address: Address, info: &ClientInfo, user_hash: u64) {
        if self.find(address).is_some() {
            return;
        }
        let user = self.user(&info.user, user_hash);
        self.users[user as usize].connections += 1;
        let infos = Infos { connection: info.connection.clone(), channel: info.channel.clone() };
        let infos = (infos != Infos::default()).then(|| Box::new(infos));
        let at = self.members.insert(Member { address, user, infos }) as u32;
        let members = &self.members;
        self.by_address.insert_unique(hash(address), at, |at| hash(members[*at as usize].address));
    }

    fn find(&self, address: Address) -> Option<u32> {
        let members = &self.members;
        let same = |at: &u32| members[*at as usize].address == address;
        self.by_address.find(hash(address), same).copied()
    }

    fn user(&mut self, name: &str, hash: u64) -> u32 {
        let users = &self.users;
        if let Some(at) = self.by_name.find(hash, |at| *users[*at as usize].name == *name) {
            return *at;
        }
        let user = User { name: name.into(), hash, connections: 0 };
        let at = self.users.insert(user) as u32;
        let users = &self.users;
        self.by_name.insert_unique(hash, at, |at| users[*at as usize].hash);
        at
    }

    /// Takes a connection out; who it was.
    pub fn remove(&mut self, address: Address, ids: &Ids) -> Option<ClientInfo> {
        let members = &self.members;
        let same = |at: &u32| members[*at as usize].address == address;
        let (at, _) = self.by_address.find_entry(hash(address), same).ok()?.remove();
        let info = self.info(&self.members[at as usize], ids);
        let member = self.members.remove(at as usize);
        let user = &mut self.users[member.user as usize];
        user.connections -= 1;
        if user.connections == 0 {
            let hash = user.hash;
            self.by_name
                .find_entry(hash, |at| *at == member.user)
                .expect("every user is in the table")
                .remove();
            self.users.remove(member.user as usize);
        }
        Some(info)
    }

    fn info(&self, member: &Member, ids: &Ids) -> ClientInfo {
        let infos = member.infos.as_deref();
        ClientInfo {
            user: self.users[member.user as usize].name.clone(),
            client: ids.client(member.address).into(),
            connection: infos.and_then(|infos| infos.connection.clone()),
            channel: infos.and_then(|infos| infos.channel.clone()),
        }
    }

    /// Everybody.
    pub fn list(&self, ids: &Ids) -> Vec<ClientInfo> {
        self.members.iter().map(|(_, member)| self.info(member, ids)).collect()
    }

    /// How many connections and users there are.
    pub fn stats(&self) -> Stats {
        Stats { clients: self.members.len() as u32, users: self.users.len() as u32 }
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(slot: u32) -> Address {
        Address { shard: 1, slot, generation: 2 }
    }

    fn info(user: &str) -> ClientInfo {
        ClientInfo { user: user.into(), connection: Some(b"1"[..].into()), ..ClientInfo::default() }
    }

    #[test]
    fn users_are_counted_once() {
        let ids = Ids::new([1; 16]);
        let mut members = Members::default();
        for (slot, user) in [(1, "a"), (2, "b"), (3, "a"), (3, "a")] {
            // One hash for all: names tell users apart.
            members.insert(address(slot), &info(user), 7);
        }
        assert_eq!(members.stats(), Stats { clients: 3, users: 2 });
        let gone = members.remove(address(1), &ids).unwrap();
        assert_eq!((&*gone.user, &*gone.client), ("a", &*ids.client(address(1))));
        assert_eq!(gone.connection.as_deref(), Some(&b"1"[..]));
        assert_eq!(members.remove(address(1), &ids), None);
        assert_eq!(members.stats(), Stats { clients: 2, users: 2 });
        assert_eq!(members.list(&ids).len(), 2);
        members.remove(address(3), &ids);
        members.remove(address(2), &ids);
        assert!(members.is_empty() && members.stats() == Stats::default());
        assert!(members.by_name.is_empty() && members.users.is_empty());
    }
}
