//! The certificates that are served at a moment, and the choice among them.
//!
//! Owns the table of names. Never reads a file.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use super::certificate::{Certificate, Validity};

/// Certificates by name. The first one is served to clients that send no name, or an unknown one.
#[derive(Debug, Default)]
pub struct Served {
    certificates: Vec<Arc<Certificate>>,
    by_name: HashMap<String, Vec<Arc<Certificate>>>,
}

impl Served {
    /// A table of these certificates, the default one first.
    pub fn new(certificates: Vec<Arc<Certificate>>) -> Self {
        let mut by_name: HashMap<String, Vec<Arc<Certificate>>> = HashMap::new();
        for certificate in &certificates {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(certificate.clone());
            }
        }
        Served { certificates, by_name }
    }

    /// The certificates, the default one first.
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    /// The certificate for a server name in lower case, with a key that can sign by one of
    /// `schemes` if there is one. An exact name comes before a wildcard, and a known name before
    /// the default.
    pub fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Certificate> {
        let exact = name.and_then(|name| self.by_name.get(name));
        let wildcard = || {
            let (_, domain) = name?.split_once('.')?;
            self.by_name.get(&format!("*.{domain}"))
        };
        let named = exact.or_else(wildcard).map_or(&[][..], Vec::as_slice);
        let signs = |key: &CertifiedKey| key.key.choose_scheme(schemes).is_some();
        let mut candidates = named.iter().chain(&self.certificates);
        // Without a match, the handshake fails for want of a common cipher suite.
        let first = candidates.clone().next();
        candidates.find(|one| signs(&one.key)).or(first).map(|found| &**found)
    }

    /// The validity of the certificate that expires first.
    pub fn first_to_expire(&self) -> Option<Validity> {
        self.certificates.iter().map(|one| one.validity).min_by_key(|found| found.not_after)
    }
}
