//! The cipher suites of TLS 1.3 and the derivation of their keys.
//!
//! Owns the mapping to aws-lc-rs. Never keeps an expanded key: expanding one that is cold in the
//! cache costs no more than reading its expansion from memory.

use aws_lc_rs::aead::{self, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{self, KeyType, Prk};

/// A cipher suite of TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// TLS_AES_128_GCM_SHA256.
    Aes128Gcm,
    /// TLS_AES_256_GCM_SHA384.
    Aes256Gcm,
    /// TLS_CHACHA20_POLY1305_SHA256.
    ChaCha20Poly1305,
}

/// A length in bytes, as HKDF takes it.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Suite {
    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Suite::Aes128Gcm => &aead::AES_128_GCM,
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => hkdf::HKDF_SHA256,
            Suite::Aes256Gcm => hkdf::HKDF_SHA384,
        }
    }

    /// Whether a key of this suite seals only a limited number of records (RFC 8446, 5.5).
    pub(super) fn limits_records(self) -> bool {
        self != Suite::ChaCha20Poly1305
    }

    /// The key, ready for use. Its bytes must have the suite's length.
    pub(super) fn expand(self, key: &[u8]) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(self.aead(), key).expect("a key of the suite's length"))
    }

    /// HKDF-Expand-Label of RFC 8446, section 7.1, without context.
    pub(super) fn derive(self, secret: &[u8], label: &str, out: &mut [u8]) {
        const PREFIX: &[u8] = b"tls13 ";
        let [high, low] = (out.len() as u16).to_be_bytes();
        let lengths = [high, low, (PREFIX.len() + label.len()) as u8];
        let info = [&lengths, PREFIX, label.as_bytes(), &[0]];
        Prk::new_less_safe(self.hkdf(), secret)
            .expand(&info, Length(out.len()))
            .and_then(|derived| derived.fill(out))
            .expect("a short label and a length below the limit of HKDF");
    }
}
