//! The method `info`: version, load and metrics of the node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::node::Api;
use super::reply::ApiError;
use super::snapshots::MetricsInfo;
use crate::base::sys;

/// Request without fields.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Info {}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct InfoResult {
    /// The node that answers.
    nodes: Vec<NodeInfo>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct NodeInfo {
    /// Random ID of this run of the process.
    uid: String,
    /// Host name and port of the node.
    name: String,
    /// Version of Drumline.
    version: &'static str,
    /// Connected clients.
    num_clients: u64,
    /// Distinct users, counted per shard.
    num_users: u64,
    /// Channels that have subscribers or a history.
    num_channels: u64,
    /// Subscriptions.
    num_subs: u64,
    /// Seconds since the start of the process.
    uptime: u64,
    /// Metrics of all shards together.
    metrics: MetricsInfo,
    /// Resource usage of the process.
    process: ProcessInfo,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ProcessInfo {
    /// CPU usage in percent of one processor, over the interval of the metrics.
    cpu: f64,
    /// Resident memory in bytes.
    rss: u64,
}

impl Api {
    pub(super) async fn info(&self, _: Info) -> Result<InfoResult, ApiError> {
        let (metrics, cpu) = self.node.snapshots.compare(&self.link);
        let node = NodeInfo {
            uid: self.node.uid.clone(),
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            num_clients: self.link.sum(|metrics| metrics.clients.get()),
            num_users: self.link.sum(|metrics| metrics.users.get()),
            num_channels: self.link.sum(|metrics| metrics.channels.get()),
            num_subs: self.link.sum(|metrics| metrics.subscriptions.get()),
            uptime: self.node.started.elapsed().as_secs(),
            metrics,
            process: ProcessInfo { cpu, rss: sys::memory("VmRSS:").unwrap_or(0) },
        };
        Ok(InfoResult { nodes: vec![node] })
    }
}
