//! Sockudo, a server of Pusher's protocol.
//!
//! Owns its adapter. Never raises a limit that no scenario meets. Invariant: one application, without
//! limits of rate.

use anyhow::Result;

use super::{Adapter, Launch, TargetOptions};
use crate::dialect::{self, Dialect};
use crate::publish::{Api, Post, PusherApp};

#[derive(Debug)]
pub(super) struct Sockudo;

const APP: PusherApp = PusherApp { id: "bench", key: "bench-key", secret: "bench-secret" };
/// More than any scenario needs.
const PLENTY: &str = "1000000";

impl Adapter for Sockudo {
    fn name(&self) -> &'static str {
        "sockudo"
    }

    fn about(&self) -> &'static str {
        "Sockudo 5.2.0, Pusher protocol, signed publications by HTTP (it closes the \
         connection behind each answer), limits of rate and metrics off, \
         TOKIO_WORKER_THREADS as many as the workers of the others"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &dialect::Pusher { key: APP.key }
    }

    fn api(&self) -> Api {
        Api::Http(Post::pusher(APP))
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        let program = options.made("sockudo/bin/sockudo")?;
        let environment = [
            ("HOST", "127.0.0.1".to_owned()),
            ("PORT", options.port.to_string()),
            ("METRICS_ENABLED", "false".to_owned()),
            ("RATE_LIMITER_ENABLED", "false".to_owned()),
            ("SOCKUDO_DEFAULT_APP_ID", APP.id.to_owned()),
            ("SOCKUDO_DEFAULT_APP_KEY", APP.key.to_owned()),
            ("SOCKUDO_DEFAULT_APP_SECRET", APP.secret.to_owned()),
            ("SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS", PLENTY.to_owned()),
            ("SOCKUDO_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SECOND", PLENTY.to_owned()),
            ("TOKIO_WORKER_THREADS", options.workers.to_string()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Ok(Launch { program, arguments: Vec::new(), environment })
    }
}
