//! uWebSockets in C++: the small server in `bench-harness/peers/uwebsockets`.
//!
//! Owns its adapter. Never builds it: the setup does. Invariant: the path of the upgrade is the
//! topic, and the server subscribes before it answers the upgrade.

use anyhow::Result;

use super::{Adapter, Launch, TargetOptions, TlsFiles};
use crate::dialect::{Dialect, Subscriber};
use crate::publish::{Api, Post};

#[derive(Debug)]
pub(super) struct UWebSockets;

impl Dialect for UWebSockets {
    fn path(&self, who: &Subscriber<'_>) -> String {
        format!("/{}", who.channel)
    }
}

impl Adapter for UWebSockets {
    fn name(&self) -> &'static str {
        "uwebsockets"
    }

    fn about(&self) -> &'static str {
        "uWebSockets, C++, one App per thread, publications by HTTP"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &UWebSockets
    }

    fn api(&self) -> Api {
        Api::Http(Post::bare("/publish/{}"))
    }

    fn pings(&self) -> bool {
        true
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        let mut arguments = vec![options.port.to_string(), options.workers.to_string()];
        if let Some(TlsFiles { certificate, key }) = &options.tls {
            arguments.push(options.ping_seconds.unwrap_or(0).to_string());
            arguments.push(options.publish_port.to_string());
            arguments.extend([certificate, key].map(|path| path.to_string_lossy().into_owned()));
            let program = options.made("uwebsockets/server-tls")?;
            return Ok(Launch { program, arguments, environment: Vec::new() });
        }
        arguments.extend(options.ping_seconds.map(|seconds| seconds.to_string()));
        let program = options.made("uwebsockets/server")?;
        Ok(Launch { program, arguments, environment: Vec::new() })
    }
}
