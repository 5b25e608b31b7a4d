//! Subscribing: whether a client may subscribe, what it gets of what it requests, and the request
//! to the home of the channel.

use std::sync::Arc;

use crate::hub::command_failure::{CommandFailure, InboxFull};
use crate::hub::connections::ServerSubscription;
use crate::hub::shard_state::Hub;
use crate::hub::subscriptions::{RequestedOptions, visibility};
use crate::model::message::{
    Grant, LookupOutcome, Message, Post, Rank, StreamAccess, Subscribe, SubscribeTerms, Subscribed,
    Subscriber, TokenPurpose, Visibility,
};
use crate::model::namespaces::Options;
use crate::model::publication::Encoding;
use crate::model::token::{TokenError, VerifyOn};
use crate::wire::filter;
use crate::wire::protocol::command::SubscribeRequest;
use crate::wire::protocol::{Disconnect, Error, Position, Wire};

/// Bit of the flags of a request: the client understands channel numbers.
const COMPACTION: i64 = 1;
/// Bit of the flags of a request: the client loads the state of the channel itself when a recovery
/// is impossible, and wants error 112 instead of a subscription.
const STRICT: i64 = 2;

/// Type of a subscription to the stream of a channel.
const STREAM: i32 = 0;
/// Type of a subscription to keys that a backend is polled for, which this server does not have.
const SHARED_POLL: i32 = 4;

/// A subscription to be requested from the home.
struct NewSubscription<'a> {
    channel: &'a str,
    command: u32,
    requested: RequestedOptions,
    grant: Option<Grant>,
}

impl Hub {
    /// The grant of a client for a channel beside its options; an error if it may not subscribe.
    fn permit_subscribe(
        &mut self,
        post: &mut impl Post,
        (slot, command): (u32, u32),
        options: &Options,
        request: &SubscribeRequest<'_>,
    ) -> Result<Option<Grant>, CommandFailure> {
        let channel = &*request.channel;
        if !request.token.is_empty() {
            return self.subscribe_grant(post, slot, channel, &request.token).map(Some);
        }
        if let Some(upstream) = self.subscribe_proxy(options, channel) {
            return self.ask_subscribe(post, (slot, command), upstream, request).map(Some);
        }
        let user = self.connections[slot].user();
        match self.allows_subscribe(options, channel, user) {
            true => Ok(None),
            false => Err(Error::PERMISSION_DENIED.into()),
        }
    }

