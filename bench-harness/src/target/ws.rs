//! Node's `ws`: the small server in `bench-harness/peers/ws`.
//!
//! Owns its adapter. Never installs it: the setup does. Invariant: one process serves, as Node does
//! unless its user writes a cluster.

use anyhow::Result;

use super::{Adapter, Launch, TargetOptions, installed};
use crate::dialect::{Dialect, Subscriber};
use crate::publish::{Api, Post};

#[derive(Debug)]
pub(super) struct Ws;

impl Dialect for Ws {
    fn path(&self, who: &Subscriber<'_>) -> String {
        format!("/{}", who.channel)
    }
}

impl Adapter for Ws {
    fn name(&self) -> &'static str {
        "ws"
    }

    fn about(&self) -> &'static str {
        "Node's ws, one process, a loop over the topic's sockets, publications by HTTP"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Ws
    }

    fn api(&self) -> Api {
        Api::Http(Post::bare("/publish/{}"))
    }

    fn pings(&self) -> bool {
        true
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        options.made("ws/node_modules/ws")?;
        let script = options.made("ws/server.cjs")?.to_string_lossy().into_owned();
        let program = installed(&["/usr/bin/node", "/usr/local/bin/node"], "Node")?;
        let mut arguments = vec![script, options.port.to_string()];
        arguments.extend(options.ping_seconds.map(|seconds| seconds.to_string()));
        Ok(Launch { program, arguments, environment: Vec::new() })
    }
}
