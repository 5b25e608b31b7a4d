//! The control plane: everything of a node except push connections, on tokio.
//!
//! Owns the HTTP side (API, pages, metrics, health), requests to the backend, slow verification of
//! tokens, signals and the shutdown. Never touches a connection of a shard: it exchanges messages
//! with shards over the bus. The invariant: the data plane never waits for the control plane.

pub mod acme;
mod admin;
pub mod api;
mod backend;
mod certificates;
pub mod http;
mod metrics;
mod pages;
pub mod signals;
mod tokens;

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

use self::acme::Acme;
use self::backend::client::client;
use self::backend::hooks::Hooks;
use self::backend::proxies::Proxies;
use self::backend::targets::Backend;
use self::http::connections::{HttpConnections, HttpOptions, IdleTimes};
use self::http::return_to_shard::{PushAdmission, with_push_routes};
use self::metrics::Source;
use self::metrics::api_calls::ApiCalls;
use self::signals::Signals;
use self::tokens::verifier::TokenVerifier;
use crate::base::connection_limits::ConnectionLimits;
use crate::base::log;
use crate::base::sys;
use crate::config::Config;
use crate::engine::node::Node;
use crate::feeds::feed::{Destination, FeedState};
use crate::feeds::start::PreparedFeeds;
use crate::link::Link;
use crate::model::message::{Lookup, LookupRequest, Message};
use crate::tls::Tls;
use crate::wire::http::loopback::{Foreign, foreign, is_loopback};

/// Pause between two checks whether all sockets are closed.
const DRAIN_CHECK_PAUSE: Duration = Duration::from_millis(50);
/// Maximum time to finish HTTP requests after every push connection is closed.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The control plane of a node, ready to run.
pub struct Control {
    config: Arc<Config>,
    link: Arc<Link>,
    admission: PushAdmission,
    internal: Option<TcpListener>,
    feeds: PreparedFeeds,
    tls: Tls,
    acme: Option<Acme>,
    /// Refuse requests of other machines.
    local: bool,
}

impl Control {
    /// The control plane of `node`. The node's bell for the control plane must call
    /// `bell.notify_one()`. With `local`, requests of other machines are refused.
    ///
    /// # Errors
    /// The internal port cannot be bound.
    pub fn new(
        config: Arc<Config>,
        node: &Node,
        bell: Arc<Notify>,
        tls: Tls,
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
        let link =
            Arc::new(Link::new(bus, node.names, metrics, node.budgets.clone(), (bell, node.clock)));
        let admission = PushAdmission { limits: node.connection_limits.clone(), clock: node.clock };
        let feeds = PreparedFeeds::default();
        Ok(Control { config, link, admission, internal, feeds, tls, acme: None, local })
    }

    /// Adds the feeds of the node, which begin to publish when the control plane runs.
    pub fn with_feeds(mut self, feeds: PreparedFeeds) -> Self {
        self.feeds = feeds;
        self
    }

    /// Adds the requests for certificates, which begin when the control plane runs.
    pub fn with_acme(mut self, acme: Option<Acme>) -> Self {
        self.acme = acme;
        self
    }

    /// Address of the internal port; `None`: the public port serves everything.
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until a signal begins the shutdown, and then until every connection is closed or
    /// `shutdown.timeout` is over. A second signal ends the process at once.
    pub async fn run(self, mut signals: Signals) -> io::Result<()> {
        let (stop, stopped) = watch::channel(());
        let Control { config, link, admission, internal, feeds, tls, acme, local } = self;
        let client = client(tls.clients.default.clone(), "");
        let backend = Arc::new(Backend::new(&config, &client, &tls.clients));
        let proxies = Proxies::new(link.clone(), backend.clone());
        let hooks = Arc::new(Hooks::start(&config, backend));
        let feeds = feeds.start(&destination(&config, &link));
        let calls = Arc::new(ApiCalls::new(api::METHODS));
        let mut sources = metric_sources(&link, &proxies, &hooks, &calls, feeds.states());
        let stores = tls.ports.stores();
        tokio::spawn(certificates::watch(stores.clone()));
        sources.push(Box::new(move |names| certificates::families(&stores, names)));
        if let Some(acme) = acme {
            let counters = acme.counters();
            sources.push(Box::new(move |names| names.families(&counters.metrics())));
            acme.start(&config, stopped.clone())?;
        }
        let inner = inner_router(&config, &link, sources)
            .merge(admin::router(&config, &link, &calls, &stopped));
        let api = api::router(&config, &link, &calls);
        let has_public_api = internal.is_none() || config.http_api.external;
        let (public, inner) = match (internal.is_some(), has_public_api) {
            (false, _) => (inner.clone().merge(api), inner),
            (true, true) => (api, inner),
            (true, false) => (Router::new(), inner.merge(api)),
        };
        let public = with_push_routes(public, &config, &link, admission);
        let [public, inner] = [public, inner]
            .map(|router| if local { refuse_other_machines(router) } else { router });
        let public = HttpConnections::new(http_options(&config, public, false), stopped.clone());
        let inner = HttpConnections::new(http_options(&config, inner, true), stopped);
        let verifier = TokenVerifier::new(link.clone(), &config, &client);
        let dispatcher =
            tokio::spawn(dispatch(link.clone(), public.clone(), verifier, proxies, hooks.clone()));
        if let Some(listener) = internal {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let places = config.http_server.internal_connections_max as u64;
            let limits = Arc::new(ConnectionLimits::default().with_control_max(places));
            let tls = tls.ports.internal.map(|port| port.config);
            tokio::spawn(inner.clone().listen(listener, limits, tls));
        }
        signals.end().await;
        tokio::spawn(async move {
            signals.end().await;
            std::process::exit(1);
        });
        let end = Instant::now() + config.shutdown.timeout.0;
        feeds.stop().await;
        drain(&config, &link, end).await;
        let undelivered = hooks.wait_until_delivered(&link, end).await;
        if undelivered > 0 {
            let cause =
                format_args!("{undelivered} hook events were not delivered before the timeout");
            log::warn("hooks", format_args!("{cause}; raise shutdown.timeout"));
        }
        drop(stop);
        let answered = async { tokio::join!(public.closed(), inner.closed()) };
        let _ = tokio::time::timeout(LAST_ANSWERS, answered).await;
        dispatcher.abort();
        Ok(())
    }
}

