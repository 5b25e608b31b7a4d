//! One reload: reads the sources, checks them and gives every part its new settings.
//!
//! Owns the configuration in force. The invariants: reloads run one after the other; a
//! configuration that cannot be used changes nothing; questions to the backend that shards ask by
//! new settings find their addresses.

use std::sync::Arc;

use axum::Router;

use crate::base::connection_limits::ConnectionLimits;
use crate::base::current::Current;
use crate::base::failure::Failure;
use crate::base::log;
use crate::config::{Config, HttpServer, Loaded, Reload};
use crate::control::backend::client::Client;
use crate::control::backend::targets::Backend;
use crate::control::http::connections::HttpConnections;
use crate::control::tokens::verifier::TokenVerifier;
use crate::engine::node::Node;
use crate::feeds::feed::DestinationOptions;
use crate::hub::NextSettings;
use crate::link::{Link, LinkBusy};
use crate::tls::client::TlsClients;
use crate::tls::port::TlsPorts;

/// Attempts to reach a shard whose inbox is full, each of at least a second.
const ATTEMPTS: usize = 30;

/// Reads the sources again.
pub type Load = Arc<dyn Fn() -> Result<Loaded, Failure> + Send + Sync>;

/// The shards as a reload sees them.
pub struct Shards {
    slots: Arc<[usize]>,
    next_settings: Arc<[Arc<NextSettings>]>,
    limits: Arc<ConnectionLimits>,
}

impl Shards {
    /// The shards of a node.
    pub fn of(node: &Node) -> Self {
        Shards {
            slots: node.slots.clone(),
            next_settings: node.next_settings.clone(),
            limits: node.connection_limits.clone(),
        }
    }
}

/// Makes the options of the feeds and the routers of both ports from a configuration.
pub type Remake = dyn Fn(&Arc<Config>) -> (DestinationOptions, [Router; 2]) + Send + Sync;

/// The parts of the control plane that get new settings.
pub struct Parts {
    /// The configuration in force.
    pub running: Arc<Current<Config>>,
    /// The addresses of the backend.
    pub backend: Arc<Current<Backend>>,
    /// The verifier of slow tokens, and the client with which it fetches keys.
    pub verifier: Arc<Current<TokenVerifier>>,
    /// The client for key sets.
    pub client: Client,
    /// TLS of the ports.
    pub tls: TlsPorts,
    /// What feeds use.
    pub feeds: Arc<Current<DestinationOptions>>,
    /// The connections of the public and of the internal port.
    pub connections: [HttpConnections; 2],
    /// Makes the options of the feeds and the routers of both ports.
    pub remake: Box<Remake>,
}

/// Reloads the configuration of a node.
pub struct Reloader {
    load: Load,
    /// The configuration in force as its sources have it, before it was fitted to this machine.
    loaded: Loaded,
    shards: Shards,
    link: Arc<Link>,
    parts: Parts,
}

impl Reloader {
    /// Reloads by `load` what was loaded at the start.
    pub fn new(load: Load, loaded: Loaded, shards: Shards, link: Arc<Link>, parts: Parts) -> Self {
        Reloader { load, loaded, shards, link, parts }
    }

    /// Reloads the configuration. Returns a line about what has changed and what needs a restart.
    ///
    /// # Errors
    /// The new configuration cannot be used; the one in force stays. Or a shard is too busy to take
    /// it.
    pub async fn reload(&mut self) -> Result<String, Failure> {
        // Reading files may wait for a disk.
        let load = self.load.clone();
        let loading = tokio::task::spawn_blocking(move || load());
        let new = loading.await.map_err(|error| {
            Failure::new(format!("cannot read the configuration: {error}"), "reload again")
        })??;
        let reload = self.loaded.reload(&new)?;
        for warning in &new.warnings {
            tracing::warn!(target: "config", "{warning}");
        }
        self.apply(&reload.config).await?;
        let mut report = report(&reload);
        if new.has_unknown {
            report.push_str("; some keys or variables have no effect: see the log");
        }
        self.loaded.apply(reload);
        Ok(report)
    }

    async fn apply(&self, config: &Config) -> Result<(), Failure> {
        let parts = &self.parts;
        let running = parts.running.get();
        let HttpServer { tls, internal_tls, .. } = config.http_server.clone();
        // The rest was fitted to this machine at the start.
        let rest = running.http_server.with_limits_of(&config.http_server);
        let http_server = HttpServer { tls, internal_tls, ..rest };
        let config = Arc::new(Config { http_server, ..config.clone() });
        let clients = TlsClients::new(&config)?;
        parts.tls.reload(&running.http_server, &config.http_server)?;
        // Before the shards ask by the new settings.
        parts.backend.set(parts.backend.get().reloaded(&config, &clients));
        parts.verifier.set(parts.verifier.get().reloaded(&config, &parts.client));
        self.reconfigure_shards(&config).await.map_err(|LinkBusy| {
            Failure::new(
                "the server is too busy: not every shard has taken the new configuration",
                "reload again",
            )
        })?;
        self.shards
            .limits
            .set(config.client.connection_limit as u64, config.client.connection_rate_limit as u64);
        self.shards.limits.set_address_limits(
            config.client.address_connection_limit as u64,
            config.client.address_connection_rate_limit as u64,
        );
        log::set(&config.log_options());
        let (feeds, [public, internal]) = (parts.remake)(&config);
        parts.feeds.set(feeds);
        parts.connections[0].set_router(public);
        parts.connections[1].set_router(internal);
        for (connections, internal) in parts.connections.iter().zip([false, true]) {
            connections.set_limits(&config, internal);
        }
        parts.running.set(config);
        Ok(())
    }

    /// Sends the settings to every shard, and waits until all work with them.
    async fn reconfigure_shards(&self, config: &Config) -> Result<(), LinkBusy> {
        let mut settings = config.hub_settings(0);
        settings.rules.local = self.loaded.access.is_open();
        let Shards { slots, next_settings, .. } = &self.shards;
        for ((shard, slots), next) in self.link.shards().zip(slots.iter()).zip(next_settings.iter())
        {
            let settings = Arc::new(settings.of_shard(*slots, next_settings.len()));
            let mut attempts = 0;
            loop {
                next.put(settings.clone());
                let done = match self.link.reconfigure(shard).await {
                    Ok(pending) => pending.ordered().await,
                    Err(busy) => Err(busy),
                };
                attempts += 1;
                match done {
                    Ok(()) => break,
                    Err(busy) if attempts == ATTEMPTS => return Err(busy),
                    Err(LinkBusy) => {}
                }
            }
        }
        Ok(())
    }
}

/// A line about a reload.
fn report(Reload { changed, restart, .. }: &Reload) -> String {
    let mut line = match changed.len() {
        0 => "nothing has changed".to_owned(),
        _ => format!("changed {}", changed.join(", ")),
    };
    if !restart.is_empty() {
        line += &format!("; restart the server to apply {}", restart.join(", "));
    }
    line
}