    pub(super) fn subscribe(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &SubscribeRequest<'_>,
    ) -> Result<(), CommandFailure> {
        let channel = &*request.channel;
        let known_delta = request.delta.is_empty() || request.delta == "fossil";
        if channel.is_empty() || !known_delta {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let settings = self.settings.clone();
        let options = settings.namespaces.of_subscriber(channel)?;
        match request.kind {
            // Centrifugo also handles unknown negative types as streams.
            ..=STREAM => {}
            SHARED_POLL => return Err(Error::NOT_AVAILABLE.into()),
            _ => return Err(Error::PERMISSION_DENIED.into()),
        }
        self.check_readable(slot, options)?;
        let filter = match request.filter.as_deref() {
            None => None,
            Some(_) if !options.allow_filter => return Err(Error::BAD_REQUEST.into()),
            Some(node) => {
                let filter = filter::compile(node).map_err(|_| Error::BAD_REQUEST)?;
                Some(self.filters.share(filter).ok_or(Error::LIMIT_EXCEEDED)?)
            }
        };
        let delta = request.requests_delta();
        let hash = self.names.hash(channel);
        if self.find_subscription(slot, hash, channel)?.is_some() {
            return Err(Error::ALREADY_SUBSCRIBED.into());
        }
        if self.connections[slot].subscribed >= settings.channel_limit {
            return Err(Error::LIMIT_EXCEEDED.into());
        }
        let grant = self.permit_subscribe(post, (slot, command), options, request)?;
        if grant.as_ref().is_some_and(|grant| self.is_expired(grant.expires)) {
            return Err(Error::EXPIRED.into());
        }
        let stream_access =
            StreamAccess { positioned: request.positioned, recoverable: request.recoverable };
        let joins = request.join_leave;
        // In Protobuf, the JavaScript SDK reads 64-bit numbers as objects, which are never equal,
        // and drops messages whose channel it does not find.
        let compact = options.allow_compaction
            && request.flag & COMPACTION != 0
            && self.connections[slot].wire == Wire::Json;
        let strict = request.flag & STRICT != 0;
        let since = request.since();
        let requested =
            RequestedOptions { since, strict, stream_access, joins, delta, compact, filter };
        let subscription = NewSubscription { channel, command, requested, grant };
        self.request_subscription(post, slot, options, subscription)?;
        Ok(())
    }

    /// The grant of a subscription token.
    pub(super) fn subscribe_grant(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        channel: &str,
        token: &str,
    ) -> Result<Grant, CommandFailure> {
        let settings = self.settings.clone();
        let verifier = &settings.tokens.subscription;
        let claims = match verifier.verify_on(token) {
            Ok(VerifyOn::Shard) => verifier.subscription(token, self.unix_time(), None),
            Ok(VerifyOn::ControlPlane) => {
                let purpose = TokenPurpose::Subscription;
                let lookup = |hub: &Hub| hub.token_lookup(token, purpose);
                match &*self.request_lookup(post, slot, lookup)? {
                    LookupOutcome::Subscription(claims) => claims.clone(),
                    _ => return Err(Error::INTERNAL.into()),
                }
            }
            Err(refusal) => Err(refusal),
        };
        let claims = match claims {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return Err(Error::TOKEN_EXPIRED.into()),
            Err(_) => return Err(Error::PERMISSION_DENIED.into()),
        };
        let client = claims.client.is_empty() || claims.client == self.client_id(slot);
        let user = self.connections[slot].user();
        if claims.channel != channel || claims.user != user || !client {
            return Err(Disconnect::INVALID_TOKEN.into());
        }
        let token = self.token_mark(&claims.jti, claims.issued_at);
        if self.is_subscription_revoked(user, channel, token) {
            return Err(Error::PERMISSION_DENIED.into());
        }
        Ok(Grant { expires: claims.expires, token, ..Grant::from(&claims.options) })
    }

    /// Subscribes a connection to a channel without a command of the client.
    pub(super) fn join_unasked(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        server_sub: ServerSubscription,
    ) -> Result<(), ServerSubscription> {
        let settings = self.settings.clone();
        let Ok(options) = settings.namespaces.of(&server_sub.channel) else { return Ok(()) };
        let ServerSubscription { since, delta, .. } = server_sub;
        let requested = RequestedOptions { since, delta, ..RequestedOptions::default() };
        let grant = Some(server_sub.grant.clone());
        let subscription =
            NewSubscription { channel: &server_sub.channel, command: 0, requested, grant };
        self.request_subscription(post, slot, options, subscription).map_err(|InboxFull| server_sub)
    }

    /// Adds a pending subscription.
    fn begin_subscription(
        &mut self,
        slot: u32,
        command: u32,
        options: &Options,
        (channel, seen): ((&Arc<str>, u64), Visibility),
    ) -> Subscriber {
        let connection = &mut self.connections[slot];
        let (subscription, serial) =
            self.locals.begin_subscription(&mut connection.subscriptions, channel, seen);
        if let Some(pace) = options.pace {
            self.locals.set_pace(subscription, pace);
        }
        connection.subscribed += 1;
        let (shard, generation) = (self.shard, connection.generation);
        Subscriber {
            shard,
            slot,
            generation,
            subscription,
            serial,
            command,
            began: self.answering.1,
        }
    }

    /// Requests a subscription from the home of the channel, or joins at once if no request is
    /// needed.
    fn request_subscription(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        options: &Options,
        subscription: NewSubscription<'_>,
    ) -> Result<(), InboxFull> {
        let NewSubscription { channel, command, requested, grant } = subscription;
        let hash = self.names.hash(channel);
        let overrides = grant.as_ref().map(|grant| grant.overrides).unwrap_or_default();
        let (stream_access, joins) = self.granted_options(slot, options, &requested, overrides);
        let visibility = visibility(options, overrides);
        let tracked = visibility.is_any();
        if tracked {
            self.send_leave_first(post, slot, (channel, hash))?;
        }
        let home = self.names.home(hash);
        let simple = !tracked && !stream_access.needs_stream();
        let at_once = simple && self.locals.is_confirmed(hash, channel);
        if !at_once && !post.reserve(home, Rank::Request) {
            return Err(InboxFull);
        }
        let info = tracked.then(|| Box::new(self.client_info(slot, grant.as_ref())));
        let (name, event_ids) =
            (self.shared_name(hash, channel), self.event_ids_for(slot, stream_access));
        let begun = ((&name, hash), visibility);
        let subscriber = self.begin_subscription(slot, command, options, begun);
        let RequestedOptions { compact, strict, .. } = requested;
        let encoding = self.encoding(slot);
        let delta = options.allow_delta && requested.delta && !encoding.unidirectional;
        let encoding = Encoding { joins, delta, compact, event_ids, ..encoding };
        let since = match requested.since {
            None if options.auto_cache_recover && stream_access.recoverable => {
                Some(Position::default())
            }
            since => since.filter(|_| stream_access.recoverable),
        };
        let was_recovering = since.is_some() || requested.since.is_some();
        let ends = grant.as_ref().is_some_and(|grant| grant.expires.is_some());
        self.connections.grants.extend(grant.map(|grant| (subscriber.subscription, grant)));
        if ends {
            self.watch_expiry(slot);
        }
        let filter = requested.filter;
        let request = Subscribe {
            channel: name,
            hash,
            subscriber,
            encoding,
            filter,
            since,
            was_recovering,
            strict,
            stream_access,
            terms: subscribe_terms(options),
            visibility,
            info,
        };
        if at_once {
            self.subscribed(request.confirmed());
        } else {
            post.send(home, Message::Subscribe(Box::new(request)));
        }
        Ok(())
    }
}

impl Subscribe {
    /// The answer that the home would give. Valid only if the interest is recorded and no stream or
    /// presence is needed.
    pub(super) fn confirmed(self) -> Subscribed {
        Subscribed {
            channel: self.channel,
            hash: self.hash,
            subscriber: self.subscriber,
            encoding: self.encoding,
            filter: self.filter,
            stream_access: self.stream_access,
            was_recovering: self.was_recovering,
            recovered: false,
            strict: false,
            error: None,
            position: None,
            top: None,
            publications: Vec::new(),
            news: None,
        }
    }
}

impl Subscribe {
    /// The answer that the home has an error.
    pub fn refused(self, error: Error) -> Subscribed {
        Subscribed { error: Some(error), ..self.confirmed() }
    }
}

/// Options of the channel that its home needs for a subscribe.
fn subscribe_terms(options: &Options) -> SubscribeTerms {
    SubscribeTerms {
        recovery_mode: options.recovery_mode,
        presence: options.presence,
        durable: options.is_durable(),
    }
}
