//! TLS of a port that the server listens on.
//!
//! Owns the configuration of the server's side, for the life of the process: certificates and keys
//! inside it are replaced.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};

use super::provider::provider;
use super::store::CertificateStore;
use super::tickets::Tickets;
use crate::base::failure::Failure;
use crate::config::{HttpServer, ServerTls};

/// The protocol that clients and server agree on (ALPN).
const HTTP: &[u8] = b"http/1.1";

/// TLS of a port.
#[derive(Clone, Debug)]
pub struct TlsPort {
    /// The certificates.
    pub certificates: Arc<CertificateStore>,
    /// What handshakes need.
    pub config: Arc<ServerConfig>,
}

impl TlsPort {
    /// TLS with the options of the section at `place`.
    ///
    /// # Errors
    /// A certificate, a key or the file of ticket keys cannot be used.
    pub fn new(place: &str, options: &ServerTls) -> Result<Self, Failure> {
        let certificates = Arc::new(CertificateStore::new(place, options)?);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|refused| {
                Failure::new(format!("{place}: {refused}"), "report this as a fault of the build")
            })?;
        let clients = certificates.clients();
        let is_mutual = clients.is_some();
        let mut config = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        }
        .with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![HTTP.to_vec()];
        // Sessions are kept in tickets alone.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if is_mutual {
            // A resumed session would not be checked against an authority that has changed.
            config.send_tls13_tickets = 0;
        } else {
            let file = Path::new(&options.session_ticket_key_file);
            let file = (!file.as_os_str().is_empty()).then_some(file);
            let key = format!("{place}.session_ticket_key_file");
            config.ticketer = Arc::new(Tickets::new(&key, file)?);
        }
        Ok(TlsPort { certificates, config: Arc::new(config) })
    }
}

/// TLS of the ports of a node.
#[derive(Clone, Debug, Default)]
pub struct TlsPorts {
    /// The public port; `None`: plain.
    pub public: Option<TlsPort>,
    /// The internal port; `None`: plain.
    pub internal: Option<TlsPort>,
}

impl TlsPorts {
    /// TLS of the ports of this configuration.
    ///
    /// # Errors
    /// A certificate, a key or a file of ticket keys cannot be used.
    pub fn new(server: &HttpServer) -> Result<Self, Failure> {
        let port = |place: &str, options: &ServerTls| {
            options.enabled.then(|| TlsPort::new(place, options)).transpose()
        };
        let public = port("http_server.tls", &server.tls)?;
        let internal = match port("http_server.internal_tls", &server.internal_tls)? {
            Some(own) => Some(own),
            None => public.clone().filter(|_| !server.tls_external),
        };
        Ok(TlsPorts { public, internal })
    }

    /// The certificates of the ports, each store once.
    pub fn stores(&self) -> Vec<Arc<CertificateStore>> {
        let ports = [&self.public, &self.internal];
        let mut stores: Vec<_> =
            ports.into_iter().flatten().map(|port| port.certificates.clone()).collect();
        stores.dedup_by(|one, other| Arc::ptr_eq(one, other));
        stores
    }
}
