//! A node in a seed: its shards, its bus, its clients, and who moves next.
//!
//! The invariant: everything follows from the seed and the fault, so a run can be repeated.

use std::sync::Arc;

use drumline::base::connection_limits::ConnectionLimits;
use drumline::base::memory::{Budgets, Kind, Limits};
use drumline::base::metrics::Metrics;
use drumline::home;
use drumline::home::users::UserLimit;
use drumline::hub::resource_counts::ResourceCounts;
use drumline::hub::{Hub, HubSettings, ShardContext, TokenVerifiers};
use drumline::model::auth::{ApiKey, Rules};
use drumline::model::backend::{Upstream, Upstreams};
use drumline::model::ids::Ids;
use drumline::model::names::Names;
use drumline::model::namespaces::{Namespaces, Options, Pace};
use drumline::model::retention::Retention;
use drumline::model::token::{self, Verifier, make_connection};
use drumline::wire::http::{Route, Service, Transport};

use crate::Fault;
use crate::bus::Bus;
use crate::client::{Asked, Client, View};
use crate::control::Control;
use crate::ledger::Ledger;
use crate::random::Random;
use crate::shard::{Event, HomeContext, Shard};

/// Milliseconds that a publication waits at most.
const WINDOW_MAX: u64 = 100;
/// Rounds in which everything must come to rest.
const ROUNDS_MAX: usize = 20_000;
/// The one address of the backend.
const UPSTREAM: Upstream = Upstream(0);
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// What a run covered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    pub clients: usize,
    pub seen: usize,
    pub slow: usize,
    /// News for the backend.
    pub told: u64,
}

pub struct World {
    random: Random,
    now: u64,
    /// Counts everything that happens: the clock of the checks.
    steps: usize,
    bus: Bus,
    shards: Vec<Shard>,
    control: Control,
    metrics: Vec<Arc<Metrics>>,
    hooked: bool,
    /// Whether the backend decides who may subscribe: a unidirectional client then gets no channel
    /// that it only asks for.
    proxied: bool,
    clients: Vec<Client>,
    ledger: Ledger,
    channels: usize,
    history: bool,
    presence: bool,
    may_be_slow: bool,
    limit: UserLimit,
    /// Tokens of the users.
    tokens: Vec<String>,
    clients_max: usize,
}

/// What the clients of the simulation ask for.
const ROUTES: [(&str, Service); 5] = [
    ("/connection/websocket", Service::Transport(Transport::WebSocket)),
    ("/connection/uni_websocket", Service::Transport(Transport::UniWebSocket)),
    ("/connection/http_stream", Service::Transport(Transport::HttpStream)),
    ("/emulation", Service::Emulation),
    ("/api/publish", Service::Publish),
];

fn tokens() -> token::TokenSettings {
    token::TokenSettings { hmac_secret_key: "secret".into(), ..token::TokenSettings::default() }
}

/// Options of every channel.
fn options(random: &mut Random, history: bool) -> Options {
    let retention = Retention {
        size: random.pick(&[2, 5, 100]),
        ttl: random.pick(&[300, 60_000]),
        meta_ttl: 120_000,
    };
    Options {
        retention: history.then_some(retention),
        force_recovery: true,
        presence: random.one_in(2),
        join_leave: random.one_in(3),
        force_push_join_leave: random.one_in(2),
        allow_compaction: random.one_in(2),
        pace: random.one_in(3).then(|| Pace::Together {
            window: random.pick(&[1, 30, WINDOW_MAX]),
            publications: random.pick(&[2, 5, u32::MAX]),
        }),
        subscribe_proxy: random.one_in(4).then_some(UPSTREAM),
        publish_proxy: random.one_in(4).then_some(UPSTREAM),
        unsubscribe_hook: random.one_in(2).then_some(UPSTREAM),
        ..Options::default()
    }
}

