//! The two plain broadcast servers of this package, see [`crate::plain`].
//!
//! Owns their adapters. Never serves: they are commands of this program. Invariant: the path of the
//! upgrade is the topic, and the server subscribes before it answers the upgrade.

use anyhow::{Context, Result};

use super::{Adapter, Launch, TargetOptions};
use crate::dialect::{Dialect, Subscriber};
use crate::publish::{Api, Post};

/// One of them.
#[derive(Debug)]
pub(super) enum Plain {
    Monoio,
    Tokio,
}

impl Dialect for Plain {
    fn path(&self, who: &Subscriber<'_>) -> String {
        format!("/{}", who.channel)
    }
}

impl Adapter for Plain {
    fn name(&self) -> &'static str {
        match self {
            Plain::Monoio => "monoio",
            Plain::Tokio => "tokio",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Plain::Monoio => {
                "plain broadcast on monoio, two tasks per connection, publications by HTTP"
            }
            Plain::Tokio => {
                "plain broadcast on tokio-tungstenite with its defaults, publications by HTTP"
            }
        }
    }

    fn dialect(&self) -> &'static dyn Dialect {
        match self {
            Plain::Monoio => &Plain::Monoio,
            Plain::Tokio => &Plain::Tokio,
        }
    }

    fn api(&self) -> Api {
        Api::Http(Post::bare("/publish/{}"))
    }

    fn has_publish_port(&self) -> bool {
        true
    }

    fn pings(&self) -> bool {
        true
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut arguments = vec![
            format!("plain-{}", self.name()),
            format!("--port={}", options.port),
            format!("--publish-port={}", options.publish_port),
            format!("--workers={}", options.workers),
        ];
        arguments.extend(options.ping_seconds.map(|seconds| format!("--ping-seconds={seconds}")));
        Ok(Launch { program, arguments, environment: Vec::new() })
    }
}
