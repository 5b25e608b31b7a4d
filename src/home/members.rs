//! The presence of a channel, kept by its home.
//!
//! Owns the members of one channel. Does not store client ids: they derive from the addresses. The
//! invariants: a connection is a member once, and a user is counted once, however many connections
//! it has; joins and leaves take constant time.

use std::collections::HashMap;

use compact_str::CompactString;
use hashbrown::HashTable;
use slab::Slab;

use crate::base::work_budget::{WorkBudget, cost};
use crate::home::presence_parts::{PART, PresenceParts};
use crate::model::ids::{Address, Ids};
use crate::wire::protocol::reply::{ClientInfo, PresenceList, PresenceStats};
use crate::wire::protocol::{Wire, write_member};

/// Minimum bytes of a member in an answer, without its user and its infos.
const MEMBER_BYTES: usize = 80;

/// JSON infos of a member, where it has any.
#[derive(Debug, Default, PartialEq, Eq)]
struct MemberInfo {
    connection: Option<Box<[u8]>>,
    channel: Option<Box<[u8]>>,
}

impl MemberInfo {
    /// The infos of a member; `None`: it has none.
    fn of(info: &ClientInfo) -> Option<Box<MemberInfo>> {
        let infos =
            MemberInfo { connection: info.connection.clone(), channel: info.channel.clone() };
        (infos != MemberInfo::default()).then(|| Box::new(infos))
    }
}

/// An address packed into eight bytes: a generation has 24 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PackedAddress {
    slot: u32,
    life: u32,
}

impl From<Address> for PackedAddress {
    fn from(Address { shard, slot, generation }: Address) -> Self {
        PackedAddress { slot, life: generation << 8 | u32::from(shard) }
    }
}

impl From<PackedAddress> for Address {
    fn from(PackedAddress { slot, life }: PackedAddress) -> Self {
        Address { shard: life as u8, slot, generation: life >> 8 }
    }
}

