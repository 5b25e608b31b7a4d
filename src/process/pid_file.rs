//! The file with the process ID (`pid_file`).
//!
//! Owns the file while the server runs. The invariant: a file that another process has overwritten
//! is not removed.

use std::path::PathBuf;

use crate::base::failure::Failure;

/// The file with the ID of this process. It is removed when this value is dropped.
pub struct PidFile(Option<PathBuf>);

impl PidFile {
    /// Writes the file. An empty path: no file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(path: &str) -> Result<Self, Failure> {
        if path.is_empty() {
            return Ok(PidFile(None));
        }
        std::fs::write(path, content()).map_err(|error| Failure {
            cause: format!("pid_file: cannot write {path}: {error}"),
            cure: "choose a file in a folder that the server can write to, or remove the key"
                .into(),
        })?;
        Ok(PidFile(Some(path.into())))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let Some(path) = &self.0 else { return };
        if std::fs::read_to_string(path).is_ok_and(|found| found != content()) {
            return;
        }
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(target: "control", "cannot remove {}: {error}", path.display());
        }
    }
}

fn content() -> String {
    format!("{}\n", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_removed_unless_another_process_has_overwritten_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drumline.pid");
        let name = path.to_str().unwrap();
        for (overwritten, remains) in [(None, false), (Some("1\n"), true)] {
            let file = PidFile::write(name).unwrap_or_else(|refused| panic!("{refused}"));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content());
            if let Some(text) = overwritten {
                std::fs::write(&path, text).unwrap();
            }
            drop(file);
            assert_eq!(path.exists(), remains, "{overwritten:?}");
        }
        let missing = folder.path().join("none/a.pid");
        let refused = PidFile::write(missing.to_str().unwrap()).err().unwrap();
        assert!(refused.cause.starts_with("pid_file: cannot write"), "{refused}");
        drop(PidFile::write("").unwrap_or_else(|refused| panic!("{refused}")));
    }
}
