//! Drumline itself: JSON, HTTP API.
//!
//! Owns its adapter. Never sets an option that the other scenarios leave alone. Invariant: Drumline
//! has the same command line as in every other scenario.

use anyhow::{Result, ensure};

use super::{Adapter, HISTORY, Launch, MEMBERS, Recovery, SILENT_SECONDS, TargetOptions, TlsFiles};
use crate::dialect::{self, Dialect};
use crate::publish::{Api, Post};
use crate::server::{self, API_KEY, arguments, tls_arguments};

#[derive(Debug)]
pub(super) struct Drumline;

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

    fn answers_requests(&self) -> bool {
        true
    }

    fn recovery(&self) -> Option<Recovery> {
        let by = "from the channel's history, by epoch and offset";
        Some(Recovery { by, dialect: self.dialect(), api: self.api() })
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        let program = std::path::absolute(&options.server)?;
        ensure!(
            program.exists(),
            "{} does not exist; build it with `cargo build --release` or give its path with --server",
            program.display()
        );
        let mut more = options.server_arguments.clone();
        if options.recovers {
            more.extend(HISTORY.map(|one| format!("--channel.without_namespace.{one}")));
        }
        if options.members {
            more.extend(MEMBERS.map(|one| format!("--channel.without_namespace.{one}")));
        }
        if let Some(TlsFiles { certificate, key }) = &options.tls {
            more.extend(tls_arguments(certificate, key));
        }
        let target = server::ServerOptions {
            program: program.clone(),
            port: options.port,
            internal_port: options.tls.as_ref().map(|_| options.publish_port),
            shards: options.workers,
            ping_seconds: options.ping_seconds.unwrap_or(SILENT_SECONDS),
            pong: options.ping_seconds.is_some(),
            spread_seconds: 0,
            arguments: more,
        };
        Ok(Launch { program, arguments: arguments(&target), environment: Vec::new() })
    }
}
