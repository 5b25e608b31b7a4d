//! A certificate with its key: read, checked, and what it says about itself.
//!
//! Owns the checks. Never keeps a source. The invariant: the key belongs to the certificate.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::pem::PemSource;
use super::provider::provider;
use crate::base::failure::Failure;

/// A certificate that can be served.
#[derive(Debug)]
pub struct Certificate {
    /// Chain and private key.
    pub key: Arc<CertifiedKey>,
    /// Names of hosts in the certificate, in lower case.
    pub names: Vec<String>,
    /// When it is valid.
    pub validity: Validity,
}

/// The time in which a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

impl Validity {
    /// Seconds from the first to the last.
    pub fn lifetime(self) -> i64 {
        self.not_after.saturating_sub(self.not_before)
    }
}

impl Certificate {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// One of them cannot be read, they do not belong together, or the certificate has expired.
    pub fn read(certificate: &PemSource, key: &PemSource) -> Result<Self, Failure> {
        let chain = certificate.certificates()?;
        let private = key.private_key()?;
        let place = certificate.place();
        let found = Certificate::new(chain, private).map_err(|cause| match cause {
            Refusal::Mismatch => Failure::new(
                format!("{} does not belong to the certificate in {place}", key.place()),
                "use the key that the certificate was made for; the certificate of the server must \
                 be the first in its file",
            ),
            Refusal::Key(cause) => {
                Failure::new(format!("{}: {cause}", key.place()), "use an RSA, EC or Ed25519 key")
            }
            Refusal::Certificate(cause) => Failure::new(
                format!("{place}: the first certificate cannot be read: {cause}"),
                "write the certificate again, in PEM",
            ),
        })?;
        let late = now() - found.validity.not_after;
        if late > 0 {
            return Err(Failure::new(
                format!("{place}: the certificate expired {} ago", duration(late)),
                "renew it; if it is valid, correct the clock of this machine",
            ));
        }
        Ok(found)
    }

    /// A certificate of this chain and key.
    ///
    /// # Errors
    /// They cannot be used, or do not belong together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: rustls_pki_types::PrivateKeyDer<'static>,
    ) -> Result<Self, Refusal> {
        let Some(leaf) = chain.first().cloned() else {
            return Err(Refusal::Certificate("there is none".to_owned()));
        };
        let (_, parsed) = parse_x509_certificate(&leaf)
            .map_err(|refused| Refusal::Certificate(refused.to_string()))?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let names = names.collect();
        let validity = parsed.validity();
        let validity = Validity {
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        };
        let key =
            CertifiedKey::from_der(chain, key, &provider()).map_err(|refused| match refused {
                rustls::Error::InconsistentKeys(_) => Refusal::Mismatch,
                rustls::Error::InvalidCertificate(cause) => {
                    Refusal::Certificate(format!("{cause:?}"))
                }
                other => Refusal::Key(other.to_string()),
            })?;
        Ok(Certificate { key: Arc::new(key), names, validity })
    }
}

/// Why a chain and a key cannot be served.
#[derive(Debug)]
pub enum Refusal {
    /// The key belongs to another certificate.
    Mismatch,
    /// The key cannot be used.
    Key(String),
    /// The certificate cannot be read.
    Certificate(String),
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A number of seconds as text in its largest unit.
pub fn duration(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
