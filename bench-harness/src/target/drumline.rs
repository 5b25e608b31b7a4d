//! Drumline itself: JSON, HTTP API.
//!
//! Owns its adapter. Never sets what the other scenarios do not. Invariant: its command line is
//! the one of every other scenario.

use anyhow::{Result, ensure};

use super::{Adapter, Launch, Place};
use crate::dialect::{self, Dialect};
use crate::publish::{Api, Post};
use crate::server::{self, API_KEY, PING_SECONDS, arguments};

#[derive(Debug)]
pub(super) struct Drumline;

impl Adapter for Drumline {
    fn name(&self) -> &'static str {
        "drumline"
    }

    fn about(&self) -> &'static str {
        "this engine, JSON, published to by HTTP"
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

    fn launch(&self, place: &Place) -> Result<Launch> {
        let program = std::path::absolute(&place.server)?;
        ensure!(
            program.exists(),
            "there is no {}: build it with `cargo build --release`, or name it by --server",
            program.display()
        );
        let target = server::Target {
            program: program.clone(),
            port: place.port,
            shards: place.workers,
            ping_seconds: place.ping_seconds.unwrap_or(PING_SECONDS),
            pong: place.ping_seconds.is_some(),
            spread_seconds: 0,
            arguments: place.server_arguments.clone(),
        };
        Ok(Launch { program, arguments: arguments(&target), environment: Vec::new() })
    }
}
