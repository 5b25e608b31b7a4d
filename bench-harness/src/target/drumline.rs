//! Drumline itself: JSON, HTTP API.
//!
//! Owns its adapter. Never sets what the other scenarios do not. Invariant: its command line is
//! the one of every other scenario.

use anyhow::{Result, ensure};

use super::{Adapter, Launch, Place, Recovery};
use crate::dialect::{self, Dialect};
use crate::publish::{Api, Post};
use crate::server::{self, API_KEY, arguments};

#[derive(Debug)]
pub(super) struct Drumline;

/// Longer than any turn: nobody is pinged where pings are not what is measured, as by the peers.
const SILENT_SECONDS: u64 = 3_600;
/// What keeps publications for those that come back.
const HISTORY: [&str; 3] = ["history_size=100", "history_ttl=600s", "force_recovery=true"];

impl Adapter for Drumline {
    fn name(&self) -> &'static str {
        "drumline"
    }

    fn about(&self) -> &'static str {
        "this engine, JSON, publications by HTTP; like the others it pings where pings are measured"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &dialect::Drumline
    }

    fn api(&self) -> Api {
        Api::Http(Post::drumline(API_KEY))
    }

    fn pings(&self) -> bool {
        true
    }

    fn recovery(&self) -> Option<Recovery> {
        let by = "from the channel's history, by epoch and offset";
        Some(Recovery { by, dialect: self.dialect(), api: self.api() })
    }

    fn launch(&self, place: &Place) -> Result<Launch> {
        let program = std::path::absolute(&place.server)?;
        ensure!(
            program.exists(),
            "there is no {}: build it with `cargo build --release`, or name it by --server",
            program.display()
        );
        let mut more = place.server_arguments.clone();
        if place.recovers {
            more.extend(HISTORY.map(|one| format!("--channel.without_namespace.{one}")));
        }
        let target = server::Target {
            program: program.clone(),
            port: place.port,
            shards: place.workers,
            ping_seconds: place.ping_seconds.unwrap_or(SILENT_SECONDS),
            pong: place.ping_seconds.is_some(),
            spread_seconds: 0,
            arguments: more,
        };
        Ok(Launch { program, arguments: arguments(&target), environment: Vec::new() })
    }
}
