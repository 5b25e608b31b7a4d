//! Joining and leaving channels, and publishing into them: what clients ask for and what the
//! server does for them.

use std::sync::Arc;

use crate::base::faults::{Planted, planted};
use crate::hub::Hub;
use crate::hub::backend::{CLIENT_UNSUBSCRIBED, UnsubscribeReason};
use crate::hub::commands::{CommandFailure, NoRoom, StopReason};
use crate::hub::connections::{Connection, ServerSubscription};
use crate::hub::messages::PublishOptions;
use crate::model::backend::{Permission, ProxyAnswer};
use crate::model::message::{
    Grant, Granted, Guard, Leave, LookupOutcome, Message, Overrides, Post, Purpose, Rank, ReplyTo,
    Subscribe, SubscribeTerms, Subscriber, Visibility,
};
use crate::model::namespaces::{Format, Options};
use crate::model::publication::{Encoding, Extra, PublicationKind};
use crate::model::token::{Refusal, Work};
use crate::wire::filter::{self, Filter};
use crate::wire::framing::Framing;
use crate::wire::protocol::command::{PublishRequest, SubscribeRequest};
use crate::wire::protocol::reply::{ClientInfo, Push, Reply};
use crate::wire::protocol::{Disconnect, Error, Position, Wire, json};

/// Bit of a request's flags: the client knows channels by numbers too.
const COMPACTION: i64 = 1;
/// Bit of a request's flags: the client fetches the channel's state by itself where what it missed
/// cannot be recovered, and wants error 112 instead of a subscription.
const STRICT: i64 = 2;

/// What a subscriber asks for beside the channel.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestedOptions {
    since: Option<Position>,
    strict: bool,
    granted: Granted,
    joins: bool,
    delta: bool,
    compact: bool,
    filter: Option<Filter>,
}

/// A subscription on its way.
struct NewSubscription<'a> {
    channel: &'a str,
    command: u32,
    asked: RequestedOptions,
    grant: Option<Grant>,
}

impl Hub {
    pub(super) fn shared_name(&self, hash: u64, channel: &str) -> Arc<str> {
        self.locals.shared_name(hash, channel).unwrap_or_else(|| channel.into())
    }

    pub(super) fn find_subscription(
        &self,
        slot: u32,
        hash: u64,
        channel: &str,
    ) -> Result<Option<u32>, StopReason> {
        let head = self.connections[slot].subscriptions;
        match self.locals.find_subscription(head, hash, channel) {
            Some(key) if self.locals.is_pending(key) => Err(StopReason::Wait),
            found => Ok(found),
        }
    }

    /// Whether a client may subscribe without a token.
    pub(super) fn allows_subscribe(&self, options: &Options, channel: &str, user: &str) -> bool {
        let (rules, namespaces) = (&self.settings.rules, &self.settings.namespaces);
        if namespaces.is_private(channel) {
            return false;
        }
        if rules.insecure {
            return true;
        }
        match namespaces.users(channel) {
            Some(_) => namespaces.is_for(options, channel, user),
            None => options.subscribe.allows(user, false),
        }
    }

    /// What a client is granted of a channel beside its options, if it may subscribe at all.
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
        let options = settings.namespaces.of(channel)?;
        if request.kind != 0 {
            return Err(Error::PERMISSION_DENIED.into());
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
        let delta = options.allow_delta && !request.delta.is_empty();
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
        let granted = Granted { positioned: request.positioned, recoverable: request.recoverable };
        let joins = request.join_leave;
        // In protocol buffers the JavaScript SDK takes numbers of 64 bits for objects, of which
        // no two are the same, and drops what it cannot find a channel for.
        let compact = options.allow_compaction
            && request.flag & COMPACTION != 0
            && self.connections[slot].wire == Wire::Json;
        let strict = request.flag & STRICT != 0;
        let since = request.since();
        let asked = RequestedOptions { since, strict, granted, joins, delta, compact, filter };
        let subscription = NewSubscription { channel, command, asked, grant };
        self.request_subscription(post, slot, options, subscription)?;
        Ok(())
    }

