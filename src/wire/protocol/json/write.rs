//! Replies and pushes as JSON, for clients and the API.
//!
//! Owns no state. Never decides what a reply contains.

use std::borrow::Cow;

use super::bodies::{
    ConnectBody, Empty, ErrorBody, Reason, RpcBody, StatsBody, SubscribeBack, SubscribeFront,
    TtlBody,
};
use super::publication::InfoBody;
use super::text::{Raw, write_fields, write_json, write_number};
use crate::wire::protocol::error::Error;
use crate::wire::protocol::position::Position;
use crate::wire::protocol::reply::{
    ClientInfo, HistoryResult, PresenceList, PresenceStats, Push, Reply, SubscribeResult,
};

/// Appends the result of a presence request, for the API and clients.
pub fn write_presence(members: &PresenceList, out: &mut Vec<u8>) {
    out.reserve(members.bytes() + members.parts().len() + 16);
    out.extend_from_slice(b"{\"presence\":{");
    for (nth, part) in members.parts().iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"}}");
}

/// Appends a member of a channel to a part of a presence list.
pub fn write_member(info: &ClientInfo, out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b',');
    }
    write_json(&info.client, out);
    out.push(b':');
    write_json(&InfoBody::from(info), out);
}

/// Appends the result of a presence stats request, for the API and clients.
pub fn write_stats(stats: PresenceStats, out: &mut Vec<u8>) {
    write_json(&StatsBody { num_clients: stats.clients, num_users: stats.users }, out);
}

/// Appends the result of a history request, for the API and clients.
pub fn write_history(history: &HistoryResult<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"publications\":");
    write_objects(&history.publications, out);
    out.extend_from_slice(b",\"epoch\":");
    write_json(&history.position.epoch.as_str(), out);
    out.extend_from_slice(b",\"offset\":");
    write_number(history.position.offset, out);
    out.push(b'}');
}

/// Appends publication objects as an array. This module wrote them, so they are copied without
/// parsing: a history reply of 1 MiB costs little more than a copy.
fn write_objects(objects: &[Cow<'_, [u8]>], out: &mut Vec<u8>) {
    out.reserve(objects.iter().map(|object| object.len() + 1).sum::<usize>() + 2);
    out.push(b'[');
    for (nth, object) in objects.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        out.extend_from_slice(object);
    }
    out.push(b']');
}

/// Appends the result of a subscription.
fn write_subscribed(subscribed: &SubscribeResult<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    write_fields(&SubscribeFront::from(subscribed), out);
    if !subscribed.publications.is_empty() {
        if !out.ends_with(b"{") {
            out.push(b',');
        }
        out.extend_from_slice(b"\"publications\":");
        write_objects(&subscribed.publications, out);
    }
    write_fields(&SubscribeBack::from(subscribed), out);
    out.push(b'}');
}

/// Appends a reply.
pub fn write_reply(id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let key = match reply {
        Reply::Error(_) | Reply::Refused { .. } => "error",
        Reply::Connect(_) => "connect",
        Reply::Subscribe(_) => "subscribe",
        Reply::Unsubscribe => "unsubscribe",
        Reply::Publish => "publish",
        Reply::Presence(_) => "presence",
        Reply::PresenceStats(_) => "presence_stats",
        Reply::History(_) => "history",
        Reply::Rpc(_) => "rpc",
        Reply::Refresh(_) => "refresh",
        Reply::SubRefresh(_) => "sub_refresh",
    };
    out.extend_from_slice(b"{\"id\":");
    write_number(u64::from(id), out);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    match reply {
        Reply::Error(Error { code, message, temporary }) => {
            write_json(&ErrorBody { code: *code, message, temporary: *temporary }, out);
        }
        Reply::Refused { code, message, temporary } => {
            write_json(&ErrorBody { code: *code, message, temporary: *temporary }, out);
        }
        Reply::Connect(connected) => write_json(&ConnectBody::from(*connected), out),
        Reply::Subscribe(subscribed) => write_subscribed(subscribed, out),
        Reply::Unsubscribe | Reply::Publish => write_json(&Empty {}, out),
        Reply::Presence(members) => write_presence(members, out),
        Reply::PresenceStats(stats) => write_stats(*stats, out),
        Reply::History(history) => write_history(history, out),
        Reply::Rpc(data) => write_json(&RpcBody { data: data.map(Raw) }, out),
        Reply::Refresh(ttl) | Reply::SubRefresh(ttl) => {
            write_json(&TtlBody::from(ttl), out);
        }
    }
    out.push(b'}');
}

/// Appends a bare push, as unidirectional clients receive it.
pub fn write_push(push: &Push<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    match push {
        Push::Subscribe { channel, .. } | Push::Unsubscribe { channel, .. } => {
            out.extend_from_slice(b"\"channel\":");
            write_json(channel, out);
            out.push(b',');
        }
        Push::Connect(_) | Push::Disconnect { .. } | Push::Refresh(_) => {}
    }
    let key: &[u8] = match push {
        Push::Connect(_) => b"\"connect\":",
        Push::Subscribe { .. } => b"\"subscribe\":",
        Push::Unsubscribe { .. } => b"\"unsubscribe\":",
        Push::Disconnect { .. } => b"\"disconnect\":",
        Push::Refresh(_) => b"\"refresh\":",
    };
    out.extend_from_slice(key);
    match push {
        Push::Connect(connected) => write_json(&ConnectBody::from(*connected), out),
        Push::Subscribe { subscribed, .. } => write_subscribed(subscribed, out),
        Push::Unsubscribe { code, reason, .. } => {
            write_json(&Reason { code: *code, reason }, out);
        }
        Push::Disconnect { code, reason } => {
            write_json(&Reason { code: u32::from(*code), reason }, out);
        }
        Push::Refresh(ttl) => write_json(&TtlBody::from(ttl), out),
    }
    out.push(b'}');
}

/// Appends the API's response to a publish: `{"result":{"offset":7,"epoch":"abcdefgh"}}`. The
/// result is empty if the channel keeps no history.
pub fn write_published(position: Option<Position>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"result\":{");
    if let Some(position) = position {
        out.extend_from_slice(b"\"offset\":");
        write_number(position.offset, out);
        out.extend_from_slice(b",\"epoch\":\"");
        out.extend_from_slice(position.epoch.as_str().as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b"}}");
}
