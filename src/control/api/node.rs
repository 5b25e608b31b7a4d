//! State of the API: configuration, link to the shards, key, revocations, name of the node.
//!
//! Owns the key, the revocations and the node's name. Never keeps state of a channel.

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
    /// Revoked tokens: the list that every shard got last.
    pub(super) revocations: Mutex<Arc<Revocations>>,
    pub(super) started: Instant,
    pub(super) snapshots: Snapshots,
    /// Counts of the calls.
    pub(super) calls: Arc<ApiCalls>,
    pub(super) uid: String,
    pub(super) name: String,
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
    pub(super) fn new(config: &Arc<Config>, link: &Arc<Link>, calls: Arc<ApiCalls>) -> Self {
        Api {
            config: config.clone(),
            namespaces: config.namespaces(),
            key: config.api_key(),
            link: link.clone(),
            revocations: Mutex::default(),
            started: Instant::now(),
            snapshots: Snapshots::new(link),
            calls,
            uid: uid().unwrap_or_default(),
            name: name(config),
        }
    }

    /// Namespace options of a channel.
    pub(super) fn options(&self, channel: &str) -> Result<&Options, ApiError> {
        Ok(self.namespaces.of(channel)?)
    }
}
