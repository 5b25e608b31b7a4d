//! The methods `revoke_token` and `invalidate_user_tokens`.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::node::Api;
use super::reply::{ApiError, EmptyResult};
use crate::base::sys;
use crate::control::revocation_log::RevocationRecord;
use crate::link::LinkBusy;
use crate::model::message::Message;
use crate::model::revocation::{Revocation, RevocationScope};
use crate::wire::protocol::Error;

/// Revokes one token.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RevokeToken {
    /// Claim `jti` of the token.
    #[schemars(required, length(min = 1))]
    uid: Option<String>,
    /// End of the revocation as Unix time in seconds; 0: without an end, but without a store it
    /// ends with the process.
    expire_at: Option<u64>,
}

/// Revokes connection tokens of a user, or the user's subscription tokens for one channel.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct InvalidateUserTokens {
    /// ID of the user.
    #[schemars(required, length(min = 1))]
    user: Option<String>,
    /// Revoke tokens issued before this Unix time in seconds; 0: before now.
    issued_before: Option<u64>,
    /// End of the revocation as Unix time in seconds; 0: without an end, but without a store it
    /// ends with the process.
    expire_at: Option<u64>,
    /// Revoke subscription tokens for this channel; empty: connection tokens.
    channel: Option<String>,
}

fn now() -> u64 {
    sys::unix_millis() / 1000
}

impl Api {
    pub(super) async fn revoke_token(&self, request: RevokeToken) -> Result<EmptyResult, ApiError> {
        let uid = request.uid.unwrap_or_default();
        if uid.is_empty() {
            return Err(ApiError::bad_request());
        }
        let expire_at = request.expire_at.unwrap_or_default();
        self.revoke(RevocationScope::Token(&uid), u64::MAX, expire_at).await
    }

    pub(super) async fn invalidate_user_tokens(
        &self,
        request: InvalidateUserTokens,
    ) -> Result<EmptyResult, ApiError> {
        let InvalidateUserTokens { user, issued_before, expire_at, channel } = request;
        let user = &user.unwrap_or_default();
        if user.is_empty() {
            return Err(ApiError::bad_request());
        }
        let issued_before = issued_before.filter(|at| *at > 0).unwrap_or_else(now);
        let subject = match channel.as_deref().unwrap_or_default() {
            "" => RevocationScope::User(user),
            channel => RevocationScope::Subscriber { user, channel },
        };
        self.revoke(subject, issued_before, expire_at.unwrap_or_default()).await
    }

    /// Adds a revocation to the list and sends the new list to every shard, so that checking a
    /// token needs no message. Then writes the revocation to disk: an error says that it may not be
    /// there, although it is in force.
    async fn revoke(
        &self,
        scope: RevocationScope<'_>,
        issued_before: u64,
        expire_at: u64,
    ) -> Result<EmptyResult, ApiError> {
        let until = if expire_at == 0 { u64::MAX } else { expire_at };
        let subject = self.link.names().subject(scope);
        let new = Revocation { subject, issued_before, until };
        let record = RevocationRecord::new(scope, new);
        // Locked until all shards have the list, so that no shard gets an older list after a newer
        // one.
        let mut revocations = self.node.revocations.lock().await;
        let most = self.config.engine.revocations_max;
        let next = Arc::new(revocations.with(new, now(), most).ok_or(Error::LIMIT_EXCEEDED)?);
        *revocations = next.clone();
        let mut sent = Ok(());
        for shard in self.link.shards() {
            // On an error the list keeps the revocation, and the next list that is sent contains
            // it.
            let message = Message::Revoke(next.clone());
            sent = sent.and(self.link.send(shard, message).await.map_err(|_| LinkBusy));
        }
        self.node.keep_revocation(record, new, now()).await?;
        sent?;
        Ok(EmptyResult {})
    }
}