impl PackedAddress {
    /// Mixes the bits of an address (last steps of SplitMix64). No client chooses its address.
    fn hash(self) -> u64 {
        let mut mixed = u64::from(self.slot) << 32 | u64::from(self.life);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

struct Member {
    address: PackedAddress,
    user: u32,
    /// Whether presence answers omit the member.
    hidden: bool,
    infos: Option<Box<MemberInfo>>,
}

struct MemberUser {
    /// Stored inline if short.
    name: CompactString,
    hash: u32,
    connections: u32,
}

// A channel can have a hundred thousand members.
const _: () = assert!(size_of::<Member>() <= 24 && size_of::<MemberUser>() <= 32);

/// The table hash of a user, from the 32 bits that are kept. The table uses high and low bits.
fn spread_hash(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// Counts of the members that presence answers omit, though their joins and leaves are announced.
#[derive(Default)]
struct HiddenCounts {
    /// Number of hidden members per user.
    by_user: HashMap<u32, u32>,
    members: u32,
    /// Users whose members are all hidden.
    users: u32,
}

/// The members of one channel.
#[derive(Default)]
pub struct Members {
    by_address: HashTable<u32>,
    members: Slab<Member>,
    by_name: HashTable<u32>,
    users: Slab<MemberUser>,
    /// Counts of hidden members; `None`: there are none.
    hidden: Option<Box<HiddenCounts>>,
    /// One more than the highest index that was ever taken.
    end: usize,
    /// Minimum bytes of a presence answer.
    bytes: usize,
    /// Encoded parts: JSON, then Protobuf.
    rolls: [Option<Box<PresenceParts>>; 2],
}

impl Members {
    /// Adds a connection; `user_hash` is the hash of its user. A connection that is a member
    /// already stays unchanged. Presence answers omit it unless `listed`.
    pub fn insert(&mut self, address: Address, info: &ClientInfo, user_hash: u64, listed: bool) {
        let address = PackedAddress::from(address);
        if self.find(address).is_some() {
            return;
        }
        let user = self.user(&info.user, user_hash as u32);
        self.count(user, 1, !listed);
        let infos = MemberInfo::of(info);
        let at = self.members.insert(Member { address, user, hidden: !listed, infos }) as u32;
        self.end = self.end.max(at as usize + 1);
        self.bytes += self.member_bytes(at as usize);
        self.mark_changed(at as usize);
        let members = &self.members;
        self.by_address
            .insert_unique(address.hash(), at, |at| members[*at as usize].address.hash());
    }

    fn find(&self, address: PackedAddress) -> Option<u32> {
        let members = &self.members;
        self.by_address.find(address.hash(), |at| members[*at as usize].address == address).copied()
    }

    fn user(&mut self, name: &str, hash: u32) -> u32 {
        let users = &self.users;
        if let Some(at) =
            self.by_name.find(spread_hash(hash), |at| users[*at as usize].name == name)
        {
            return *at;
        }
        let user = MemberUser { name: name.into(), hash, connections: 0 };
        let at = self.users.insert(user) as u32;
        let users = &self.users;
        self.by_name
            .insert_unique(spread_hash(hash), at, |at| spread_hash(users[*at as usize].hash));
        at
    }

    /// Changes the number of connections of a user.
    fn count(&mut self, user: u32, change: i32, hidden: bool) {
        let connections = &mut self.users[user as usize].connections;
        let before = *connections;
        *connections = before.saturating_add_signed(change);
        if !hidden && self.hidden.is_none() {
            return;
        }
        let after = *connections;
        let kept = self.hidden.get_or_insert_default();
        let among = kept.by_user.entry(user).or_default();
        let was_hidden = *among == before && before > 0;
        if hidden {
            *among = among.saturating_add_signed(change);
            kept.members = kept.members.saturating_add_signed(change);
        }
        let is_hidden = *among == after && after > 0;
        kept.users = kept.users + u32::from(is_hidden) - u32::from(was_hidden);
        if *among == 0 {
            kept.by_user.remove(&user);
        }
        if kept.members == 0 {
            self.hidden = None;
        }
    }

    /// Replaces the infos of a connection, if it is a member.
    pub fn update(&mut self, address: Address, info: &ClientInfo) {
        let Some(at) = self.find(PackedAddress::from(address)) else { return };
        let at = at as usize;
        self.bytes -= self.member_bytes(at);
        self.members[at].infos = MemberInfo::of(info);
        self.bytes += self.member_bytes(at);
        self.mark_changed(at);
    }

    /// Removes a connection; returns its description.
    pub fn remove(&mut self, address: Address, ids: &Ids) -> Option<ClientInfo> {
        let (address, members) = (PackedAddress::from(address), &self.members);
        let same = |at: &u32| members[*at as usize].address == address;
        let (at, _) = self.by_address.find_entry(address.hash(), same).ok()?.remove();
        let info = self.info(&self.members[at as usize], ids);
        self.bytes -= self.member_bytes(at as usize);
        self.mark_changed(at as usize);
        let member = self.members.remove(at as usize);
        self.count(member.user, -1, member.hidden);
        let user = &self.users[member.user as usize];
        if user.connections == 0 {
            let hash = spread_hash(user.hash);
            if let Ok(entry) = self.by_name.find_entry(hash, |at| *at == member.user) {
                entry.remove();
            }
            self.users.remove(member.user as usize);
        }
        Some(info)
    }

    fn info(&self, member: &Member, ids: &Ids) -> ClientInfo {
        let infos = member.infos.as_deref();
        ClientInfo {
            user: self.users[member.user as usize].name.as_str().into(),
            client: ids.client(member.address.into()).into(),
            connection: infos.and_then(|infos| infos.connection.clone()),
            channel: infos.and_then(|infos| infos.channel.clone()),
        }
    }

    /// Drops the encoded part of a member that has come or is about to go.
    fn mark_changed(&mut self, at: usize) {
        self.rolls.iter_mut().flatten().for_each(|parts| parts.change(at));
    }

    /// Minimum bytes of a member in an answer.
    fn member_bytes(&self, at: usize) -> usize {
        let Member { user, hidden, infos, .. } = &self.members[at];
        if *hidden {
            return 0;
        }
        let infos = infos.as_deref();
        let texts = infos.into_iter().flat_map(|infos| [&infos.connection, &infos.channel]);
        let texts: usize = texts.flatten().map(|text| text.len()).sum();
        MEMBER_BYTES + self.users[*user as usize].name.len() + texts
    }

    /// Minimum bytes of a presence answer.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Continues encoding all members within the budget; `None`: not complete yet. The answer has
    /// at least [`Members::bytes`].
    pub fn encode_presence(
        &mut self,
        wire: Wire,
        ids: &Ids,
        budget: &mut WorkBudget,
    ) -> Option<PresenceList> {
        let end = self.end;
        let rolls = &mut self.rolls[wire as usize];
        let mut parts = rolls.take().unwrap_or_else(|| Box::new(PresenceParts::new(end)));
        while !budget.is_spent() && !parts.are_complete() {
            let mut encoded = 0;
            parts.encode_next(|range, out| {
                let members = range.filter_map(|at| self.members.get(at));
                for member in members.filter(|member| !member.hidden) {
                    write_member(wire, &self.info(member, ids), out);
                    encoded += 1;
                }
                budget.charge(PART * cost::LOOK / 8 + encoded * cost::MEMBER + out.len());
            });
        }
        let roll = parts.are_complete().then(|| parts.roll());
        self.rolls[wire as usize] = Some(parts);
        roll
    }

    /// Number of encoded bytes.
    pub fn encoded(&self, wire: Wire) -> usize {
        self.rolls[wire as usize].as_ref().map_or(0, |parts| parts.bytes())
    }

    /// Drops the encoded answer.
    pub fn drop_encoded(&mut self, wire: Wire) {
        self.rolls[wire as usize] = None;
    }

    /// Number of connections and users.
    pub fn stats(&self) -> PresenceStats {
        let (members, users) = (self.members.len() as u32, self.users.len() as u32);
        let hidden = self.hidden.as_deref();
        let (without, nobody) = hidden.map_or((0, 0), |hidden| (hidden.members, hidden.users));
        PresenceStats { clients: members - without, users: users - nobody }
    }

    /// Whether the channel has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::work_budget::Stage;
    use crate::wire::protocol::json;

    fn address(slot: u32) -> Address {
        Address { shard: 1, slot, generation: 2 }
    }

    fn info(user: &str) -> ClientInfo {
        ClientInfo { user: user.into(), connection: Some(b"1"[..].into()), ..ClientInfo::default() }
    }

    /// The presence answer in JSON.
    fn roll(members: &mut Members) -> String {
        let mut budget = WorkBudget::new(1_000_000, true);
        let roll = members.encode_presence(Wire::Json, &Ids::new([1; 16]), &mut budget).unwrap();
        assert!(roll.bytes() >= members.bytes(), "{} {}", roll.bytes(), members.bytes());
        let mut out = Vec::new();
        json::write_presence(&roll, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_presence_answer_over_many_turns_is_current_when_complete() {
        let ids = Ids::new([1; 16]);
        let mut members = Members::default();
        for slot in 0..1000 {
            members.insert(address(slot), &info("u"), 1, true);
        }
        let mut turns = 0;
        let mut presence = loop {
            turns += 1;
            // Some come and go meanwhile, those that are encoded already among them.
            members.remove(address(turns), &ids);
            members.remove(address(999 - turns), &ids);
            members.insert(address(2000 + turns), &info("v"), 2, true);
            let mut budget = WorkBudget::new(100_000, false);
            budget.begin(Stage::Rest);
            if let Some(roll) = members.encode_presence(Wire::Json, &ids, &mut budget) {
                break roll;
            }
            assert!(budget.used() < 200_000, "{}", budget.used());
        };
        assert!(turns > 5, "{turns}");
        let mut out = Vec::new();
        json::write_presence(&presence, &mut out);
        let presence_json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let named = presence_json["presence"].as_object().unwrap();
        assert_eq!(named.len() as u32, members.stats().clients);
        for (slot, there) in [(0, true), (1, false), (turns, false), (2000 + turns, true)] {
            assert_eq!(named.contains_key(&ids.client(address(slot))), there, "{slot}");
        }
        presence =
            members.encode_presence(Wire::Json, &ids, &mut WorkBudget::new(1, false)).unwrap();
        let again =
            members.encode_presence(Wire::Json, &ids, &mut WorkBudget::new(1, true)).unwrap();
        assert_eq!(presence.bytes(), again.bytes());
    }

    #[test]
    fn new_infos_of_a_member_replace_the_former() {
        let mut members = Members::default();
        members.insert(address(1), &info("a"), 7, true);
        assert!(roll(&mut members).contains("\"conn_info\":1"));
        let before = members.bytes();
        let longer = ClientInfo { connection: Some(b"[1,2]"[..].into()), ..info("a") };
        members.update(address(1), &longer);
        members.update(address(2), &longer);
        assert_eq!(members.bytes(), before + 4);
        assert!(roll(&mut members).contains("\"conn_info\":[1,2]"));
        assert_eq!(members.stats(), PresenceStats { clients: 1, users: 1 });
    }

    #[test]
    fn users_are_counted_once() {
        let ids = Ids::new([1; 16]);
        let mut members = Members::default();
        for (slot, user) in [(1, "a"), (2, "b"), (3, "a"), (3, "a")] {
            // One hash for all: names tell users apart.
            members.insert(address(slot), &info(user), 7, true);
        }
        assert_eq!(members.stats(), PresenceStats { clients: 3, users: 2 });
        let gone = members.remove(address(1), &ids).unwrap();
        assert_eq!((&*gone.user, &*gone.client), ("a", &*ids.client(address(1))));
        assert_eq!(gone.connection.as_deref(), Some(&b"1"[..]));
        assert_eq!(members.remove(address(1), &ids), None);
        assert_eq!(members.stats(), PresenceStats { clients: 2, users: 2 });
        assert_eq!(roll(&mut members).matches("\"user\":").count(), 2);
        members.remove(address(3), &ids);
        members.remove(address(2), &ids);
        assert!(members.is_empty() && members.stats() == PresenceStats::default());
        assert!(members.by_name.is_empty() && members.users.is_empty());
    }

    #[test]
    fn hidden_members_are_kept_and_omitted_from_answers() {
        let ids = Ids::new([1; 16]);
        let mut members = Members::default();
        members.insert(address(1), &info("a"), 7, false);
        assert_eq!((members.stats(), members.bytes()), (PresenceStats::default(), 0));
        assert_eq!(roll(&mut members), "{\"presence\":{}}");
        members.insert(address(2), &info("a"), 7, true);
        members.insert(address(3), &info("b"), 7, false);
        assert_eq!(members.stats(), PresenceStats { clients: 1, users: 1 });
        assert_eq!(roll(&mut members).matches("\"user\":").count(), 1);
        members.remove(address(2), &ids);
        assert_eq!(members.stats(), PresenceStats::default());
        let gone = members.remove(address(3), &ids).unwrap();
        assert_eq!(&*gone.user, "b", "its leaving can be announced");
        members.remove(address(1), &ids);
        assert!(members.is_empty() && members.hidden.is_none());
        members.insert(address(4), &info("b"), 7, true);
        assert_eq!(members.stats(), PresenceStats { clients: 1, users: 1 });
    }
}
