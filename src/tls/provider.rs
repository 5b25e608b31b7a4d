//! The provider of cryptography: aws-lc-rs.
//!
//! Owns the choice. The invariant: every configuration of TLS names this provider, and the process
//! installs it at its start, so no dependency can choose another one or fail for want of one.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The provider that every configuration names.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// Makes the provider the default of the process, for dependencies that name none. A second call
/// changes nothing.
pub fn install() {
    // Refused only if a default is installed already, and nothing else installs one.
    let _ = aws_lc_rs::default_provider().install_default();
}
