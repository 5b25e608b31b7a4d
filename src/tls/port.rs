//! TLS of a port that the server listens on.
//!
//! Owns the configuration of the server's side, for the life of the process: certificates and keys
//! inside it are replaced.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};

use super::issued::Issued;
use super::provider::provider;
use super::store::CertificateStore;
use super::tickets::Tickets;
use crate::base::failure::Failure;
use crate::config::{HttpServer, ServerTls, TlsAutocert};
use crate::wire::tls::handshake::ACME;

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
        TlsPort::of(place, options, CertificateStore::new(place, options)?, &[HTTP])
    }

    fn of(
        place: &str,
        options: &ServerTls,
        certificates: CertificateStore,
        protocols: &[&[u8]],
    ) -> Result<Self, Failure> {
        let certificates = Arc::new(certificates);
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
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
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
    /// Certificates of the public port from an ACME authority.
    pub issued: Option<Arc<Issued>>,
}

/// The host whose issued certificate clients without a server name get. Empty: the certificate of
/// the files.
fn default_host(server: &HttpServer) -> &str {
    let TlsAutocert { server_name, host_whitelist, .. } = &server.tls_autocert;
    if !server_name.is_empty() || !server.tls.cert_pem.is_empty() {
        return server_name;
    }
    host_whitelist.first().map_or("", String::as_str)
}

/// TLS of the public port with certificates of an ACME authority, beside those of files.
fn issuing_port(server: &HttpServer, issued: &Arc<Issued>) -> Result<TlsPort, Failure> {
    let place = "http_server.tls";
    // Centrifugo ignores the files then. Here they serve the hosts that the authority does not.
    let store = CertificateStore::new(place, &server.tls)?.with_issued(issued.clone());
    let protocols = if server.tls_autocert.http { &[HTTP][..] } else { &[HTTP, ACME] };
    TlsPort::of(place, &server.tls, store, protocols)
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
        let autocert = &server.tls_autocert;
        let issued = autocert.enabled.then(|| Arc::new(Issued::new(default_host(server))));
        let public = match &issued {
            None => port("http_server.tls", &server.tls)?,
            Some(issued) => Some(issuing_port(server, issued)?),
        };
        let internal = match port("http_server.internal_tls", &server.internal_tls)? {
            Some(own) => Some(own),
            None => public.clone().filter(|_| !server.tls_external),
        };
        Ok(TlsPorts { public, internal, issued })
    }

    /// Serves the certificates of other options, and reads files again whose names are the same.
    ///
    /// # Errors
    /// A certificate or key cannot be used. The old certificates of every port are served as
    /// before.
    pub fn reload(&self, old: &HttpServer, new: &HttpServer) -> Result<(), Failure> {
        if let Some(public) = &self.public {
            public.certificates.replace(&new.tls)?;
        }
        let Some(own) = self.internal.as_ref().filter(|_| new.internal_tls.enabled) else {
            return Ok(());
        };
        own.certificates.replace(&new.internal_tls).map(drop).inspect_err(|_| {
            if let Some(public) = &self.public {
                // Its files may have changed too; then the new certificates stay.
                let _ = public.certificates.replace(&old.tls);
            }
        })
    }

    /// A host of the certificate of each port that has TLS, the public one first.
    pub fn hosts(&self) -> [Option<String>; 2] {
        [&self.public, &self.internal]
            .map(|port| port.as_ref().map(|port| port.certificates.host()))
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
