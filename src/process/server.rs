//! The process that serves: shards, control plane, first screen, the way out.
//!
//! Owns the order of starting and ending. Never serves a request itself. The invariant: either
//! all of it runs, or nothing does and the error names cause and cure.

use std::io;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::base::failure::Failure;
use crate::base::limits::SHARDS_MAX;
use crate::base::log;
use crate::base::sys;
use crate::config::{Access, Config, HttpServer, Loaded};
use crate::control::Control;
use crate::control::http::descriptor_shares;
use crate::control::signals::Signals;
use crate::engine::node::{Node, NodeSettings};
use crate::model::message::RANKS;
use crate::process::banner::{ApiKey, Banner, banner};
use crate::process::preflight::{self, Report, Requirements};

/// Connections that a node is laid out for where nothing says otherwise.
pub const CONNECTIONS: u64 = preflight::NODE_CONNECTIONS;

/// The limit on open files where it cannot be read.
const DESCRIPTORS: u64 = 1024;

/// Serves until a signal ends it.
pub fn serve(loaded: Loaded) -> Result<(), Failure> {
    let Loaded { mut config, access, warnings, .. } = loaded;
    log::start();
    for warning in &warnings {
        log::warn("config", warning);
    }
    let limit = sys::raise_open_files().unwrap_or(DESCRIPTORS);
    let _ = sys::raise_locked_memory();
    let server = &config.http_server;
    let address = sys::listen_address(&server.address, server.port)?;
    let shards = if config.shards == 0 { sys::processors() } else { config.shards };
    let report = preflight::survey(&Requirements { shards, ..request(&config, CONNECTIONS) });
    report.verdict().map_err(|refused| refused.failure())?;
    if sys::try_bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
        return Err(Failure {
            cause: format!("{address} is taken"),
            cure: format!("ss -ltnp 'sport = :{}' shows by whom", server.port),
        });
    }
    let _awake = config.engine.force_latency.then(sys::hold_processors_awake).transpose().map_err(
        |error| Failure {
            cause: format!("engine.force_latency: /dev/cpu_dma_latency: {error}"),
            cure: "start as root, or leave engine.force_latency off".into(),
        },
    )?;
    fit_places(&mut config.http_server, limit, shards);
    let mut settings = config.hub_settings(0);
    settings.rules.local = access.is_open();
    let plan = NodeSettings {
        address,
        listener: config.listener_options(),
        inboxes: [config.engine.inbox; RANKS],
        rings: config.ring_sizes(),
        hub: settings,
        slots: slots(&report),
    };
    let runtime = runtime(config.engine.control_threads).map_err(|error| Failure {
        cause: format!("no runtime for the control plane: {error}"),
        cure: "raise the limit on threads and descriptors".into(),
    })?;
    let signals = {
        let _context = runtime.enter();
        Signals::install().map_err(|error| Failure {
            cause: format!("no handlers for signals: {error}"),
            cure: "raise the limit on descriptors (`ulimit -n 1048576`)".into(),
        })?
    };
    let bell = Arc::new(Notify::new());
    let rung = bell.clone();
    let node = Node::start(plan, Box::new(move || rung.notify_one()))?;
    // A port of 0 has become a free one.
    config.http_server.port = node.address.port();
    let config = Arc::new(config);
    let control = Control::new(config.clone(), &node, bell, access.is_open())
        .map_err(|error| internal_refused(&config, &error))?;
    let facts = facts(&config, &access, &node, &report);
    log::screen(banner(&Banner { internal: control.internal_address(), ..facts }));
    runtime.block_on(control.run(signals)).map_err(|error| Failure {
        cause: format!("the control plane cannot run: {error}"),
        cure: "raise the limit on descriptors (`ulimit -n 1048576`)".into(),
    })
}

/// Has HTTP connections leave descriptors for everything else.
fn fit_places(server: &mut HttpServer, limit: u64, shards: usize) {
    if descriptor_shares::fit(server, limit, sys::open_descriptors(), shards) {
        let HttpServer { connections_max, internal_connections_max, .. } = server;
        let what = format!("{connections_max} and {internal_connections_max} HTTP connections");
        let cure = "raise it, or lower http_server.connections_max";
        log::info("http", format_args!("{what} (internal) fit into RLIMIT_NOFILE {limit}; {cure}"));
    }
}

/// What the first screen tells.
fn facts(config: &Config, access: &Access, node: &Node, report: &Report) -> Banner {
    let api = &config.http_api;
    let lets_in = api.insecure || !api.key.is_empty();
    let bound = report.bounds().into_iter().next();
    Banner {
        address: node.address,
        internal: None,
        websocket: (!config.websocket.disabled).then(|| config.websocket.handler_prefix.clone()),
        api: (!api.disabled && lets_in).then(|| api.handler_prefix.clone()),
        key: match access {
            _ if api.insecure => ApiKey::None,
            // Nobody configured it: it was made for this run.
            Access::Open => ApiKey::Made(api.key.reveal().to_owned()),
            Access::Closed(_) => ApiKey::Configured,
        },
        page: config.page.enabled,
        processors: node.processors.clone(),
        slots: slots(report),
        bound: bound.map(|bound| (bound.connections, bound.name.to_owned(), bound.because)),
        access: access.clone(),
        entrance: config.entrance(),
    }
}

fn internal_refused(config: &Config, error: &std::io::Error) -> Failure {
    let port = config.http_server.internal_port;
    Failure {
        cause: format!("http_server.internal_port {port} cannot be listened on: {error}"),
        cure: format!("ss -ltnp 'sport = :{port}' shows by whom it is taken; or another port"),
    }
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
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

/// What a configuration asks of the box that is meant to hold so many connections.
pub fn request(config: &Config, connections: u64) -> Requirements {
    Requirements {
        shards: config.shards,
        port: config.http_server.port,
        connections,
        slots_per_shard: config.engine.slots_per_shard,
        rings: config.ring_sizes(),
    }
}
