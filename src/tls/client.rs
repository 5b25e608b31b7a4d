//! TLS of connections that the server opens: to backends, key sets and brokers.
//!
//! Owns the configuration of the client's side. Never connects.

use std::sync::{Arc, LazyLock};

use rustls::{ClientConfig, RootCertStore};

use super::any_certificate::AnyCertificate;
use super::certificate::Certificate;
use super::pem::PemSource;
use super::provider::provider;
use crate::base::failure::Failure;
use crate::base::secret::Secret;
use crate::config::{ClientTls, Config, FeedTls, Proxy};

/// Options of connections to one server.
pub struct ClientOptions<'a> {
    cert_pem: &'a str,
    key_pem: &'a Secret,
    server_ca_pem: &'a str,
    accepts_any: bool,
}

impl<'a> From<&'a FeedTls> for ClientOptions<'a> {
    fn from(tls: &'a FeedTls) -> Self {
        ClientOptions {
            cert_pem: &tls.cert_pem,
            key_pem: &tls.key_pem,
            server_ca_pem: &tls.server_ca_pem,
            accepts_any: tls.insecure_skip_verify,
        }
    }
}

impl<'a> From<&'a ClientTls> for ClientOptions<'a> {
    fn from(tls: &'a ClientTls) -> Self {
        ClientOptions {
            cert_pem: &tls.cert_pem,
            key_pem: &tls.key_pem,
            server_ca_pem: &tls.server_ca_pem,
            accepts_any: tls.insecure_skip_verify,
        }
    }
}

/// TLS of a node's connections to backends.
#[derive(Clone, Debug)]
pub struct TlsClients {
    /// For addresses without options of their own.
    pub default: ClientConfig,
    /// By the number of the proxy or hook: its options, and the name that its certificate must have
    /// (empty: the host).
    backends: Vec<Option<(ClientConfig, String)>>,
}

impl TlsClients {
    /// TLS of the backends of this configuration.
    ///
    /// # Errors
    /// A certificate or key cannot be used.
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let backend = |(place, proxy): (String, &Proxy)| {
            let tls = &proxy.http.tls;
            let options = || client(&format!("{place}.http.tls"), &tls.into());
            let options = tls.enabled.then(options).transpose()?;
            Ok(options.map(|options| (options, tls.server_name.clone())))
        };
        let backends = config.all_proxies().into_iter().map(backend);
        Ok(TlsClients { default: default_client()?, backends: backends.collect::<Result<_, _>>()? })
    }

    /// TLS of the proxy or hook of this number, if it has options of its own.
    pub fn backend(&self, number: usize) -> Option<&(ClientConfig, String)> {
        self.backends.get(number).and_then(Option::as_ref)
    }
}

/// TLS that trusts the authorities that browsers trust and those of the system.
///
/// # Errors
/// The provider lacks what TLS needs.
pub fn default_client() -> Result<ClientConfig, Failure> {
    trusting("tls", "")
}

/// TLS that trusts the authority in `ca`, a value of the configuration key `key`. Empty: the
/// authorities that browsers trust and those of the system.
///
/// # Errors
/// A certificate cannot be read.
pub fn trusting(key: &str, ca: &str) -> Result<ClientConfig, Failure> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|refused| unusable(key, &refused))?;
    Ok(builder.with_root_certificates(authorities(key, ca)?).with_no_client_auth())
}

/// TLS with the options of the section at `place`.
///
/// # Errors
/// A certificate or key cannot be read: the key of the configuration and the cause.
pub fn client(place: &str, options: &ClientOptions<'_>) -> Result<ClientConfig, Failure> {
    let roots = authorities(&format!("{place}.server_ca_pem"), options.server_ca_pem)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|refused| unusable(place, &refused))?;
    let builder = if options.accepts_any {
        let any = Arc::new(AnyCertificate(provider()));
        builder.dangerous().with_custom_certificate_verifier(any)
    } else {
        builder.with_root_certificates(roots)
    };
    if options.cert_pem.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = PemSource::new(format!("{place}.cert_pem"), options.cert_pem);
    let key = PemSource::new(format!("{place}.key_pem"), options.key_pem.reveal());
    // Reports a pair that does not fit, and an expired certificate.
    Certificate::read(&chain, &key)?;
    builder
        .with_client_auth_cert(chain.certificates()?, key.private_key()?)
        .map_err(|refused| unusable(place, &refused))
}

fn unusable(place: &str, refused: &rustls::Error) -> Failure {
    Failure::new(format!("{place}: {refused}"), "correct the certificates and keys of the section")
}

/// The authorities that sign certificates of servers. Empty text: those that browsers trust, and
/// those of the system, which an operator can extend.
fn authorities(key: &str, given: &str) -> Result<Arc<RootCertStore>, Failure> {
    if !given.is_empty() {
        return authorities_of(&PemSource::new(key, given)).map(Arc::new);
    }
    static KNOWN: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
        let mut known = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        // A damaged certificate of the system is left out.
        known.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(known)
    });
    Ok(KNOWN.clone())
}

/// The authorities of a source.
///
/// # Errors
/// It cannot be read, or contains a certificate that cannot be one of an authority.
pub(super) fn authorities_of(source: &PemSource) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in source.certificates()? {
        roots.add(certificate).map_err(|refused| {
            Failure::new(
                format!("{}: {refused}", source.place()),
                "give the certificates of the authority alone, in PEM",
            )
        })?;
    }
    Ok(roots)
}
