//! State of the API: configuration, link to the shards, key, revocations, name of the node.
//!
//! Owns the key, the revocations and the node's name. A reload makes a new API over the same state
//! of the node. Never keeps state of a channel.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Mutex;

use super::reply::ApiError;
use super::snapshots::Snapshots;
use crate::base::sys;
use crate::config::Config;
use crate::control::metrics::api_calls::ApiCalls;
use crate::link::Link;
use crate::model::auth::ApiKey;
use crate::model::namespaces::{Namespaces, Options};
use crate::model::revocation::Revocations;

/// The API of a node.
pub struct Api {
    pub(super) config: Arc<Config>,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) key: ApiKey,
    pub(super) link: Arc<Link>,
    pub(super) node: Arc<NodeState>,
    /// Counts of the calls.
    pub(super) calls: Arc<ApiCalls>,
    pub(super) name: String,
}

/// What the API knows about the node. It outlives a reload of the configuration.
pub struct NodeState {
    /// Revoked tokens: the list that every shard got last.
    pub(super) revocations: Mutex<Arc<Revocations>>,
    pub(super) started: Instant,
    pub(super) snapshots: Snapshots,
    /// Counts of the HTTP calls.
    pub(super) calls: Arc<ApiCalls>,
    pub(super) uid: String,
}

impl NodeState {
    /// The state of a node that has just started, whose HTTP API has these methods.
    pub fn new(link: &Link, methods: &'static [&'static str]) -> Self {
        NodeState {
            revocations: Mutex::default(),
            started: Instant::now(),
            snapshots: Snapshots::new(link),
            calls: Arc::new(ApiCalls::new(methods)),
            uid: uid().unwrap_or_default(),
        }
    }

    /// Counts of the HTTP calls.
    pub fn calls(&self) -> &Arc<ApiCalls> {
        &self.calls
    }
}

fn uid() -> io::Result<String> {
    Ok(format!("{:032x}", u128::from_ne_bytes(sys::random()?)))
}

fn name(config: &Config) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), config.http_server.port)
}

impl Api {
    /// The API of the node that `link` leads to.
    pub(super) fn new(
        config: &Arc<Config>,
        link: &Arc<Link>,
        node: &Arc<NodeState>,
        calls: Arc<ApiCalls>,
    ) -> Self {
        Api {
            config: config.clone(),
            namespaces: config.namespaces(),
            key: config.api_key(),
            link: link.clone(),
            node: node.clone(),
            calls,
            name: name(config),
        }
    }

    /// Namespace options of a channel.
    pub(super) fn options(&self, channel: &str) -> Result<&Options, ApiError> {
        Ok(self.namespaces.of(channel)?)
    }
}
