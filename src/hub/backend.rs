//! Requests to the backend for connects and commands, and the context that a connection keeps for
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::memory::MemoryKind;
use crate::hub::command_failure::{CommandFailure, StopReason};
use crate::hub::shard_state::Hub;
use crate::model::backend::{ProxyAnswer, ProxyEvent, ProxyFailure, Upstream};
use crate::model::message::{Grant, Lookup, LookupOutcome, Post};
use crate::model::namespaces::Options;
use crate::model::token::SubscribeOptions;
use crate::wire::http::Header;
use crate::wire::protocol::command::{RpcRequest, SubscribeRequest};
use crate::wire::protocol::reply::Reply;
use crate::wire::protocol::{Disconnect, Error, Wire, json};

impl Hub {
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
                self.count_error(*code);
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
        let user_limited = namespaces.is_user_limited(options, channel);
        options.subscribe_proxy.filter(|_| !user_limited && !namespaces.is_private(channel))
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
}
