//! Connects: authentication, identity and the server-side subscriptions of a client.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::hub::command_failure::{CommandFailure, StopReason};
use crate::hub::connections::{Identity, ServerSubscription};
use crate::hub::holds::AcceptedConnect;
use crate::hub::shard_state::Hub;
use crate::model::backend::{self, ConnectAnswer, ProxyAnswer, ProxyEvent, Upstream};
use crate::model::message::{Grant, LookupOutcome, Overrides, Post, TokenPurpose};
use crate::model::revocation::TokenFingerprint;
use crate::model::token::{ConnectClaims, SubscribeOptions, TokenError, VerifyOn};
use crate::wire::protocol::command::{ConnectRequest, SubscribeRequest};
use crate::wire::protocol::{Disconnect, Error};

/// Why a connect is refused.
#[derive(Clone, Debug)]
pub(super) enum ConnectRefusal {
    /// The connect must wait, or the connection ends.
    Stop(StopReason),
    /// The reply is this error; the client may retry on another connection.
    Error(Error),
    /// The backend refused it.
    Backend(Arc<LookupOutcome>),
}

/// Who a client is.
#[derive(Default)]
struct Introduction {
    /// `None`: an anonymous client.
    claims: Option<ConnectClaims>,
    /// Data of the backend for the client.
    data: Option<Box<[u8]>>,
    /// Whether a header of the request names the user. As in Centrifugo, the user then gets no
    /// personal channel and no channel that the connect requests.
    by_header: bool,
}

impl From<Disconnect> for ConnectRefusal {
    fn from(disconnect: Disconnect) -> Self {
        ConnectRefusal::Stop(StopReason::Disconnect(disconnect))
    }
}

impl From<&SubscribeOptions> for Grant {
    fn from(options: &SubscribeOptions) -> Self {
        Grant {
            expires: None,
            info: options.info.clone(),
            data: options.data.clone(),
            server_side: false,
            by_connection_token: false,
            token: TokenFingerprint::NONE,
            overrides: Overrides {
                presence: options.presence,
                join_leave: options.join_leave,
                force_push_join_leave: options.force_push_join_leave,
                force_positioning: options.force_positioning,
                force_recovery: options.force_recovery,
            },
        }
    }
}

impl Hub {
    /// Handles a connect command.
    pub(super) fn connect(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &ConnectRequest<'_>,
    ) -> Result<(), StopReason> {
        match self.authorize_connect(post, slot, request) {
            Ok(newcomer) => self.hold(post, slot, command, newcomer),
            Err(ConnectRefusal::Stop(stop)) => return Err(stop),
            Err(ConnectRefusal::Error(error)) => {
                self.connections[slot].flags.set_connect_refused(true);
                self.reply_error(slot, command, error);
            }
            Err(ConnectRefusal::Backend(outcome)) => {
                self.connections[slot].flags.set_connect_refused(true);
                if let CommandFailure::Error(error) = self.refuse_command(slot, command, &outcome) {
                    self.reply_error(slot, command, error);
                }
            }
        }
        Ok(())
    }

    /// Handles the connect request of a unidirectional client.
    pub(super) fn connect_unidirectional(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        request: &ConnectRequest<'_>,
    ) -> Result<(), StopReason> {
        match self.authorize_connect(post, slot, request) {
            Ok(mut newcomer) => {
                if let Some(given) = self.connections.last_events.remove(&slot) {
                    newcomer.recover_from(given);
                }
                self.hold(post, slot, 0, newcomer);
            }
            Err(ConnectRefusal::Stop(stop)) => return Err(stop),
            Err(ConnectRefusal::Error(Error::BINARY_CHANNEL)) => {
                return Err(StopReason::Disconnect(Disconnect::INAPPROPRIATE_PROTOCOL));
            }
            Err(ConnectRefusal::Error(Error { code, message, .. })) => {
                return self.refuse_unidirectional(slot, code, message);
            }
            Err(ConnectRefusal::Backend(outcome)) => match &*outcome {
                LookupOutcome::Command(Err(backend::ProxyFailure::Error {
                    code, message, ..
                })) => return self.refuse_unidirectional(slot, *code, message),
                LookupOutcome::Command(Err(backend::ProxyFailure::Disconnect { code, reason })) => {
                    self.disconnect_with(slot, *code, reason);
                }
                _ => return Err(StopReason::Disconnect(Disconnect::INTERNAL)),
            },
        }
        Ok(())
    }

    /// Refuses the connect of a unidirectional client with an error: by an HTTP response if its
    /// transport does, else by a disconnect.
    fn refuse_unidirectional(
        &mut self,
        slot: u32,
        code: u32,
        message: &str,
    ) -> Result<(), StopReason> {
        match self.refuse_connect(slot, code, message) {
            true => Ok(()),
            false => Err(StopReason::Disconnect(disconnect_for(code))),
        }
    }

