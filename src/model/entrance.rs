//! A listener of the public port, as its connections know it.
//!
//! Owns no socket. A connection refers to its entrance by its index in the table of the node.

/// Maximum number of entrances of a node.
pub const ENTRANCES_MAX: usize = 16;

/// What a connection through one listener begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entrance {
    /// Name of the listener; empty: the one of `http_server.address`.
    pub name: String,
    /// Whether it is a Unix socket.
    pub unix: bool,
    /// Whether a connection begins with a PROXY header, which then is required.
    pub proxy_protocol: bool,
    /// Whether a TLS handshake comes before the first request.
    pub tls: bool,
}
