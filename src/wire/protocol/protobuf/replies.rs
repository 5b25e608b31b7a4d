//! Replies and pushes as fields of protobuf messages.
//!
//! Owns no state: messages borrow their parts until they are written. Never decides what a reply
//! contains. Source of the field numbers: centrifugal/protocol, `client.proto`.

use super::fields::{Body, Fields};
use crate::wire::protocol::encoding::VERSION;
use crate::wire::protocol::error::Error;
use crate::wire::protocol::json::PublicationFields;
use crate::wire::protocol::reply::{
    ClientInfo, ConnectResult, HistoryResult, PresenceList, PresenceStats, Reply, SubscribeResult,
    Ttl,
};

// ---- envelopes -------------------------------------------------------------------------------

/// `Reply` to a command.
pub(super) struct ReplyEnvelope<'a> {
    /// Id of the command.
    pub(super) id: u32,
    /// Content of the reply.
    pub(super) reply: &'a Reply<'a>,
}

impl Body for ReplyEnvelope<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.number(1, self.id.into());
        match self.reply {
            Reply::Error(Error { code, message, temporary })
            | Reply::Refused { code, message, temporary } => {
                fields.message(2, &Failure { code: *code, message, temporary: *temporary });
            }
            Reply::Connect(connected) => fields.message(5, connected),
            Reply::Subscribe(subscribed) => fields.message(6, subscribed),
            Reply::Unsubscribe => fields.message(7, &()),
            Reply::Publish => fields.message(8, &()),
            Reply::Presence(members) => fields.message(9, members),
            Reply::PresenceStats(stats) => fields.message(10, stats),
            Reply::History(history) => fields.message(11, history),
            Reply::Rpc(data) => fields.message(13, &RpcResult(data.unwrap_or_default())),
            Reply::Refresh(ttl) => fields.message(14, &TtlBody { field: 3, ttl: *ttl }),
            Reply::SubRefresh(ttl) => fields.message(15, &TtlBody { field: 1, ttl: *ttl }),
        }
    }
}

/// `Reply` that carries a push.
pub(super) struct PushEnvelope<B>(pub(super) B);

impl<B: Body> Body for PushEnvelope<B> {
    fn write(&self, fields: &mut impl Fields) {
        fields.message(4, &self.0);
    }
}

/// `Push`.
pub(super) struct PushBody<'a, B> {
    /// Channel of the push; empty if the push concerns the whole connection.
    pub(super) channel: &'a str,
    /// Number of the field that holds the body.
    pub(super) field: u32,
    /// Body of the push.
    pub(super) body: B,
}

impl<B: Body> Body for PushBody<'_, B> {
    fn write(&self, fields: &mut impl Fields) {
        fields.text(2, self.channel);
        fields.message(self.field, &self.body);
    }
}

// ---- parts -----------------------------------------------------------------------------------

/// An entry of a map of messages. The key is written even if it is empty, because old parsers
/// require it.
struct Entry<'a, B>(&'a str, &'a B);

impl<B: Body> Body for Entry<'_, B> {
    fn write(&self, fields: &mut impl Fields) {
        fields.present(1, self.0.as_bytes());
        fields.message(2, self.1);
    }
}

/// An entry of a map of strings.
struct Tag<'a>(&'a str, &'a str);

impl Body for Tag<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.present(1, self.0.as_bytes());
        fields.present(2, self.1.as_bytes());
    }
}

/// Writes `expires` as this field and `ttl` as the next one.
fn write_ttl(field: u32, ttl: Option<Ttl>, fields: &mut impl Fields) {
    if let Some(Ttl(seconds)) = ttl {
        fields.flag(field, true);
        fields.number(field + 1, seconds.into());
    }
}

/// `Error`.
struct Failure<'a> {
    code: u32,
    message: &'a str,
    temporary: bool,
}

impl Body for Failure<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.number(1, self.code.into());
        fields.text(2, self.message);
        fields.flag(3, self.temporary);
    }
}

impl Body for ClientInfo {
    fn write(&self, fields: &mut impl Fields) {
        fields.text(1, &self.user);
        fields.text(2, &self.client);
        fields.bytes(3, self.connection.as_deref().unwrap_or_default());
        fields.bytes(4, self.channel.as_deref().unwrap_or_default());
    }
}

// ---- results ---------------------------------------------------------------------------------

/// `ConnectResult`.
impl Body for ConnectResult<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.text(1, self.client);
        fields.text(2, VERSION);
        write_ttl(3, self.expires, fields);
        fields.bytes(5, self.data.unwrap_or_default());
        for (channel, subscribed) in &self.subs {
            fields.message(6, &Entry(channel, subscribed));
        }
        write_connection(self, fields);
    }
}

