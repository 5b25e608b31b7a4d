//! `drumline serve`: starts shards and control plane, prints the banner, and shuts down.
//!
//! Owns the order of start and shutdown. Never serves a request itself. The invariant: either all
//! parts run, or none does and the error names cause and cure.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use crate::base::failure::Failure;
use crate::base::heap;
use crate::base::limits::SHARDS_MAX;
use crate::base::listeners;
use crate::base::log;
use crate::base::notify;
use crate::base::sys;
use crate::config::{Access, Config, HttpServer, Loaded};
use crate::control::Control;
use crate::control::acme::Acme;
use crate::control::http::descriptor_shares;
use crate::control::kept::Kept;
use crate::control::reload::reloader::Load;
use crate::control::signals::Signals;
use crate::control::traces::TraceOptions;
use crate::engine::node::{Node, NodeSettings};
use crate::feeds::start::PreparedFeeds;
use crate::model::message::RANKS;
use crate::model::names::Names;
use crate::process::banner::{Banner, Port, ShownKey, banner};
use crate::process::pid_file::PidFile;
use crate::process::preflight::{self, Report, Requirements};
use crate::process::restart::Restart;
use crate::store::thread::StoreThread;
use crate::store::{Store, StoreOptions};
use crate::tls::Tls;
use crate::tls::provider;

/// Connections that a node is planned for, if no number is given.
pub const CONNECTIONS: u64 = preflight::NODE_CONNECTIONS;

/// Limit on open files, if it cannot be read.
const DESCRIPTORS: u64 = 1024;

/// Prepares the heap and the limits of the process. Returns the limit on open files.
fn prepare_process() -> u64 {
    if let Err(error) = heap::give_back_early() {
        tracing::warn!(target: "control", "the heap may keep the memory of past peaks: {error}");
    }
    let _ = sys::raise_locked_memory();
    sys::raise_open_files().unwrap_or(DESCRIPTORS)
}

/// Runs the server until a signal ends it. `load` reads the configuration again for a reload.
pub fn serve(load: Load) -> Result<(), Failure> {
    let loaded = load()?;
    let Loaded { mut config, access, warnings, .. } = loaded.clone();
    log::start(&config.log_options())?;
    notify::starting("checking the machine");
    provider::install();
    for warning in &warnings {
        tracing::warn!(target: "config", "{warning}");
    }
    let limit = prepare_process();
    let listeners = config.listen_addresses()?;
    let shards = if config.shards == 0 { sys::processors() } else { config.shards };
    let report = preflight::survey(&Requirements { shards, ..request(&config, CONNECTIONS) });
    report.verdict().map_err(|refused| refused.failure())?;
    listeners::check_free(&listeners)?;
    let _awake = stay_awake(&config)?;
    fit_http_connections(&mut config.http_server, limit, shards);
    let mut settings = config.hub_settings(0);
    settings.rules.local = access.is_open();
    let tls = Tls::new(&config)?;
    let acme = Acme::prepare(&config, &tls)?;
    let traced = config.opentelemetry.enabled;
    let traces = traced.then(|| TraceOptions::read(|name| std::env::var(name).ok())).transpose()?;
    let hosts = tls.ports.hosts();
    settings.tls = tls.ports.public.as_ref().map(|port| port.config.clone());
    let (runtime, signals) = start_runtime(&config)?;
    notify::starting("connecting to brokers");
    let feeds = runtime.block_on(PreparedFeeds::new(&config))?;
    let store = open_store(&config)?;
    let slots = slots(&report);
    notify::starting("reading the snapshot");
    let restart = Restart::read(&config, slots.len())?;
    let kept = Kept::open(&config, &Names::new(restart.secrets().names, slots.len() as u8));
    settings.revocations = kept.revocations.clone();
    let plan = NodeSettings {
        listeners,
        listener: config.listener_options(),
        inboxes: [config.engine.inbox; RANKS],
        rings: config.ring_sizes(),
        has_store: store.is_some(),
        secrets: restart.secrets(),
        hub: settings,
        slots,
    };
    notify::starting("opening the rings");
    let bell = Arc::new(Notify::new());
    let rung = bell.clone();
    let mut node = Node::start(plan, Box::new(move || rung.notify_one()))?;
    let store_metrics = store.as_ref().map(|store| store.metrics().clone());
    let store = store.map(|store| store.run(node.bus.clone(), node.names)).transpose()?;
    // Written once the port is bound, so that a second server does not overwrite it.
    let _pid_file = PidFile::write(&config.pid_file)?;
    // The kernel has chosen a free port for port 0.
    config.http_server.port = node.address().port();
    let config = Arc::new(config);
    let control = Control::new(config.clone(), &node, bell, tls, access.is_open())
        .map_err(|error| internal_port_failure(&config, &error))?
        .with_feeds(feeds)
        .with_acme(acme)
        .with_traces(traces)
        .with_store(store_metrics)
        .with_kept(kept)
        .with_reload(load, loaded);
    let (homes, snapshot) = restart.take();
    node.open(homes);
    let facts = facts(&config, &access, &node, &report);
    log::screen(banner(&facts.with_ports(control.internal_address(), hosts)));
    run(&runtime, control.with_snapshot(snapshot), signals, store)
}

