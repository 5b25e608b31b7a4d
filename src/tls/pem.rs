//! Certificates and keys as the configuration gives them: files, PEM text, or PEM text in base64.
//!
//! Owns the errors about them. Never shows a key. The invariant: a file is read up to a bound.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::base::failure::Failure;

/// Maximum size of a PEM file in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Maximum length of a path that an error shows. A longer text may be a damaged key.
const SHOWN_MAX: usize = 255;
/// How a section of PEM text begins.
const BEGIN: &str = "-----BEGIN ";

/// A configured certificate or key.
#[derive(Clone)]
pub struct PemSource {
    /// Key of the configuration, which errors name.
    key: String,
    content: Content,
}

#[derive(Clone, PartialEq, Eq)]
enum Content {
    Text(Vec<u8>),
    File(PathBuf),
}

impl PemSource {
    /// The value of a key of the configuration. The forms are tried in Centrifugo's order: PEM
    /// text, base64, file.
    pub fn new(key: impl Into<String>, given: &str) -> Self {
        let decoded = BASE64.decode(given.trim().as_bytes()).ok();
        let decoded = decoded.filter(|text| String::from_utf8_lossy(text).contains(BEGIN));
        let content = match decoded {
            _ if given.contains(BEGIN) => Content::Text(given.as_bytes().to_vec()),
            Some(text) => Content::Text(text),
            None => Content::File(PathBuf::from(given)),
        };
        PemSource { key: key.into(), content }
    }

    /// Path of the file, if the content is in one.
    pub fn file(&self) -> Option<&Path> {
        match &self.content {
            Content::File(path) => Some(path),
            Content::Text(_) => None,
        }
    }

    /// The key of the configuration, and the file if there is one.
    pub fn place(&self) -> String {
        match &self.content {
            Content::File(path) if is_shown(path) => format!("{}: {}", self.key, path.display()),
            _ => self.key.clone(),
        }
    }

    fn refuse(&self, cause: &str, cure: impl Into<String>) -> Failure {
        Failure::new(format!("{} {cause}", self.place()), cure)
    }

    /// The PEM text.
    fn read(&self) -> Result<Vec<u8>, Failure> {
        let path = match &self.content {
            Content::Text(text) => return Ok(text.clone()),
            Content::File(path) => path,
        };
        let cure = "name a PEM file that the server may read, or give the PEM text itself";
        let refuse = |error: std::io::Error| match is_shown(path) {
            true => self.refuse(&format!("cannot be read: {error}"), cure),
            false => self.refuse("is neither PEM text nor the path of a PEM file", cure),
        };
        // Opening a named pipe would wait for its writer.
        let kind = std::fs::metadata(path).map_err(refuse)?;
        self.check_kind(&kind)?;
        let mut text = Vec::new();
        let file = File::open(path).map_err(refuse)?;
        file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(refuse)?;
        if text.len() as u64 > FILE_MAX {
            return Err(self.refuse("is longer than 1 MiB", "name a file with PEM text alone"));
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(self.refuse("is empty", "write the certificate or key into it"));
        }
        Ok(text)
    }

    fn check_kind(&self, kind: &Metadata) -> Result<(), Failure> {
        if kind.is_dir() {
            return Err(self.refuse("is a folder", "name the file in it, such as tls.crt"));
        }
        if kind.is_file() {
            return Ok(());
        }
        Err(self.refuse("is not a regular file", "name a PEM file"))
    }

    /// The certificates, at least one.
    ///
    /// # Errors
    /// The source cannot be read, or contains no certificate, or a damaged one.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let text = self.read()?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) if contains(&text, "PRIVATE KEY-----") => Err(self.refuse(
                "contains a private key and no certificate",
                "check whether cert_pem and key_pem are swapped",
            )),
            Ok(_) => Err(self.refuse(
                "contains no certificate in PEM",
                "convert it: openssl x509 -inform der -in FILE -out FILE.pem",
            )),
            Err(_) => Err(self.refuse(
                "contains a certificate that is cut off or damaged",
                "write the whole file again",
            )),
        }
    }

    /// The private key.
    ///
    /// # Errors
    /// The source cannot be read, or contains no private key, or an encrypted or damaged one.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, Failure> {
        let text = self.read()?;
        if contains(&text, "BEGIN ENCRYPTED PRIVATE KEY") || contains(&text, "4,ENCRYPTED") {
            return Err(self.refuse(
                "contains an encrypted key, and the server has no password for it",
                "decrypt it: openssl pkey -in FILE -out FILE.plain",
            ));
        }
        PrivateKeyDer::from_pem_slice(&text).map_err(|refused| match refused {
            rustls_pki_types::pem::Error::NoItemsFound if contains(&text, "CERTIFICATE-----") => {
                self.refuse(
                    "contains a certificate and no private key",
                    "check whether cert_pem and key_pem are swapped",
                )
            }
            rustls_pki_types::pem::Error::NoItemsFound => self.refuse(
                "contains no private key in PEM",
                "convert it: openssl pkey -inform der -in FILE -out FILE.pem",
            ),
            _ => self.refuse(
                "contains a private key that is cut off or damaged",
                "write the whole file again",
            ),
        })
    }
}

/// Whether an error may show a path: it is not a damaged key.
fn is_shown(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.len() <= SHOWN_MAX && !text.contains(['\n', '='])
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|found| found == part.as_bytes())
}
