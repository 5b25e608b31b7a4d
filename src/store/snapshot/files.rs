//! The files of a snapshot in the folder of the store.
//!
//! Owns their names. Never deletes a file that cannot be read: it moves the file aside. The
//! invariant: when a file is removed, the folder is synced, so a crash cannot bring it back.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::base::sys;
use crate::store::folder::{SNAPSHOT, sync_folder};

/// Name of the snapshot.
pub const FILE: &str = SNAPSHOT;
/// The same while it is written.
pub const NEW_FILE: &str = "snapshot.new";
/// Begin of the name of a snapshot that could not be read; the time in Unix seconds follows.
const ASIDE: &str = "snapshot.unreadable-";

/// Removes the snapshot of a folder and the one that is being written, if they are there, and syncs
/// the folder.
///
/// # Errors
/// The disk is read-only or faulty. The snapshot may be there after a crash.
pub fn remove(folder: &Path) -> io::Result<()> {
    for name in [NEW_FILE, FILE] {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_folder(folder)
}

/// Moves the snapshot of a folder aside. Returns its new path.
///
/// # Errors
/// The disk is full, read-only or faulty.
pub fn move_aside(folder: &Path) -> io::Result<PathBuf> {
    let aside = folder.join(format!("{ASIDE}{}", sys::unix_millis() / 1000));
    fs::rename(folder.join(FILE), &aside)?;
    sync_folder(folder)?;
    Ok(aside)
}
