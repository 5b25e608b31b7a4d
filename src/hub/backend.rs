//! What the backend is asked about clients and told of them: connects, commands, renewals, ends.
//!
//! What no connection waits for goes out when there is room; so does what has happened to one, in
//! its order.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::base::faults::{Planted, planted};
use crate::base::memory::Kind;
use crate::hub::Hub;
use crate::hub::commands::{CommandFailure, StopReason};
use crate::hub::connections::{NONE, Phase};
use crate::model::backend::{
    ProxyAnswer, ProxyEvent, ProxyFailure, ProxyRequest, Renewal, Upstream,
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

/// Seconds after which the backend is asked again how much longer something holds, if it has not
/// answered.
const RENEWAL_PAUSE: u64 = 60;

/// Why a subscription has ended, to the backend: a code, and the same for people.
pub(super) type UnsubscribeReason<'a> = (u32, &'a str);
/// The client wished it.
pub(super) const CLIENT_UNSUBSCRIBED: UnsubscribeReason<'_> = (0, "client unsubscribed");
/// Its connection has ended.
const CLIENT_DISCONNECTED: UnsubscribeReason<'_> = (1, "client disconnected");

impl Hub {
    /// A request to the backend, if the budget has room for it.
    fn backend_request(
        &self,
        slot: u32,
        upstream: Upstream,
        event: ProxyEvent,
        kind: Kind,
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

    /// What the backend says to a connection's command, or why the connection has to wait.
    pub(super) fn ask_backend(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        upstream: Upstream,
        event: impl FnOnce() -> ProxyEvent,
    ) -> Result<Arc<LookupOutcome>, StopReason> {
        self.request_lookup(post, slot, |hub| {
            hub.backend_request(slot, upstream, event(), Kind::Questions).map(Lookup::Command)
        })
    }

    /// Answers a command with what the backend said to refuse it.
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

    /// Notes headers of a client's HTTP request.
    pub(super) fn keep_headers(&mut self, slot: u32, headers: Vec<Header>) {
        if !headers.is_empty() {
            self.connections.context_mut(slot).headers = headers;
        }
    }

    /// Notes the headers that a client gives with its connect, as far as somebody wants them.
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

    /// Notes what is for the backend's eyes, if somebody wants it.
    pub(super) fn keep_meta(&mut self, slot: u32, meta: Option<Box<[u8]>>) {
        if meta.is_some() && self.settings.proxies.wants.meta {
            self.connections.context_mut(slot).meta = meta;
        }
    }

    /// The backend that decides whether a client may subscribe without a token; `None`: the
    /// channel's name or options decide.
    pub(super) fn subscribe_proxy(&self, options: &Options, channel: &str) -> Option<Upstream> {
        let namespaces = &self.settings.namespaces;
        // The name of a user-limited channel says who may subscribe.
        let user_limited = options.user_limited && namespaces.users(channel).is_some();
        options.subscribe_proxy.filter(|_| !user_limited && !namespaces.is_private(channel))
    }

    /// Who is asked how much longer a subscription holds, if not the client.
    pub(super) fn sub_refresh_proxy(&self, key: u32) -> Option<Upstream> {
        let options = self.settings.namespaces.of(self.locals.channel(key).0);
        options.ok().and_then(|options| options.sub_refresh_proxy)
    }

    /// What the backend grants a subscriber.
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

    /// What the backend says is to be published.
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

    /// A call of the application's own.
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

    /// What the backend gives a client must be JSON where that is all the client reads.
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

    /// Has the backend asked how much longer something holds; returns when it is asked again
    /// unless it answers. `None`: too much waits already.
    fn ask_renewal(&mut self, slot: u32, upstream: Upstream, event: ProxyEvent) -> Option<u64> {
        if self.outgoing.len() >= self.settings.proxies.waiting_max {
            return None;
        }
        let request = self.backend_request(slot, upstream, event, Kind::Questions)?;
        let lookup = Lookup::Renewal(request);
        let request = LookupRequest { address: self.address(slot), lookup };
        self.outgoing.push_back(Message::LookupRequest(Box::new(request)));
        Some(self.unix_time() + RENEWAL_PAUSE)
    }

    /// A connection whose time is over: the backend decides whether it goes on.
    pub(super) fn renew(&mut self, slot: u32, upstream: Upstream) {
        let again = self.ask_renewal(slot, upstream, ProxyEvent::Refresh);
        if let (Some(identity), Some(again)) = (&mut self.connections[slot].identity, again) {
            identity.expires = NonZeroU64::new(again);
        }
    }

    /// A subscription whose time is over: the backend decides whether it goes on.
    pub(super) fn renew_subscription(&mut self, slot: u32, key: u32, upstream: Upstream) {
        let channel = self.locals.channel(key).0.clone();
        let again = self.ask_renewal(slot, upstream, ProxyEvent::SubRefresh { channel });
        if let (Some(grant), Some(_)) = (self.connections.grants.get_mut(&key), again) {
            grant.expires = again;
        }
    }

    /// The backend has said how much longer a connection holds, or its subscription to a channel.
    /// Without an answer it is asked again later.
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

    fn renewed_connection(&mut self, slot: u32, renewal: Option<Renewal>) {
        let Some(Renewal { expires, info, meta }) = renewal else {
            return self.disconnect(slot, Disconnect::EXPIRED);
        };
        // The time is over already: an answer without a later end renews nothing.
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

    fn renewed_subscription(&mut self, slot: u32, key: u32, renewal: Option<Renewal>) {
        let renewal = renewal.filter(|renewal| !self.is_expired(renewal.expires));
        match (renewal, self.connections.grants.get_mut(&key)) {
            (Some(Renewal { expires, info, .. }), Some(grant)) => {
                grant.expires = expires;
                grant.info = info.or(grant.info.take());
                self.watch_expiry(slot);
            }
            (None, Some(_)) => self.expire_subscription(slot, key),
            (_, None) => {}
        }
    }

    // ---- news ----------------------------------------------------------------------------

    /// A subscription ends: the backend is told where it wants to know.
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

    /// A connection ends: it leaves its channels and is counted no more, and the backend is told
    /// where it wants to know. What comes later of its end says nothing new.
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
            .then(|| self.backend_request(slot, upstream, event, Kind::Hooks))
            .flatten();
        let Some(request) = request else { return self.metrics.hook_events_dropped.add(1) };
        let event = HookEvent { address: self.address(slot), request };
        self.outgoing.push_back(Message::HookEvent(Box::new(event)));
    }

    /// Whether something waits for room to be told.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends what waits for room, as far as there is some.
    pub(super) fn send_to_control(&mut self, post: &mut impl Post) {
        while let Some(message) = self.outgoing.pop_front() {
            if !post.reserve(self.control, Rank::Ingress) {
                if !planted(Planted::NoticeForgotten) {
                    self.outgoing.push_front(message);
                }
                return;
            }
            post.send(self.control, message);
        }
    }
}
