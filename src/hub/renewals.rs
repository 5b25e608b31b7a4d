//! Renewals: what happens when a token expires, and the answers of the backend that renew it.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::base::memory::MemoryKind;
use crate::hub::connections::{NONE, Phase};
use crate::hub::shard_state::Hub;
use crate::model::backend::{ProxyAnswer, ProxyEvent, ProxyFailure, RefreshAnswer, Upstream};
use crate::model::message::{Lookup, LookupOutcome, LookupReply, LookupRequest, Message};
use crate::wire::protocol::Disconnect;

/// Seconds until the backend is asked again for a renewal that it has not answered.
const RENEWAL_PAUSE: u64 = 60;

impl Hub {
    /// Handles expired tokens of a connection and its subscriptions; returns whether the connection
    /// was closed. Called with every ping and at every expiry.
    pub(super) fn expire_tokens(&mut self, slot: u32) -> bool {
        let now = self.unix_time();
        let over = |expires: Option<u64>, grace: u64| {
            expires.is_some_and(|end| end.saturating_add(grace) <= now)
        };
        let connection = &self.connections[slot];
        let expires = connection.expires();
        match self.settings.proxies.refresh {
            Some(upstream) if over(expires, 0) => self.renew(slot, upstream),
            None if over(expires, self.settings.expired_close_delay) => {
                self.disconnect(slot, Disconnect::EXPIRED);
                return true;
            }
            _ => {}
        }
        if self.connections.grants.is_empty() {
            return false;
        }
        let mut key = self.connections[slot].subscriptions;
        while key != NONE {
            let next = self.locals.next_subscription(key);
            let expires = self.connections.grants.get(&key).and_then(|grant| grant.expires);
            let proxy = expires.and_then(|_| self.sub_refresh_proxy(key));
            match proxy {
                Some(upstream) if over(expires, 0) => self.renew_subscription(slot, key, upstream),
                None if over(expires, self.settings.expired_sub_close_delay) => {
                    self.expire_subscription(slot, key);
                    if !self.connections[slot].takes_output() {
                        return true;
                    }
                }
                _ => {}
            }
            key = next;
        }
        false
    }

    /// Queues a renewal request; returns when to repeat it without an answer. `None`: the queue or
    /// the budget is full.
    fn ask_renewal(&mut self, slot: u32, upstream: Upstream, event: ProxyEvent) -> Option<u64> {
        if self.outgoing.len() >= self.settings.proxies.waiting_max {
            return None;
        }
        let request = self.backend_request(slot, upstream, event, MemoryKind::Questions)?;
        let lookup = Lookup::Renewal(request);
        let request = LookupRequest { address: self.address(slot), lookup };
        self.outgoing.push_back(Message::LookupRequest(Box::new(request)));
        self.queued_since_send = true;
        Some(self.unix_time() + RENEWAL_PAUSE)
    }

    /// Asks the backend to renew an expired connection.
    pub(super) fn renew(&mut self, slot: u32, upstream: Upstream) {
        let again = self.ask_renewal(slot, upstream, ProxyEvent::Refresh);
        if let (Some(identity), Some(again)) = (&mut self.connections[slot].identity, again) {
            identity.expires = NonZeroU64::new(again);
        }
    }

    /// Asks the backend to renew an expired subscription.
    pub(super) fn renew_subscription(&mut self, slot: u32, key: u32, upstream: Upstream) {
        let channel = self.locals.channel(key).0.clone();
        let again = self.ask_renewal(slot, upstream, ProxyEvent::SubRefresh { channel });
        if let (Some(grant), Some(_)) = (self.connections.grants.get_mut(&key), again) {
            grant.expires = again;
        }
    }

    /// Handles the outcome of a lookup; its connection continues if it is still there.
    pub(super) fn lookup_answered(&mut self, reply: LookupReply) {
        let LookupReply { address, outcome } = reply;
        if self.connection(address.slot, address.generation).is_none() {
            return;
        }
        if let LookupOutcome::Renewal(channel, answer) = outcome {
            self.renewed(address.slot, channel.as_deref(), answer);
        } else if let Some(awaited) = self.connections.awaited_answers.get_mut(&address.slot) {
            *awaited = Some(Arc::new(outcome));
            self.resume_later(address.slot);
        }
    }

    /// Handles the answer to a renewal of a connection, or of its subscription to `channel`. A
    /// failed request is repeated later.
    pub(super) fn renewed(
        &mut self,
        slot: u32,
        channel: Option<&str>,
        answer: Result<ProxyAnswer, ProxyFailure>,
    ) {
        let connected = self.connections[slot].phase == Phase::Connected;
        let Ok(ProxyAnswer::Refresh(renewal)) = answer else { return };
        match channel {
            _ if !connected => {}
            None => self.renewed_connection(slot, renewal),
            Some(channel) => {
                let hash = self.names.hash(channel);
                let head = self.connections[slot].subscriptions;
                if let Some(key) = self.locals.find_subscription(head, hash, channel) {
                    self.renewed_subscription(slot, key, renewal);
                }
            }
        }
    }

    fn renewed_connection(&mut self, slot: u32, renewal: Option<RefreshAnswer>) {
        let Some(RefreshAnswer { expires, info, meta }) = renewal else {
            return self.disconnect(slot, Disconnect::EXPIRED);
        };
        // The connection has expired: an answer without a later expiry renews nothing.
        if expires.is_none() || self.is_expired(expires) {
            return self.disconnect(slot, Disconnect::EXPIRED);
        }
        if let Some(identity) = &mut self.connections[slot].identity {
            identity.expires = expires.and_then(NonZeroU64::new);
            identity.info = info.or(identity.info.take());
        }
        self.keep_meta(slot, meta);
        self.info_changed(slot);
        self.watch_expiry(slot);
    }

    fn renewed_subscription(&mut self, slot: u32, key: u32, renewal: Option<RefreshAnswer>) {
        let renewal = renewal.filter(|renewal| !self.is_expired(renewal.expires));
        match (renewal, self.connections.grants.get_mut(&key)) {
            (Some(RefreshAnswer { expires, info, .. }), Some(grant)) => {
                grant.expires = expires;
                grant.info = info.or(grant.info.take());
                self.info_changed(slot);
                self.watch_expiry(slot);
            }
            (None, Some(_)) => self.expire_subscription(slot, key),
            (_, None) => {}
        }
    }
}
