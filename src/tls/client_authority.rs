//! The authority that signs client certificates, which a reload can replace.
//!
//! Owns the verifier of the moment. The invariant: a client without a certificate is refused.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::client::authorities_of;
use super::pem::PemSource;
use super::provider::provider;
use crate::base::failure::Failure;

/// A verifier of client certificates.
pub type Verifier = Arc<dyn ClientCertVerifier>;

/// Reads the authority of a source.
///
/// # Errors
/// The source cannot be read, or contains no certificate of an authority.
pub fn verifier(source: &PemSource) -> Result<Verifier, Failure> {
    let roots = Arc::new(authorities_of(source)?);
    WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(|refused| {
        Failure::new(
            format!("{}: {refused}", source.place()),
            "give the certificates of the authority alone, in PEM",
        )
    })
}

/// The authority of the moment.
#[derive(Debug)]
pub struct ClientAuthority(RwLock<Verifier>);

impl ClientAuthority {
    /// An authority that begins with this verifier.
    pub fn new(verifier: Verifier) -> Self {
        ClientAuthority(RwLock::new(verifier))
    }

    /// Replaces the verifier for all later handshakes.
    pub fn replace(&self, verifier: Verifier) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = verifier;
    }

    fn current(&self) -> Verifier {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientCertVerifier for ClientAuthority {
    /// No hint: the names of the moment cannot be borrowed beyond a reload.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current().verify_client_cert(certificate, chain, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}
