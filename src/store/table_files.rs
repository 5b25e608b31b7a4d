//! The files of tables, checked before fjall opens them.
//!
//! Owns the knowledge of the end of fjall's files: a list of the file's sections, and the list's
//! place and checksum. Never writes. fjall trusts the number of sections before it has verified the
//! checksum: a flipped bit makes it ask for so much memory that the process ends. The invariant:
//! after a check without an error, the list of the file is as it was written. The sections have
//! checksums of their own, which fjall verifies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use crate::store::disk::Fault;

/// First bytes of the end: its name, its version, and the kind of its checksum.
const END_HEAD: [u8; 6] = *b"SFA!\x01\x00";
/// Bytes of the end: also a checksum, the place of the list and its length.
const END_BYTES: u64 = 38;
/// First bytes of the list; the number of sections follows in four bytes.
const LIST_HEAD: [u8; 4] = *b"TOC!";
/// More bytes than a list has: it names about ten sections.
const LIST_MAX: u64 = 64 << 10;
/// The section of a manifest that names the tables.
const TABLES: &[u8] = b"tables";

/// Takes the first `N` bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Where the list of a file with `length` bytes begins and ends, and its checksum.
fn list_place(mut end: &[u8], length: u64) -> Option<(u64, u64, [u8; 16])> {
    if take(&mut end)? != END_HEAD {
        return None;
    }
    let checksum = take(&mut end)?;
    let begin = u64::from_le_bytes(take(&mut end)?);
    let bytes = u64::from_le_bytes(take(&mut end)?);
    let list_end = length.checked_sub(END_BYTES)?;
    let is_whole = begin.checked_add(bytes) == Some(list_end) && bytes <= LIST_MAX;
    is_whole.then_some((begin, list_end, checksum))
}

/// The numbers of the tables that a manifest names. They are the names of their files. `None`: the
/// manifest cannot be understood.
pub fn tables(manifest: &[u8]) -> Option<Vec<u64>> {
    let length = manifest.len() as u64;
    let end = manifest.get(usize::try_from(length.checked_sub(END_BYTES)?).ok()?..)?;
    let (begin, list_end, _) = list_place(end, length)?;
    let mut list = manifest.get(begin as usize..list_end as usize)?;
    let section = &mut section(&mut list, manifest, TABLES)?;
    let mut tables = Vec::new();
    let [levels] = take(section)?;
    for _ in 0..levels {
        let [runs] = take(section)?;
        for _ in 0..runs {
            for _ in 0..u32::from_le_bytes(take(section)?) {
                tables.push(u64::from_le_bytes(take(section)?));
                // Kind of the checksum, checksum, sequence number.
                take::<25>(section)?;
            }
        }
    }
    Some(tables)
}

/// The section `name` of a file, by its list.
fn section<'a>(list: &mut &[u8], file: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if take(list)? != LIST_HEAD {
        return None;
    }
    for _ in 0..u32::from_le_bytes(take(list)?) {
        let begin = u64::from_le_bytes(take(list)?);
        let bytes = u64::from_le_bytes(take(list)?);
        let name_bytes = u16::from_le_bytes(take(list)?);
        let (found, rest) = list.split_at_checked(name_bytes.into())?;
        *list = rest;
        if found == name {
            let end = begin.checked_add(bytes)?;
            return file.get(usize::try_from(begin).ok()?..usize::try_from(end).ok()?);
        }
    }
    None
}

/// Checks the list of a table's file.
///
/// # Errors
/// The file is missing, damaged or cannot be read.
pub fn check(path: &Path) -> Result<(), Fault> {
    match is_whole(path).map_err(|error| Fault::of_needed(path, &error))? {
        true => Ok(()),
        false => Err(Fault::damaged(path)),
    }
}

