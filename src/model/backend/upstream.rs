//! The configured backends, as shards know them: by index.
//!
//! Owns the types. Never knows a URL.

use std::collections::HashMap;

use crate::wire::protocol::Error;

/// Index of a configured proxy or hook endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream(pub u16);

/// Backends for events that concern no channel, and what shards keep for requests to backends.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    /// Backend that authenticates clients without a token; `None`: no connect proxy.
    pub connect: Option<Upstream>,
    /// Backend that extends connections; `None`: no refresh proxy.
    pub refresh: Option<Upstream>,
    /// Backends that handle RPCs.
    pub calls: RpcUpstreams,
    /// Backend that receives disconnects; `None`: no disconnect hook.
    pub disconnect_hook: Option<Upstream>,
    /// Data of clients to keep for requests.
    pub wants: ContextFields,
    /// Maximum number of hook events that wait on a shard.
    pub waiting_max: usize,
}

/// Backends that handle RPCs.
#[derive(Clone, Debug, Default)]
pub struct RpcUpstreams {
    /// Backend of methods without a namespace; `None`: such methods are not available.
    pub without: Option<Upstream>,
    /// Backend of each namespace, by its name.
    pub named: HashMap<Box<str>, Option<Upstream>>,
    /// Separates the namespace from the rest of a method; empty: no namespaces.
    pub boundary: String,
}

impl RpcUpstreams {
    /// The backend of a method, or the error for the client if there is none.
    pub fn upstream(&self, method: &str) -> Result<Upstream, Error> {
        let name = match self.boundary.as_str() {
            "" => None,
            boundary => method.split_once(boundary).map(|(name, _)| name),
        };
        let upstream = match name {
            None => self.without,
            Some(name) => *self.named.get(name).ok_or(Error::METHOD_NOT_FOUND)?,
        };
        upstream.ok_or(Error::NOT_AVAILABLE)
    }
}

/// Data of clients to keep, because a configured endpoint receives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextFields {
    /// Names of headers of clients' HTTP requests, in lower case.
    pub headers: Vec<String>,
    /// Names of headers in clients' connect commands, in lower case.
    pub emulated: Vec<String>,
    /// Keep the `meta` of tokens and backend answers.
    pub meta: bool,
}
