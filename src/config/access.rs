//! Whether the server is open to everybody on its own machine, and what it serves then.
//!
//! Owns the rule for "nothing was configured". Never serves a request. The invariant: a server is
//! open only where no file, no variable and no flag about access was given, and only on loopback.

use crate::base::sys;

use super::key::{CENTRIFUGO_PREFIX, PREFIX};
use super::sources::Sources;

/// To whom the server is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing was configured: everybody on this machine may connect, subscribe and publish.
    Open,
    /// Only what the configuration allows. Names the setting that made it so.
    Closed(String),
}

impl Access {
    /// Whether everybody on this machine is let in.
    pub fn is_open(&self) -> bool {
        *self == Access::Open
    }
}

/// Sections and keys whose flags say who may do what. Any of them closes the server.
const ABOUT_ACCESS: [&str; 6] =
    ["client", "channel", "rpc", "proxies", "http_api.key", "http_api.insecure"];
/// Keys that name an address to listen on. An address that others reach closes the server.
const ADDRESSES: [&str; 2] = ["http_server.address", "http_server.internal_address"];

/// Switches that are on where the server is open.
pub(super) const OPEN_SWITCHES: [&str; 12] = [
    "client.allow_anonymous_connect_without_token",
    "channel.without_namespace.allow_subscribe_for_client",
    "channel.without_namespace.allow_subscribe_for_anonymous",
    "channel.without_namespace.allow_publish_for_client",
    "channel.without_namespace.allow_publish_for_anonymous",
    "uni_websocket.enabled",
    "uni_http_stream.enabled",
    "uni_sse.enabled",
    "long_polling.enabled",
    "prometheus.enabled",
    "swagger.enabled",
    "page.enabled",
];
/// The address that an open server listens on.
pub(super) const OPEN_ADDRESS: &str = "127.0.0.1";

impl Sources {
    /// Whether a server with these sources is open; `file` is the file that was read.
    pub(super) fn access(&self, file: Option<&str>) -> Access {
        let variable = || {
            let told =
                |name: &&String| name.starts_with(PREFIX) || name.starts_with(CENTRIFUGO_PREFIX);
            let name = self.environment.iter().map(|(name, _)| name).find(told)?;
            Some(format!("{name} in the environment"))
        };
        let flag = || {
            let (path, text) = self.flags.iter().find(|(path, text)| closes(path, text))?;
            let is_address = ADDRESSES.contains(&path.as_str());
            Some(if is_address { format!("--{path} {text}") } else { format!("--{path}") })
        };
        let setting = file.map(str::to_owned).or_else(variable).or_else(flag);
        setting.map_or(Access::Open, Access::Closed)
    }
}

/// Whether a flag closes the server.
fn closes(path: &str, text: &str) -> bool {
    let below = |section: &str| {
        path.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let everybody = || !sys::listen_address(text, 0).is_ok_and(|found| found.ip().is_loopback());
    // An empty internal address is the public one.
    let same = path == "http_server.internal_address" && text.is_empty();
    ABOUT_ACCESS.iter().any(|section| below(section))
        || (ADDRESSES.contains(&path) && !same && everybody())
}
