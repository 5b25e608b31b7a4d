//! The folder of an ACME account and its certificates.
//!
//! Owns the files. The invariant: a file is written whole or not at all, and only its owner can
//! read it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::base::failure::Failure;

/// A folder that can be written.
pub struct Cache(PathBuf);

impl Cache {
    /// The folder at this path, which is made if it does not exist.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn open(path: &str) -> Result<Self, Failure> {
        let cache = Cache(PathBuf::from(path));
        let try_it = || {
            std::fs::create_dir_all(&cache.0)?;
            tempfile::NamedTempFile::new_in(&cache.0)?.write_all(b"drumline")
        };
        try_it().map_err(|refused| {
            Failure::new(
                format!("http_server.tls_autocert.cache_dir: cannot write to {path}: {refused}"),
                "name a folder that the user of the server may write to",
            )
        })?;
        Ok(cache)
    }

    /// Path of the certificate and key of a host.
    pub fn certificate(&self, host: &str) -> PathBuf {
        self.0.join(format!("{host}.pem"))
    }

    /// Keeps the certificate and key of a host. Returns the path.
    pub fn keep(&self, host: &str, pem: &str) -> Result<PathBuf, String> {
        let path = self.certificate(host);
        self.write(&path, pem.as_bytes()).map(|()| path)
    }

    /// The account at an authority, if there is one.
    pub fn account(&self, directory: &str) -> Option<Vec<u8>> {
        std::fs::read(self.account_path(directory)).ok()
    }

    /// Keeps the account at an authority.
    pub fn keep_account(&self, directory: &str, account: &[u8]) -> Result<(), String> {
        self.write(&self.account_path(directory), account)
    }

    /// Each authority has an account of its own.
    fn account_path(&self, directory: &str) -> PathBuf {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let name: String = directory.trim_start_matches("https://").chars().map(plain).collect();
        self.0.join(format!("account-{name}.json"))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), String> {
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(path).map(drop).map_err(|refused| refused.error)
        };
        write().map_err(|refused| format!("cannot write {}: {refused}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_keeps_accounts_and_certificates_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("a/b").to_str().unwrap()).unwrap();
        assert_eq!(cache.account("https://a.test/dir"), None);
        cache.keep_account("https://a.test/dir", b"1").unwrap();
        assert_eq!(cache.account("https://a.test/dir").as_deref(), Some(&b"1"[..]));
        assert_eq!(cache.account("https://b.test/dir"), None);
        let path = cache.keep("a.test", "old").and_then(|_| cache.keep("a.test", "new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = Cache::open("/proc/none").err().unwrap();
        assert!(refused.cause.contains("cannot write to /proc/none"), "{refused}");
    }
}
