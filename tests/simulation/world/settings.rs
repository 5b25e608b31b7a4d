//! Random settings of a simulated node.

use std::sync::Arc;

use drumline::base::memory::{MemoryKind, MemoryLimits};
use drumline::home;
use drumline::home::users::UserLimit;
use drumline::hub::{CommandLimit, HubSettings, TokenVerifiers};
use drumline::model::auth::{ApiKey, Rules};
use drumline::model::backend::{Upstream, Upstreams};
use drumline::model::namespaces::{Namespaces, Options, Pace};
use drumline::model::retention::Retention;
use drumline::model::token::{self, Verifier};
use drumline::wire::http::{Route, Service, Transport};

use crate::ledger::Terms;
use crate::random::Random;

/// Maximum milliseconds that a publication waits in a batch.
pub const WINDOW_MAX: u64 = 100;
/// The one address of the backend.
const UPSTREAM: Upstream = Upstream(0);

/// Paths that the clients of the simulation request.
const ROUTES: [(&str, Service); 5] = [
    ("/connection/websocket", Service::Transport(Transport::WebSocket)),
    ("/connection/uni_websocket", Service::Transport(Transport::UniWebSocket)),
    ("/connection/http_stream", Service::Transport(Transport::HttpStream)),
    ("/emulation", Service::Emulation),
    ("/api/publish", Service::Publish),
];

pub fn tokens() -> token::TokenSettings {
    token::TokenSettings { hmac_secret_key: "secret".into(), ..token::TokenSettings::default() }
}

/// Retention of every channel: none, in memory, or durable.
fn retention(random: &mut Random) -> Option<Retention> {
    let (history, durable) = (random.one_in(2), random.one_in(2));
    let retention = Retention {
        size: random.pick(&[2, 5, 100]),
        ttl: if durable { random.pick(&[2_000, 60_000]) } else { random.pick(&[300, 60_000]) },
        meta_ttl: 120_000,
        durable,
    };
    (history || durable).then_some(retention)
}

