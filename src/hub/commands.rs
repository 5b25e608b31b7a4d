//! What each command does.

use std::sync::Arc;

use crate::connection::{Hold, NONE, Phase};
use crate::hub::inbound::Pause;
use crate::hub::{Hub, encoding, json};
use crate::message::{Asker, Post, Rank, Subscribe, Subscriber};
use crate::protocol::json::{Command, ConnectRequest, Connected, PublishRequest, SubscribeRequest};
use crate::protocol::{Disconnect, Epoch, Error, Position};

/// Why the commands of a connection go no further for now, or ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It had its share of the turn.
    Turn,
    /// No room on the bus: try this command again when there is.
    Room,
    /// An earlier command on the same channel must be answered first.
    Wait,
    /// The client broke a rule.
    Disconnect(Disconnect),
}

/// There is no room on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl From<NoRoom> for Stop {
    fn from(_: NoRoom) -> Self {
        Stop::Room
    }
}

/// What a command that went through answers, beyond what it has written itself.
enum Answer {
    Empty(&'static str),
    Error(Error),
    Later,
}

impl Hub {
    /// Runs one command. On `Err` other than a disconnect nothing has happened.
    pub(super) fn command(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: &Command<'_>,
    ) -> Result<(), Stop> {
        const BAD_REQUEST: Stop = Stop::Disconnect(Disconnect::BAD_REQUEST);
        let connected = self.connections[slot as usize].phase == Phase::Connected;
        if let Some(request) = &command.connect {
            return if connected || command.id == 0 {
                Err(BAD_REQUEST)
            } else {
                self.connect(slot, command.id, request)
            };
        }
        if !connected {
            return Err(BAD_REQUEST);
        }
        if command.id == 0 {
            return match command.send {
                Some(_) => Err(Stop::Disconnect(Disconnect::NOT_AVAILABLE)),
                None => self.pong(slot),
            };
        }
        let answer = if let Some(request) = &command.subscribe {
            self.subscribe(post, slot, command.id, request)?
        } else if let Some(request) = &command.unsubscribe {
            self.unsubscribe(slot, &request.channel)?
        } else if let Some(request) = &command.publish {
            self.publish(post, slot, request)?
        } else {
            not_available(command)?
        };
        match answer {
            Answer::Empty(key) => {
                self.write_json(slot, |out| json::write_empty(command.id, key, out));
            }
            Answer::Error(error) => self.write_error(slot, command.id, error),
            Answer::Later => {}
        }
        Ok(())
    }

    fn write_error(&mut self, slot: u32, command: u32, error: Error) {
        self.metrics.errors.add(1);
        self.write_json(slot, |out| json::write_error(command, error, out));
    }

    fn pong(&mut self, slot: u32) -> Result<(), Stop> {
        let flags = &mut self.connections[slot as usize].flags;
        if !flags.pong_due() {
            return Err(Stop::Disconnect(Disconnect::BAD_REQUEST));
        }
        flags.set_pong_due(false);
        Ok(())
    }

    fn connect(&mut self, slot: u32, id: u32, request: &ConnectRequest<'_>) -> Result<(), Stop> {
        self.admit(request).map_err(Stop::Disconnect)?;
        let client = self.client_id(slot);
        let connected = self.connected_result(&client, self.settings.pong_timeout.is_some());
        self.write_json(slot, |out| json::write_connected(id, &connected, out));
        self.set_connected(slot);
        Ok(())
    }

    /// Who may connect at all.
    fn admit(&self, request: &ConnectRequest<'_>) -> Result<(), Disconnect> {
        if !self.settings.rules.allows_connect() {
            // No token can be verified yet, so none can be accepted.
            return Err(Disconnect::BAD_REQUEST);
        }
        if !request.token.is_empty() && !self.settings.rules.insecure {
            return Err(Disconnect::INVALID_TOKEN);
        }
        Ok(())
    }