fn settings(random: &mut Random, history: bool) -> (HubSettings, bool) {
    let may_be_slow = random.one_in(3);
    let without = options(random, history);
    let mut user_limit = UserLimit::default();
    if random.one_in(3) {
        user_limit = UserLimit { most: random.pick(&[1, 2, 3]), single: random.one_in(3) };
    }
    let proxies = Upstreams {
        connect: random.one_in(4).then_some(UPSTREAM),
        disconnect_hook: random.one_in(2).then_some(UPSTREAM),
        waiting_max: 1 << 20,
        ..Upstreams::default()
    };
    let namespaces = Arc::new(Namespaces { without, ..Namespaces::default() });
    let verifier = Arc::new(Verifier::new(&tokens()).expect("nothing is wrong"));
    let settings = HubSettings {
        rules: Rules { insecure: true, ..Rules::default() },
        namespaces: namespaces.clone(),
        tokens: TokenVerifiers { connection: verifier.clone(), subscription: verifier },
        proxies,
        routes: ROUTES
            .map(|(path, service)| Route {
                path: path.into(),
                service,
                body_max: 65_536,
                compresses: false,
            })
            .into(),
        api: ApiKey { key: "secret".into(), insecure: false },
        homes: home::HomeSettings {
            recovery_limit: random.pick(&[3, 1000]),
            answer_bytes: 20_000,
            streams_max: 1000,
        },
        slots: random.between(2, 6),
        outbox_bytes: if may_be_slow { random.between(300, 3000) } else { 1 << 30 },
        budgets: if may_be_slow {
            Limits::all(1 << 30)
                .with(Kind::Outboxes, random.between(1000, 5000))
                .with(Kind::Unread, random.pick(&[1 << 30, 1000, 5000]))
        } else {
            Limits::all(1 << 30)
        },
        backlog_bytes: random.pick(&[0, 200, 1 << 20]),
        channel_limit: 100,
        user_limit,
        position_check_delay: random.pick(&[0, 1_000]),
        ping_interval: 2_000,
        head_timeout: 100_000,
        stale_close_delay: 100_000,
        close_timeout: 5_000,
        ..HubSettings::default()
    };
    (settings, may_be_slow)
}