    /// Authenticates a connect and determines its server-side subscriptions.
    fn authorize_connect(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        request: &ConnectRequest<'_>,
    ) -> Result<AcceptedConnect, ConnectRefusal> {
        if self.connection_limits.is_full() {
            // The node was not full when the connection was accepted: the client must retry.
            return Err(Disconnect::TOO_MANY_REQUESTS.into());
        }
        let flags = &mut self.connections[slot].flags;
        flags.set_named(!request.name.is_empty());
        flags.set_versioned(!request.version.is_empty());
        if let Some(headers) = &request.headers {
            self.keep_emulated_headers(slot, headers);
        }
        let by_token = !request.token.is_empty();
        let Introduction { claims, data, by_header } = self.introduce(post, slot, request)?;
        // A backend that identifies the client also determines its server-side subscriptions.
        let named_by_backend = claims.is_some() && !by_token;
        let mut granted = Vec::new();
        if let Some(mut claims) = claims {
            if claims.user.is_empty() && by_token && self.settings.rules.no_anonymous_tokens {
                return Err(Disconnect::PERMISSION_DENIED.into());
            }
            if by_token && self.settings.rules.insecure {
                claims.expires = None;
            }
            if self.is_expired(claims.expires) {
                return Err(ConnectRefusal::Error(Error::EXPIRED));
            }
            for (channel, options) in &claims.subs {
                let grant = Grant { by_connection_token: by_token, ..Grant::from(options) };
                granted.push((Arc::from(&**channel), grant));
            }
            let token = if by_token { self.claims_mark(&claims) } else { TokenFingerprint::NONE };
            self.set_identity(slot, claims, token);
        }
        if let Some(channel) = self.personal_channel(slot).filter(|_| !by_header) {
            granted.push((channel, Grant::default()));
        }
        let mut server_subs: Vec<ServerSubscription> = Vec::with_capacity(granted.len());
        for (channel, grant) in granted {
            let options = self.settings.namespaces.of(&channel).map_err(ConnectRefusal::Error)?;
            self.check_readable(slot, options).map_err(ConnectRefusal::Error)?;
            let requested = request.subs.iter().flat_map(|subs| &subs.0);
            let mut requested =
                requested.filter(|(name, _)| **name == *channel).map(|(_, request)| request);
            let requested = requested.next_back();
            let since = requested.and_then(SubscribeRequest::since);
            let delta = requested.is_some_and(SubscribeRequest::requests_delta);
            if !server_subs.iter().any(|server_sub| server_sub.channel == channel) {
                let grant = Grant { server_side: true, ..grant };
                server_subs.push(ServerSubscription { channel, since, delta, grant });
            }
        }
        if !named_by_backend {
            self.add_requested_channels(slot, request, &mut server_subs)?;
        }
        if server_subs.len() > usize::from(self.settings.channel_limit) {
            return Err(Disconnect::CHANNEL_LIMIT.into());
        }
        Ok(AcceptedConnect { server_subs, data, unknown_event_id: Box::default() })
    }

    /// Identifies a client: by its token, by the connect proxy, or by a header of its request.
    fn introduce(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        request: &ConnectRequest<'_>,
    ) -> Result<Introduction, ConnectRefusal> {
        if !request.token.is_empty() {
            let claims = self.connect_claims(post, slot, &request.token)?;
            return Ok(Introduction { claims, ..Introduction::default() });
        }
        if let Some(upstream) = self.settings.proxies.connect
            && let Some(answer) = self.ask_connect_proxy(post, slot, upstream, request)?
        {
            let ConnectAnswer { claims, data } = answer;
            return Ok(Introduction { claims: Some(claims), data, by_header: false });
        }
        match self.connect_claims(post, slot, "") {
            Err(refused) => {
                let claims = Some(self.claims_of_header(slot).ok_or(refused)?);
                Ok(Introduction { claims, data: None, by_header: true })
            }
            Ok(claims) => Ok(Introduction { claims, ..Introduction::default() }),
        }
    }

    /// Asks the connect proxy about a client without a token. `None`: it does not identify the
    /// client.
    fn ask_connect_proxy(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        upstream: Upstream,
        request: &ConnectRequest<'_>,
    ) -> Result<Option<ConnectAnswer>, ConnectRefusal> {
        let outcome = self.ask_backend(post, slot, upstream, || ProxyEvent::connect(request));
        let outcome = outcome.map_err(ConnectRefusal::Stop)?;
        self.use_up_answer(slot);
        match &*outcome {
            LookupOutcome::Command(Ok(ProxyAnswer::Connect(Some(introduction)))) => {
                self.fits_wire(slot, introduction.data.as_deref())?;
                Ok(Some(ConnectAnswer::clone(introduction)))
            }
            LookupOutcome::Command(Ok(_)) => Ok(None),
            _ => Err(ConnectRefusal::Backend(outcome)),
        }
    }

