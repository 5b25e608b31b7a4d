//! The parameters of readers.
//!
//! Owns no state. Never does I/O.

use std::net::SocketAddr;

use super::way::Way;
use crate::dense::Channels;

/// The clients of a measurement.
#[derive(Debug, Clone)]
pub struct ReaderPlan {
    /// The server, or a relay to it.
    pub server: SocketAddr,
    /// How the clients get prices.
    pub way: Way,
    /// Number of clients.
    pub clients: u64,
    /// The channel of each client.
    pub channels: Channels,
    /// Path of a poll; `{}` in it stands for the channel.
    pub path: String,
    /// Header lines of each request, each with its CRLF.
    pub headers: String,
    /// Time between two polls of a client, in ns.
    pub interval_ns: u64,
    /// Bytes of a price.
    pub bytes: usize,
}
