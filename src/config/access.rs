//! Whether the server is open to everybody on its own machine, and what it serves then.
//!
//! Owns the rule for "nothing was configured". Never serves a request. The invariant: a server is
//! open only where no file, no variable and no flag about access was given, and only on loopback.

use crate::base::sys;

use super::key::{CENTRIFUGO_PREFIX, PREFIX};
use super::{Config, Sources, Token};

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

impl Config {
    /// How clients get in, and what to set where they do not.
    pub fn entrance(&self) -> String {
        let (client, channel) = (&self.client, &self.channel);
        if client.insecure {
            return "client.insecure lets everybody do everything".to_owned();
        }
        let subscription = &client.subscription_token;
        let connects = [
            (client.token.verifies() || client.insecure_skip_token_signature_verify, "a token"),
            (client.proxy.connect.enabled, "the connect proxy's consent"),
            (client.allow_anonymous_connect_without_token, "no token"),
        ];
        let connects: Vec<&str> =
            connects.into_iter().filter(|(given, _)| *given).map(|(_, by)| by).collect();
        if connects.is_empty() {
            return "no client can connect: set client.token.hmac_secret_key (or another key of \
                    client.token), client.proxy.connect.enabled or \
                    client.allow_anonymous_connect_without_token"
                .to_owned();
        }
        let named = channel.namespaces.iter().map(|namespace| &namespace.options);
        let subscribes = named.chain([&channel.without_namespace]).any(|options| {
            options.allow_subscribe_for_client
                || options.subscribe_proxy_enabled
                || options.allow_user_limited_channels
        });
        let by = connects.join(" or ");
        let tokens =
            client.token.verifies() || (subscription.enabled && subscription.token.verifies());
        match (subscribes, tokens) {
            (true, _) => format!("clients connect with {by}"),
            (false, true) => format!(
                "clients connect with {by} and subscribe with a token alone: set \
                 channel.without_namespace.allow_subscribe_for_client to let all subscribe"
            ),
            (false, false) => format!(
                "clients connect with {by}, but cannot subscribe: set \
                 channel.without_namespace.allow_subscribe_for_client, and \
                 allow_subscribe_for_anonymous for clients without a user"
            ),
        }
    }
}

impl Token {
    /// Whether there is a key that tokens can be verified with.
    fn verifies(&self) -> bool {
        let keys = [
            self.hmac_secret_key.is_empty(),
            self.rsa_public_key.is_empty(),
            self.ecdsa_public_key.is_empty(),
            self.jwks_public_endpoint.is_empty(),
        ];
        keys.contains(&false)
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
