//! Certificates that an ACME authority has issued, and those that answer its challenges.
//!
//! Owns both. Never asks the authority. The invariant: a challenge certificate is served only to a
//! client that offers the protocol of the challenge.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use super::certificate::{Certificate, Validity, now};
use super::pem::PemSource;
use super::provider::provider;
use crate::base::failure::Failure;

/// Length of a challenge's digest in bytes.
const DIGEST: usize = 32;

#[derive(Debug, Default)]
struct Hosts {
    certificates: HashMap<String, Arc<Certificate>>,
    challenges: HashMap<String, Arc<CertifiedKey>>,
}

/// Certificates by host.
#[derive(Debug)]
pub struct Issued {
    /// Host for clients that send no name, and for unknown names.
    default: String,
    hosts: RwLock<Hosts>,
}

impl Issued {
    /// No certificates yet. Clients without a name get that of `default`, once there is one.
    pub fn new(default: &str) -> Self {
        Issued { default: default.to_ascii_lowercase(), hosts: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Hosts> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Hosts> {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the certificate and key in a PEM file to clients that ask for `host`.
    ///
    /// # Errors
    /// The file cannot be used, or its certificate is for another host.
    pub fn load(&self, host: &str, file: &Path) -> Result<(), Failure> {
        let source = PemSource::new("http_server.tls_autocert", &file.display().to_string());
        let certificate = Certificate::read(&source, &source)?;
        if !certificate.names.iter().any(|name| name == host) {
            return Err(Failure::new(
                format!("{}: the certificate is not for {host}", file.display()),
                "remove the file, so that a new certificate is requested",
            ));
        }
        self.write().certificates.insert(host.to_owned(), Arc::new(certificate));
        Ok(())
    }

    /// The validity of a host's certificate.
    pub fn validity(&self, host: &str) -> Option<Validity> {
        self.read().certificates.get(host).map(|one| one.validity)
    }

    /// The validity of the certificate that expires first.
    pub fn first_to_expire(&self) -> Option<Validity> {
        let all = self.read();
        let validities = all.certificates.values().map(|one| one.validity);
        validities.min_by_key(|found| found.not_after)
    }

    /// The host whose certificate clients without a server name get. Empty: none.
    pub(super) fn default_host(&self) -> &str {
        &self.default
    }

    /// Answers the challenge of a host with this digest.
    ///
    /// # Errors
    /// The certificate of the challenge cannot be made.
    pub fn begin_challenge(&self, host: &str, digest: &[u8]) -> Result<(), String> {
        if digest.len() != DIGEST {
            return Err("the digest of the challenge has a wrong length".to_owned());
        }
        let text = |refused: rcgen::Error| refused.to_string();
        let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(text)?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate().map_err(text)?;
        let chain = vec![params.self_signed(&key).map_err(text)?.der().clone()];
        let private = PrivateKeyDer::try_from(key.serialize_der())?;
        // The critical extension of the challenge keeps rustls from checking the pair itself.
        let private = provider().key_provider.load_private_key(private);
        let private = private.map_err(|refused| refused.to_string())?;
        let answer = Arc::new(CertifiedKey::new(chain, private));
        self.write().challenges.insert(host.to_owned(), answer);
        Ok(())
    }

    /// Answers the challenge of a host no longer.
    pub fn end_challenge(&self, host: &str) {
        self.write().challenges.remove(host);
    }

    pub(super) fn challenge(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.read().challenges.get(host).cloned()
    }

    /// The certificate of a server name, or of the default host if the client sends none.
    pub(super) fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let hosts = self.read();
        hosts.certificates.get(name.unwrap_or(&self.default)).map(|one| one.key.clone())
    }

    /// The certificate for unknown names.
    pub(super) fn any(&self) -> Option<Arc<CertifiedKey>> {
        let hosts = self.read();
        let default = hosts.certificates.get(&self.default);
        default.or_else(|| hosts.certificates.values().next()).map(|one| one.key.clone())
    }

    /// Whether two thirds of the lifetime of a host's certificate are over, or there is none.
    pub fn is_due(&self, host: &str) -> bool {
        self.validity(host).is_none_or(|validity| now() >= renewal(validity))
    }
}

/// When a certificate is renewed: after two thirds of its own lifetime.
fn renewal(validity: Validity) -> i64 {
    validity.not_before.saturating_add(validity.lifetime() / 3 * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_own_lifetime() {
        const DAY: i64 = 86_400;
        let renewal = |not_before, not_after| renewal(Validity { not_before, not_after });
        assert_eq!(renewal(0, 90 * DAY), 60 * DAY);
        assert_eq!(renewal(100, 100 + 6 * DAY), 100 + 4 * DAY);
        assert_eq!(renewal(0, 600), 400);
    }

    #[test]
    fn a_challenge_is_answered_only_while_it_lasts() {
        let issued = Issued::new("A.test");
        assert!(issued.is_due("a.test") && issued.find(None).is_none() && issued.any().is_none());
        issued.begin_challenge("a.test", &[7; 32]).unwrap();
        assert!(issued.begin_challenge("a.test", &[7; 31]).is_err());
        let answer = issued.challenge("a.test").unwrap();
        // The extension of RFC 8737 with the digest as its value.
        let extension = [&[0x04, 0x22, 0x04, 0x20][..], &[7; 32]].concat();
        assert!(answer.cert[0].windows(36).any(|found| found == extension));
        assert!(issued.find(Some("a.test")).is_none(), "not to other clients");
        issued.end_challenge("a.test");
        assert!(issued.challenge("a.test").is_none());
    }
}
