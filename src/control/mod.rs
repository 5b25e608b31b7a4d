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
mod health;
pub mod http;
pub mod kept;
mod metrics;
mod pages;
pub mod reload;
pub mod revocation_log;
mod shutdown;
pub mod signals;
pub mod snapshot;
mod tokens;
pub mod traces;
mod watchdog;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use tokio::sync::{Notify, Semaphore, watch};

use self::acme::Acme;
use self::backend::client::client;
use self::backend::hook_log::{HookLog, RestoredEvent};
use self::backend::hooks::Hooks;
use self::backend::proxies::Proxies;
use self::backend::targets::Backend;
use self::http::connections::{HttpConnections, HttpOptions};
use self::http::return_to_shard::{PushAdmission, with_push_routes};
use self::kept::Kept;
use self::metrics::Source;
use self::metrics::api_calls::ApiCalls;
use self::reload::reloader::{Load, Parts, Reloader, Shards};
use self::reload::socket::ReloadSocket;
use self::signals::Signals;
use self::snapshot::SnapshotPlan;
use self::tokens::verifier::TokenVerifier;
use self::traces::{TraceOptions, Tracer, Traces};
use crate::base::connection_limits::ConnectionLimits;
use crate::base::current::Current;
use crate::base::notify;
use crate::base::store_metrics::StoreMetrics;
use crate::base::sys;
use crate::base::vitals::Vitals;
use crate::config::{Config, Loaded};
use crate::engine::node::Node;
use crate::feeds::feed::{Destination, DestinationOptions, FeedState};
use crate::feeds::start::PreparedFeeds;
use crate::link::Link;
use crate::model::message::{Lookup, LookupRequest};
use crate::tls::Tls;
use crate::wire::http::loopback::{Foreign, foreign, is_loopback};

