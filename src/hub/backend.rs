//! Requests to the backend: connects, commands, renewals, and hooks about ends.
//!
//! Renewals and hook events wait for room in the inbox of the control plane. The hook events of a
//! connection keep their order.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::base::memory::MemoryKind;
use crate::base::planted_faults::{PlantedFault, planted};
use crate::hub::commands::{CommandFailure, StopReason};
use crate::hub::connections::{NONE, Phase};
use crate::hub::shard_state::Hub;
use crate::model::backend::{
    ProxyAnswer, ProxyEvent, ProxyFailure, ProxyRequest, RefreshAnswer, Upstream,
};
use crate::model::message::{
    Grant, HookEvent, Lookup, LookupOutcome, LookupRequest, Message, Post, Rank,
};
use crate::model::namespaces::Options;
use crate::model::token::SubscribeOptions;
use crate::wire::http::Header;
use crate::wire::protocol::command::{RpcRequest, SubscribeRequest};
use crate::wire::protocol::reply::Reply;
use crate::wire::protocol::{Disconnect, Error, Wire, json};

/// Seconds until the backend is asked again for a renewal that it has not answered.
const RENEWAL_PAUSE: u64 = 60;

/// Why a subscription ended, for the backend: a code and a reason.
pub(super) type UnsubscribeReason<'a> = (u32, &'a str);
/// The client unsubscribed.
pub(super) const CLIENT_UNSUBSCRIBED: UnsubscribeReason<'_> = (0, "client unsubscribed");
/// The connection ended.
const CLIENT_DISCONNECTED: UnsubscribeReason<'_> = (1, "client disconnected");

impl Hub {
    /// Creates a request to the backend, if the budget has room for it.
    fn backend_request(
        &self,
        slot: u32,
        upstream: Upstream,
        event: ProxyEvent,
        kind: MemoryKind,
    ) -> Option<ProxyRequest> {
        let connection = &self.connections[slot];
        let mut request = ProxyRequest {
            upstream,
            client: self.client_id(slot),
            user: connection.user().into(),
            transport: connection.transport,
            wire: connection.wire,
            context: self.connections.context.get(&slot).cloned(),
            event,
            charge: None,
        };
        request.charge = Some(self.budgets[kind].charge(request.size())?);
        Some(request)
    }

    /// The answer of the backend to a command, or why the connection must wait.
    pub(super) fn ask_backend(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        upstream: Upstream,
        event: impl FnOnce() -> ProxyEvent,
    ) -> Result<Arc<LookupOutcome>, StopReason> {
        self.request_lookup(post, slot, |hub| {
            hub.backend_request(slot, upstream, event(), MemoryKind::Questions).map(Lookup::Command)
        })
    }

    /// Answers a command with the refusal of the backend.
    pub(super) fn refuse_command(
        &mut self,
        slot: u32,
        command: u32,
        outcome: &LookupOutcome,
    ) -> CommandFailure {
        match outcome {
            LookupOutcome::Command(Err(ProxyFailure::Error { code, message, temporary })) => {
                self.metrics.errors.add(1);
                let (code, temporary) = (*code, *temporary);
                self.reply(slot, command, &Reply::Refused { code, message, temporary });
                CommandFailure::Answered
            }
            LookupOutcome::Command(Err(ProxyFailure::Disconnect { code, reason })) => {
                self.disconnect_with(slot, *code, reason);
                CommandFailure::Answered
            }
            LookupOutcome::Command(Err(ProxyFailure::Payload)) => Error::BAD_REQUEST.into(),
            _ => Error::INTERNAL.into(),
        }
    }

    // ---- commands ------------------------------------------------------------------------

    /// Keeps headers of the HTTP request of a client.
    pub(super) fn keep_headers(&mut self, slot: u32, headers: Vec<Header>) {
        if !headers.is_empty() {
            self.connections.context_mut(slot).headers = headers;
        }
    }

