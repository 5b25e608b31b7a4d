//! The manifests of the database, checked before fjall opens it.
//!
//! Owns the knowledge of the folders of fjall 3. Never writes. fjall removes a table whose manifest
//! is missing, begins a new database if the main one is missing, and panics if a folder has an
//! unknown name. The invariant: after a check without an error, every table that was created is
//! there with the manifest and the files that were written.

use std::fs;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use crate::store::disk::{Fault, Table};
use crate::store::table_files;

/// The file by which fjall knows that a folder has a database.
const VERSION_FILE: &str = "version";
/// Folder of the tables. Each has a number, from 1, in the order in which they were created; 0 is
/// the table of fjall's own settings.
const KEYSPACES: &str = "keyspaces";
/// The file that names the manifest of a table, and its checksum.
const CURRENT: &str = "current";
/// Bytes of that file: number, checksum, kind of checksum.
const CURRENT_BYTES: usize = 25;
/// Folder of the files of a table.
const FILES: &str = "tables";

/// Checks the manifests of a database.
///
/// # Errors
/// A file is missing, damaged or unknown, or cannot be read.
pub fn check(folder: &Path) -> Result<(), Fault> {
    read(&folder.join(VERSION_FILE))?;
    let keyspaces = folder.join(KEYSPACES);
    for number in 0..=Table::ALL.len() {
        check_table(&keyspaces.join(number.to_string()))?;
    }
    let entries = fs::read_dir(&keyspaces).map_err(|error| Fault::of(&keyspaces, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Fault::of(&keyspaces, &error))?;
        let is_number = entry.file_name().to_str().is_some_and(|name| name.parse::<u64>().is_ok());
        if !is_number && entry.path().is_dir() {
            return Err(Fault::corrupt(format!("{} does not belong here", entry.path().display())));
        }
    }
    Ok(())
}

fn check_table(folder: &Path) -> Result<(), Fault> {
    let current = folder.join(CURRENT);
    let bytes: [u8; CURRENT_BYTES] =
        read(&current)?.try_into().map_err(|_| Fault::damaged(&current))?;
    let [n0, n1, n2, n3, n4, n5, n6, n7, checksum @ .., 0] = bytes else {
        return Err(Fault::damaged(&current));
    };
    let number = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
    let manifest = folder.join(format!("v{number}"));
    let bytes = read(&manifest)?;
    if xxh3_128(&bytes).to_le_bytes() != checksum {
        return Err(Fault::damaged(&manifest));
    }
    let files = folder.join(FILES);
    for table in table_files::tables(&bytes).ok_or_else(|| Fault::damaged(&manifest))? {
        table_files::check(&files.join(table.to_string()))?;
    }
    for entry in fs::read_dir(&files).map_err(|error| Fault::of(&files, &error))? {
        let path = entry.map_err(|error| Fault::of(&files, &error))?.path();
        if path.is_dir() {
            return Err(Fault::corrupt(format!("{} does not belong here", path.display())));
        }
    }
    Ok(())
}

/// Reads a small file.
fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    fs::read(path).map_err(|error| Fault::of_needed(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::{Disk as _, FaultKind};
    use crate::store::fjall_disk::tests::{closed, copy, folder, keys, opened, put};

    #[test]
    fn a_missing_or_damaged_file_is_refused_by_its_name_and_nothing_is_removed() {
        let folder = folder();
        let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
        let disk = opened(&good);
        disk.commit(vec![put(Table::Streams, "a", b"1")]).unwrap();
        disk.close().unwrap();
        drop(disk);
        let mut files = vec!["version".to_owned()];
        for table in 0..5 {
            files.push(format!("keyspaces/{table}/current"));
            let entries = fs::read_dir(good.join(format!("data/keyspaces/{table}"))).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let numbers = names.filter_map(|name| name.strip_prefix('v')?.parse::<u64>().ok());
            files.push(format!("keyspaces/{table}/v{}", numbers.max().unwrap()));
        }
        for name in &files {
            let path = bad.join("data").join(name);
            let refused = |what: &str| {
                let fault = closed(&bad).reopen().unwrap_err();
                assert_eq!(fault.kind, FaultKind::Corrupt, "{fault}");
                // A checksum is in another file than the manifest that it is of.
                let table = name.rsplit_once('/').map_or(name.as_str(), |(table, _)| table);
                assert!(fault.text.contains(table) && fault.text.contains(what), "{name}: {fault}");
            };
            copy(&good, &bad);
            let whole = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            refused("missing");
            if name != "version" {
                let mut flipped = whole.clone();
                flipped[whole.len() / 2] ^= 4;
                fs::write(&path, flipped).unwrap();
                refused("damaged");
            }
            fs::write(&path, whole).unwrap();
            assert_eq!(keys(&opened(&bad), Table::Streams), ["a"], "{name}");
            fs::remove_dir_all(&bad).unwrap();
        }
        assert_eq!(files.len(), 11);
    }

    #[test]
    fn a_folder_that_fjall_does_not_know_is_refused() {
        let folder = folder();
        drop(opened(folder.path()));
        for name in ["data/keyspaces/x", "data/keyspaces/1/tables/9"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            let fault = closed(folder.path()).reopen().unwrap_err();
            assert!(fault.text.contains(name), "{fault}");
            fs::remove_dir(&path).unwrap();
        }
        drop(opened(folder.path()));
    }
}