/// Whether the list of a file is as it was written.
fn is_whole(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let Some(end_begin) = length.checked_sub(END_BYTES) else { return Ok(false) };
    let mut end = [0; END_BYTES as usize];
    file.read_exact_at(&mut end, end_begin)?;
    let Some((begin, list_end, checksum)) = list_place(&end, length) else { return Ok(false) };
    // At most `LIST_MAX` bytes.
    let mut list = vec![0; (list_end - begin) as usize];
    file.read_exact_at(&mut list, begin)?;
    Ok(xxh3_128(&list).to_le_bytes() == checksum)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::PathBuf;

    use super::*;
    use crate::store::disk::{Disk as _, FaultKind, Order, Table, View as _};
    use crate::store::fjall_disk::tests::{closed, copy, folder, opened, put};

    /// A store whose tables are on disk, and the files of those that have entries.
    fn with_tables(path: &Path) -> Vec<PathBuf> {
        for round in 0..3 {
            let disk = opened(path);
            for nth in 0..50 {
                let (key, value) = (format!("{nth}-{round}"), vec![b'x'; 200 + nth]);
                let tables = [Table::Publications, Table::Streams];
                disk.commit(tables.map(|table| put(table, &key, &value)).to_vec()).unwrap();
            }
            disk.close().unwrap();
        }
        let tables = [1, 2].map(|number| path.join(format!("data/keyspaces/{number}/tables")));
        let entries = tables.iter().flat_map(|tables| fs::read_dir(tables).unwrap());
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn list_begin(file: &[u8]) -> usize {
        let end = &file[file.len() - END_BYTES as usize..];
        list_place(end, file.len() as u64).unwrap().0 as usize
    }

    /// Opens a store and reads all of it.
    fn read_all(path: &Path) -> Result<(), Fault> {
        let disk = closed(path);
        disk.reopen()?;
        let view = disk.view()?;
        for table in Table::ALL {
            for order in [Order::Ascending, Order::Descending] {
                view.scan(table, &b"\x01"[..]..&[0xff; 16][..], order, &mut |_, _| Ok(true))?;
            }
        }
        drop(view);
        disk.close()
    }

    #[test]
    fn each_flipped_bit_of_a_list_and_of_its_end_is_found() {
        let folder = folder();
        for file in with_tables(folder.path()) {
            check(&file).unwrap();
            let whole = fs::read(&file).unwrap();
            for bit in list_begin(&whole) * 8..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&file, flipped).unwrap();
                assert_eq!(check(&file).unwrap_err().kind, FaultKind::Corrupt, "bit {bit}");
            }
            fs::write(&file, whole).unwrap();
        }
    }

    #[test]
    fn a_damaged_number_of_sections_and_a_missing_file_are_refused_by_name() {
        let folder = folder();
        for file in with_tables(folder.path()) {
            let refused = |what: &str| {
                let fault = closed(folder.path()).reopen().unwrap_err();
                let text = format!("{} is {what}", file.display());
                assert_eq!((fault.kind, fault.text), (FaultKind::Corrupt, text));
            };
            let whole = fs::read(&file).unwrap();
            let mut flipped = whole.clone();
            // fjall would ask for 40 GiB.
            flipped[list_begin(&whole) + 7] ^= 0x40;
            fs::write(&file, flipped).unwrap();
            refused("damaged");
            fs::remove_file(&file).unwrap();
            refused("missing");
            fs::write(&file, whole).unwrap();
        }
        read_all(folder.path()).unwrap();
    }

    #[test]
    fn a_file_that_no_manifest_names_is_not_looked_at() {
        let folder = folder();
        let file = with_tables(folder.path()).remove(0);
        fs::write(file.with_file_name("999"), "a table that a crash interrupted").unwrap();
        read_all(folder.path()).unwrap();
    }

    #[test]
    fn damage_anywhere_in_a_file_ends_no_thread() {
        let folder = folder();
        let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
        let files = with_tables(&good);
        let mut refused = 0;
        for round in 0..24 {
            copy(&good, &bad);
            let file = files[round % files.len()].strip_prefix(&good).unwrap();
            let mut bytes = fs::read(bad.join(file)).unwrap();
            let place = round * 7919 % bytes.len();
            match round / files.len() % 3 {
                0 => bytes[place] ^= 1 << (round % 8),
                1 => bytes.truncate(place),
                _ => bytes[place / 512 * 512..].fill(0),
            }
            fs::write(bad.join(file), bytes).unwrap();
            match catch_unwind(AssertUnwindSafe(|| read_all(&bad))) {
                Ok(Ok(())) => {}
                Ok(Err(fault)) if fault.kind == FaultKind::Corrupt => refused += 1,
                Ok(Err(fault)) => panic!("{}: {fault}", file.display()),
                Err(_) => panic!("{}: round {round}", file.display()),
            }
            fs::remove_dir_all(&bad).unwrap();
        }
        assert!(refused > 12, "{refused}");
    }
}
