//! The control plane: everything of a node that is not a push connection, on tokio.
//!
//! Owns the HTTP side (API, page, metrics, health), signals and the way out. Never touches a
//! connection of a shard: it speaks to shards by the bus alone. The invariant: whatever comes
//! here, the data plane never waits for it.

pub mod api;
pub mod backend;
pub mod http_connections;
pub mod endpoint;
pub mod idle_connections;
pub mod handover;
pub mod hooks;
pub mod keys;
pub mod metrics;
pub mod page;
pub mod descriptor_shares;
pub mod proxies;
pub mod signals;
mod refusal;
pub mod swagger;
pub mod token_verifier;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use self::backend::Backend;
use self::handover::Entry;
use self::hooks::Hooks;
use self::http_connections::{HttpConnections, HttpOptions};
use self::idle_connections::Times;
use self::proxies::Proxies;
use self::signals::Signals;
use self::token_verifier::TokenVerifier;
use crate::base::connection_limits::ConnectionLimits;
use crate::base::log;
use crate::base::sys;
use crate::config::Config;
use crate::engine::node::Node;
use crate::link::Link;
use crate::model::message::{Lookup, LookupRequest, Message};
use crate::wire::http::loopback::{Foreign, foreign, is_loopback};

/// Between two looks at whether connections are drained.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// How long requests that are being answered may take once everything else is down.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The control plane of a node, ready to run.
pub struct Control {
    config: Arc<Config>,
    link: Arc<Link>,
    entry: Entry,
    internal: Option<TcpListener>,
    /// Whether requests of other machines are refused.
    local: bool,
}

impl Control {
    /// The control plane of `node`, whose bell for it must call `bell.notify_one()`. With `local`
    /// requests of other machines are refused. Fails where the internal port cannot be listened on.
    pub fn new(
        config: Arc<Config>,
        node: &Node,
        bell: Arc<Notify>,
        local: bool,
    ) -> io::Result<Self> {
        let internal = match internal_address(&config) {
            Some(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Some(listener)
            }
            None => None,
        };
        let (bus, metrics) = (node.bus.clone(), node.metrics.clone());
        let link = Arc::new(Link::new(bus, node.names, metrics, node.budgets.clone(), bell));
        let entry = Entry { gate: node.connection_limits.clone(), clock: node.clock };
        Ok(Control { config, link, entry, internal, local })
    }

    /// Where the internal port is, if there is one.
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until a signal ends it and every connection is drained or has had its time. A
    /// second signal ends the process at once.
    pub async fn run(self, mut signals: Signals) -> io::Result<()> {
        let (stop, stopped) = watch::channel(());
        let Control { config, link, entry, internal, local } = self;
        let client = backend::client();
        let backend = Arc::new(Backend::new(&config, &client));
        let proxies = Proxies::new(link.clone(), backend.clone());
        let hooks = Arc::new(Hooks::start(&config, backend));
        let inner = inner_router(&config, &link, &proxies, &hooks);
        let public = if internal.is_some() { Router::new() } else { inner.clone() };
        let public = handover::with_push_paths(public, &config, &link, entry);
        let [public, inner] = [public, inner]
            .map(|router| if local { of_this_machine_alone(router) } else { router });
        let door = HttpConnections::new(terms(&config, public, false), stopped.clone());
        let inner = HttpConnections::new(terms(&config, inner, true), stopped);
        let dispatcher = {
            let (link, door, hooks) = (link.clone(), door.clone(), hooks.clone());
            let keeper = TokenVerifier::new(link.clone(), &config, &client);
            tokio::spawn(async move {
                let consult = |LookupRequest { address, lookup }| match lookup {
                    Lookup::Token { token, purpose, charge } => {
                        keeper.look_at(address, token, purpose, charge);
                    }
                    Lookup::Command(request) => proxies.ask(address, request),
                    Lookup::Renewal(request) => proxies.renew(address, request),
                };
                link.dispatch(|socket| door.let_in(socket), consult, |news| hooks.tell(news)).await
            })
        };
        if let Some(listener) = internal {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let places = config.http_server.internal_connections_max as u64;
            let gate = Arc::new(ConnectionLimits::default().with_places(places));
            tokio::spawn(inner.clone().listen(listener, gate));
        }
        signals.end().await;
        tokio::spawn(async move {
            signals.end().await;
            std::process::exit(1);
        });
        let end = Instant::now() + config.shutdown.timeout.0;
        drain(&config, &link, end).await;
        let untold = hooks.settled(&link, end).await;
        if untold > 0 {
            let what = format_args!("{untold} hook events were not delivered before the timeout");
            log::warn("hooks", format_args!("{what}; raise shutdown.timeout"));
        }
        drop(stop);
        let answered = async { tokio::join!(door.closed(), inner.closed()) };
        let _ = tokio::time::timeout(LAST_ANSWERS, answered).await;
        dispatcher.abort();
        Ok(())
    }
}

/// Where the internal port is, if there is one.
fn internal_address(config: &Config) -> Option<SocketAddr> {
    let server = &config.http_server;
    let text = match server.internal_address.as_str() {
        "" => &server.address,
        _ => &server.internal_address,
    };
    (server.internal_port != 0)
        .then(|| sys::listen_address(text, server.internal_port).ok())
        .flatten()
}

/// On what terms a router is reached.
fn terms(config: &Config, router: Router, internal: bool) -> HttpOptions {
    let server = &config.http_server;
    let anonymous = if internal { server.idle_timeout } else { server.anonymous_idle_timeout };
    HttpOptions {
        router,
        api: config.http_api.handler_prefix.clone(),
        times: Times { idle: server.idle_timeout.0, anonymous: anonymous.0 },
        limits: config.head_limits(),
    }
}

/// What is served on the internal port, or else on the public one.
fn inner_router(
    config: &Arc<Config>,
    link: &Arc<Link>,
    proxies: &Proxies,
    hooks: &Arc<Hooks>,
) -> Router {
    let (proxies, hooks) = (proxies.clone(), hooks.clone());
    let samples = move || [proxies.samples(), hooks.samples()].concat();
    let router = api::router(config, link)
        .merge(metrics::router(config, link, samples))
        .merge(swagger::router(config))
        .merge(page::router(config));
    if config.health.enabled {
        let path = config.health.handler_prefix.as_str();
        router.route(path, axum::routing::get(health))
    } else {
        router
    }
}

/// Refuses requests that do not come from this machine, see [`foreign`].
fn of_this_machine_alone(router: Router) -> Router {
    router.layer(from_fn(async |request: Request, next: Next| {
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
        let target = request.uri().authority().map(|target| target.as_str());
        let elsewhere = target.filter(|target| !is_loopback(target)).map(|_| Foreign::Host);
        match foreign(headers).or(elsewhere) {
            Some(refused) => (StatusCode::FORBIDDEN, refused.to_string()).into_response(),
            None => next.run(request).await,
        }
    }))
}

async fn health() -> impl IntoResponse {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], "{}")
}

/// Tells every shard to close its connections and waits until they have, or until `end`.
async fn drain(config: &Config, link: &Link, end: Instant) {
    for shard in link.shards() {
        let mut message = Message::Drain(config.shutdown.spread.millis());
        while let Err(refused) = link.tell(shard, message).await {
            message = refused;
            if Instant::now() >= end {
                return;
            }
        }
    }
    while link.sum(|metrics| metrics.sockets.get()) > 0 && Instant::now() < end {
        sleep(DRAIN_LOOK).await;
    }
}
