//! Writes replies and pushes in the encoding of the connection.
//!
//! Owns no state. Never decides what a reply contains.

use super::encoding::Wire;
use super::reply::{ClientInfo, Push, Reply};
use super::{json, protobuf};

/// Appends a reply.
pub fn write_reply(wire: Wire, id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    match wire {
        Wire::Json => json::write_reply(id, reply, out),
        Wire::Protobuf => protobuf::write_reply(id, reply, out),
    }
}

/// Appends a member of a channel to a part of a [`super::reply::PresenceList`].
pub fn write_member(wire: Wire, info: &ClientInfo, out: &mut Vec<u8>) {
    match wire {
        Wire::Json => json::write_member(info, out),
        Wire::Protobuf => protobuf::write_member(info, out),
    }
}

/// Appends a push: bare for a unidirectional JSON client, otherwise inside a reply.
pub fn write_push(wire: Wire, unidirectional: bool, push: &Push<'_>, out: &mut Vec<u8>) {
    match wire {
        Wire::Json if unidirectional => json::write_push(push, out),
        Wire::Json => {
            out.extend_from_slice(json::PUSH_OPEN);
            json::write_push(push, out);
            out.extend_from_slice(json::PUSH_CLOSE);
        }
        Wire::Protobuf => protobuf::write_push(push, out),
    }
}

/// A presence list of these members in one part.
#[cfg(test)]
pub(super) fn presence_list(wire: Wire, members: &[ClientInfo]) -> super::reply::PresenceList {
    let mut part = Vec::new();
    members.iter().for_each(|info| write_member(wire, info, &mut part));
    super::reply::PresenceList::new(vec![part.into()])
}