impl World {
    pub fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = Random::new(seed);
        let shards = random.between(1, 4);
        let history = random.one_in(2);
        let (settings, may_be_slow) = settings(&mut random, history);
        let capacity = random.pick(&[1, 1, 1, 2, 5]);
        let names = Names::new([7; 16], shards as u8);
        let presence = settings.namespaces.without.presence;
        let limit = settings.user_limit;
        let token = |user| make_connection(&tokens(), user, None, 0).expect("there is a secret");
        let settings = Arc::new(settings);
        let connection_limits = Arc::<ConnectionLimits>::default();
        let budgets = Budgets::new(&settings.budgets, shards);
        let metrics: Vec<Arc<Metrics>> = (0..shards).map(|_| Arc::default()).collect();
        let hubs = (0..shards as u8).map(|shard| {
            let place = ShardContext {
                shard,
                control: shards as u8,
                names,
                ids: Ids::new([3; 16]),
                connection_limits: connection_limits.clone(),
                budgets: budgets.clone(),
                seed: seed + u64::from(shard),
            };
            let metrics = metrics[usize::from(shard)].clone();
            let hub = Hub::new(settings.clone(), &place, metrics);
            Shard::new(hub, shard, seed % 4 == 3, fault)
        });
        let channels = random.between(1, 4);
        World {
            now: 0,
            steps: 0,
            bus: Bus::new(shards, [capacity; 4], fault),
            shards: hubs.collect(),
            control: Control::new(shards as u8),
            proxied: settings.namespaces.without.subscribe_proxy.is_some(),
            hooked: settings.proxies.disconnect_hook.is_some(),
            metrics,
            clients: Vec::new(),
            ledger: Ledger::new(channels),
            channels,
            history,
            presence,
            may_be_slow,
            limit,
            tokens: ["a", "b", ""].map(token).into(),
            clients_max: random.between(2, 12),
            random,
        }
    }

    /// The whole life of a node.
    pub fn run(&mut self) -> Result<Account, String> {
        for _ in 0..self.random.between(1, 4) {
            for _ in 0..self.random.between(50, 700) {
                self.happen()?;
            }
            self.settle()?;
            let is_done = |at: usize| self.clients[at].done || self.clients[at].closed.is_some();
            // Whom nobody speaks for any more may have said less than it meant to.
            let heard = self.clients.iter().filter(|client| !client.voice.is_some_and(is_done));
            for client in heard {
                let settled = client.check_settled(&self.ledger);
                settled.map_err(|error| self.of(client.number, &error))?;
            }
            self.count_present()?;
            self.count_users()?;
            self.count_grants()?;
        }
        self.finish()?;
        let slow = self.clients.iter().filter(|client| client.closed == Some(3008)).count();
        let told = self.control.told;
        Ok(Account { clients: self.clients.len(), seen: self.ledger.seen, slow, told })
    }

    /// Each grant belongs to a subscription of a connection that is there.
    fn count_grants(&self) -> Result<(), String> {
        for (at, shard) in self.shards.iter().enumerate() {
            let states = shard.hub.slots().map(|(slot, _)| shard.hub.state(slot));
            let subscriptions = states.flat_map(|state| state.subscriptions);
            let listed = subscriptions.filter(|found| found.grant.is_some()).count();
            let kept = shard.hub.resource_counts().grants;
            if listed != kept {
                return Err(format!("shard {at} keeps {kept} grants; {listed} are of somebody"));
            }
        }
        Ok(())
    }

    fn of(&self, client: usize, error: &str) -> String {
        let uni = if self.clients[client].uni { "unidirectional " } else { "" };
        format!("{uni}client {client} at step {}: {error}", self.steps)
    }

    /// One thing happens.
    fn happen(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.random.one_in(20) {
            let by = self.random.pick(&[1, 20, 150]);
            self.pass_time(by);
        }
        let live = self.clients.iter().filter(|client| !client.done).count();
        if live < self.clients_max && self.random.one_in(6) {
            self.come();
        }
        let shard = self.random.below(self.shards.len());
        for _ in 0..self.random.between(0, 6) {
            self.step_shard(shard)?;
        }
        self.step_control()?;
        let alive: Vec<usize> =
            (0..self.clients.len()).filter(|at| !self.clients[*at].done).collect();
        if !alive.is_empty() {
            let client = self.random.pick(&alive);
            self.act(client)?;
        }
        Ok(())
    }

    fn pass_time(&mut self, by: u64) {
        self.now += by;
        for (at, shard) in self.shards.iter().enumerate() {
            if shard.hub.next_due().is_some_and(|due| due <= self.now) {
                self.bus.asleep[at] = false;
            }
        }
    }

    fn step_control(&mut self) -> Result<(), String> {
        if self.bus.asleep[self.shards.len()] {
            return Ok(());
        }
        self.control.step(&mut self.bus, &mut self.random)
    }

    fn step_shard(&mut self, at: usize) -> Result<(), String> {
        if self.bus.asleep[at] {
            return Ok(());
        }
        let mut around = HomeContext {
            bus: &mut self.bus,
            clients: &mut self.clients,
            random: &mut self.random,
            now: self.now,
        };
        self.shards[at].step(&mut around)
    }

    // ---- clients -------------------------------------------------------------------------

    /// A client connects, perhaps with what another one knew.
    fn come(&mut self) {
        let shard = self.random.below(self.shards.len());
        let number = self.clients.len();
        let uni = self.random.one_in(4);
        let capacity = self.random.pick(&[150, 600, 5000, 100_000]);
        let mut client = Client::new(number, uni, self.channels, self.history, capacity);
        let Some((slot, generation)) = self.shards[shard].accept(number) else { return };
        (client.shard, client.slot, client.generation) = (shard, slot, generation);
        client.manners.may_be_slow = self.may_be_slow;
        client.manners.may_be_refused = self.limit.counts();
        client.user = self.random.below(self.tokens.len());
        if !uni && self.random.one_in(4) {
            (client.backend, client.sent_connect) = (true, true);
            return self.clients.push(client);
        }
        if self.random.one_in(2) && !self.clients.is_empty() {
            let before = &self.clients[self.random.below(self.clients.len())].views;
            for (view, before) in client.views.iter_mut().zip(before) {
                *view =
                    View { epoch: before.epoch.clone(), offset: before.offset, ..View::default() };
            }
        }
        if !uni && self.random.one_in(8) {
            self.clients.push(client);
            return self.come_as_stream(number);
        }
        let path = if uni { "uni_websocket" } else { "websocket" };
        let head = format!(
            "GET /connection/{path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\n{KEY}\r\n"
        );
        client.socket.input.extend(head.bytes());
        self.clients.push(client);
        if self.random.one_in(2) {
            self.connect(number);
        }
        self.tell(number, Event::Readable);
    }

    /// A client asks for a stream, and somebody else for it speaks.
    fn come_as_stream(&mut self, number: usize) {
        let shard = self.random.below(self.shards.len());
        let voice = self.clients.len();
        let mut other = Client::new(voice, false, self.channels, self.history, 100_000);
        let Some((slot, generation)) = self.shards[shard].accept(voice) else {
            return self.vanish(number);
        };
        (other.shard, other.slot, other.generation) = (shard, slot, generation);
        (other.backend, other.sent_connect) = (true, true);
        other.manners.may_be_slow = self.may_be_slow;
        self.clients.push(other);
        let client = &mut self.clients[number];
        (client.voice, client.sent_connect) = (Some(voice), true);
        let asked = Asked::Connect(self.tokens[client.user].clone());
        let mut lines = vec![client.command(asked, usize::MAX, 0, &mut self.ledger, self.steps)];
        lines.extend((0..self.random.between(0, 3)).map(|_| self.any_command(number)));
        self.clients[number].open_stream(&lines.join("\n"));
        self.tell(number, Event::Readable);
    }

    /// Some client says something, or another one for it.
    fn say(&mut self, at: usize, text: &str) {
        match (self.clients[at].voice, self.clients[at].session.clone()) {
            (None, _) => {
                self.clients[at].send_frame(1, text.as_bytes(), &mut self.random);
                self.tell(at, Event::Readable);
            }
            (Some(voice), Some(session)) => {
                self.clients[voice].speak(&session, text);
                self.tell(voice, Event::Readable);
            }
            (Some(_), None) => unreachable!("nobody speaks for a client without a session"),
        }
    }

    /// Whether somebody speaks for other clients: it stays until the end.
    fn is_voice(&self, at: usize) -> bool {
        self.clients.iter().any(|client| client.voice == Some(at))
    }

    /// The kernel tells the shard something about a client's socket.
    fn tell(&mut self, client: usize, event: Event) {
        let Client { shard, slot, generation, .. } = self.clients[client];
        self.shards[shard].events.push_back((event, slot, generation));
        self.bus.asleep[shard] = false;
    }

    fn connect(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.sent_connect = true;
        let text = if client.uni {
            for channel in 0..self.channels {
                if !self.proxied && self.random.one_in(2) {
                    let view = &client.views[channel];
                    let since = (!view.epoch.is_empty()).then_some(view.offset);
                    client.wanted.push((channel, since));
                }
            }
            let subs: Vec<String> = client
                .wanted
                .iter()
                .map(|(channel, since)| match since {
                    None => format!(r#""c{channel}":{{}}"#),
                    Some(offset) => format!(
                        r#""c{channel}":{{"recover":true,"epoch":"{}","offset":{offset}}}"#,
                        client.views[*channel].epoch
                    ),
                })
                .collect();
            let token = &self.tokens[client.user];
            format!(r#"{{"token":"{token}","subs":{{{}}}}}"#, subs.join(","))
        } else {
            let token = self.tokens[client.user].clone();
            client.command(Asked::Connect(token), usize::MAX, 0, &mut self.ledger, self.steps)
        };
        client.send_frame(1, text.as_bytes(), &mut self.random);
    }

    fn act(&mut self, at: usize) -> Result<(), String> {
        match self.random.below(24) {
            0..=8 => self.send(at),
            9..=17 if !self.clients[at].stalled => {
                let limit = self.random.pick(&[10, 100, 100_000]);
                self.read(at, limit)?;
            }
            18 if self.random.one_in(4) => {
                let client = &mut self.clients[at];
                client.stalled = !client.stalled;
            }
            19 if self.random.one_in(4) && !self.is_voice(at) => self.close(at),
            20 if self.random.one_in(4) && !self.is_voice(at) => self.vanish(at),
            21 if self.random.one_in(8) => self.be_rude(at),
            22 if !self.clients[at].backend && self.clients[at].voice.is_none() => {
                let client = &mut self.clients[at];
                client.send_frame(9, b"p", &mut self.random);
                self.tell(at, Event::Readable);
            }
            _ => {}
        }
        Ok(())
    }

    /// A frame with some commands.
    fn send(&mut self, at: usize) {
        if self.clients[at].manners.said_close || self.clients[at].closed.is_some() {
            return;
        }
        if !self.clients[at].sent_connect {
            self.connect(at);
        } else if self.is_voice(at) || self.awaits_session(at) {
            return;
        } else if self.clients[at].backend {
            self.call(at);
        } else if !self.clients[at].uni {
            let many = self.random.one_in(40) && self.clients[at].voice.is_none();
            let count = if many { 100 } else { self.random.between(1, 4) };
            let lines: Vec<String> = (0..count).map(|_| self.any_command(at)).collect();
            let text = lines.join("\n");
            return self.say(at, &text);
        }
        self.tell(at, Event::Readable);
    }

    fn awaits_session(&self, at: usize) -> bool {
        self.clients[at].voice.is_some() && self.clients[at].session.is_none()
    }

    /// Some calls, one behind the other.
    fn call(&mut self, at: usize) {
        for _ in 0..self.random.between(1, 4) {
            let channel = self.random.below(self.channels);
            let pad = self.random.pick(&[0, 10, 100]);
            self.clients[at].call(channel, pad, &mut self.ledger, self.steps);
        }
    }

    fn any_command(&mut self, at: usize) -> String {
        let channel = self.random.below(self.channels);
        let client = &mut self.clients[at];
        let view = &client.views[channel];
        let asked = match self.random.below(8) {
            0..=3 => Asked::Publish(0),
            4 => Asked::Unsubscribe,
            _ if self.random.one_in(2) && !view.epoch.is_empty() => {
                Asked::Subscribe(Some(view.offset))
            }
            _ => Asked::Subscribe(None),
        };
        let pad = self.random.pick(&[0, 0, 10, 100, 400]);
        client.command(asked, channel, pad, &mut self.ledger, self.steps)
    }

    fn read(&mut self, at: usize, limit: usize) -> Result<(), String> {
        let client = &mut self.clients[at];
        let result = client.read(limit, &mut self.ledger, self.steps);
        result.map_err(|error| self.of(at, &error))?;
        let socket = &mut self.clients[at].socket;
        if socket.awaited && socket.output.len() * 3 <= socket.capacity * 2 {
            socket.awaited = false;
            self.tell(at, Event::Writable);
        }
        let client = &self.clients[at];
        if client.closed.is_some() && !client.manners.said_close && self.random.one_in(3) {
            self.close(at);
        }
        Ok(())
    }

    fn close(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if !std::mem::replace(&mut client.manners.said_close, true) {
            if client.backend || client.voice.is_some() {
                client.socket.ended = true;
            } else {
                client.send_frame(8, &1000u16.to_be_bytes(), &mut self.random);
            }
            self.tell(at, Event::Readable);
        }
    }

    fn vanish(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let socket = &mut client.socket;
        (socket.vanished, socket.ended, client.done) = (true, true, true);
        let awaited = std::mem::take(&mut socket.awaited);
        let writable_first = self.random.one_in(2);
        if awaited && writable_first {
            self.tell(at, Event::Writable);
        }
        self.tell(at, Event::Readable);
        if awaited && !writable_first {
            self.tell(at, Event::Writable);
        }
    }

    fn be_rude(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let is_client = !client.uni && !client.backend;
        if is_client && client.sent_connect && !client.manners.said_close {
            if self.awaits_session(at) {
                return;
            }
            self.clients[at].manners.rude = true;
            self.say(at, r#"{"id":9999,"subscribe":{}}"#);
        }
    }

    // ---- rest ----------------------------------------------------------------------------

    /// Whether publications wait for others to go out with.
    fn is_waiting(&self) -> bool {
        self.shards.iter().any(|shard| shard.hub.resource_counts().backlog > 0)
    }

    /// Nobody does anything new, and everybody reads, until nothing moves any more.
    fn settle(&mut self) -> Result<(), String> {
        for client in &mut self.clients {
            client.stalled = false;
        }
        for _ in 0..ROUNDS_MAX {
            self.steps += 1;
            let mut moved = false;
            for at in 0..self.clients.len() {
                let client = &self.clients[at];
                let socket = &client.socket;
                if !client.done && (!socket.output.is_empty() || socket.shut || socket.awaited) {
                    moved = true;
                    let limit = self.random.pick(&[50, 100_000]);
                    self.read(at, limit)?;
                }
            }
            for at in 0..self.shards.len() {
                moved |= !self.bus.asleep[at];
                for _ in 0..self.random.between(1, 9) {
                    self.step_shard(at)?;
                }
            }
            moved |= !self.bus.asleep[self.shards.len()];
            self.step_control()?;
            if !moved && self.is_waiting() {
                self.pass_time(WINDOW_MAX);
            } else if !moved {
                return Ok(());
            }
        }
        Err(format!("no rest after {ROUNDS_MAX} rounds"))
    }

    /// Where it is known who is in a channel, as many are known as there are.
    fn count_present(&mut self) -> Result<(), String> {
        let askers = self
            .clients
            .iter()
            .filter(|client| client.is_there() && !client.uni && client.voice.is_none());
        let Some(at) = askers.map(|client| client.number).next().filter(|_| self.presence) else {
            return Ok(());
        };
        for channel in 0..self.channels {
            let (ledger, client) = (&mut self.ledger, &mut self.clients[at]);
            let text = client.command(Asked::Stats, channel, 0, ledger, self.steps);
            self.say(at, &text);
            self.settle()?;
            // A ping may have closed one that is too slow meanwhile; such a count is too old.
            let there = |client: &&Client| client.is_there() && client.views[channel].subscribed;
            let expected = self.clients.iter().filter(there).count() as u64;
            let counted = self.clients[at].counted.take();
            if self.clients[at].is_there() && counted != Some(expected) {
                let told = format!("{counted:?} counted in c{channel}, {expected} are there");
                return Err(self.of(at, &told));
            }
        }
        Ok(())
    }

    /// No user that is somebody has more connections than it may.
    fn count_users(&self) -> Result<(), String> {
        let most = match self.limit {
            UserLimit { single: true, .. } => 1,
            UserLimit { most: 0, .. } => usize::MAX,
            UserLimit { most, .. } => most,
        };
        for user in 0..self.tokens.len() - 1 {
            let there = |client: &&Client| client.is_there() && client.user == user;
            let count = self.clients.iter().filter(there).count();
            if count > most {
                return Err(format!("user {user} has {count} connections, {most} may be"));
            }
        }
        Ok(())
    }

    /// Everybody goes, and nothing may remain.
    fn finish(&mut self) -> Result<(), String> {
        for at in 0..self.clients.len() {
            match self.clients[at].done {
                false if self.random.one_in(2) => self.close(at),
                false => self.vanish(at),
                true => {}
            }
            for _ in 0..self.random.between(0, 20) {
                let shard = self.random.below(self.shards.len());
                self.step_shard(shard)?;
            }
        }
        self.settle()?;
        for by in [6_000, 200_000, 2_000, 2_000] {
            self.pass_time(by);
            self.bus.asleep.fill(false);
            self.settle()?;
        }
        for (at, shard) in self.shards.iter().enumerate() {
            let remains = shard.hub.resource_counts();
            if remains != ResourceCounts::default() || shard.is_stalled() {
                let slots: Vec<_> = shard.hub.slots().collect();
                return Err(format!("shard {at} at the end: {remains:?} {slots:?}"));
            }
        }
        self.check_told()?;
        match self.bus.taken() {
            0 => Ok(()),
            taken => Err(format!("{taken} messages or reservations are left on the bus")),
        }
    }

    /// Everything that the backend was to be told was told, and every client's end with it.
    fn check_told(&self) -> Result<(), String> {
        let sum = |of: fn(&Metrics) -> u64| self.metrics.iter().map(|one| of(one)).sum::<u64>();
        let (noted, dropped) =
            (sum(|one| one.hook_events.get()), sum(|one| one.hook_events_dropped.get()));
        if dropped > 0 || noted != self.control.told {
            let told = self.control.told;
            return Err(format!("{told} of {noted} ends were told, {dropped} dropped"));
        }
        for client in self.clients.iter().filter(|client| client.connected && self.hooked) {
            let life = (client.shard, client.slot, client.generation);
            if !self.control.has_ended(life) {
                return Err(self.of(client.number, "its end was not told"));
            }
        }
        Ok(())
    }
}
