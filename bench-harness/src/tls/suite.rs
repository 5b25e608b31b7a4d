//! What servers and clients of a run agree on.
//!
//! Owns the suite, the group and the server's name. Never connects.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The name in the certificate, which clients ask for.
pub(super) const NAME: &str = "localhost";

/// TLS_AES_128_GCM_SHA256 and X25519 alone.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}
