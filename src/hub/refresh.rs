//! Refresh of connections and subscriptions by new tokens of clients.
//!
//! The invariant: a refused token changes nothing.

use std::collections::HashMap;
use std::num::NonZeroU64;

use crate::base::work_budget::cost;
use crate::hub::command_failure::CommandFailure;
use crate::hub::connections::NONE;
use crate::hub::session::ConnectRefusal;
use crate::hub::shard_state::Hub;
use crate::model::message::Post;
use crate::model::token::ConnectClaims;
use crate::wire::protocol::command::{RefreshRequest, SubRefreshRequest};
use crate::wire::protocol::reply::Reply;
use crate::wire::protocol::{Disconnect, Error};

impl Hub {
    /// Handles a new connection token.
    pub(super) fn refresh(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &RefreshRequest<'_>,
    ) -> Result<(), CommandFailure> {
        // If the backend renews connections, clients have no token to send.
        if request.token.is_empty() || self.settings.proxies.refresh.is_some() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let claims = match self.connect_claims(post, slot, &request.token) {
            Ok(Some(claims)) => claims,
            // Neither case occurs here: a token is given and no backend is asked.
            Ok(None) | Err(ConnectRefusal::Backend(_)) => {
                return Err(Disconnect::INVALID_TOKEN.into());
            }
            Err(ConnectRefusal::Stop(stop)) => return Err(stop.into()),
            Err(ConnectRefusal::Error(Error::TOKEN_EXPIRED)) => {
                return Err(Disconnect::EXPIRED.into());
            }
            Err(ConnectRefusal::Error(error)) => return Err(error.into()),
        };
        if claims.user != self.connections[slot].user() {
            return Err(Disconnect::INVALID_TOKEN.into());
        }
        for (channel, _) in &claims.subs {
            self.settings.namespaces.of(channel)?;
        }
        let subscribed = usize::from(self.connections[slot].subscribed);
        self.budget.charge((claims.subs.len() + subscribed) * cost::LOOK);
        if self.has_other_channels(slot, &claims) {
            return Err(Disconnect::INSUFFICIENT_STATE.into());
        }
        if self.is_expired(claims.expires) {
            return Err(Error::EXPIRED.into());
        }
        let token = self.claims_mark(&claims);
        let ConnectClaims { expires, info, meta, .. } = claims;
        let identity = self.connections[slot].identity.get_or_insert_default();
        identity.expires = expires.and_then(NonZeroU64::new);
        identity.info = info.or(identity.info.take());
        identity.token = token;
        self.keep_meta(slot, meta);
        self.info_changed(slot);
        self.watch_expiry(slot);
        self.reply(slot, command, &Reply::Refresh(self.lease(expires)));
        Ok(())
    }

    /// Whether a new connection token names other channels than the connection has: a channel
    /// without a subscription, or one less than the previous token named. The client gets the new
    /// set by reconnecting.
    fn has_other_channels(&self, slot: u32, claims: &ConnectClaims) -> bool {
        let mut held = HashMap::new();
        let mut key = self.connections[slot].subscriptions;
        while key != NONE {
            let by_token =
                self.connections.grants.get(&key).is_some_and(|grant| grant.by_connection_token);
            held.insert(&**self.locals.channel(key).0, by_token);
            key = self.locals.next_subscription(key);
        }
        let is_new = |(channel, _): &(String, _)| held.remove(channel.as_str()).is_none();
        claims.subs.iter().any(is_new) || held.values().any(|by_token| *by_token)
    }

    /// Handles a new subscription token.
    pub(super) fn sub_refresh(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &SubRefreshRequest<'_>,
    ) -> Result<(), CommandFailure> {
        let channel = &*request.channel;
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let hash = self.names.hash(channel);
        let Some(key) = self.find_subscription(slot, hash, channel)? else {
            return Err(Error::PERMISSION_DENIED.into());
        };
        // Clients have no token for server-side subscriptions and for those that the backend
        // renews.
        let server_side = self.connections.grants.get(&key).is_some_and(|grant| grant.server_side);
        if server_side || self.sub_refresh_proxy(key).is_some() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        if request.token.is_empty() {
            return Err(Error::BAD_REQUEST.into());
        }
        let grant = match self.subscribe_grant(post, slot, channel, &request.token) {
            Ok(grant) => grant,
            Err(CommandFailure::Error(Error::TOKEN_EXPIRED)) => {
                return Err(Disconnect::SUBSCRIPTION_EXPIRED.into());
            }
            Err(CommandFailure::Error(Error::PERMISSION_DENIED)) => {
                return Err(Disconnect::INVALID_TOKEN.into());
            }
            Err(failed) => return Err(failed),
        };
        if self.is_expired(grant.expires) {
            return Err(Error::EXPIRED.into());
        }
        let expires = grant.expires;
        let kept = self.connections.grants.entry(key).or_default();
        (kept.expires, kept.info, kept.token) = (expires, grant.info, grant.token);
        self.info_changed(slot);
        self.watch_expiry(slot);
        self.reply(slot, command, &Reply::SubRefresh(self.lease(expires)));
        Ok(())
    }
}
