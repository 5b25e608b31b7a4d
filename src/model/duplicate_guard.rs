//! The idempotency key and the version of a publication.
//!
//! Owns the bound of version epochs. Never compares keys or versions.

/// Maximum length of a version epoch in bytes. A stream keeps the epoch of its version, and every
/// write of a durable channel carries it.
pub const VERSION_EPOCH_MAX: usize = 256;
const _: () = assert!(VERSION_EPOCH_MAX == 256, "VERSION_EPOCH_TOO_LONG names the maximum");
/// Cause of the refusal of a version epoch that is longer than [`VERSION_EPOCH_MAX`].
pub const VERSION_EPOCH_TOO_LONG: &str = "bad request: version_epoch is longer than 256 bytes";

/// Detects repeated and outdated publications, so that each is published once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DuplicateGuard {
    /// Idempotency key: the home publishes one publication per key. Empty: no key.
    pub key: Box<str>,
    /// The home publishes only versions above the stream's last version; 0: no version.
    pub version: u64,
    /// Epoch of the version: versions of different epochs are not compared. At most
    /// [`VERSION_EPOCH_MAX`] bytes.
    pub version_epoch: Box<str>,
}

impl DuplicateGuard {
    /// Bytes of the texts.
    pub fn size(&self) -> usize {
        self.key.len() + self.version_epoch.len()
    }
}
