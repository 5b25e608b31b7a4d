//! The options of the dense client: channels, behavior and parameters.
//!
//! Owns the assignment of connections to channels and server addresses. Never does I/O.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::dialect::Dialect;
use crate::tls::Client;

/// Maximum number of connections to one loopback address. The kernel finds free local ports slowly
/// when more than half of the range is in use.
const PER_ADDRESS: u64 = 12_500;
/// Bytes that the kernel baseline sends on each socket after accept. The TCP handshake alone does
/// not show that the process accepted the socket.
pub const GREETING_BYTES: u64 = 1;

/// Assignment of connections to channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channels {
    /// All connections subscribe to this channel.
    Shared(String),
    /// Each connection has a channel of its own: `c0`, `c1`, ...
    Distinct,
    /// Each connection has a channel of its own in this namespace: `NAME:c0`, `NAME:c1`, ...
    DistinctIn(&'static str),
    /// The connections are spread over this many channels: `r0`, `r1`, ...
    Rooms(u64),
}

impl Channels {
    /// The channel of the connection with this index.
    pub fn of(&self, index: u64) -> String {
        match self {
            Channels::Shared(name) => name.clone(),
            Channels::Distinct => format!("c{index}"),
            Channels::DistinctIn(namespace) => format!("{namespace}:c{index}"),
            Channels::Rooms(rooms) => format!("r{}", index % rooms),
        }
    }

    /// The channel with number `nth`.
    pub fn nth(&self, nth: u64) -> String {
        match self {
            Channels::Rooms(_) => format!("r{nth}"),
            other => other.of(nth),
        }
    }

    /// Number of channels that `connections` connections use.
    pub fn count(&self, connections: u64) -> u64 {
        match self {
            Channels::Shared(_) => 1,
            Channels::Distinct | Channels::DistinctIn(_) => connections,
            Channels::Rooms(rooms) => (*rooms).min(connections),
        }
    }
}

/// Behavior of each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Opens a TCP connection, waits for the greeting of the kernel baseline and counts all bytes
    /// after it.
    Raw,
    /// Opens a TCP connection, and makes the TLS handshake if there is TLS. Sends nothing else.
    Handshake,
    /// Opens a TCP connection and sends the beginning of a request head, which never ends.
    HalfHead,
    /// Opens the transport, connects, subscribes and reads all publications.
    Subscribe(Channels),
    /// Like `Subscribe` with a small receive buffer, but stops reading after the subscription.
    Stall(Channels),
}

/// Parameters of the dense client.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Total number of connections.
    pub connections: u64,
    /// Port of the server.
    pub port: u16,
    /// Use only 127.0.0.1, for a server that does not listen on every loopback address.
    pub one_address: bool,
    /// Protocol of the clients. Raw connections do not use it.
    pub dialect: &'static dyn Dialect,
    /// Maximum number of connections per ring that are being established at the same time.
    pub in_flight: u32,
    /// Behavior of each connection.
    pub mode: Mode,
    /// TLS of the connections; `None`: plain TCP.
    pub tls: Option<Client>,
    /// Show no progress: the connections are one of many activities.
    pub quiet: bool,
}

impl Plan {
    /// The server address of the connection with this index.
    pub(super) fn peer(&self, index: u64) -> SocketAddrV4 {
        let many = self.connections.div_ceil(PER_ADDRESS).max(1);
        let addresses = if self.one_address { 1 } else { many };
        let last = 1 + (index % addresses) as u32;
        let ip = u32::from(Ipv4Addr::new(127, 0, 0, 0)) + last;
        SocketAddrV4::new(Ipv4Addr::from(ip), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_assigned_to_channels() {
        assert_eq!(Channels::Distinct.of(7), "c7");
        assert_eq!(Channels::DistinctIn("kept").of(7), "kept:c7");
        assert_eq!(Channels::Rooms(10).of(17), "r7");
        assert_eq!(Channels::Rooms(10).nth(7), "r7");
        assert_eq!(Channels::Shared("all".into()).of(3), "all");
        assert_eq!(Channels::Rooms(10).count(1000), 10);
    }
}
