//! The mark that ends each batch in the journals, so that no client can make bytes that pass for a
//! batch.
//!
//! Owns the file of the mark. Never shows the mark to a client: no answer and no export has it.
//! A client decides what stands in keys and values, and the checksums of fjall have no secret. So
//! only the mark tells whether bytes behind a torn batch are a later batch, or a client's data.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::base::sys;
use crate::store::disk::Fault;

/// Bytes of the mark.
pub const BYTES: usize = 16;
/// Name of the file in the folder of the database.
const FILE: &str = "journal.mark";
/// Permissions of the file.
const MODE: u32 = 0o600;

/// Random bytes, none of which is zero.
pub type Mark = [u8; BYTES];

/// Makes the mark of a new database. The caller syncs the folder.
///
/// # Errors
/// The disk is full, read-only or faulty.
pub fn create(folder: &Path) -> Result<Mark, Fault> {
    let path = folder.join(FILE);
    let write = || {
        let mark = sys::random::<BYTES>()?.map(|byte| byte.max(1));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&path)?;
        file.write_all(&mark)?;
        file.sync_all()?;
        Ok(mark)
    };
    write().map_err(|error: io::Error| Fault::of(&path, &error))
}

/// Reads the mark of a database.
///
/// # Errors
/// The file is missing, cannot be read, or has no mark.
pub fn read(folder: &Path) -> Result<Mark, Fault> {
    let path = folder.join(FILE);
    let mut bytes = Vec::new();
    let opened = fs::File::open(&path);
    let found = opened.and_then(|file| file.take(BYTES as u64 + 1).read_to_end(&mut bytes));
    found.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Fault::corrupt(format!("{} is missing", path.display())),
        _ => Fault::of(&path, &error),
    })?;
    let mark = Mark::try_from(bytes).ok().filter(|mark| !mark.contains(&0));
    mark.ok_or_else(|| Fault::corrupt(format!("{} has no mark", path.display())))
}