    /// The claims of a connection token, if one is given and verified.
    pub(super) fn connect_claims(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        token: &str,
    ) -> Result<Option<ConnectClaims>, ConnectRefusal> {
        let settings = self.settings.clone();
        let rules = &settings.rules;
        if token.is_empty() {
            let open = rules.insecure || rules.anonymous;
            return if open { Ok(None) } else { Err(Disconnect::BAD_REQUEST.into()) };
        }
        let verifier = &settings.tokens.connection;
        let claims = match verifier.verify_on(token) {
            Ok(VerifyOn::Shard) => verifier.connection(token, self.unix_time(), None),
            Ok(VerifyOn::ControlPlane) => {
                let purpose = TokenPurpose::Connection;
                let lookup = |hub: &Hub| hub.token_lookup(token, purpose);
                let outcome =
                    self.request_lookup(post, slot, lookup).map_err(ConnectRefusal::Stop)?;
                self.use_up_answer(slot);
                match &*outcome {
                    LookupOutcome::Connection(claims) => claims.clone(),
                    _ => return Err(ConnectRefusal::Error(Error::INTERNAL)),
                }
            }
            Err(refusal) => Err(refusal),
        };
        match claims {
            Ok(claims) if !self.is_revoked(&claims.user, self.claims_mark(&claims)) => {
                Ok(Some(claims))
            }
            Err(TokenError::Expired) => Err(ConnectRefusal::Error(Error::TOKEN_EXPIRED)),
            Ok(_) | Err(_) => Err(Disconnect::INVALID_TOKEN.into()),
        }
    }

    /// The user that the gateway in front of the server names in a header of the request.
    fn claims_of_header(&self, slot: u32) -> Option<ConnectClaims> {
        let name = self.settings.user_header.as_deref()?;
        let headers = &self.connections.context.get(&slot)?.headers;
        let (_, value) = headers.iter().find(|(header, _)| **header == *name)?;
        let user = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        (!user.is_empty()).then(|| ConnectClaims { user: user.to_owned(), ..Default::default() })
    }

    pub(super) fn claims_mark(&self, claims: &ConnectClaims) -> TokenFingerprint {
        self.token_mark(&claims.jti, claims.issued_at)
    }

    fn set_identity(&mut self, slot: u32, claims: ConnectClaims, token: TokenFingerprint) {
        let ConnectClaims { user, info, expires, meta, .. } = claims;
        self.keep_meta(slot, meta);
        let expires = expires.and_then(NonZeroU64::new);
        let identity = Identity { user: user.into(), info, expires, token };
        self.connections[slot].identity = Some(Box::new(identity));
        self.connections.index_user(slot);
    }

    /// The personal channel of the user, if users have one.
    fn personal_channel(&self, slot: u32) -> Option<Arc<str>> {
        let namespace = self.settings.personal_namespace.as_ref()?;
        let user = self.connections[slot].user();
        let named = !user.is_empty();
        named.then(|| self.settings.namespaces.personal(namespace, user).into())
    }

    /// Adds the channels that the client requests and may subscribe to.
    fn add_requested_channels(
        &self,
        slot: u32,
        request: &ConnectRequest<'_>,
        server_subs: &mut Vec<ServerSubscription>,
    ) -> Result<(), ConnectRefusal> {
        let user = self.connections[slot].user();
        for (channel, requested) in request.subs.iter().flat_map(|subs| &subs.0) {
            let namespaces = &self.settings.namespaces;
            let options = match namespaces.of_client(channel) {
                Ok(options) => options,
                Err(Error::UNKNOWN_CHANNEL) => return Err(Disconnect::BAD_REQUEST.into()),
                Err(_) => continue,
            };
            // Checked before each search, because a request can name thousands of channels.
            if server_subs.len() > usize::from(self.settings.channel_limit) {
                return Err(Disconnect::CHANNEL_LIMIT.into());
            }
            let named = server_subs.iter().any(|server_sub| *server_sub.channel == **channel);
            // A subscribe proxy is asked only for a subscribe command.
            let asks_backend = options.subscribe_proxy.is_some();
            if !named && !asks_backend && self.allows_subscribe(options, channel, user) {
                self.check_readable(slot, options).map_err(ConnectRefusal::Error)?;
                namespaces.of_subscriber(channel).map_err(ConnectRefusal::Error)?;
                let grant = Grant { server_side: true, ..Grant::default() };
                let channel = Arc::from(&**channel);
                let since = requested.since();
                let delta = requested.requests_delta();
                server_subs.push(ServerSubscription { channel, since, delta, grant });
            }
        }
        Ok(())
    }
}

/// The disconnect of a unidirectional client for an error that a bidirectional client gets as a
/// reply.
fn disconnect_for(code: u32) -> Disconnect {
    match code {
        109 | 110 => Disconnect::EXPIRED,
        111 => Disconnect::TOO_MANY_REQUESTS,
        103 => Disconnect::PERMISSION_DENIED,
        _ => Disconnect::INTERNAL,
    }
}
