//! Where the backend is asked and told, as the data plane knows it: by numbers.
//!
//! Owns the types. Never knows an address.

use std::collections::HashMap;

use crate::wire::protocol::Error;

/// One of the configured places where the backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream(pub u16);

/// Where the backend is asked about what concerns no channel, and what it wants to know.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    /// Who may connect without a token.
    pub connect: Option<Upstream>,
    /// How much longer a connection holds.
    pub refresh: Option<Upstream>,
    /// Who carries out calls.
    pub calls: RpcUpstreams,
    /// Who is told of clients that are gone.
    pub disconnect_hook: Option<Upstream>,
    /// What is to be kept of clients.
    pub wants: ContextFields,
    /// What may wait on a shard to be told to the backend.
    pub waiting_max: usize,
}

/// Who carries out calls.
#[derive(Clone, Debug, Default)]
pub struct RpcUpstreams {
    /// Those of methods without a namespace.
    pub without: Option<Upstream>,
    /// The others, by the name in front of the boundary.
    pub named: HashMap<Box<str>, Option<Upstream>>,
    /// Behind a namespace's name; empty: there are none.
    pub boundary: String,
}

impl RpcUpstreams {
    /// Who carries a method out, or why nobody does.
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

/// What is to be kept of clients since some endpoint wants to see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextFields {
    /// Headers of clients' HTTP requests, in lower case.
    pub headers: Vec<String>,
    /// Headers that clients give with their connect, in lower case.
    pub emulated: Vec<String>,
    /// What the backend or a token said for the backend's eyes.
    pub meta: bool,
}
