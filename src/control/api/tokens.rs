//! Tokens that are to count no more.

use std::sync::Arc;

use serde::Deserialize;

use super::{Api, Empty, Fault};
use crate::control::link::Busy;
use crate::message::Message;
use crate::protocol::Error;
use crate::revocation::{Revocation, Subject};
use crate::sys;

/// Revokes one token, by its name (`jti`).
#[derive(Debug, Deserialize)]
pub(super) struct RevokeToken {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    expire_at: u64,
}

/// Revokes tokens of a user that were made before some time: those for connections, or those for
/// subscriptions to a channel.
#[derive(Debug, Deserialize)]
pub(super) struct InvalidateUserTokens {
    #[serde(default)]
    user: String,
    #[serde(default)]
    issued_before: u64,
    #[serde(default)]
    expire_at: u64,
    #[serde(default)]
    channel: String,
}

fn now() -> u64 {
    sys::unix_millis() / 1000
}

impl Api {
    pub(super) async fn revoke_token(&self, request: RevokeToken) -> Result<Empty, Fault> {
        if request.uid.is_empty() {
            return Err(Fault::bad_request());
        }
        self.revoke(Subject::Token(&request.uid), u64::MAX, request.expire_at).await
    }

    pub(super) async fn invalidate_user_tokens(
        &self,
        request: InvalidateUserTokens,
    ) -> Result<Empty, Fault> {
        let InvalidateUserTokens { user, issued_before, expire_at, channel } = &request;
        if user.is_empty() {
            return Err(Fault::bad_request());
        }
        let issued_before = if *issued_before == 0 { now() } else { *issued_before };
        let subject = match channel.as_str() {
            "" => Subject::User(user),
            channel => Subject::Subscriber { user, channel },
        };
        self.revoke(subject, issued_before, *expire_at).await
    }

    /// Adds to the list, which every shard is told: those who check a token are asked nothing. A
    /// revocation without an end is kept as long as the process runs.
    async fn revoke(
        &self,
        subject: Subject<'_>,
        issued_before: u64,
        expire_at: u64,
    ) -> Result<Empty, Fault> {
        let until = if expire_at == 0 { u64::MAX } else { expire_at };
        let subject = self.link.names().subject(subject);
        let new = Revocation { subject, issued_before, until };
        // Held until all are told, so that no shard hears of an older list after a newer one.
        let mut revocations = self.revocations.lock().await;
        let most = self.config.engine.revocations_max;
        let next = Arc::new(revocations.with(new, now(), most).ok_or(Error::LIMIT_EXCEEDED)?);
        *revocations = next.clone();
        for shard in self.link.shards() {
            // On an error the list stands, and the next that is told holds it.
            self.link.tell(shard, Message::Revoke(next.clone())).await.map_err(|_| Busy)?;
        }
        Ok(Empty {})
    }
}
