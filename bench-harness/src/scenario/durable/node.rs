//! Drumline with durable channels: flags of the scenarios, arguments and metrics of the server.
//!
//! Owns the names of the store's keys and metrics. Never starts a server. Invariant: without
//! `--in-memory` every measured channel is durable.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Result;
use serde_json::json;

use super::folder::Folder;
use crate::scenario::Common;
use crate::server::{Server, ServerOptions};

/// Counters of committed batches and of the publications in them.
const BATCHES: &str = "drumline_store_batches_total";
const PUBLICATIONS: &str = "drumline_store_publications_total";

/// Age at which a publication leaves its history: longer than any run.
const TTL: &str = "24h";

/// Flags of every scenario of durable channels.
#[derive(Debug, Clone, clap::Args)]
pub struct StoreFlags {
    #[command(flatten)]
    pub(super) common: Common,
    /// Folder on the measured disk. The run makes a folder in it and removes that at the end.
    #[arg(long, default_value = "target")]
    pub(super) folder: PathBuf,
    /// Keep the histories in memory: the control, which shows what durability costs and that the
    /// checks fail without it.
    #[arg(long)]
    pub(super) in_memory: bool,
}

impl StoreFlags {
    /// The folder of the run.
    pub(super) fn folder(&self) -> Result<Folder> {
        Folder::temporary(&self.folder)
    }

    /// Arguments with which the channels of a namespace keep `kept` publications as
    /// [`StoreFlags::arguments`] says, and all other channels keep as many in memory.
    pub(super) fn namespace_arguments(
        &self,
        namespace: &str,
        store: &Path,
        kept: u64,
    ) -> Vec<String> {
        let mut options = json!({
            "name": namespace,
            "history_size": kept,
            "history_ttl": TTL,
        });
        let mut arguments = in_memory(kept);
        if !self.in_memory {
            options["history_durable"] = json!(true);
            arguments.push(format!("--store.path={}", store.display()));
        }
        arguments.push("--channel.namespaces".to_owned());
        arguments.push(json!([options]).to_string());
        arguments
    }

    /// Arguments with which all channels keep `kept` publications, durable ones in `store`.
    pub(super) fn arguments(&self, store: &Path, kept: u64) -> Vec<String> {
        let mut arguments = in_memory(kept);
        if !self.in_memory {
            arguments.push("--channel.without_namespace.history_durable=true".to_owned());
            arguments.push(format!("--store.path={}", store.display()));
        }
        arguments
    }
}

/// Arguments with which channels without a namespace keep `kept` publications.
fn in_memory(kept: u64) -> Vec<String> {
    vec![
        format!("--channel.without_namespace.history_size={kept}"),
        format!("--channel.without_namespace.history_ttl={TTL}"),
    ]
}

/// Starts a server on the port of an earlier one that has ended.
pub(super) fn spawn(options: &ServerOptions) -> Result<Server> {
    Server::await_free_port(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)))?;
    Server::spawn(options, Stdio::null())
}

/// Batches that the store has committed, and the publications in them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batches {
    batches: f64,
    publications: f64,
}

impl Batches {
    /// So far; `None` if the server counts none.
    pub fn of(server: &Server) -> Result<Option<Self>> {
        let batches = server.metric(BATCHES, "")?;
        let publications = server.metric(PUBLICATIONS, "")?;
        let both = batches.zip(publications);
        Ok(both.map(|(batches, publications)| Batches { batches, publications }))
    }

    /// Publications per batch since `before`; `None` without a batch.
    pub fn mean_since(&self, before: &Self) -> Option<f64> {
        let batches = self.batches - before.batches;
        (batches > 0.0).then(|| (self.publications - before.publications) / batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_a_batch_needs_a_batch() {
        let before = Batches { batches: 10.0, publications: 100.0 };
        let after = Batches { batches: 14.0, publications: 190.0 };
        assert_eq!(after.mean_since(&before), Some(22.5));
        assert_eq!(before.mean_since(&before), None);
    }
}
