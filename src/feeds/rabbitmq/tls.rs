//! TLS to a broker.
//!
//! Owns the name that the broker's certificate must have. Never shows a key.

use std::io;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::base::failure::Failure;
use crate::config::FeedTls;
use crate::tls::client::client;

/// Connects with TLS.
pub struct Tls {
    connector: TlsConnector,
    /// Name in the broker's certificate; empty: the host.
    server_name: String,
}

impl Tls {
    /// TLS with these options.
    ///
    /// # Errors
    /// A certificate or key cannot be read: the key of the configuration and the cause.
    pub fn new(options: &FeedTls) -> Result<Self, Failure> {
        let config = client("tls", &options.into())?;
        let server_name = options.server_name.clone();
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    /// The TLS handshake over a socket to this host.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = if self.server_name.is_empty() { host } else { &self.server_name };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        self.connector.connect(name, stream).await
    }
}
