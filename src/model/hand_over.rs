//! Sockets that change between a shard and the control plane.
//!
//! Owns the types and no state.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use crate::base::connection_limits::ControlPermit;
use crate::wire::http::Upgrade;
use crate::wire::tls::SealedConnection;

/// A socket that the control plane hands over to a shard.
#[derive(Debug)]
pub struct Adopt {
    /// The socket.
    pub socket: OwnedFd,
    /// The listener that the client connected to.
    pub entrance: u8,
    /// The request that was answered with 101; `None`: the first request is still to be read.
    pub upgrade: Option<Upgrade>,
    /// Bytes already read: those behind the upgrade request, or all without one.
    pub bytes: Vec<u8>,
    /// The TLS session of the socket, if it has one.
    pub sealed: Option<SealedConnection>,
    /// Counts the socket among those of the control plane until a shard takes it over.
    pub permit: Option<ControlPermit>,
    /// Whether a trusted peer is still to name the client.
    pub forwarded: bool,
    /// The address of the client, if it is known.
    pub client: Option<IpAddr>,
}

/// A socket that a shard hands over to the control plane.
#[derive(Debug)]
pub struct HandOver {
    /// The socket.
    pub socket: OwnedFd,
    /// The listener that the client connected to.
    pub entrance: u8,
    /// Bytes already read: at least one complete request head.
    pub bytes: Vec<u8>,
    /// The TLS session of the socket, if it has one.
    pub sealed: Option<SealedConnection>,
    /// Counts the socket among those of the control plane.
    pub permit: ControlPermit,
}