    /// Keeps the headers that a client gives in its connect, if the configuration forwards them.
    pub(super) fn keep_emulated_headers(&mut self, slot: u32, headers: &BTreeMap<String, String>) {
        let wanted = &self.settings.proxies.wants.emulated;
        let named = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        let kept: Vec<(Box<str>, Box<str>)> = named
            .filter(|(name, _)| wanted.contains(name))
            .map(|(name, value)| (name.into(), value.as_str().into()))
            .collect();
        if !kept.is_empty() {
            self.connections.context_mut(slot).emulated = kept;
        }
    }

    /// Keeps the meta of a connection, if the configuration forwards it.
    pub(super) fn keep_meta(&mut self, slot: u32, meta: Option<Box<[u8]>>) {
        if meta.is_some() && self.settings.proxies.wants.meta {
            self.connections.context_mut(slot).meta = meta;
        }
    }

    /// The subscribe proxy that decides about a subscribe without a token; `None`: the name or the
    /// options of the channel decide.
    pub(super) fn subscribe_proxy(&self, options: &Options, channel: &str) -> Option<Upstream> {
        let namespaces = &self.settings.namespaces;
        // The name of a user-limited channel determines its subscribers.
        let user_limited = options.user_limited && namespaces.users(channel).is_some();
        options.subscribe_proxy.filter(|_| !user_limited && !namespaces.is_private(channel))
    }

    /// The proxy that renews a subscription; `None`: the client renews it.
    pub(super) fn sub_refresh_proxy(&self, key: u32) -> Option<Upstream> {
        let options = self.settings.namespaces.of(self.locals.channel(key).0);
        options.ok().and_then(|options| options.sub_refresh_proxy)
    }

    /// The grant of the subscribe proxy.
    pub(super) fn ask_subscribe(
        &mut self,
        post: &mut impl Post,
        (slot, command): (u32, u32),
        upstream: Upstream,
        request: &SubscribeRequest<'_>,
    ) -> Result<Grant, CommandFailure> {
        let outcome = self.ask_backend(post, slot, upstream, || ProxyEvent::Subscribe {
            channel: (&*request.channel).into(),
            data: request.data.as_deref().map(Into::into),
        })?;
        let LookupOutcome::Command(Ok(ProxyAnswer::Subscribe(options, expires))) = &*outcome else {
            return Err(self.refuse_command(slot, command, &outcome));
        };
        let SubscribeOptions { data, .. } = options;
        self.fits_wire(slot, data.as_deref())?;
        Ok(Grant { expires: *expires, ..Grant::from(options) })
    }

    /// The answer of the publish proxy.
    pub(super) fn ask_publish(
        &mut self,
        post: &mut impl Post,
        (slot, command): (u32, u32),
        upstream: Upstream,
        (channel, data): (&str, &[u8]),
    ) -> Result<Arc<LookupOutcome>, CommandFailure> {
        let outcome = self.ask_backend(post, slot, upstream, || ProxyEvent::Publish {
            channel: channel.into(),
            data: data.into(),
        })?;
        match &*outcome {
            LookupOutcome::Command(Ok(ProxyAnswer::Publish(_))) => Ok(outcome),
            _ => Err(self.refuse_command(slot, command, &outcome)),
        }
    }

    /// Forwards an RPC of the client to the backend.
    pub(super) fn rpc(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &RpcRequest<'_>,
    ) -> Result<(), CommandFailure> {
        let upstream = self.settings.proxies.calls.upstream(&request.method)?;
        let outcome = self.ask_backend(post, slot, upstream, || ProxyEvent::Rpc {
            method: (&*request.method).into(),
            data: request.data.as_deref().map(Into::into),
        })?;
        let LookupOutcome::Command(Ok(ProxyAnswer::Rpc(data))) = &*outcome else {
            return Err(self.refuse_command(slot, command, &outcome));
        };
        self.fits_wire(slot, data.as_deref())?;
        self.reply_if_it_fits(slot, command, &Reply::Rpc(data.as_deref()));
        Ok(())
    }

