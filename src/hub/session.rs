//! Who a connection is: connecting, tokens, and how long both hold.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::connection::{Hold, Identity, NONE, Phase, Wish};
use crate::http::Transport;
use crate::hub::Hub;
use crate::hub::commands::Stop;
use crate::hub::inbound::Pause;
use crate::message::{Grant, Overrides, Post, Purpose, Subscribed, Verdict};
use crate::protocol::command::{ConnectRequest, RefreshRequest};
use crate::protocol::reply::{Connected, Lease, Push, Reply};
use crate::protocol::{self, Disconnect, Error, Position};
use crate::publication::{EventId, Publication};
use crate::revocation::Mark;
use crate::token::{ConnectClaims, Refusal, SubscribeOptions, Work};

/// Why a client may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not now, or not at all.
    Stop(Stop),
    /// It is told why, and may try again on another connection.
    Error(Error),
}

impl From<Disconnect> for Refused {
    fn from(disconnect: Disconnect) -> Self {
        Refused::Stop(Stop::Disconnect(disconnect))
    }
}

impl From<&SubscribeOptions> for Grant {
    fn from(options: &SubscribeOptions) -> Self {
        Grant {
            expires: None,
            info: options.info.clone(),
            data: options.data.clone(),
            server_side: false,
            token: Mark::NONE,
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
    /// Unix time of this turn, in seconds.
    pub(super) fn unix_time(&self) -> u64 {
        (self.unix_start + self.now) / 1000
    }

    /// How long something holds that ends then; at least a second.
    pub(super) fn lease(&self, expires: Option<u64>) -> Option<Lease> {
        let left = |end: u64| end.saturating_sub(self.unix_time()).clamp(1, u64::from(u32::MAX));
        expires.map(|end| Lease(left(end) as u32))
    }

    /// A client's connect command.
    pub(super) fn connect(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &ConnectRequest<'_>,
    ) -> Result<(), Stop> {
        match self.admit(post, slot, request) {
            Ok(wanted) => self.hold(post, slot, command, wanted),
            Err(Refused::Stop(stop)) => return Err(stop),
            Err(Refused::Error(error)) => {
                self.connections[slot as usize].flags.set_unusable(true);
                self.reply_error(slot, command, error);
            }
        }
        Ok(())
    }

    /// A unidirectional client's connect request.
    pub(super) fn begin_uni(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        request: &ConnectRequest<'_>,
    ) -> Result<(), Stop> {
        match self.admit(post, slot, request) {
            Ok(wanted) => self.hold(post, slot, 0, wanted),
            Err(Refused::Stop(stop)) => return Err(stop),
            // One that can be told nothing else comes back, with another token.
            Err(Refused::Error(Error::TOKEN_EXPIRED)) => {
                return Err(Stop::Disconnect(Disconnect::EXPIRED));
            }
            Err(Refused::Error(Error::INTERNAL)) => {
                return Err(Stop::Disconnect(Disconnect::INTERNAL));
            }
            Err(Refused::Error(_)) => return Err(Stop::Disconnect(Disconnect::BAD_REQUEST)),
        }
        Ok(())
    }

    /// Who may connect at all, as whom, and to which channels.
    fn admit(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        request: &ConnectRequest<'_>,
    ) -> Result<Vec<Wish>, Refused> {
        if self.gate.is_full() {
            return Err(Disconnect::CONNECTION_LIMIT.into());
        }
        let claims = self.connect_claims(post, slot, &request.token)?;
        let mut wanted = Vec::new();
        if let Some(claims) = claims {
            if claims.user.is_empty() && self.settings.rules.no_anonymous_tokens {
                return Err(Disconnect::PERMISSION_DENIED.into());
            }
            for (channel, options) in &claims.subs {
                wanted.push((Arc::from(&**channel), Grant::from(options)));
            }
            self.identify(slot, claims);
        }
        if let Some(channel) = self.personal_channel(slot) {
            wanted.push((channel, Grant::default()));
        }
        let mut wishes: Vec<Wish> = Vec::with_capacity(wanted.len());
        for (channel, grant) in wanted {
            self.settings.namespaces.of(&channel).map_err(Refused::Error)?;
            let asked = request.subs.iter().flat_map(|subs| &subs.0);
            let mut asked = asked.filter(|(name, _)| **name == *channel).map(|(_, asked)| asked);
            let since = asked.next_back().and_then(|asked| asked.since());
            if !wishes.iter().any(|wish| wish.channel == channel) {
                let grant = Grant { server_side: true, ..grant };
                wishes.push(Wish { channel, since, grant });
            }
        }
        self.add_permitted(slot, request, &mut wishes)?;
        if wishes.len() > usize::from(self.settings.channel_limit) {
            return Err(Disconnect::CHANNEL_LIMIT.into());
        }
        Ok(wishes)
    }

    /// What the token says, if one is given and looked at.
    fn connect_claims(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        token: &str,
    ) -> Result<Option<ConnectClaims>, Refused> {
        let settings = self.settings.clone();
        let rules = &settings.rules;
        if token.is_empty() {
            let open = rules.insecure || rules.anonymous;
            return if open { Ok(None) } else { Err(Disconnect::BAD_REQUEST.into()) };
        }
        let verifier = &settings.tokens.connection;
        let claims = match verifier.work(token) {
            Ok(Work::Here) => verifier.connection(token, self.unix_time(), None),
            Ok(Work::Elsewhere) => match self.verdict(post, slot, token, Purpose::Connection) {
                Ok(Verdict::Connection(claims)) => claims,
                Ok(Verdict::Subscription(_) | Verdict::Busy) => {
                    return Err(Refused::Error(Error::INTERNAL));
                }
                Err(stop) => return Err(Refused::Stop(stop)),
            },
            Err(refusal) => Err(refusal),
        };
        match claims {
            Ok(claims) if !self.is_revoked(&claims.user, self.mark_of(&claims)) => Ok(Some(claims)),
            Err(Refusal::Expired) => Err(Refused::Error(Error::TOKEN_EXPIRED)),
            Ok(_) | Err(_) if rules.insecure => Ok(None),
            Ok(_) | Err(_) => Err(Disconnect::INVALID_TOKEN.into()),
        }
    }

    fn mark_of(&self, claims: &ConnectClaims) -> Mark {
        self.mark(&claims.jti, claims.issued_at)
    }

    fn identify(&mut self, slot: u32, claims: ConnectClaims) {
        let token = self.mark_of(&claims);
        let ConnectClaims { user, info, expires, .. } = claims;
        let expires = expires.and_then(NonZeroU64::new);
        let identity = Identity { user: user.into(), info, expires, token };
        self.connections[slot as usize].identity = Some(Box::new(identity));
        self.index_user(slot);
    }

    /// The channel that only this user is in, where every user has one.
    fn personal_channel(&self, slot: u32) -> Option<Arc<str>> {
        let namespace = self.settings.personal_namespace.as_ref()?;
        let user = self.connections[slot as usize].user();
        let named = !user.is_empty();
        named.then(|| self.settings.namespaces.personal(namespace, user).into())
    }

    /// Channels that the client names itself: those that it may have.
    fn add_permitted(
        &self,
        slot: u32,
        request: &ConnectRequest<'_>,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), Refused> {
        let user = self.connections[slot as usize].user();
        for (channel, asked) in request.subs.iter().flat_map(|subs| &subs.0) {
            let options = match self.settings.namespaces.of(channel) {
                Ok(options) => options,
                Err(Error::UNKNOWN_CHANNEL) => return Err(Disconnect::BAD_REQUEST.into()),
                Err(_) => continue,
            };
            let named = wishes.iter().any(|wish| *wish.channel == **channel);
            if !named && self.allows_subscribe(options, channel, user) {
                let grant = Grant { server_side: true, ..Grant::default() };
                let channel = Arc::from(&**channel);
                wishes.push(Wish { channel, since: asked.since(), grant });
            }
        }
        Ok(())
    }

    /// Joins channels before the connect is answered.
    fn hold(&mut self, post: &mut impl Post, slot: u32, command: u32, wanted: Vec<Wish>) {
        let pending = wanted.len();
        let admission = self.admission(slot);
        let hold = Hold { command, admission, wanted, pending, ..Hold::default() };
        self.connections[slot as usize].hold = self.holds.insert(hold) as u32;
        self.ask_homes(post, slot);
    }

    /// Asks the homes of a held connection's channels, as far as there is room.
    pub(super) fn ask_homes(&mut self, post: &mut impl Post, slot: u32) {
        if !self.is_admitted(post, slot) {
            return;
        }
        let at = self.connections[slot as usize].hold as usize;
        while let Some(wish) = self.holds[at].wanted.pop() {
            if let Err(wish) = self.join_unasked(post, slot, wish) {
                self.holds[at].wanted.push(wish);
                return self.pause(slot, Pause::Blocked);
            }
            if self.connections[slot as usize].hold == NONE {
                return;
            }
        }
        self.finish_hold(slot);
    }

    /// Tells a held connection about its channels once all answers are in.
    pub(super) fn finish_hold(&mut self, slot: u32) {
        let at = self.connections[slot as usize].hold as usize;
        if self.holds[at].pending > 0 {
            return;
        }
        let hold = self.holds.remove(at);
        let connection = &mut self.connections[slot as usize];
        connection.hold = NONE;
        let transport = connection.transport;
        let unidirectional = transport.is_unidirectional();
        let frame_pings = connection.flags.frame_pings();
        let expires = connection.expires();
        let (client, node) = (self.client_id(slot), self.ids.node());
        let session = self.ids.session(self.address(slot));
        let spoken_for = transport.is_emulated();
        let wire = self.connections[slot as usize].wire;
        let subs = hold.answers.iter();
        let subs = subs.filter_map(|answer| Some((&*answer.channel, self.told(answer)?)));
        let connected = Connected {
            client: &client,
            expires: self.lease(expires),
            subs: subs.collect(),
            ping: if frame_pings { 0 } else { (self.settings.ping_interval / 1000) as u32 },
            pong: self.settings.pong_timeout.is_some() && !unidirectional && !frame_pings,
            session: if spoken_for || unidirectional { &session } else { "" },
            node: if spoken_for { &node } else { "" },
            time: self.settings.tells_time.then(|| (self.unix_start + self.now) as i64),
            data: None,
        };
        let mut body = Vec::new();
        if unidirectional {
            protocol::write_push(wire, true, &Push::Connect(&connected), &mut body);
        } else {
            protocol::write_reply(wire, hold.command, &Reply::Connect(&connected), &mut body);
        }
        drop(connected);
        self.write_event_id(slot, &hold.answers);
        self.write_body(slot, &body);
        self.write(slot, |out| out.extend_from_slice(&hold.output));
        self.set_connected(slot);
        let has_news = |answer: &Subscribed| {
            answer.was_recovering && !(answer.recovered && answer.publications.is_empty())
        };
        let has_news = hold.answers.iter().any(has_news) || !hold.output.is_empty();
        if transport == Transport::LongPolling && has_news {
            self.end_when_flushed(slot);
        }
        self.go_on_later(slot);
    }

    /// Where the stream of a client's only channel stands, for a browser that comes again before
    /// anything was published.
    fn write_event_id(&mut self, slot: u32, answers: &[Subscribed]) {
        let ([answer], Transport::UniSse) = (answers, self.connections[slot as usize].transport)
        else {
            return;
        };
        if let Some(told) = answer.position {
            let last = answer.publications.last().and_then(Publication::offset);
            let position = Position { offset: last.unwrap_or(told.offset), ..told };
            let id = EventId { position, channel: &answer.channel };
            self.write(slot, |out| id.write_line(out));
        }
    }

    fn set_connected(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !connection.takes_output() {
            return;
        }
        connection.phase = Phase::Connected;
        connection.flags.set_counted(true);
        let shutting_down = connection.flags.shutting_down();
        self.gate.enter();
        self.metrics.clients.add(1);
        self.metrics.connects.add(1);
        if !shutting_down {
            self.set_first_ping(slot);
        }
    }

    /// A client's new connection token.
    pub(super) fn refresh(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &RefreshRequest<'_>,
    ) -> Result<(), Stop> {
        if request.token.is_empty() {
            return Err(Stop::Disconnect(Disconnect::BAD_REQUEST));
        }
        let claims = match self.connect_claims(post, slot, &request.token) {
            Ok(Some(claims)) => claims,
            Ok(None) => return Err(Stop::Disconnect(Disconnect::INVALID_TOKEN)),
            Err(Refused::Stop(stop)) => return Err(stop),
            Err(Refused::Error(Error::TOKEN_EXPIRED)) => {
                return Err(Stop::Disconnect(Disconnect::EXPIRED));
            }
            Err(Refused::Error(error)) => {
                self.reply_error(slot, command, error);
                return Ok(());
            }
        };
        if claims.user != self.connections[slot as usize].user() {
            return Err(Stop::Disconnect(Disconnect::INVALID_TOKEN));
        }
        let (expires, token) = (claims.expires, self.mark_of(&claims));
        match &mut self.connections[slot as usize].identity {
            Some(identity) => {
                identity.expires = expires.and_then(NonZeroU64::new);
                (identity.info, identity.token) = (claims.info, token);
            }
            None => return Err(Stop::Disconnect(Disconnect::INVALID_TOKEN)),
        }
        self.watch_ends(slot);
        self.reply(slot, command, &Reply::Refresh(self.lease(expires)));
        Ok(())
    }

    /// Closes a connection whose token, or a subscription's, has not been refreshed in time;
    /// returns whether it did. Looked at with every ping, and when something ends.
    pub(super) fn expire_leases(&mut self, slot: u32) -> bool {
        let now = self.unix_time();
        let over = |expires: Option<u64>, grace: u64| {
            expires.is_some_and(|end| end.saturating_add(grace) <= now)
        };
        let connection = &self.connections[slot as usize];
        if over(connection.expires(), self.settings.expired_close_delay) {
            self.disconnect(slot, Disconnect::EXPIRED);
            return true;
        }
        if self.grants.is_empty() {
            return false;
        }
        let mut key = connection.subscriptions;
        while key != NONE {
            let next = self.locals.next_subscription(key);
            let grant = self.grants.get(&key);
            let expires = grant.and_then(|grant| grant.expires);
            if over(expires, self.settings.expired_sub_close_delay) {
                if grant.is_some_and(|grant| grant.server_side) {
                    self.disconnect(slot, Disconnect::SUBSCRIPTION_EXPIRED);
                    return true;
                }
                self.end_subscription(slot, key, 2501, "subscription expired");
            }
            key = next;
        }
        false
    }
}
