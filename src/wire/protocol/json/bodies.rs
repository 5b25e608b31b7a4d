//! The JSON objects inside replies and pushes.
//!
//! Owns no state: the objects borrow their parts until they are written.

use serde::{Serialize, Serializer};

use super::text::{Raw, is_false, is_zero};
use crate::wire::protocol::encoding::VERSION;
use crate::wire::protocol::reply::{ConnectResult, SubscribeResult, Ttl};

#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    pub(super) code: u32,
    pub(super) message: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) temporary: bool,
}

#[derive(Serialize)]
pub(super) struct ConnectBody<'a> {
    pub(super) client: &'a str,
    pub(super) version: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) expires: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Raw<'a>>,
    #[serde(skip_serializing_if = "Subs::is_empty")]
    pub(super) subs: Subs<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) ping: u64,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) pong: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) session: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<i64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) unknown_event_id: &'a str,
}

impl<'a> From<&'a ConnectResult<'a>> for ConnectBody<'a> {
    fn from(connected: &'a ConnectResult<'a>) -> Self {
        ConnectBody {
            client: connected.client,
            version: VERSION,
            expires: connected.expires.is_some(),
            ttl: connected.expires.map(|Ttl(seconds)| seconds),
            data: connected.data.map(Raw),
            subs: Subs(&connected.subs),
            ping: u64::from(connected.ping),
            pong: connected.pong,
            session: connected.session,
            node: connected.node,
            time: connected.time,
            unknown_event_id: connected.unknown_event_id,
        }
    }
}

pub(super) struct Subs<'a>(&'a [(&'a str, SubscribeResult<'a>)]);

impl Subs<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Subs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.0.iter().map(|(channel, one)| (channel, SubscribeBody::from(one)));
        serializer.collect_map(entries)
    }
}

#[derive(Serialize)]
pub(super) struct SubscribeBody<'a> {
    #[serde(flatten)]
    pub(super) front: SubscribeFront<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) publications: Vec<Raw<'a>>,
    #[serde(flatten)]
    pub(super) back: SubscribeBack<'a>,
}

/// The fields before the publications.
#[derive(Serialize)]
pub(super) struct SubscribeFront<'a> {
    #[serde(skip_serializing_if = "is_false")]
    pub(super) expires: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) recoverable: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) epoch: &'a str,
}

/// The fields after the publications.
#[derive(Serialize)]
pub(super) struct SubscribeBack<'a> {
    #[serde(skip_serializing_if = "is_false")]
    pub(super) recovered: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) offset: u64,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) positioned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Raw<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) was_recovering: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) delta: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) id: u64,
}

impl<'a> From<&'a SubscribeResult<'a>> for SubscribeFront<'a> {
    fn from(subscribed: &'a SubscribeResult<'a>) -> Self {
        SubscribeFront {
            expires: subscribed.expires.is_some(),
            ttl: subscribed.expires.map(|Ttl(seconds)| seconds),
            recoverable: subscribed.recoverable,
            epoch: subscribed.position.as_ref().map_or("", |position| position.epoch.as_str()),
        }
    }
}

impl<'a> From<&'a SubscribeResult<'a>> for SubscribeBack<'a> {
    fn from(subscribed: &'a SubscribeResult<'a>) -> Self {
        SubscribeBack {
            recovered: subscribed.recovered,
            offset: subscribed.position.map_or(0, |position| position.offset),
            positioned: subscribed.positioned,
            data: subscribed.data.map(Raw),
            was_recovering: subscribed.was_recovering,
            delta: subscribed.delta,
            id: u64::from(subscribed.number),
        }
    }
}

impl<'a> From<&'a SubscribeResult<'a>> for SubscribeBody<'a> {
    fn from(subscribed: &'a SubscribeResult<'a>) -> Self {
        SubscribeBody {
            front: subscribed.into(),
            publications: subscribed.publications.iter().map(|object| Raw(object)).collect(),
            back: subscribed.into(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct StatsBody {
    pub(super) num_clients: u32,
    pub(super) num_users: u32,
}

#[derive(Serialize)]
pub(super) struct RpcBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Raw<'a>>,
}

#[derive(Serialize)]
pub(super) struct TtlBody {
    #[serde(skip_serializing_if = "is_false")]
    pub(super) expires: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<u32>,
}

impl From<&Option<Ttl>> for TtlBody {
    fn from(ttl: &Option<Ttl>) -> Self {
        TtlBody { expires: ttl.is_some(), ttl: ttl.map(|Ttl(seconds)| seconds) }
    }
}

#[derive(Serialize)]
pub(super) struct Reason<'a> {
    pub(super) code: u32,
    pub(super) reason: &'a str,
}

#[derive(Serialize)]
pub(super) struct Empty {}
