//! The mark that ends each batch in the journals, so that no client can make bytes that pass for a
//! batch.
//!
//! Owns the file of the mark. Never shows the mark to a client: no answer and no export has it.
//! A client decides what stands in keys and values, and the checksums of fjall have no secret. So
//! only the mark tells whether bytes behind a torn batch are a later batch, or a client's data.
//!
//! The value of a mark is the mark and the number of the batch (8 bytes, big-endian). Batches have
//! consecutive numbers, so a mark tells how many batches before it are missing. Values of earlier
//! versions have no number.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::base::sys;
use crate::store::disk::Fault;

/// Bytes of the mark.
pub const BYTES: usize = 16;
/// Bytes of the value that has the mark.
pub const VALUE_BYTES: usize = BYTES + 8;
/// No number is as high. Behind a mark without a number stands the tag that ends a batch, so the
/// bytes there read as a higher one.
const NUMBERS: u64 = 1 << 56;
/// Name of the file in the folder of the database.
const FILE: &str = "journal.mark";
/// Permissions of the file.
const MODE: u32 = 0o600;

/// Random bytes, none of which is zero.
pub type Mark = [u8; BYTES];

/// The value that ends the batch of this number.
pub fn value(mark: &Mark, number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    let (secret, count) = value.split_at_mut(BYTES);
    secret.copy_from_slice(mark);
    count.copy_from_slice(&number.to_be_bytes());
    value
}

/// The number of the batch that a value ends; `None`: it has none.
pub fn number_of(value: &[u8]) -> Option<u64> {
    let (_, number) = value.split_first_chunk::<BYTES>()?;
    Some(u64::from_be_bytes(number.try_into().ok()?)).filter(|number| *number < NUMBERS)
}

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
    found.map_err(|error| Fault::of_needed(&path, &error))?;
    let mark = Mark::try_from(bytes).ok().filter(|mark| !mark.contains(&0));
    mark.ok_or_else(|| Fault::corrupt(format!("{} has no mark", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_mark_and_the_number() {
        for number in [0, 1, 256, NUMBERS - 1] {
            let value = value(&[7; BYTES], number);
            assert_eq!((&value[..BYTES], number_of(&value)), (&[7; BYTES][..], Some(number)));
        }
        let high = value(&[7; BYTES], NUMBERS);
        for other in [&[7; BYTES][..], &[0; VALUE_BYTES - 1], &[0; VALUE_BYTES + 1], b"", &high] {
            assert_eq!(number_of(other), None);
        }
    }
}
