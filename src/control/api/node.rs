//! State of the API: configuration, link to the shards, key, revocations, name of the node.
//!
//! Owns the key, the revocations and the node's name. A reload makes a new API over the same state
//! of the node. Never keeps state of a channel.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::reply::ApiError;
use super::snapshots::Snapshots;
use crate::base::sys;
use crate::config::Config;
use crate::control::kept::KeptCounters;
use crate::control::metrics::api_calls::ApiCalls;
use crate::control::revocation_log::{RevocationLog, RevocationRecord};
use crate::link::Link;
use crate::model::auth::ApiKey;
use crate::model::namespaces::{Namespaces, Options};
use crate::model::revocation::{Revocation, Revocations};
use crate::store::entry_log::NotKept;
use crate::wire::protocol;

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
    /// The same on disk; `None`: there is no store.
    revocation_log: Option<Arc<std::sync::Mutex<RevocationLog>>>,
    kept: Arc<KeptCounters>,
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
            revocation_log: None,
            kept: Arc::default(),
            started: Instant::now(),
            snapshots: Snapshots::new(link),
            calls: Arc::new(ApiCalls::new(methods)),
            uid: uid().unwrap_or_default(),
        }
    }

    /// The same with the revocations that every shard has, and their log.
    #[must_use]
    pub fn with_revocations(
        self,
        revocations: Arc<Revocations>,
        log: Option<RevocationLog>,
        kept: Arc<KeptCounters>,
    ) -> Self {
        let log = log.map(|log| Arc::new(std::sync::Mutex::new(log)));
        NodeState { revocations: Mutex::new(revocations), revocation_log: log, kept, ..self }
    }

    /// Writes a revocation to disk, if there is a store.
    pub(super) async fn keep_revocation(
        &self,
        record: RevocationRecord,
        revocation: Revocation,
        now: u64,
    ) -> Result<(), protocol::Error> {
        let Some(log) = self.revocation_log.clone() else { return Ok(()) };
        let keep = move || {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.keep(record, revocation, now)
        };
        // It fails only when the runtime ends.
        let kept = spawn_blocking(keep).await.map_err(io::Error::other);
        let (error, cause, cure) = match kept.map_err(NotKept::Io).flatten() {
            Ok(()) => return Ok(()),
            Err(NotKept::Full) => {
                let cause = "the log is full".to_owned();
                (protocol::Error::LIMIT_EXCEEDED, cause, "raise store.log_max_bytes")
            }
            Err(NotKept::Io(error)) => {
                let cure = "free space or check the disk, and repeat the call";
                (protocol::Error::INTERNAL, error.to_string(), cure)
            }
        };
        self.kept.revocations.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            target: "store",
            "a revocation is in force, but not on disk, so the next start may forget it: {cause}; \
             {cure}"
        );
        Err(error)
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