/// Writes the fields that have the same numbers in `ConnectResult` and `Connect`.
fn write_connection(connected: &ConnectResult<'_>, fields: &mut impl Fields) {
    fields.number(7, connected.ping.into());
    fields.flag(8, connected.pong);
    fields.text(9, connected.session);
    fields.text(10, connected.node);
    // An int64 is encoded in two's complement.
    fields.number(11, connected.time.unwrap_or(0) as u64);
}

/// `SubscribeResult`.
impl Body for SubscribeResult<'_> {
    fn write(&self, fields: &mut impl Fields) {
        let position = self.position.unwrap_or_default();
        write_ttl(1, self.expires, fields);
        fields.flag(3, self.recoverable);
        fields.text(6, position.epoch.as_str());
        for publication in &self.publications {
            fields.present(7, publication);
        }
        fields.flag(8, self.recovered);
        fields.number(9, position.offset);
        fields.flag(10, self.positioned);
        fields.bytes(11, self.data.unwrap_or_default());
        fields.flag(12, self.was_recovering);
        fields.flag(13, self.delta);
    }
}

/// `PresenceResult`.
impl Body for PresenceList {
    fn write(&self, fields: &mut impl Fields) {
        self.parts().iter().for_each(|part| fields.raw(part));
    }
}

/// Appends an entry of `PresenceResult`.
pub(super) fn write_member(info: &ClientInfo, out: &mut Vec<u8>) {
    out.message(1, &Entry(&info.client, info));
}

/// `PresenceStatsResult`.
impl Body for PresenceStats {
    fn write(&self, fields: &mut impl Fields) {
        fields.number(1, self.clients.into());
        fields.number(2, self.users.into());
    }
}

/// `HistoryResult`.
impl Body for HistoryResult<'_> {
    fn write(&self, fields: &mut impl Fields) {
        for publication in &self.publications {
            fields.present(1, publication);
        }
        fields.text(2, self.position.epoch.as_str());
        fields.number(3, self.position.offset);
    }
}

/// `RPCResult`.
struct RpcResult<'a>(&'a [u8]);

impl Body for RpcResult<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.bytes(1, self.0);
    }
}

/// `RefreshResult`, `SubRefreshResult` and `Refresh`, which differ in their field numbers.
pub(super) struct TtlBody {
    /// Number of the field `expires`.
    pub(super) field: u32,
    /// The new time to live; `None`: no expiry.
    pub(super) ttl: Option<Ttl>,
}

impl Body for TtlBody {
    fn write(&self, fields: &mut impl Fields) {
        write_ttl(self.field, self.ttl, fields);
    }
}

// ---- pushes ----------------------------------------------------------------------------------

/// `Publication`.
pub(super) struct PublicationBody<'a> {
    /// The payload, or a delta to the previous payload.
    pub(super) data: &'a [u8],
    /// The fields besides the data.
    pub(super) details: &'a PublicationFields<'a>,
    /// Whether the data is a delta.
    pub(super) delta: bool,
}

impl Body for PublicationBody<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.bytes(4, self.data);
        if let Some(info) = self.details.info {
            fields.message(5, info);
        }
        fields.number(6, self.details.offset.unwrap_or(0));
        for (name, value) in self.details.tags {
            fields.message(7, &Tag(name, value));
        }
        fields.flag(8, self.delta);
        fields.text(14, self.details.epoch.as_str());
        fields.number(16, self.details.version);
    }
}

/// `Join` and `Leave`.
pub(super) struct PresenceChange<'a>(pub(super) &'a ClientInfo);

impl Body for PresenceChange<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.message(1, self.0);
    }
}

/// `Connect`.
pub(super) struct ConnectPush<'a>(pub(super) &'a ConnectResult<'a>);

impl Body for ConnectPush<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.text(1, self.0.client);
        fields.text(2, VERSION);
        fields.bytes(3, self.0.data.unwrap_or_default());
        for (channel, subscribed) in &self.0.subs {
            fields.message(4, &Entry(channel, subscribed));
        }
        write_ttl(5, self.0.expires, fields);
        write_connection(self.0, fields);
    }
}

/// `Subscribe`.
pub(super) struct SubscribePush<'a>(pub(super) &'a SubscribeResult<'a>);

impl Body for SubscribePush<'_> {
    fn write(&self, fields: &mut impl Fields) {
        let position = self.0.position.unwrap_or_default();
        fields.flag(1, self.0.recoverable);
        fields.text(4, position.epoch.as_str());
        fields.number(5, position.offset);
        fields.flag(6, self.0.positioned);
        fields.bytes(7, self.0.data.unwrap_or_default());
    }
}

/// `Unsubscribe` and `Disconnect`, which differ in their field numbers.
pub(super) struct Reason<'a> {
    /// Number of the field of the code. The reason is the next field.
    pub(super) field: u32,
    /// Code of the reason.
    pub(super) code: u32,
    /// Reason for humans.
    pub(super) reason: &'a str,
}

impl Body for Reason<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.number(self.field, self.code.into());
        fields.text(self.field + 1, self.reason);
    }
}
