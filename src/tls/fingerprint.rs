//! Whether files have changed, without reading them.
//!
//! Owns nothing. The invariant: a file that is replaced, also by a symbolic link to another file,
//! or written to, gets another fingerprint.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// State of a file; `None`: it cannot be found.
pub type Fingerprint = Option<[i64; 7]>;

/// The state of the file at this path, behind all symbolic links.
pub fn fingerprint(path: &Path) -> Fingerprint {
    let found = std::fs::metadata(path).ok()?;
    Some([
        found.dev().cast_signed(),
        found.ino().cast_signed(),
        found.size().cast_signed(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ])
}