    /// What a subscription token gives.
    pub(super) fn subscribe_grant(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        channel: &str,
        token: &str,
    ) -> Result<Grant, CommandFailure> {
        let settings = self.settings.clone();
        let verifier = &settings.tokens.subscription;
        let claims = match verifier.work(token) {
            Ok(Work::Here) => verifier.subscription(token, self.unix_time(), None),
            Ok(Work::Elsewhere) => {
                let purpose = Purpose::Subscription;
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
            Err(Refusal::Expired) => return Err(Error::TOKEN_EXPIRED.into()),
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

    /// Joins a channel for a connection that has not asked for it by a command.
    pub(super) fn join_unasked(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        server_sub: ServerSubscription,
    ) -> Result<(), ServerSubscription> {
        let settings = self.settings.clone();
        let Ok(options) = settings.namespaces.of(&server_sub.channel) else { return Ok(()) };
        let asked = RequestedOptions { since: server_sub.since, ..RequestedOptions::default() };
        let grant = Some(server_sub.grant.clone());
        let subscription =
            NewSubscription { channel: &server_sub.channel, command: 0, asked, grant };
        self.request_subscription(post, slot, options, subscription).map_err(|NoRoom| server_sub)
    }

    /// What a subscriber gets of what it asks for.
    pub(super) fn granted_options(
        &self,
        slot: u32,
        options: &Options,
        asked: &RequestedOptions,
        overrides: Overrides,
    ) -> (Granted, bool) {
        let user = self.connections[slot].user();
        let insecure = self.settings.rules.insecure;
        let history = insecure || options.read_history.allows(user, true);
        let seen = insecure || options.see_presence.allows(user, true);
        let force_recovery = overrides.force_recovery.unwrap_or(options.force_recovery);
        let force_positioning = overrides.force_positioning.unwrap_or(options.force_positioning);
        let may_recover = options.allow_recovery || history;
        let recoverable = force_recovery || (asked.granted.recoverable && may_recover);
        let may_position = options.allow_positioning || history;
        let positioned =
            recoverable || force_positioning || (asked.granted.positioned && may_position);
        let keeps = options.retention.is_some();
        let granted =
            Granted { positioned: keeps && positioned, recoverable: keeps && recoverable };
        let pushed = overrides.force_push_join_leave.unwrap_or(options.force_push_join_leave);
        (granted, pushed || (asked.joins && options.join_leave && seen))
    }

    /// Has a channel's home hear of a connection's leave before it hears of its return.
    fn send_leave_first(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        (channel, hash): (&str, u64),
    ) -> Result<(), NoRoom> {
        if planted(Planted::LeaveOvertaken) || !self.is_leaving(slot, hash, channel) {
            return Ok(());
        }
        self.send_leaves(post);
        if self.is_leaving(slot, hash, channel) { Err(NoRoom) } else { Ok(()) }
    }

    /// Adds a subscription that is not answered yet.
    fn begin_subscription(
        &mut self,
        slot: u32,
        command: u32,
        options: &Options,
        (name, hash): (&Arc<str>, u64),
    ) -> Subscriber {
        let connection = &mut self.connections[slot];
        let (subscription, serial) =
            self.locals.begin_subscription(&mut connection.subscriptions, hash, name);
        if let Some(pace) = options.pace {
            self.locals.set_pace(subscription, pace);
        }
        connection.subscribed += 1;
        let (shard, generation) = (self.shard, connection.generation);
        Subscriber { shard, slot, generation, subscription, serial, command }
    }

    /// Asks a channel's home for a subscription, or joins at once where the home need not be
    /// asked.
    fn request_subscription(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        options: &Options,
        subscription: NewSubscription<'_>,
    ) -> Result<(), NoRoom> {
        let NewSubscription { channel, command, asked, grant } = subscription;
        let hash = self.names.hash(channel);
        let overrides = grant.as_ref().map(|grant| grant.overrides).unwrap_or_default();
        let (granted, joins) = self.granted_options(slot, options, &asked, overrides);
        let visibility = visibility(options, overrides);
        let tracked = visibility.is_any();
        if tracked {
            self.send_leave_first(post, slot, (channel, hash))?;
        }
        let home = self.names.home(hash);
        let simple = !tracked && !granted.needs_stream();
        let at_once = simple && self.locals.is_confirmed(hash, channel);
        if !at_once && !post.reserve(home, Rank::Request) {
            return Err(NoRoom);
        }
        let info = tracked.then(|| Box::new(self.client_info(slot, grant.as_ref())));
        let (name, ids) = (self.shared_name(hash, channel), self.event_ids_for(slot, granted));
        let subscriber = self.begin_subscription(slot, command, options, (&name, hash));
        let RequestedOptions { delta, compact, strict, .. } = asked;
        let encoding = Encoding { joins, delta, compact, ids, ..self.encoding(slot) };
        let since = match asked.since {
            None if options.auto_cache_recover && granted.recoverable => Some(Position::default()),
            since => since.filter(|_| granted.recoverable),
        };
        let ends = grant.as_ref().is_some_and(|grant| grant.expires.is_some());
        self.connections.grants.extend(grant.map(|grant| (subscriber.subscription, grant)));
        if ends {
            self.watch_expiry(slot);
        }
        let filter = asked.filter;
        let request = Subscribe {
            channel: name,
            hash,
            subscriber,
            encoding,
            filter,
            since,
            strict,
            granted,
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

    /// Who a connection is to others in a channel.
    pub(super) fn client_info(&self, slot: u32, grant: Option<&Grant>) -> ClientInfo {
        let identity = self.connections[slot].identity.as_deref();
        ClientInfo {
            user: identity.map(|identity| identity.user.clone()).unwrap_or_default(),
            client: self.client_id(slot).into(),
            connection: identity.and_then(|identity| identity.info.clone()),
            channel: grant.and_then(|grant| grant.info.clone()),
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        slot: u32,
        command: u32,
        channel: &str,
    ) -> Result<(), CommandFailure> {
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let hash = self.names.hash(channel);
        if let Some(key) = self.find_subscription(slot, hash, channel)? {
            self.leave(slot, key, CLIENT_UNSUBSCRIBED);
        }
        self.reply(slot, command, &Reply::Unsubscribe);
        Ok(())
    }

    /// Ends a subscription, answered or not.
    pub(super) fn leave(&mut self, slot: u32, key: u32, why: UnsubscribeReason<'_>) {
        let overrides =
            self.connections.grants.remove(&key).map(|grant| grant.overrides).unwrap_or_default();
        let (channel, hash) = self.locals.channel(key);
        if let Ok(options) = self.settings.namespaces.of(channel) {
            let hook = options.unsubscribe_hook.filter(|_| !self.locals.is_pending(key));
            let seen = visibility(options, overrides);
            let (tracked, announced) = (seen.is_any(), seen.announced);
            let told = (hook.is_some() || tracked).then(|| channel.clone());
            if let (Some(upstream), Some(channel)) = (hook, &told) {
                self.queue_unsubscribe_hook(slot, upstream, channel, why);
            }
            if let Some(channel) = told.filter(|_| tracked) {
                let address = self.address(slot);
                self.leaves.push_back(Leave { channel, hash, address, announced });
            }
        }
        let connection = &mut self.connections[slot];
        self.locals.leave(&mut connection.subscriptions, key);
        connection.subscribed -= 1;
    }

    /// Whether the home has still to be told that this connection has left the channel.
    fn is_leaving(&self, slot: u32, hash: u64, channel: &str) -> bool {
        let address = self.address(slot);
        self.leaves.iter().any(|leave| {
            leave.hash == hash && leave.address == address && *leave.channel == *channel
        })
    }

    /// Ends a subscription and tells the client.
    pub(super) fn end_subscription(&mut self, slot: u32, key: u32, code: u32, reason: &str) {
        let channel = self.locals.channel(key).0.clone();
        self.leave(slot, key, (code, reason));
        self.push(slot, &Push::Unsubscribe { channel: &channel, code, reason });
    }

    /// Ends a subscription whose time is over.
    pub(super) fn expire_subscription(&mut self, slot: u32, key: u32) {
        if self.connections.grants.get(&key).is_some_and(|grant| grant.server_side) {
            self.disconnect(slot, Disconnect::SUBSCRIPTION_EXPIRED);
        } else {
            self.end_subscription(slot, key, 2501, "subscription expired");
        }
    }

    pub(super) fn publish(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &PublishRequest<'_>,
    ) -> Result<(), CommandFailure> {
        let channel = &*request.channel;
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let Some(data) = &request.data else { return Err(Error::BAD_REQUEST.into()) };
        let settings = self.settings.clone();
        let options = settings.namespaces.of(channel)?;
        let hash = self.names.hash(channel);
        let subscription = self.find_subscription(slot, hash, channel)?;
        let wire = self.connections[slot].wire;
        let is_json = |data: &[u8]| json::is_json(data);
        let mut event =
            publication_kind(options.format, data, wire == Wire::Json || is_json(data))?;
        let (mut data, mut tags, mut terms) = (&**data, Box::default(), PublishOptions::default());
        let asked;
        if let Some(upstream) = options.publish_proxy {
            asked = self.ask_publish(post, (slot, command), upstream, (channel, data))?;
            if let LookupOutcome::Command(Ok(ProxyAnswer::Publish(permission))) = &*asked {
                (data, terms) =
                    (permission.data.as_deref().unwrap_or(data), (&**permission).into());
                tags = permission.tags.clone().into_iter().collect();
                event = publication_kind(options.format, data, is_json(data))?;
            }
        } else {
            let user = self.connections[slot].user();
            let allowed = options.publish.allows(user, subscription.is_some());
            if !allowed && !settings.rules.insecure {
                return Err(Error::PERMISSION_DENIED.into());
            }
        }
        let grant = subscription.and_then(|key| self.connections.grants.get(&key));
        let info = Some(self.client_info(slot, grant));
        let extra = Some(Arc::new(Extra { info, tags }));
        let draft = (data, event, extra);
        self.send_home(post, (channel, hash), options, draft, terms, ReplyTo::Nobody)?;
        self.reply(slot, command, &Reply::Publish);
        Ok(())
    }

    /// Whether a connection's encoding can carry everything that a channel with these options
    /// may publish: JSON cannot carry bytes.
    pub(super) fn check_readable(&self, slot: u32, options: &Options) -> Result<(), Error> {
        let is_json = self.connections[slot].wire == Wire::Json;
        if is_json && options.format == Format::Binary {
            return Err(Error::BINARY_CHANNEL);
        }
        Ok(())
    }

    /// How a connection wants publications.
    pub(super) fn encoding(&self, slot: u32) -> Encoding {
        let Connection { wire, transport, flags, .. } = self.connections[slot];
        let framing = Framing::of(transport);
        let unidirectional = transport.is_unidirectional();
        let compressed = flags.compressing();
        Encoding { wire, framing, unidirectional, compressed, ..Encoding::default() }
    }
}

/// What a channel's home needs to know of the channel's options for a subscribe.
fn subscribe_terms(options: &Options) -> SubscribeTerms {
    SubscribeTerms { recovery_mode: options.recovery_mode, presence: options.presence }
}

impl From<&Permission> for PublishOptions {
    fn from(permission: &Permission) -> Self {
        let Permission { idempotency_key, version, version_epoch, .. } = permission;
        let guard = Guard {
            key: idempotency_key.clone(),
            version: *version,
            version_epoch: version_epoch.clone(),
        };
        PublishOptions {
            skip_history: permission.skip_history,
            delta: permission.delta,
            guard: (guard != Guard::default()).then(|| Box::new(guard)),
        }
    }
}

/// What others in the channel may see of a subscriber.
fn visibility(options: &Options, overrides: Overrides) -> Visibility {
    Visibility {
        listed: overrides.presence.unwrap_or(options.presence),
        announced: overrides.join_leave.unwrap_or(options.join_leave),
    }
}

/// What data counts as, if a channel with this format takes it.
pub fn publication_kind(
    format: Format,
    data: &[u8],
    is_json: bool,
) -> Result<PublicationKind, Error> {
    let fits = match format {
        Format::NotEmpty => !data.is_empty(),
        Format::Json => is_json,
        Format::Object => is_json && data.trim_ascii_start().starts_with(b"{"),
        Format::Binary => true,
    };
    match (fits, is_json) {
        (false, false) if !data.is_empty() => Err(Error::NOT_JSON),
        (false, _) => Err(Error::BAD_REQUEST),
        (true, true) if json::is_too_deep(data) => Err(Error::BAD_REQUEST),
        (true, true) => Ok(PublicationKind::Data),
        (true, false) if format == Format::Binary => Ok(PublicationKind::Binary),
        (true, false) => Err(Error::NOT_JSON),
    }
}
