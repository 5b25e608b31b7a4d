//! IDs of clients, sessions and the node, computed as keyed hashes of addresses instead of stored.
//!
//! Owns the node's key. The invariant: without the key, nobody can guess an ID or find the address
//! from a client ID.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// Address of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The shard.
    pub shard: u8,
    /// Slot on the shard.
    pub slot: u32,
    /// Generation of the slot: it changes when another connection takes the slot.
    pub generation: u32,
}

/// Computes IDs. All shards of a node use the same key.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    key: [u8; 16],
}

impl Ids {
    /// IDs under `key`.
    pub fn new(key: [u8; 16]) -> Self {
        Ids { key }
    }

    fn hash(&self, kind: IdKind, address: Address) -> (u64, u64) {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(kind as u8);
        hasher.write_u8(address.shard);
        hasher.write_u32(address.slot);
        hasher.write_u32(address.generation);
        let hash = hasher.finish128();
        (hash.h1, hash.h2)
    }

    /// The ID of a client, in the form of a version 4 UUID: an authentication code, and the address
    /// encrypted under a key that depends on the code.
    pub fn client(&self, address: Address) -> String {
        let Address { shard, slot, generation } = address;
        let code = self.client_code(address);
        let plain = u128::from(shard) << 64 | u128::from(slot) << 32 | u128::from(generation);
        uuid(code << ADDRESS_BITS | (plain ^ self.client_mask(code)))
    }

    /// The address of a client's connection; `None`: this node did not issue the client ID.
    pub fn find_client(&self, client: &str) -> Option<Address> {
        let digits: String = client.chars().filter(|digit| *digit != '-').collect();
        let value = u128::from_str_radix(&digits, 16).ok()?;
        let high = value >> 80 << 12 | value >> 64 & 0xfff;
        let bits = high << 62 | value & LOW_MASK;
        let plain = bits & ADDRESS_MASK ^ self.client_mask(bits >> ADDRESS_BITS);
        let (slot, generation) = ((plain >> 32) as u32, plain as u32);
        let address = Address { shard: (plain >> 64) as u8, slot, generation };
        (self.client(address) == client).then_some(address)
    }

    /// The authentication code of a client's address.
    fn client_code(&self, address: Address) -> u128 {
        u128::from(self.hash(IdKind::Client, address).0 & CODE_MASK)
    }

    /// The bits that hide the address in the ID of a client.
    fn client_mask(&self, code: u128) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(IdKind::ClientMask as u8);
        hasher.write_u64(code as u64);
        hasher.finish128().as_u128() & ADDRESS_MASK
    }

    /// The ID of the node, in the form of a version 4 UUID.
    pub fn node(&self) -> String {
        let node = Address { shard: 0, slot: 0, generation: 0 };
        let (high, low) = self.hash(IdKind::Node, node);
        uuid(u128::from(high) << 64 | u128::from(low))
    }

    /// The session ID of a connection: its address and an authentication code. The client of an
    /// HTTP transport sends it with /emulation requests.
    pub fn session(&self, address: Address) -> String {
        let Address { shard, slot, generation } = address;
        let (high, low) = self.hash(IdKind::Session, address);
        format!("{shard:02x}{slot:08x}{generation:08x}{high:016x}{low:016x}")
    }

    /// The address of a session's connection; `None`: this node did not issue the session ID.
    pub fn find(&self, session: &str) -> Option<Address> {
        let digits = |range| u32::from_str_radix(session.get(range)?, 16).ok();
        let shard = u8::try_from(digits(0..2)?).ok()?;
        let address = Address { shard, slot: digits(2..10)?, generation: digits(10..18)? };
        (self.session(address) == session).then_some(address)
    }
}

/// Kind of an ID. It is part of the hash, so IDs of different kinds are independent.
#[derive(Clone, Copy)]
enum IdKind {
    Client,
    Session,
    Node,
    ClientMask,
}

/// Bits of an address in the ID of a client.
const ADDRESS_BITS: u32 = 72;
const ADDRESS_MASK: u128 = (1 << ADDRESS_BITS) - 1;
/// The other 50 of the 122 bits that a UUID has are the code.
const CODE_MASK: u64 = (1 << 50) - 1;
/// Bits of a UUID after its variant.
const LOW_MASK: u128 = (1 << 62) - 1;

/// Formats 122 bits as a version 4 UUID.
fn uuid(bits: u128) -> String {
    let (high, low) = (bits >> 62, bits & LOW_MASK | 2 << 62);
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 28 & 0xffff_ffff,
        high >> 12 & 0xffff,
        high & 0xfff,
        low >> 48,
        low & 0xffff_ffff_ffff,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generation_of_a_slot_has_its_own_client_id() {
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
        assert_ne!(ids.node(), name);
    }

    #[test]
    fn a_client_is_found_by_its_id_and_by_no_other_text() {
        let ids = Ids::new([7; 16]);
        for (shard, slot, generation) in [(0, 0, 0), (63, 1_000_000, 0xff_ffff), (255, 7, !0)] {
            let address = Address { shard, slot, generation };
            let client = ids.client(address);
            assert_eq!(ids.find_client(&client), Some(address));
            assert_eq!(Ids::new([8; 16]).find_client(&client), None);
            for at in 0..client.len() {
                let mut forged = client.clone().into_bytes();
                forged[at] = if forged[at] == b'1' { b'2' } else { b'1' };
                assert_eq!(ids.find_client(std::str::from_utf8(&forged).unwrap()), None, "{at}");
            }
            for wrong in ["", "x", &client[1..], &client.to_uppercase(), &client.replace('-', "")] {
                assert_eq!(ids.find_client(wrong), None, "{wrong}");
            }
        }
    }

    #[test]
    fn forged_session_ids_are_not_found() {
        let ids = Ids::new([7; 16]);
        let address = Address { shard: 63, slot: 1_000_000, generation: 0xff_ffff };
        let session = ids.session(address);
        assert_eq!(ids.find(&session), Some(address));
        assert_eq!(Ids::new([8; 16]).find(&session), None);
        for at in 0..session.len() {
            let mut forged = session.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(ids.find(std::str::from_utf8(&forged).unwrap()), None, "{at}");
        }
        for wrong in ["", "x", &session[1..], &session.to_uppercase(), "\u{e9}\u{e9}\u{e9}"] {
            assert_eq!(ids.find(wrong), None, "{wrong}");
        }
    }
}