/// Serves until the shutdown is over, and then closes the store.
fn run(
    runtime: &Runtime,
    control: Control,
    signals: Signals,
    store: Option<StoreThread>,
) -> Result<(), Failure> {
    let served = runtime.block_on(control.run(signals));
    if let Some(store) = store {
        notify::status("Closing the store");
        store.stop();
    }
    served.map_err(|error| Failure {
        cause: format!("cannot run the control plane: {error}"),
        cure: "raise the limit on descriptors (`ulimit -n 1048576`)".into(),
    })
}

/// Starts the threads of the control plane, and installs the signal handlers.
fn start_runtime(config: &Config) -> Result<(Runtime, Signals), Failure> {
    let runtime = runtime(config.engine.control_threads).map_err(|error| Failure {
        cause: format!("cannot start the control plane: {error}"),
        cure: "raise the limit on threads and descriptors".into(),
    })?;
    let signals = {
        let _context = runtime.enter();
        Signals::install().map_err(|error| Failure {
            cause: format!("cannot install signal handlers: {error}"),
            cure: "raise the limit on descriptors (`ulimit -n 1048576`)".into(),
        })?
    };
    Ok((runtime, signals))
}

/// Opens the store, if the configuration names one.
fn open_store(config: &Config) -> Result<Option<Store>, Failure> {
    if config.store.path.is_empty() {
        return Ok(None);
    }
    notify::starting("opening the store");
    let (path, bytes_max) = ((&config.store.path).into(), config.store.max_bytes);
    Store::open(&StoreOptions { path, bytes_max }).map(Some)
}

/// Keeps the processors from deep idle until the result is dropped, if the configuration says so.
fn stay_awake(config: &Config) -> Result<Option<OwnedFd>, Failure> {
    let held = config.engine.force_latency.then(sys::hold_processors_awake).transpose();
    held.map_err(|error| Failure {
        cause: format!("engine.force_latency: cannot hold /dev/cpu_dma_latency: {error}"),
        cure: "start as root, or disable engine.force_latency".into(),
    })
}

/// Lowers the limits on HTTP connections, so that descriptors are left for other uses.
fn fit_http_connections(server: &mut HttpServer, limit: u64, shards: usize) {
    if descriptor_shares::fit(server, limit, sys::open_descriptors(), shards) {
        let HttpServer { connections_max, internal_connections_max, .. } = server;
        let what = format!(
            "only {connections_max} public and {internal_connections_max} internal HTTP connections"
        );
        let cure = "raise the limit, or lower http_server.connections_max";
        tracing::info!(target: "http", "{what} fit into RLIMIT_NOFILE {limit}; {cure}");
    }
}

/// Contents of the banner.
fn facts(config: &Config, access: &Access, node: &Node, report: &Report) -> Banner {
    let api = &config.http_api;
    let is_reachable = api.insecure || !api.key.is_empty();
    let bound = report.bounds().into_iter().next();
    Banner {
        public: Port { address: node.address(), tls: None },
        listeners: further_listeners(config, node),
        internal: None,
        websocket: (!config.websocket.disabled).then(|| config.websocket.handler_prefix.clone()),
        api: (!api.disabled && is_reachable)
            .then(|| api.handler_prefix.trim_end_matches('/').to_owned()),
        api_is_public: api.external,
        key: match access {
            _ if api.insecure => ShownKey::None,
            // No key is configured, so one was made for this run.
            Access::Open => ShownKey::Made(api.key.reveal().to_owned()),
            Access::Closed(_) => ShownKey::Configured,
        },
        page: config.page.enabled,
        admin: config.admin.enabled.then(|| config.admin_path()),
        processors: node.processors.clone(),
        slots: slots(report),
        bound: bound.map(|bound| (bound.connections, bound.name.to_owned(), bound.because)),
        store: (!config.store.path.is_empty()).then(|| config.store.path.clone()),
        access: access.clone(),
        is_container: sys::is_container(),
        entrance: config.entrance(),
    }
}

/// The listeners besides the first, as the banner shows them.
fn further_listeners(config: &Config, node: &Node) -> Vec<String> {
    let listeners = config.http_server.listeners.iter().zip(node.listeners.iter().skip(1));
    listeners
        .map(|(listener, address)| {
            let tls = if listener.tls { ", TLS" } else { "" };
            let proxy = if listener.proxy_protocol { ", PROXY protocol" } else { "" };
            format!("{address} ({}{tls}{proxy})", listener.name)
        })
        .collect()
}

fn internal_port_failure(config: &Config, error: &std::io::Error) -> Failure {
    let port = config.http_server.internal_port;
    Failure {
        cause: format!("cannot bind http_server.internal_port {port}: {error}"),
        cure: format!("find the process with `ss -ltnp 'sport = :{port}'`, or choose another port"),
    }
}

fn runtime(threads: usize) -> std::io::Result<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().thread_name("control").build()
}

/// Slots of each shard.
fn slots(report: &Report) -> Vec<usize> {
    vec![report.slots_each(); report.request.shards.clamp(1, SHARDS_MAX)]
}

/// Requirements of a configuration on a machine that is to hold `connections`.
pub fn request(config: &Config, connections: u64) -> Requirements {
    Requirements {
        shards: config.shards,
        port: config.http_server.port,
        connections,
        slots_per_shard: config.engine.slots_per_shard,
        rings: config.ring_sizes(),
    }
}
