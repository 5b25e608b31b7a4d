//! What clients are told, as the fields of the protocol's messages.
//!
//! Owns nothing: everything is borrowed for as long as it takes to be written. Never decides what
//! is said. Source of the numbers: centrifugal/protocol, `client.proto`.

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
    /// The command's.
    pub(super) id: u32,
    /// What it is answered.
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
            Reply::Presence(roll) => fields.message(9, roll),
            Reply::PresenceStats(stats) => fields.message(10, stats),
            Reply::History(history) => fields.message(11, history),
            Reply::Rpc(data) => fields.message(13, &Returned(data.unwrap_or_default())),
            Reply::Refresh(lease) => fields.message(14, &Renewed { field: 3, lease: *lease }),
            Reply::SubRefresh(lease) => fields.message(15, &Renewed { field: 1, lease: *lease }),
        }
    }
}

/// `Reply` that carries a push.
pub(super) struct Pushed<B>(pub(super) B);

impl<B: Body> Body for Pushed<B> {
    fn write(&self, fields: &mut impl Fields) {
        fields.message(4, &self.0);
    }
}

/// `Push`.
pub(super) struct PushBody<'a, B> {
    /// Where it happened; empty: to the connection itself.
    pub(super) channel: &'a str,
    /// Which field says what happened.
    pub(super) field: u32,
    /// What happened.
    pub(super) body: B,
}

impl<B: Body> Body for PushBody<'_, B> {
    fn write(&self, fields: &mut impl Fields) {
        fields.text(2, self.channel);
        fields.message(self.field, &self.body);
    }
}

// ---- parts -----------------------------------------------------------------------------------

/// An entry of a map of messages. Its key is there even if it is empty: old readers rely on it.
struct Entry<'a, B>(&'a str, &'a B);

impl<B: Body> Body for Entry<'_, B> {
    fn write(&self, fields: &mut impl Fields) {
        fields.present(1, self.0.as_bytes());
        fields.message(2, self.1);
    }
}

/// An entry of a map of text.
struct Tag<'a>(&'a str, &'a str);

impl Body for Tag<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.present(1, self.0.as_bytes());
        fields.present(2, self.1.as_bytes());
    }
}

/// `expires` in this field and `ttl` in the next, as wherever they stand.
fn write_lease(field: u32, lease: Option<Ttl>, fields: &mut impl Fields) {
    if let Some(Ttl(seconds)) = lease {
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

// ---- answers ---------------------------------------------------------------------------------

/// `ConnectResult`.
impl Body for ConnectResult<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.text(1, self.client);
        fields.text(2, VERSION);
        write_lease(3, self.expires, fields);
        fields.bytes(5, self.data.unwrap_or_default());
        for (channel, subscribed) in &self.subs {
            fields.message(6, &Entry(channel, subscribed));
        }
        write_connection(self, fields);
    }
}

/// What `ConnectResult` and `Connect` have in the same fields.
fn write_connection(connected: &ConnectResult<'_>, fields: &mut impl Fields) {
    fields.number(7, connected.ping.into());
    fields.flag(8, connected.pong);
    fields.text(9, connected.session);
    fields.text(10, connected.node);
    // Two's complement, as int64 has it.
    fields.number(11, connected.time.unwrap_or(0) as u64);
}

/// `SubscribeResult`.
impl Body for SubscribeResult<'_> {
    fn write(&self, fields: &mut impl Fields) {
        let position = self.position.unwrap_or_default();
        write_lease(1, self.expires, fields);
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
struct Returned<'a>(&'a [u8]);

impl Body for Returned<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.bytes(1, self.0);
    }
}

/// `RefreshResult`, `SubRefreshResult` and `Refresh`, which differ in where the lease stands.
pub(super) struct Renewed {
    /// Of `expires`.
    pub(super) field: u32,
    /// The new one.
    pub(super) lease: Option<Ttl>,
}

impl Body for Renewed {
    fn write(&self, fields: &mut impl Fields) {
        write_lease(self.field, self.lease, fields);
    }
}

// ---- pushes ----------------------------------------------------------------------------------

/// `Publication`.
pub(super) struct PublicationBody<'a> {
    /// The payload, or the difference to the one before.
    pub(super) data: &'a [u8],
    /// The parts beside it.
    pub(super) details: &'a PublicationFields<'a>,
    /// Whether it is a difference.
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
        write_lease(5, self.0.expires, fields);
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

/// `Unsubscribe` and `Disconnect`, which differ in where the code stands.
pub(super) struct Reason<'a> {
    /// Of the code; the text is in the next.
    pub(super) field: u32,
    /// Why, as a number.
    pub(super) code: u32,
    /// Why, for people.
    pub(super) reason: &'a str,
}

impl Body for Reason<'_> {
    fn write(&self, fields: &mut impl Fields) {
        fields.number(self.field, self.code.into());
        fields.text(self.field + 1, self.reason);
    }
}