/// Options of every channel.
fn options(random: &mut Random, retention: Option<Retention>) -> Options {
    Options {
        retention,
        force_recovery: retention.is_some(),
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

/// A limit of commands that delays the clients of the simulation by milliseconds, or none.
fn command_limit(random: &mut Random) -> CommandLimit {
    let limited = random.one_in(4);
    let (rate, burst) = (random.pick(&[500, 5000]), random.pick(&[1, 5]));
    if limited { CommandLimit { rate, burst } } else { CommandLimit::default() }
}

/// Other settings for the same node. The serial of the settings stands in a limit that the clients
/// of the simulation do not reach. What the checks of the simulation build on stays.
pub fn changed(random: &mut Random, before: &HubSettings) -> HubSettings {
    let kept = &before.namespaces.without;
    let is_durable = kept.retention.is_some_and(|retention| retention.durable);
    // The ledger knows the terms of durable channels.
    let retention = match (is_durable, retention(random)) {
        (false, Some(other)) => kept.retention.map(|_| Retention {
            durable: false,
            ttl: other.ttl.min(60_000),
            ..other
        }),
        _ => kept.retention,
    };
    let without = Options { subscribe_proxy: kept.subscribe_proxy, ..options(random, retention) };
    let recovery_limit = random.pick(&[3, 1000]);
    let recovery_limit = if is_durable { before.homes.recovery_limit } else { recovery_limit };
    let namespaces = Arc::new(Namespaces { without, ..Namespaces::default() });
    let homes = before.homes.clone();
    HubSettings {
        namespaces: namespaces.clone(),
        position_check_delay: random.pick(&[0, 1_000]),
        homes: home::HomeSettings { recovery_limit, namespaces, ..homes },
        // Of these, a shard keeps what it began with.
        slots: 1,
        backlog_bytes: 1,
        ping_interval: 1,
        history_limit: before.history_limit + 1,
        command_limit: command_limit(random),
        ..before.clone()
    }
}

/// Settings of the next process of a node with a store. The memory for histories may be so small
/// that streams leave it.
pub fn restarted(random: &mut Random, before: &HubSettings) -> HubSettings {
    let changed = changed(random, before);
    HubSettings {
        homes: home::HomeSettings { streams_max: streams_max(random, true), ..changed.homes },
        budgets: durable_budgets(random, before.budgets),
        slots: random.between(2, 6),
        backlog_bytes: random.pick(&[0, 200, 1 << 20]),
        ping_interval: before.ping_interval.max(2_000),
        ..changed
    }
}

fn streams_max(random: &mut Random, is_durable: bool) -> usize {
    if is_durable { random.pick(&[1, 2, 1000]) } else { 1000 }
}

/// Budgets of histories and of what waits for the store.
fn durable_budgets(random: &mut Random, before: MemoryLimits) -> MemoryLimits {
    before
        .with(MemoryKind::History, random.pick(&[1 << 30, 3_000, 10_000]))
        .with(MemoryKind::Stored, random.pick(&[1 << 30, 1 << 30, 5_000]))
}

/// Settings of a node, and what follows from them for the checks.
pub struct Plan {
    pub settings: HubSettings,
    pub terms: Terms,
    /// The clients may be too slow.
    pub may_be_slow: bool,
}

fn proxies(random: &mut Random) -> Upstreams {
    Upstreams {
        connect: random.one_in(4).then_some(UPSTREAM),
        disconnect_hook: random.one_in(2).then_some(UPSTREAM),
        waiting_max: 1 << 20,
        ..Upstreams::default()
    }
}

/// Random settings.
pub fn random(random: &mut Random) -> Plan {
    let may_be_slow = random.one_in(3);
    let retention = retention(random);
    let durable = retention.is_some_and(|retention| retention.durable);
    let without = options(random, retention);
    let mut user_limit = UserLimit::default();
    if random.one_in(3) {
        user_limit = UserLimit { most: random.pick(&[1, 2, 3]), single: random.one_in(3) };
    }
    let proxies = proxies(random);
    let namespaces = Arc::new(Namespaces { without, ..Namespaces::default() });
    let homes = home::HomeSettings {
        namespaces: namespaces.clone(),
        recovery_limit: random.pick(&[3, 1000]),
        answer_bytes: if durable { random.pick(&[1_500, 1 << 20]) } else { 20_000 },
        streams_max: streams_max(random, durable),
    };
    let mut budgets = MemoryLimits::all(1 << 30);
    if may_be_slow {
        budgets = budgets
            .with(MemoryKind::Outboxes, random.between(1000, 5000))
            .with(MemoryKind::Unread, random.pick(&[1 << 30, 1000, 5000]));
    }
    if durable {
        budgets = durable_budgets(random, budgets);
    }
    let terms = Terms {
        history: retention.is_some(),
        durable,
        size: retention.map_or(0, |retention| retention.size),
        ttl: retention.map_or(0, |retention| retention.ttl),
        meta_ttl: retention.map_or(0, |retention| retention.meta_ttl),
        recovery_limit: homes.recovery_limit,
        answer_bytes: homes.answer_bytes,
    };
    let verifier = Arc::new(Verifier::new(&tokens()).expect("nothing is wrong"));
    let settings = HubSettings {
        rules: Rules { insecure: true, ..Rules::default() },
        namespaces,
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
        api: ApiKey { key: "secret".into(), ..ApiKey::default() },
        homes: homes.clone(),
        slots: random.between(2, 6),
        outbox_bytes: if may_be_slow { random.between(300, 3000) } else { 1 << 30 },
        budgets,
        backlog_bytes: random.pick(&[0, 200, 1 << 20]),
        channel_limit: 100,
        user_limit,
        position_check_delay: random.pick(&[0, 1_000]),
        ping_interval: 2_000,
        head_timeout: 100_000,
        stale_close_delay: 100_000,
        close_timeout: 5_000,
        command_limit: command_limit(random),
        ..HubSettings::default()
    };
    Plan { settings, terms, may_be_slow }
}
