//! Revoked tokens, and the connections and subscriptions that used one.

use std::sync::Arc;

use crate::base::work_budget::cost;
use crate::hub::bounded_walks::LOOKS_PER_TURN;
use crate::hub::connections::NONE;
use crate::hub::orders::SERVER_UNSUBSCRIBE;
use crate::hub::shard_state::Hub;
use crate::model::revocation::{RevocationScope, Revocations, TokenFingerprint};
use crate::wire::protocol::Disconnect;

impl Hub {
    /// The mark of a token, by which a revocation finds it.
    pub(super) fn token_mark(&self, jti: &str, issued_at: Option<u64>) -> TokenFingerprint {
        let id = if jti.is_empty() { 0 } else { self.names.subject(RevocationScope::Token(jti)) };
        TokenFingerprint { id, issued_at: issued_at.unwrap_or(0) }
    }

    /// Whether the connection token of a user is revoked.
    pub(super) fn is_revoked(&self, user: &str, mark: TokenFingerprint) -> bool {
        !self.revocations.is_empty() && mark != TokenFingerprint::NONE && {
            let owner = self.names.subject(RevocationScope::User(user));
            self.revocations.covers(mark, owner, self.unix_time())
        }
    }

    /// Whether the subscription token of a user for a channel is revoked.
    pub(super) fn is_subscription_revoked(
        &self,
        user: &str,
        channel: &str,
        mark: TokenFingerprint,
    ) -> bool {
        !self.revocations.is_empty() && mark != TokenFingerprint::NONE && {
            let owner = self.names.subject(RevocationScope::Subscriber { user, channel });
            self.revocations.covers(mark, owner, self.unix_time())
        }
    }

    /// Sets the list of revocations and begins a walk over all connections.
    pub(super) fn set_revocations(&mut self, revocations: Arc<Revocations>) {
        self.revocations = revocations;
        self.revoked_walk.begin(self.connections.slot_end());
    }

    /// Continues the walk.
    pub(super) fn walk_revoked(&mut self) {
        let mut looks = 0;
        while looks < LOOKS_PER_TURN
            && !self.is_spent()
            && let Some(slot) = self.revoked_walk.step(self.connections.slot_end())
        {
            let looked = 1 + self.end_revoked(slot);
            self.budget.charge(looked * cost::LOOK);
            looks += looked;
        }
    }

    /// Ends a connection, or those of its subscriptions, whose token is revoked; returns the number
    /// of subscriptions that were checked.
    fn end_revoked(&mut self, slot: u32) -> usize {
        let Some(connection) = self.connections.get(slot) else { return 0 };
        let identity = connection.identity.as_deref();
        if identity.is_some_and(|identity| self.is_revoked(&identity.user, identity.token)) {
            self.disconnect(slot, Disconnect::INVALID_TOKEN);
            return 0;
        }
        if self.connections.grants.is_empty() {
            return 0;
        }
        let user: Box<str> = connection.user().into();
        let (mut key, mut looks) = (connection.subscriptions, 0);
        while key != NONE {
            let next = self.locals.next_subscription(key);
            let mark = self
                .connections
                .grants
                .get(&key)
                .map_or(TokenFingerprint::NONE, |grant| grant.token);
            if self.is_subscription_revoked(&user, self.locals.channel(key).0, mark) {
                self.end_subscription(slot, key, SERVER_UNSUBSCRIBE, "server unsubscribe");
                // The push may have exceeded the outbox and closed the connection.
                if !self.connections[slot].takes_output() {
                    break;
                }
            }
            (key, looks) = (next, looks + 1);
        }
        looks
    }
}
