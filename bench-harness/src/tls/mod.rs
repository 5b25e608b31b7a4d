//! TLS on the client's side: certificates of a run, handshakes and sealed bytes.
//!
//! Owns the identity of the servers of a run, the configuration of its clients and the state of a
//! client's connection. Never serves. Invariant: after the handshake a connection keeps its
//! record keys alone, so that a million of them fit beside the server.

mod client;
mod handshake;
mod identity;
mod secrets;
mod session;
mod stream;
mod suite;
mod tickets;

pub use client::{ANOTHER, Client};
pub use identity::Identity;
pub(crate) use identity::server_config;
pub use session::Session;
pub use stream::Stream;
