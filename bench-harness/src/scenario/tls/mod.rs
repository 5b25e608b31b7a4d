//! TLS: memory and cost of connections, and of their handshakes.
//!
//! Owns the list of scenarios and the server that they share. Never interprets a number.

use anyhow::Result;

use super::Bench;
use crate::server::{Server, tls_arguments};
use crate::tls::{Client, Identity};

pub mod fanout;
pub mod handshakes;
pub mod memory;
pub mod million;
pub mod peers;
pub mod storm;

/// A server with TLS on its public port, and clients that make full handshakes with it.
pub(super) struct Secured {
    pub(super) server: Server,
    pub(super) client: Client,
}

impl Secured {
    /// Starts a server with this certificate.
    fn start(bench: &mut Bench, identity: &Identity) -> Result<Self> {
        let server = bench.server_apart(&arguments(identity))?;
        Ok(Secured { server, client: Client::new(identity.certificate())? })
    }
}

/// Arguments of a server with this certificate.
pub(super) fn arguments(identity: &Identity) -> Vec<String> {
    tls_arguments(&identity.certificate_file(), &identity.key_file())
}
