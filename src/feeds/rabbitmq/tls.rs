//! TLS to a broker.
//!
//! Owns the client's configuration of TLS. Never shows a key. The invariant: cryptography is
//! aws-lc-rs, named here, so no other library in the process can decide it.

use std::io;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::unverified::AnyCertificate;
use crate::config::FeedTls;

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
    pub fn new(options: &FeedTls) -> Result<Self, String> {
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let roots = roots(&options.server_ca_pem)?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("tls: {error}"))?;
        let builder = if options.insecure_skip_verify {
            let any = Arc::new(AnyCertificate(provider));
            builder.dangerous().with_custom_certificate_verifier(any)
        } else {
            builder.with_root_certificates(roots)
        };
        let config = if options.cert_pem.is_empty() {
            builder.with_no_client_auth()
        } else {
            let chain = certificates("cert_pem", &options.cert_pem)?;
            let key = pem("key_pem", options.key_pem.reveal())?;
            let key = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|_| "tls.key_pem contains no private key in PEM".to_owned())?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("tls.cert_pem and key_pem: {error}"))?
        };
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

/// The authorities that sign brokers' certificates.
fn roots(given: &str) -> Result<RootCertStore, String> {
    if given.is_empty() {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates("server_ca_pem", given)? {
        roots.add(certificate).map_err(|error| format!("tls.server_ca_pem: {error}"))?;
    }
    Ok(roots)
}

/// Certificates in PEM, at least one.
fn certificates(key: &str, given: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = pem(key, given)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("tls.{key} contains no certificate in PEM")),
    }
}

/// The PEM text of an option: the option itself, or the file that it names.
fn pem(key: &str, given: &str) -> Result<Vec<u8>, String> {
    if given.contains("-----BEGIN") {
        return Ok(given.as_bytes().to_vec());
    }
    // The text is not shown, because it may be a damaged key.
    std::fs::read(given).map_err(|refused| {
        format!("tls.{key} is neither PEM nor a file that can be read: {refused}")
    })
}
