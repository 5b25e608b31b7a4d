//! The methods of the API: one table that requests are read by and that the description is made of.
//!
//! Owns the table alone. The invariant: what is not here can neither be called nor is described.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::channels::{
    Channels, ChannelsResult, History, HistoryRemove, HistoryResult, Presence, PresenceResult,
    PresenceStats, PresenceStatsResult,
};
use super::info::{Info, InfoResult};
use super::node::Api;
use super::publish::{Broadcast, BroadcastResult, Publish, PublishResult};
use super::reading::{raw_text, read_object};
use super::reply::{ApiError, EmptyResult, MethodReply, RequestError};
use super::tokens::{InvalidateUserTokens, RevokeToken};
use super::users::{Disconnect, Refresh, Subscribe, Unsubscribe};

/// What a method is to those who call it.
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) request: Schema,
    pub(super) result: Schema,
    pub(super) answer: Schema,
}

macro_rules! methods {
    ($(#[doc = $summary:literal] $method:ident($request:ident) -> $result:ty;)*) => {
        /// A request that was read.
        pub(super) enum Command {
            $(#[doc = $summary] $request($request),)*
        }

        impl Command {
            /// Reads a request of a method.
            pub(super) fn read(method: &str, body: &[u8]) -> Result<Self, RequestError> {
                match method {
                    $(stringify!($method) => Ok(Command::$request(read_object(body)?)),)*
                    _ => Err(RequestError::Unknown),
                }
            }
        }

        impl Api {
            /// Carries one request out; its result as JSON.
            pub(super) async fn run(&self, command: Command) -> Result<Box<RawValue>, ApiError> {
                match command {
                    $(Command::$request(request) => {
                        let result: $result = self.$method(request).await?;
                        Ok(raw_text(&result))
                    })*
                }
            }
        }

        /// Names of the methods that a request may name in its path, without `batch`.
        pub const METHODS: &[&str] = &[$(stringify!($method)),*];

        /// Every method.
        pub(super) fn methods(generator: &mut SchemaGenerator) -> Vec<Method> {
            vec![$(Method {
                name: stringify!($method),
                summary: $summary.trim_ascii(),
                request: generator.subschema_for::<$request>(),
                result: generator.subschema_for::<$result>(),
                answer: generator.subschema_for::<MethodReply<$result>>(),
            },)*]
        }
    };
}

methods! {
    /// Publishes into a channel.
    publish(Publish) -> PublishResult;
    /// Publishes the same into several channels.
    broadcast(Broadcast) -> BroadcastResult;
    /// Subscribes a user's connections to a channel.
    subscribe(Subscribe) -> EmptyResult;
    /// Ends a subscription of a user's connections.
    unsubscribe(Unsubscribe) -> EmptyResult;
    /// Closes a user's connections.
    disconnect(Disconnect) -> EmptyResult;
    /// Gives a user's connections a new end.
    refresh(Refresh) -> EmptyResult;
    /// Revokes one token.
    revoke_token(RevokeToken) -> EmptyResult;
    /// Revokes tokens of a user.
    invalidate_user_tokens(InvalidateUserTokens) -> EmptyResult;
    /// Who is in a channel.
    presence(Presence) -> PresenceResult;
    /// How many are in a channel.
    presence_stats(PresenceStats) -> PresenceStatsResult;
    /// What was published in a channel, and where it stands.
    history(History) -> HistoryResult;
    /// Forgets what was published in a channel, but not how far it has come.
    history_remove(HistoryRemove) -> EmptyResult;
    /// Which channels have subscribers, and how many.
    channels(Channels) -> ChannelsResult;
    /// What the node is and does.
    info(Info) -> InfoResult;
    /// Calls a method of an extension; there is none, so none is found.
    rpc(Rpc) -> RpcResult;
}

/// A call of an extension.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Rpc {
    /// The extension's name for it.
    #[schemars(required, length(min = 1))]
    method: Option<String>,
    /// What it is called with.
    #[serde(rename = "params")]
    _params: Option<Box<RawValue>>,
}

/// What an extension answers.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct RpcResult {
    data: Box<RawValue>,
}

impl Api {
    async fn rpc(&self, request: Rpc) -> Result<RpcResult, ApiError> {
        if request.method.is_none_or(|method| method.is_empty()) {
            return Err(ApiError::bad_request());
        }
        Err(ApiError::NOT_FOUND)
    }
}