/// Maximum time to finish HTTP requests after every push connection is closed.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Maximum time to send the last spans.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// The control plane of a node, ready to run.
pub struct Control {
    config: Arc<Config>,
    link: Arc<Link>,
    admission: PushAdmission,
    vitals: Arc<Vitals>,
    internal: Option<TcpListener>,
    feeds: PreparedFeeds,
    tls: Tls,
    acme: Option<Acme>,
    traces: Option<TraceOptions>,
    /// Metrics of the store, if there is one.
    store: Option<Arc<StoreMetrics>>,
    snapshot: SnapshotPlan,
    kept: Kept,
    /// Refuse requests of other machines.
    local: bool,
    shards: Shards,
    reload: Option<(Load, Loaded)>,
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
        let endless = config.http_server.connections_max.div_ceil(2);
        let admission = PushAdmission {
            limits: node.connection_limits.clone(),
            vitals: node.vitals.clone(),
            clock: node.clock,
            endless_permits: Arc::new(Semaphore::new(endless)),
        };
        let (feeds, shards) = (PreparedFeeds::default(), Shards::of(node));
        let (acme, traces, reload, store) = (None, None, None, None);
        let vitals = node.vitals.clone();
        Ok(Control {
            config,
            link,
            admission,
            vitals,
            internal,
            feeds,
            tls,
            acme,
            traces,
            store,
            snapshot: SnapshotPlan::default(),
            kept: Kept::default(),
            local,
            shards,
            reload,
        })
    }

    /// Lets the node reload by `load` what was loaded at the start.
    pub fn with_reload(mut self, load: Load, loaded: Loaded) -> Self {
        self.reload = Some((load, loaded));
        self
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

    /// Adds the metrics of the store.
    pub fn with_store(mut self, store: Option<Arc<StoreMetrics>>) -> Self {
        self.store = store;
        self
    }

    /// Adds the snapshot, which is written at the end of the shutdown.
    pub fn with_snapshot(mut self, snapshot: SnapshotPlan) -> Self {
        self.snapshot = snapshot;
        self
    }

    /// Adds the revocations and hook events on disk.
    pub fn with_kept(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// Adds the exporter of traces.
    pub fn with_traces(mut self, traces: Option<TraceOptions>) -> Self {
        self.traces = traces;
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
        let Control { config, link, admission, internal, feeds, tls, acme, local, .. } = self;
        let snapshot = self.snapshot;
        let (shards, reload, traces, vitals) = (self.shards, self.reload, self.traces, self.vitals);
        let client = client(tls.clients.default.clone(), "");
        let (node, kept_hooks, kept) = node_state(&link, self.kept);
        let running = Arc::new(Current::new(config.clone()));
        let traces = Traces::start(traces, &client);
        let backend = Backend::new(&config, &client, &tls.clients)
            .with_tracer(traces.tracer(config.traces_backend()));
        let backend = Arc::new(Current::new(backend));
        let proxies = Proxies::new(link.clone(), backend.clone());
        let hooks = Arc::new(Hooks::start(&config, backend.clone(), kept_hooks));
        let options = Arc::new(Current::new(destination_options(&config, &link, &node)));
        let feeds = feeds.start(&Destination { link: link.clone(), options: options.clone() });
        let mut sources = metric_sources(&link, &proxies, &hooks, node.calls(), feeds.states());
        sources.extend(serve_certificates(&config, &tls, acme, &stopped)?);
        sources.extend(traces.source().into_iter().chain([kept]));
        sources.extend(self.store.map(metrics::store::source));
        let inner = inner_router(&config, &link, sources)
            .merge(health::router(&config.health, &link, &vitals))
            .merge(admin::router(&config, &link, &node, &stopped));
        let routers = Routers {
            link: link.clone(),
            node: node.clone(),
            inner,
            admission,
            has_internal: internal.is_some(),
            local,
            tracer: traces.tracer(config.traces_api()),
        };
        let [public, inner] = routers.of(&config);
        let public =
            HttpConnections::new(HttpOptions::new(&config, public, false), stopped.clone());
        let inner = HttpConnections::new(HttpOptions::new(&config, inner, true), stopped);
        let verifier = Arc::new(Current::new(TokenVerifier::new(link.clone(), &config, &client)));
        let work = dispatch(link.clone(), public.clone(), verifier.clone(), proxies, hooks.clone());
        let dispatcher = tokio::spawn(work);
        let remake_link = link.clone();
        let parts = Parts {
            running: running.clone(),
            backend,
            verifier,
            client,
            tls: tls.ports.clone(),
            feeds: options,
            connections: [public.clone(), inner.clone()],
            remake: Box::new(move |config| {
                (destination_options(config, &remake_link, &node), routers.of(config))
            }),
        };
        if let Some(((load, loaded), hangups)) = reload.zip(signals.take_hangups()) {
            let reloader = Reloader::new(load, loaded, shards, link.clone(), parts);
            tokio::spawn(reload::requests::serve(reloader, hangups, reload_socket()));
        }
        listen_internal(&config, &tls, inner.clone(), internal)?;
        tokio::spawn(watchdog::watch(link.clone(), vitals.clone()));
        tokio::spawn(snapshot.clone().remove_stuck());
        notify::notify("READY=1\nSTATUS=Serving");
        signals.end().await;
        notify::stopping();
        tokio::spawn(exit_at_signal(signals));
        let (config, link, vitals, hooks) = (&running, &link, &vitals, &hooks);
        shutdown::Node { config, link, vitals, hooks, snapshot: &snapshot }.drain(feeds).await;
        end_http(stop, [public, inner]).await;
        traces.finish(LAST_SPANS).await;
        dispatcher.abort();
        Ok(())
    }
}

/// The log of hook events, and those that are not delivered.
type KeptHooks = Option<(HookLog, Vec<RestoredEvent>)>;

/// The state of the API, with the revocations on disk. Returns also the hook events on disk, and
/// the metrics of both.
fn node_state(link: &Link, kept: Kept) -> (Arc<api::NodeState>, KeptHooks, Source) {
    let Kept { revocation_log, revocations, hooks, counters } = kept;
    let node = api::NodeState::new(link, api::METHODS);
    let node = node.with_revocations(revocations, revocation_log, counters.clone());
    let metrics: Source = Box::new(move |names| names.families(&counters.metrics()));
    (Arc::new(node), hooks, metrics)
}

/// Ends the HTTP connections after their last answers.
async fn end_http(stop: watch::Sender<()>, [public, inner]: [HttpConnections; 2]) {
    drop(stop);
    let answered = async { tokio::join!(public.closed(), inner.closed()) };
    let _ = tokio::time::timeout(LAST_ANSWERS, answered).await;
}

/// Ends the process at once when the next signal arrives.
async fn exit_at_signal(mut signals: Signals) {
    signals.end().await;
    std::process::exit(1);
}

/// Watches the files of certificates and orders certificates by ACME. Returns the metrics of both.
fn serve_certificates(
    config: &Arc<Config>,
    tls: &Tls,
    acme: Option<Acme>,
    stopped: &watch::Receiver<()>,
) -> io::Result<Vec<Source>> {
    let stores = tls.ports.stores();
    tokio::spawn(certificates::watch(stores.clone()));
    let mut sources: Vec<Source> =
        vec![Box::new(move |names| certificates::families(&stores, names))];
    let counters = acme.as_ref().map(Acme::counters).unwrap_or_default();
    sources.push(Box::new(move |names| names.families(&counters.metrics())));
    if let Some(acme) = acme {
        acme.start(config, stopped.clone())?;
    }
    Ok(sources)
}

/// Serves the internal port, if there is one.
fn listen_internal(
    config: &Config,
    tls: &Tls,
    connections: HttpConnections,
    listener: Option<TcpListener>,
) -> io::Result<()> {
    let Some(listener) = listener else { return Ok(()) };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = config.http_server.internal_connections_max as u64;
    let limits = Arc::new(ConnectionLimits::default().with_control_max(places));
    let tls = tls.ports.internal.as_ref().map(|port| port.config.clone());
    tokio::spawn(connections.listen(listener, limits, tls));
    Ok(())
}

/// What a reload can change of the node as its feeds use it.
fn destination_options(
    config: &Arc<Config>,
    link: &Arc<Link>,
    node: &Arc<api::NodeState>,
) -> DestinationOptions {
    DestinationOptions {
        namespaces: config.namespaces(),
        publication_max: config.client.queue_max_size,
        commands: api::feed_commands(config, link, node),
    }
}

/// The socket of `drumline reload`; `None`: only SIGHUP reloads.
fn reload_socket() -> Option<ReloadSocket> {
    let refused = |error| {
        let cause = format_args!("no socket for `drumline reload`: {error}; SIGHUP still reloads");
        tracing::warn!(target: "reload", "{cause}");
    };
    ReloadSocket::listen().map_err(refused).ok()
}

/// What the routers of both ports are made of.
struct Routers {
    link: Arc<Link>,
    node: Arc<api::NodeState>,
    /// Routes of the internal port without the API.
    inner: Router,
    admission: PushAdmission,
    has_internal: bool,
    /// Refuse requests of other machines.
    local: bool,
    /// Traces the commands of the API.
    tracer: Option<Arc<Tracer>>,
}

impl Routers {
    /// The routers of the public and of the internal port.
    fn of(&self, config: &Arc<Config>) -> [Router; 2] {
        let api = api::router(config, &self.link, &self.node);
        let api = match &self.tracer {
            Some(tracer) => traces::trace_requests(api, tracer),
            None => api,
        };
        let inner = self.inner.clone();
        let has_public_api = !self.has_internal || config.http_api.external;
        let (public, inner) = match (self.has_internal, has_public_api) {
            (false, _) => (inner.clone().merge(api), inner),
            (true, true) => (api, inner),
            (true, false) => (Router::new(), inner.merge(api)),
        };
        let public = with_push_routes(public, config, &self.link, self.admission.clone());
        [public, inner]
            .map(|router| if self.local { refuse_other_machines(router) } else { router })
    }
}

/// Passes messages of the shards to the parts of the control plane, as long as the process runs.
async fn dispatch(
    link: Arc<Link>,
    public: HttpConnections,
    verifier: Arc<Current<TokenVerifier>>,
    proxies: Proxies,
    hooks: Arc<Hooks>,
) {
    let look_up = |LookupRequest { address, lookup }| match lookup {
        Lookup::Token { token, purpose, charge } => {
            verifier.get().verify(address, token, purpose, charge);
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

/// The routes of the internal port, except the API. Without an internal port, the public port
/// serves them.
fn inner_router(config: &Arc<Config>, link: &Arc<Link>, sources: Vec<Source>) -> Router {
    metrics::router(config, link, sources)
        .merge(pages::swagger::router(config))
        .merge(pages::page::router(config))
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
