//! The certificate of the servers that a run starts.
//!
//! Owns the folder of the files. Never serves. Invariant: the certificate is of P-256, so that
//! every server signs with the same cost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertifiedKey, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

use super::suite::{NAME, provider};

/// A self-signed certificate of P-256 and its key, in memory and as PEM files.
#[derive(Debug)]
pub struct Identity {
    folder: TempDir,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    /// Makes a new one, and writes its files.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for certificates")?;
        let (certificate, key) = make(folder.path())?;
        Ok(Identity { folder, certificate, key })
    }

    /// Replaces certificate and key, and both files: each is renamed into its place.
    pub fn replace(&mut self) -> Result<()> {
        (self.certificate, self.key) = make(self.folder.path())?;
        Ok(())
    }

    /// The file of the certificate, in PEM.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder.path().join(CERTIFICATE)
    }

    /// The file of the key, in PEM.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join(KEY)
    }

    /// The certificate, in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The configuration of a bare rustls server: TLS 1.3, tickets without a store.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        server_config(vec![self.certificate.clone()], key)
    }
}

/// A configuration of TLS 1.3 with this certificate, with tickets without a store.
pub(crate) fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().context("cannot make tickets")?;
    Ok(Arc::new(config))
}

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// Makes a certificate and writes its files.
fn make(folder: &Path) -> Result<(CertificateDer<'static>, Vec<u8>)> {
    let told = "cannot make a certificate";
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context(told)?;
    let names = [NAME.to_owned(), "127.0.0.1".to_owned()];
    let parameters = rcgen::CertificateParams::new(names).context(told)?;
    let cert = parameters.self_signed(&pair).context(told)?;
    let CertifiedKey { cert, signing_key } = CertifiedKey { cert, signing_key: pair };
    write(&folder.join(KEY), &signing_key.serialize_pem())?;
    write(&folder.join(CERTIFICATE), &cert.pem())?;
    Ok((cert.der().clone(), signing_key.serialize_der()))
}

/// Writes a file that no reader sees in part.
fn write(file: &Path, text: &str) -> Result<()> {
    let told = || format!("cannot write {}", file.display());
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, text).with_context(told)?;
    std::fs::rename(&fresh, file).with_context(told)
}
