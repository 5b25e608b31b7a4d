//! The configuration that the clients of a run share.
//!
//! Owns the check of the server's certificate and the tickets. Never connects. Invariant: a client
//! offers one suite and one group, so that every server does the same work.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::secrets::LoggedSecrets;
use super::suite::{NAME, provider};
use super::tickets::Tickets;

/// What the connections of a run to a server have in common.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
    /// Sessions of before, if connections resume.
    pub(super) tickets: Option<Arc<Tickets>>,
}

impl Client {
    /// Clients that make full handshakes with a server that shows this certificate.
    pub fn new(certificate: &CertificateDer<'static>) -> Result<Self> {
        Self::with(certificate, None)
    }

    /// Clients that resume a session of before if there is one, and collect a new ticket each.
    pub fn resuming(certificate: &CertificateDer<'static>) -> Result<Self> {
        Self::with(certificate, Some(Arc::default()))
    }

    fn with(certificate: &CertificateDer<'static>, tickets: Option<Arc<Tickets>>) -> Result<Self> {
        let verifier = Arc::new(Expected { certificate: certificate.clone() });
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let dangerous = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = dangerous.with_no_client_auth();
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(LoggedSecrets);
        config.resumption = match &tickets {
            Some(tickets) => Resumption::store(tickets.clone()),
            None => Resumption::disabled(),
        };
        let name = ServerName::try_from(NAME).context("the name of the server")?;
        Ok(Client { config: Arc::new(config), name, tickets })
    }

    /// Number of handshakes so far that resumed a session.
    pub fn resumed(&self) -> u64 {
        self.tickets.as_ref().map_or(0, |tickets| tickets.used())
    }
}

/// The error of a client whose server shows a certificate that it does not expect.
pub const ANOTHER: &str = "the server shows another certificate";

/// Accepts one certificate, compared byte by byte. The signature of the handshake is not verified:
/// a load generator shares the processors with the server, and its own work is not measured.
#[derive(Debug)]
struct Expected {
    certificate: CertificateDer<'static>,
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General(ANOTHER.to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