    fn connected_result<'a>(&self, client: &'a str, pong: bool) -> Connected<'a> {
        Connected { client, ping: (self.settings.ping_interval / 1000) as u32, pong }
    }

    fn set_connected(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if !connection.takes_output() {
            return;
        }
        connection.phase = Phase::Connected;
        connection.flags.set_counted(true);
        let shutting_down = connection.flags.shutting_down();
        self.metrics.clients.add(1);
        self.metrics.connects.add(1);
        if !shutting_down {
            self.set_first_ping(slot);
        }
    }

    // ---- channels ------------------------------------------------------------------------

    /// Whether a name is one that a channel may have.
    pub(super) fn check_channel(&self, channel: &str) -> Result<(), Error> {
        if channel.len() > self.settings.channel_bytes || !channel.is_ascii() {
            return Err(Error::BAD_REQUEST);
        }
        // What stands before a colon names a namespace, and none is configured.
        if channel.contains(':') {
            return Err(Error::UNKNOWN_CHANNEL);
        }
        Ok(())
    }

    pub(super) fn named(&self, hash: u64, channel: &str) -> Arc<str> {
        self.locals.name(hash, channel).unwrap_or_else(|| channel.into())
    }

    fn find_subscription(&self, slot: u32, hash: u64, channel: &str) -> Result<Option<u32>, Stop> {
        let head = self.connections[slot as usize].subscriptions;
        match self.locals.find_subscription(head, hash, channel) {
            Some(key) if self.locals.is_pending(key) => Err(Stop::Wait),
            found => Ok(found),
        }
    }

    fn subscribe(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        id: u32,
        request: &SubscribeRequest<'_>,
    ) -> Result<Answer, Stop> {
        let channel = &*request.channel;
        if channel.is_empty() {
            return Err(Stop::Disconnect(Disconnect::BAD_REQUEST));
        }
        if let Err(error) = self.check_channel(channel) {
            return Ok(Answer::Error(error));
        }
        if !self.settings.rules.allows_subscribe(channel) {
            return Ok(Answer::Error(Error::PERMISSION_DENIED));
        }
        let hash = self.names.hash(channel);
        if self.find_subscription(slot, hash, channel)?.is_some() {
            return Ok(Answer::Error(Error::ALREADY_SUBSCRIBED));
        }
        if self.connections[slot as usize].subscribed >= self.settings.channel_limit {
            return Ok(Answer::Error(Error::LIMIT_EXCEEDED));
        }
        let name = self.named(hash, channel);
        self.request_subscription(post, slot, id, (&name, hash), position(request))?;
        Ok(Answer::Later)
    }

    /// Asks a channel's home for a subscription, or joins at once where the home need not be
    /// asked.
    fn request_subscription(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        (name, hash): (&Arc<str>, u64),
        since: Option<Position>,
    ) -> Result<(), NoRoom> {
        let home = self.names.home(hash);
        let remembers = self.settings.homes.retention.is_some();
        let at_once = home == self.shard || (!remembers && self.locals.is_confirmed(hash, name));
        if !at_once && !post.reserve(home, Rank::Request) {
            return Err(NoRoom);
        }
        let connection = &mut self.connections[slot as usize];
        let (subscription, serial) = self.locals.begin(&mut connection.subscriptions, hash, name);
        connection.subscribed += 1;
        let subscriber = Subscriber {
            shard: self.shard,
            slot,
            generation: connection.generation,
            subscription,
            serial,
            command,
        };
        let encoding = encoding(connection.transport);
        let request = Subscribe { channel: name.clone(), hash, subscriber, encoding, since };
        if !at_once {
            post.send(home, crate::message::Message::Subscribe(Box::new(request)));
        } else {
            let answer = if home == self.shard {
                self.homes.subscribe(&request, self.now)
            } else {
                request.confirmed()
            };
            self.subscribed(answer);
        }
        Ok(())
    }

    fn unsubscribe(&mut self, slot: u32, channel: &str) -> Result<Answer, Stop> {
        if channel.is_empty() {
            return Err(Stop::Disconnect(Disconnect::BAD_REQUEST));
        }
        let hash = self.names.hash(channel);
        if let Some(key) = self.find_subscription(slot, hash, channel)? {
            let connection = &mut self.connections[slot as usize];
            self.locals.leave(&mut connection.subscriptions, key);
            connection.subscribed -= 1;
        }
        Ok(Answer::Empty("unsubscribe"))
    }

    fn publish(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        request: &PublishRequest<'_>,
    ) -> Result<Answer, Stop> {
        let channel = &*request.channel;
        if channel.is_empty() {
            return Err(Stop::Disconnect(Disconnect::BAD_REQUEST));
        }
        let Some(data) = request.data else { return Ok(Answer::Error(Error::BAD_REQUEST)) };
        if let Err(error) = self.check_channel(channel) {
            return Ok(Answer::Error(error));
        }
        let hash = self.names.hash(channel);
        let subscribed = self.find_subscription(slot, hash, channel)?.is_some();
        if !self.settings.rules.allows_publish(subscribed) {
            return Ok(Answer::Error(Error::PERMISSION_DENIED));
        }
        self.bring_home(post, (channel, hash), data, false, Asker::Nobody)?;
        Ok(Answer::Empty("publish"))
    }

    // ---- unidirectional clients ----------------------------------------------------------

    /// A unidirectional client's connect request: its channels are joined first, then it is
    /// told about all of them at once.
    pub(super) fn begin_uni(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        request: &ConnectRequest<'_>,
    ) -> Result<(), Disconnect> {
        self.admit(request)?;
        let mut hold = Hold::default();
        for (channel, request) in request.subs.iter().flat_map(|subs| &subs.0) {
            match self.check_channel(channel) {
                Err(Error::UNKNOWN_CHANNEL) => return Err(Disconnect::BAD_REQUEST),
                Err(_) => continue,
                Ok(()) if channel.is_empty() => continue,
                Ok(()) => {}
            }
            let named = hold.wanted.iter().any(|(name, _)| **name == **channel);
            if self.settings.rules.allows_subscribe(channel) && !named {
                hold.wanted.push((Arc::from(&**channel), position(request)));
            }
        }
        if hold.wanted.len() > usize::from(self.settings.channel_limit) {
            return Err(Disconnect::CHANNEL_LIMIT);
        }
        hold.pending = hold.wanted.len();
        self.connections[slot as usize].hold = self.holds.insert(hold) as u32;
        self.ask_homes(post, slot);
        Ok(())
    }

    /// Asks the homes of a held connection's channels, as far as there is room.
    pub(super) fn ask_homes(&mut self, post: &mut impl Post, slot: u32) {
        let at = self.connections[slot as usize].hold as usize;
        while let Some((name, since)) = self.holds[at].wanted.pop() {
            let hash = self.names.hash(&name);
            let named = self.locals.name(hash, &name).unwrap_or(name);
            if self.request_subscription(post, slot, 0, (&named, hash), since).is_err() {
                self.holds[at].wanted.push((named, since));
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
        self.connections[slot as usize].hold = NONE;
        let client = self.client_id(slot);
        let connected = self.connected_result(&client, false);
        let subs: Vec<_> =
            hold.answers.iter().map(|answer| (&*answer.channel, answer.result())).collect();
        self.write_json(slot, |out| json::write_connect_push(&connected, &subs, out));
        self.write(slot, |out| out.extend_from_slice(&hold.output));
        self.set_connected(slot);
    }
}

/// The position that a subscribe asks to be recovered from.
fn position(request: &SubscribeRequest<'_>) -> Option<Position> {
    request
        .recover
        .then(|| Position { offset: request.offset, epoch: Epoch::parse(&request.epoch) })
}

/// Requests that clients know and this server does not serve.
fn not_available(command: &Command<'_>) -> Result<Answer, Stop> {
    let channels =
        [&command.presence, &command.presence_stats, &command.history, &command.sub_refresh];
    let nameless = channels.into_iter().flatten().any(|request| request.channel.is_empty());
    let known = channels.into_iter().any(Option::is_some)
        || command.rpc.is_some()
        || command.refresh.is_some();
    if nameless || !known {
        return Err(Stop::Disconnect(Disconnect::BAD_REQUEST));
    }
    Ok(Answer::Error(Error::NOT_AVAILABLE))
}