    /// Checks data of the backend: a client with the JSON encoding can only get JSON.
    pub(super) fn fits_wire(&self, slot: u32, data: Option<&[u8]>) -> Result<(), Disconnect> {
        let is_json = self.connections[slot].wire == Wire::Json;
        match data {
            Some(data) if is_json && !json::is_json(data) => {
                Err(Disconnect::INAPPROPRIATE_PROTOCOL)
            }
            _ => Ok(()),
        }
    }

    // ---- renewals ------------------------------------------------------------------------

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

    /// Handles the answer to a renewal of a connection, or of its subscription to `channel`. A
    /// failed request is repeated later.
    pub(super) fn renewed(
        &mut self,
        slot: u32,
        channel: Option<&str>,
        told: Result<ProxyAnswer, ProxyFailure>,
    ) {
        let connected = self.connections[slot].phase == Phase::Connected;
        let Ok(ProxyAnswer::Refresh(renewal)) = told else { return };
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
        self.watch_expiry(slot);
    }

    fn renewed_subscription(&mut self, slot: u32, key: u32, renewal: Option<RefreshAnswer>) {
        let renewal = renewal.filter(|renewal| !self.is_expired(renewal.expires));
        match (renewal, self.connections.grants.get_mut(&key)) {
            (Some(RefreshAnswer { expires, info, .. }), Some(grant)) => {
                grant.expires = expires;
                grant.info = info.or(grant.info.take());
                self.watch_expiry(slot);
            }
            (None, Some(_)) => self.expire_subscription(slot, key),
            (_, None) => {}
        }
    }

    // ---- news ----------------------------------------------------------------------------

    /// Queues the unsubscribe hook of a subscription.
    pub(super) fn queue_unsubscribe_hook(
        &mut self,
        slot: u32,
        upstream: Upstream,
        channel: &Arc<str>,
        (code, reason): UnsubscribeReason<'_>,
    ) {
        if self.connections[slot].flags.counted() {
            let (channel, reason) = (channel.clone(), reason.into());
            self.queue_hook(slot, upstream, ProxyEvent::Unsubscribe { channel, code, reason });
        }
    }

    /// Ends the session of a connection: it leaves its channels and is no longer counted, and the
    /// disconnect hook is queued. A second call has no effect.
    pub(super) fn end_session(&mut self, slot: u32, code: u16, reason: &str) {
        while self.connections[slot].subscriptions != NONE {
            self.leave(slot, self.connections[slot].subscriptions, CLIENT_DISCONNECTED);
        }
        if self.connections[slot].flags.counted() {
            if let Some(upstream) = self.settings.proxies.disconnect_hook {
                self.queue_hook(
                    slot,
                    upstream,
                    ProxyEvent::Disconnect { code, reason: reason.into() },
                );
            }
            self.count_disconnect(slot);
        }
        if !self.connections.context.is_empty() {
            self.connections.context.remove(&slot);
        }
    }

    fn queue_hook(&mut self, slot: u32, upstream: Upstream, event: ProxyEvent) {
        self.metrics.hook_events.add(1);
        let request = (self.outgoing.len() < self.settings.proxies.waiting_max)
            .then(|| self.backend_request(slot, upstream, event, MemoryKind::Hooks))
            .flatten();
        let Some(request) = request else { return self.metrics.hook_events_dropped.add(1) };
        let event = HookEvent { address: self.address(slot), request };
        self.outgoing.push_back(Message::HookEvent(Box::new(event)));
    }

    /// Whether messages wait for the control plane.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends the waiting messages, while the inbox of the control plane has room.
    pub(super) fn send_to_control(&mut self, post: &mut impl Post) {
        while let Some(message) = self.outgoing.pop_front() {
            if !post.reserve(self.control, Rank::Ingress) {
                if !planted(PlantedFault::HookEventDropped) {
                    self.outgoing.push_front(message);
                }
                return;
            }
            post.send(self.control, message);
        }
    }
}
