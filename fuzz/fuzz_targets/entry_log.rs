//! Logs of revocations and hook events: never a panic, whatever their bytes are; what is read can
//! be written and read again, and takes no more memory than the file has bytes.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use drumline::store::entry_log::{Entries, EntryLog, NotKept};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

const NAME: &str = "revocations.log";
const BEGIN: &[u8] = b"drumline revocations.log format 1\n";
const BYTES_MAX: u64 = 1 << 20;

/// A folder in memory if the system has a place for it.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
});

fn open(folder: &Path) -> (EntryLog, Entries) {
    EntryLog::open(folder, NAME, BYTES_MAX)
}

/// Reads a file, changes the log, and reads it again.
fn read(bytes: &[u8]) {
    let folder = FOLDER.path();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        fs::remove_file(entry.expect("the folder can be read").path()).expect("its own file");
    }
    fs::write(folder.join(NAME), bytes).expect("the folder can be written to");
    let (mut log, mut entries) = open(folder);
    assert!(entries.is_sorted_by(|one, two| one.0 < two.0), "each number once");
    let sum: usize = entries.iter().map(|(_, entry)| entry.len()).sum();
    assert!(sum <= bytes.len() && entries.len() <= bytes.len());
    match log.add(b"added") {
        Ok(number) => {
            assert!(entries.iter().all(|(one, _)| *one < number), "a new number");
            entries.push((number, b"added".to_vec()));
        }
        // The file has the largest number.
        Err(error) => assert!(matches!(error, NotKept::Full), "{error:?}"),
    }
    log.sync().expect("the disk works");
    drop(log);
    let (mut log, again) = open(folder);
    assert_eq!(again, entries);
    for (number, _) in entries {
        log.remove(number).expect("the disk works");
    }
    drop(log);
    assert!(open(folder).1.is_empty());
}

fuzz_target!(|input: &[u8]| {
    read(input);
    // Records of any numbers, kinds and contents whose checksums are right: each is a length and
    // so many bytes.
    let (mut file, mut input) = (BEGIN.to_vec(), input);
    while let Some((&[length], rest)) = input.split_first_chunk() {
        let (body, later) = rest.split_at(rest.len().min(length.into()));
        input = later;
        file.extend_from_slice(&(body.len() as u32).to_le_bytes());
        file.extend_from_slice(&xxh3_64(body).to_le_bytes());
        file.extend_from_slice(body);
    }
    read(&file);
});
