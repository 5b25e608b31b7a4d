//! TLS that is not of one connection: certificates, keys of tickets, configurations for both sides.
//!
//! Owns the provider of cryptography, which every configuration names. Never opens a socket and
//! never sees a record. The invariant: a certificate is served only together with the key that
//! belongs to it.

mod any_certificate;
mod certificate;
pub mod client;
mod client_authority;
mod fingerprint;
pub mod issued;
mod pem;
pub mod port;
pub mod provider;
mod served;
pub mod store;
mod tickets;

pub use self::certificate::Validity;
use self::client::TlsClients;
use self::port::TlsPorts;
use crate::base::failure::Failure;
use crate::config::Config;

/// TLS of a node.
#[derive(Clone, Debug)]
pub struct Tls {
    /// TLS of the ports.
    pub ports: TlsPorts,
    /// TLS of connections that the node opens, except those of feeds.
    pub clients: TlsClients,
}

impl Tls {
    /// TLS of this configuration.
    ///
    /// # Errors
    /// A certificate or key cannot be used.
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let ports = TlsPorts::new(&config.http_server)?;
        Ok(Tls { ports, clients: TlsClients::new(config)? })
    }
}