/// The node as its feeds use it.
fn destination(config: &Arc<Config>, link: &Arc<Link>) -> Destination {
    Destination {
        link: link.clone(),
        namespaces: config.namespaces(),
        publication_max: config.client.queue_max_size,
        commands: api::feed_commands(config, link),
    }
}

/// Passes messages of the shards to the parts of the control plane, as long as the process runs.
async fn dispatch(
    link: Arc<Link>,
    public: HttpConnections,
    verifier: TokenVerifier,
    proxies: Proxies,
    hooks: Arc<Hooks>,
) {
    let look_up = |LookupRequest { address, lookup }| match lookup {
        Lookup::Token { token, purpose, charge } => {
            verifier.verify(address, token, purpose, charge);
        }
        Lookup::Command(request) => proxies.ask(address, request),
        Lookup::Renewal(request) => proxies.renew(address, request),
    };
    link.dispatch(|socket| public.serve_handed_over(socket), look_up, |event| hooks.enqueue(event))
        .await;
}

/// Configured address of the internal port; `None`: no internal port is configured.
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

/// Options of the connections to a router, on the internal or the public port.
fn http_options(config: &Config, router: Router, internal: bool) -> HttpOptions {
    let server = &config.http_server;
    let anonymous = if internal { server.idle_timeout } else { server.anonymous_idle_timeout };
    HttpOptions {
        router,
        times: IdleTimes { idle: server.idle_timeout.0, anonymous: anonymous.0 },
        limits: config.head_limits(),
    }
}

/// The routes of the internal port, except the API. Without an internal port, the public port
/// serves them.
fn inner_router(config: &Arc<Config>, link: &Arc<Link>, sources: Vec<Source>) -> Router {
    let router = metrics::router(config, link, sources)
        .merge(pages::swagger::router(config))
        .merge(pages::page::router(config));
    if config.health.enabled {
        let path = config.health.handler_prefix.as_str();
        router.route(path, axum::routing::get(health))
    } else {
        router
    }
}

/// The metrics of the parts of the control plane.
fn metric_sources(
    link: &Arc<Link>,
    proxies: &Proxies,
    hooks: &Arc<Hooks>,
    calls: &Arc<ApiCalls>,
    feeds: Vec<Arc<FeedState>>,
) -> Vec<Source> {
    let (link, proxies, hooks, calls) =
        (link.clone(), proxies.clone(), hooks.clone(), calls.clone());
    vec![
        Box::new(move |names| proxies.families(names)),
        Box::new(move |names| names.families(&hooks.metrics())),
        Box::new(move |names| calls.families(link.metrics(), names)),
        Box::new(move |names| metrics::feeds(&feeds, names)),
    ]
}

/// Refuses requests that do not come from this machine, see [`foreign`].
fn refuse_other_machines(router: Router) -> Router {
    router.layer(from_fn(async |request: Request, next: Next| {
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
        let target = request.uri().authority().map(|target| target.as_str());
        let other_host = target.filter(|target| !is_loopback(target)).map(|_| Foreign::Host);
        match foreign(headers).or(other_host) {
            Some(refused) => (StatusCode::FORBIDDEN, refused.to_string()).into_response(),
            None => next.run(request).await,
        }
    }))
}

async fn health() -> impl IntoResponse {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], "{}")
}

/// Tells every shard to close its connections. Waits until they are closed, or until `end`.
async fn drain(config: &Config, link: &Link, end: Instant) {
    for shard in link.shards() {
        let mut message = Message::Drain(config.shutdown.spread.millis());
        while let Err(refused) = link.send(shard, message).await {
            message = refused;
            if Instant::now() >= end {
                return;
            }
        }
    }
    while link.sum(|metrics| metrics.sockets.get()) > 0 && Instant::now() < end {
        sleep(DRAIN_CHECK_PAUSE).await;
    }
}
