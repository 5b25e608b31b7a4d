//! Whether the server is open to everyone on its own machine, and which features it then enables.
//!
//! Owns the rule for a server without configuration. Never serves a request. The invariant: a
//! server is open only if no file, no environment variable and no flag about access is given. It
//! then listens on loopback only.

use crate::base::sys;

use super::environment::is_of_kubernetes;
use super::key::{CENTRIFUGO_PREFIX, PREFIX};
use super::sources::Sources;

/// Whether the server is open to everyone on its own machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing is configured: everyone on this machine may connect, subscribe and publish.
    Open,
    /// The server allows only what the configuration allows. Names the setting that closed it.
    Closed(String),
}

impl Access {
    /// Whether everyone on this machine may connect.
    pub fn is_open(&self) -> bool {
        *self == Access::Open
    }
}

/// Sections and keys about permissions. A flag for any of them closes the server.
const PERMISSION_KEYS: [&str; 6] =
    ["client", "channel", "rpc", "proxies", "http_api.key", "http_api.insecure"];
/// Keys that name an address to listen on. A flag with an address other than loopback closes the
/// server.
const ADDRESSES: [&str; 2] = ["http_server.address", "http_server.internal_address"];

/// Boolean keys that an open server sets to true.
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
    /// Whether a server with these sources is open. `file` is the file that was read, if any.
    pub(super) fn access(&self, file: Option<&str>) -> Access {
        let variable = || {
            let ours = |name: &str| name.starts_with(PREFIX) || name.starts_with(CENTRIFUGO_PREFIX);
            // An empty variable counts as unset, and Kubernetes sets variables for its services.
            let sets = |name: &str, text: &str| !text.is_empty() && !is_of_kubernetes(name, text);
            let mut set = self.environment.iter().filter(|(name, text)| sets(name, text));
            let name = set.find(|(name, _)| ours(name)).map(|(name, _)| name)?;
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
    let is_reachable = || !sys::listen_address(text, 0).is_ok_and(|found| found.ip().is_loopback());
    // With an empty internal address the internal port uses the public address.
    let is_public_address = path == "http_server.internal_address" && text.is_empty();
    PERMISSION_KEYS.iter().any(|section| below(section))
        || (ADDRESSES.contains(&path) && !is_public_address && is_reachable())
}
