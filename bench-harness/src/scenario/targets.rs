//! How a scenario starts the targets that it measures.
//!
//! Owns no state. Never starts a target itself.

use std::path::PathBuf;

use anyhow::Result;

use super::Bench;
use crate::target::TargetOptions;

impl Bench {
    /// Options of a target on a free port, without pings and without what it may keep.
    pub(super) fn target_options(&mut self) -> Result<TargetOptions> {
        let port = self.free_port()?;
        Ok(TargetOptions {
            server: self.common.server.clone(),
            server_arguments: self.common.server_arguments.clone(),
            peers: PathBuf::new(),
            dir: PathBuf::new(),
            port,
            publish_port: port,
            workers: self.shards,
            ping_seconds: None,
            recovers: false,
            members: false,
            tls: None,
        })
    }
}
