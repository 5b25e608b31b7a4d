//! The methods of the API: one table, from which requests are read and the OpenAPI document is
//! made.
//!
//! Owns the table alone. The invariant: a method outside the table is neither callable nor
//! described.

use std::time::Instant;

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
use crate::control::traces::of_api_command;

/// Description of a method.
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) request: Schema,
    pub(super) result: Schema,
    pub(super) answer: Schema,
}

macro_rules! methods {
    ($(#[doc = $summary:literal] $method:ident($request:ident) -> $result:ty;)*) => {
        /// A request of one method.
        pub(super) enum Command {
            $(#[doc = $summary] $request($request),)*
        }

        impl Command {
            /// Reads the body of a request of a method.
            pub(super) fn read(method: &str, body: &[u8]) -> Result<Self, RequestError> {
                match method {
                    $(stringify!($method) => Ok(Command::$request(read_object(body)?)),)*
                    _ => Err(RequestError::Unknown),
                }
            }

            /// Name of the method.
            fn method(&self) -> &'static str {
                match self {
                    $(Command::$request(_) => stringify!($method),)*
                }
            }
        }

        impl Api {
            /// Runs a request and counts it; returns its result as JSON.
            pub(super) async fn run(&self, command: Command) -> Result<Box<RawValue>, ApiError> {
                let (method, began) = (command.method(), Instant::now());
                let span = of_api_command(method);
                let result = self.run_uncounted(command).await;
                if let (Some(mut span), Err(error)) = (span, &result) {
                    let (code, message) = error.parts();
                    span.set("error.type", code.to_string().as_str());
                    span.fail(message);
                }
                self.calls.ended(method, began, result.as_ref().err().map(|error| error.parts().0));
                result
            }

            async fn run_uncounted(&self, command: Command) -> Result<Box<RawValue>, ApiError> {
                match command {
                    $(Command::$request(request) => {
                        let result: $result = self.$method(request).await?;
                        Ok(raw_text(&result))
                    })*
                }
            }
        }

        /// Names of all methods except `batch`.
        pub const METHODS: &[&str] = &[$(stringify!($method)),*];

        /// Descriptions of all methods except `batch`.
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
    /// Publishes a message to a channel.
    publish(Publish) -> PublishResult;
    /// Publishes one message to several channels.
    broadcast(Broadcast) -> BroadcastResult;
    /// Subscribes the connections of a user to a channel.
    subscribe(Subscribe) -> EmptyResult;
    /// Unsubscribes the connections of a user from a channel.
    unsubscribe(Unsubscribe) -> EmptyResult;
    /// Closes the connections of a user.
    disconnect(Disconnect) -> EmptyResult;
    /// Sets a new expiration time for the connections of a user.
    refresh(Refresh) -> EmptyResult;
    /// Revokes one token.
    revoke_token(RevokeToken) -> EmptyResult;
    /// Revokes tokens of a user that were issued before a point in time.
    invalidate_user_tokens(InvalidateUserTokens) -> EmptyResult;
    /// Returns the clients that are subscribed to a channel.
    presence(Presence) -> PresenceResult;
    /// Returns the numbers of clients and users that are subscribed to a channel.
    presence_stats(PresenceStats) -> PresenceStatsResult;
    /// Returns publications of a channel from its history, and the position of its stream.
    history(History) -> HistoryResult;
    /// Removes the publications of a channel's history. The stream keeps its position.
    history_remove(HistoryRemove) -> EmptyResult;
    /// Returns the channels that have subscribers, with the number of subscribers.
    channels(Channels) -> ChannelsResult;
    /// Returns the version, load and metrics of the node.
    info(Info) -> InfoResult;
    /// Calls an extension. There are no extensions, so the answer is error 104.
    rpc(Rpc) -> RpcResult;
}

/// Call of an extension.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Rpc {
    /// Name of the method.
    #[schemars(required, length(min = 1))]
    method: Option<String>,
    /// Parameters of the method.
    #[serde(rename = "params")]
    _params: Option<Box<RawValue>>,
}

/// Result of an extension.
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
