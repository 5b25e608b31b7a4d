//! A file of numbered entries in the folder of the store: entries are added and removed one by one,
//! and are there again after a crash.
//!
//! Owns one file. Never knows what an entry means. The invariants: an entry whose sync returned
//! without error is there until it is removed; after a failed sync the file is written anew before
//! another sync can succeed. A start does not know whether the last sync failed, and what it reads
//! may be in the page cache alone, so its first sync writes the file anew.
//!
//! The file begins with a line that names its format. A record is the length of its body (4 bytes),
//! the XXH3 of its body (8 bytes), and the body: the number of the entry (8 bytes), and the kind (1
//! byte) with the bytes of an entry. Numbers are little-endian.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::base::sys;
use crate::store::folder::sync_folder;

/// Format that this version writes.
const FORMAT: u32 = 1;
/// Bytes of a record before its body.
const HEAD_BYTES: usize = 12;
/// Bytes of a body before those of an entry.
const BODY_HEAD_BYTES: usize = 9;
/// Maximum bytes of a body.
const BODY_MAX: usize = 16 << 20;
/// Bytes of removed entries that a file may have beside as many bytes as those that are there.
const SLACK: u64 = 1 << 20;
/// Permissions of the file: entries name users.
const MODE: u32 = 0o600;
/// Maximum number of an entry, so that there is a next number.
const NUMBER_MAX: u64 = u64::MAX - 1;
/// Bytes of which a checksum is taken, per byte of a file: damage can look like many long records.
const SUMS_PER_BYTE: usize = 16;
/// Kinds of records.
const ADDED: u8 = 1;
const REMOVED: u8 = 2;

/// Why an entry is not kept.
#[derive(Debug)]
pub enum NotKept {
    /// The entries have as many bytes as they may have, or no number is left.
    Full,
    /// The disk is full, read-only or faulty.
    Io(io::Error),
}

impl From<io::Error> for NotKept {
    fn from(error: io::Error) -> Self {
        NotKept::Io(error)
    }
}

/// Where the record of an entry lies in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    bytes: u64,
}

/// A log of entries.
pub struct EntryLog {
    path: PathBuf,
    name: &'static str,
    bytes_max: u64,
    /// `None`: the file is written when the first entry comes.
    file: Option<File>,
    /// Whether the file must be written anew before it is used.
    is_suspect: bool,
    /// Whether the file must be written anew before a sync can succeed.
    is_unsure: bool,
    /// Where the next record is written.
    end: u64,
    entries: BTreeMap<u64, Place>,
    bytes: u64,
    next: u64,
    /// The file is not made smaller before it has so many bytes, because that failed before.
    small_until: u64,
}

/// The numbers and bytes of entries, in the order in which they were added.
pub type Entries = Vec<(u64, Vec<u8>)>;

impl EntryLog {
    /// Opens the log `name` in a folder, and reads its entries. Entries beyond `bytes_max` bytes
    /// are refused. What cannot be read is left out with a warning, and kept under another name. A
    /// removed entry can be there again if the record of its removal is damaged.
    pub fn open(folder: &Path, name: &'static str, bytes_max: u64) -> (Self, Entries) {
        let mut log = EntryLog {
            path: folder.join(name),
            name,
            bytes_max,
            file: None,
            is_suspect: false,
            is_unsure: false,
            end: 0,
            entries: BTreeMap::new(),
            bytes: 0,
            next: 1,
            small_until: 0,
        };
        let bytes = match log.read_file() {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return (log, Entries::new()),
            Err(error) => {
                log.set_aside(&error.to_string());
                return (log, Entries::new());
            }
        };
        let begin = log.first_line();
        if !bytes.starts_with(begin.as_bytes()) {
            let foreign = "it does not name this version's format";
            // A crash can cut off the first line of a file that has no entry yet.
            if !begin.as_bytes().starts_with(&bytes) {
                log.set_aside(foreign);
            }
            (log.file, log.is_suspect, log.is_unsure) = (None, false, false);
            return (log, Entries::new());
        }
        let entries = log.take_records(&bytes, begin.len());
        (log, entries)
    }

    fn first_line(&self) -> String {
        format!("drumline {} format {FORMAT}\n", self.name)
    }

    fn read_file(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut file = match OpenOptions::new().read(true).write(true).open(&self.path) {
            // The file can still be read on a file system that is read-only.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                self.is_suspect = true;
                File::open(&self.path)?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        (self.file, self.is_unsure) = (Some(file), true);
        Ok(Some(bytes))
    }

    /// Takes over the whole records of a file, also those behind damaged ones.
    fn take_records(&mut self, bytes: &[u8], begin: usize) -> Entries {
        let mut found: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut reader = RecordReader::new(bytes, begin);
        while let Some((at, (number, kind, entry))) = reader.next_whole() {
            if kind == ADDED {
                let length = HEAD_BYTES + BODY_HEAD_BYTES + entry.len();
                self.insert(number, Place { at: at as u64, bytes: length as u64 });
                found.insert(number, entry.to_vec());
            } else {
                self.forget(number);
                found.remove(&number);
            }
            self.next = self.next.max(number + 1);
        }
        self.end = reader.at as u64;
        if let Some(damage) = &reader.damage {
            let (path, copy) = (self.path.display(), self.copy_aside());
            tracing::warn!(
                target: "store",
                "{path} is damaged {damage}; all whole entries are used{copy}"
            );
        }
        // What follows a torn record must not be read as its rest.
        self.is_suspect |= reader.damage.is_some() || reader.at < bytes.len();
        found.into_iter().collect()
    }

    /// Gives the file another name, because nothing of it can be used.
    fn set_aside(&mut self, cause: &str) {
        let (path, aside) = (self.path.display(), self.aside());
        let moved = fs::rename(&self.path, &aside).and_then(|()| sync_folder(self.folder()));
        let outcome = match moved {
            Ok(()) => format!("it is kept as {}", aside.display()),
            Err(error) => format!("it cannot be renamed: {error}; move it away"),
        };
        tracing::warn!(target: "store", "{path} is ignored: {cause}; {outcome}");
    }

    /// Keeps a copy of a file of which a part cannot be used. Returns words about it.
    fn copy_aside(&self) -> String {
        let aside = self.aside();
        match fs::hard_link(&self.path, &aside) {
            Ok(()) => format!(", and the whole is kept as {}", aside.display()),
            Err(_) => String::new(),
        }
    }

    fn aside(&self) -> PathBuf {
        let seconds = sys::unix_millis() / 1000;
        self.folder().join(format!("{}.unreadable-{seconds}", self.name))
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn insert(&mut self, number: u64, place: Place) {
        self.forget(number);
        self.bytes += place.bytes;
        self.entries.insert(number, place);
    }

    fn forget(&mut self, number: u64) -> bool {
        let place = self.entries.remove(&number);
        self.bytes -= place.map_or(0, |place| place.bytes);
        place.is_some()
    }

    /// Adds an entry; returns its number. It survives the end of the process at once, and that of
    /// the machine after [`EntryLog::sync`].
    ///
    /// # Errors
    /// The entry does not fit, or the disk is full, read-only or faulty. Then it is not kept.
    pub fn add(&mut self, entry: &[u8]) -> Result<u64, NotKept> {
        let bytes = (HEAD_BYTES + BODY_HEAD_BYTES + entry.len()) as u64;
        let is_large = entry.len() > BODY_MAX - BODY_HEAD_BYTES;
        if is_large || self.bytes + bytes > self.bytes_max || self.next > NUMBER_MAX {
            return Err(NotKept::Full);
        }
        let (number, at) = (self.next, self.append(self.next, ADDED, entry)?);
        self.next += 1;
        self.insert(number, Place { at, bytes });
        Ok(number)
    }

    /// Removes an entry. If the disk takes nothing, the entry can be there again after a crash.
    ///
    /// # Errors
    /// The disk is full, read-only or faulty.
    pub fn remove(&mut self, number: u64) -> io::Result<()> {
        if !self.forget(number) {
            return Ok(());
        }
        if self.end > self.small_until.max(2 * self.bytes + SLACK) {
            if self.rewrite().is_ok() {
                return Ok(());
            }
            self.small_until = self.end + SLACK;
        }
        self.append(number, REMOVED, &[]).map(|_| ())
    }

    /// Makes sure that what was added and removed survives the end of the machine.
    ///
    /// # Errors
    /// The disk is full, read-only or faulty. Nothing since the last sync is sure.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.is_suspect || self.is_unsure {
            return self.rewrite();
        }
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().inspect_err(|_| self.is_suspect = true)
    }

    /// Writes a record; returns its place.
    fn append(&mut self, number: u64, kind: u8, entry: &[u8]) -> io::Result<u64> {
        if self.is_suspect || self.file.is_none() {
            self.rewrite()?;
        }
        let Some(file) = &self.file else { return Err(io::Error::other("the file is not open")) };
        let (record, at) = (record(number, kind, entry), self.end);
        if let Err(error) = file.write_all_at(&record, at) {
            // Nothing may stay of the record, because a shorter one would not replace it whole.
            self.is_suspect = file.set_len(at).is_err();
            return Err(error);
        }
        self.end += record.len() as u64;
        Ok(at)
    }

    /// Writes the entries to a new file, which takes the place of the old one once it is synced.
    fn rewrite(&mut self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let written = self.write_new(&new);
        let (file, entries, end) = written.inspect_err(|_| _ = fs::remove_file(&new))?;
        self.bytes = entries.values().map(|place| place.bytes).sum();
        (self.file, self.entries, self.end, self.is_suspect) = (Some(file), entries, end, false);
        (self.small_until, self.is_unsure) = (0, false);
        // The new file is in use, whether or not its name survives the end of the machine.
        sync_folder(self.folder()).inspect_err(|_| self.is_suspect = true)
    }

    fn write_new(&self, new: &Path) -> io::Result<(File, BTreeMap<u64, Place>, u64)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(MODE);
        let mut out = BufWriter::new(options.open(new)?);
        let begin = self.first_line();
        out.write_all(begin.as_bytes())?;
        let (mut entries, mut end) = (BTreeMap::new(), begin.len() as u64);
        for (number, place) in &self.entries {
            let record = self.read_record(*place)?;
            out.write_all(&record)?;
            entries.insert(*number, Place { at: end, ..*place });
            end += place.bytes;
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(new, &self.path)?;
        Ok((file, entries, end))
    }

    fn read_record(&self, place: Place) -> io::Result<Vec<u8>> {
        let mut record = vec![0; place.bytes as usize];
        let Some(file) = &self.file else { return Err(io::Error::other("the file is not open")) };
        file.read_exact_at(&mut record, place.at)?;
        let is_whole = next_record(&record).is_ok();
        is_whole.then_some(record).ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidData, format!("a record at {} changed", place.at))
        })
    }
}

fn record(number: u64, kind: u8, entry: &[u8]) -> Vec<u8> {
    let length = (BODY_HEAD_BYTES + entry.len()) as u32;
    let mut record = Vec::with_capacity(HEAD_BYTES + BODY_HEAD_BYTES + entry.len());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&[0; 8]);
    record.extend_from_slice(&number.to_le_bytes());
    record.push(kind);
    record.extend_from_slice(entry);
    let sum = xxh3_64(&record[HEAD_BYTES..]);
    record[4..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
    record
}

/// The number, kind and bytes of a record.
type Record<'a> = (u64, u8, &'a [u8]);

/// Bytes of a file that cannot be used.
#[derive(Debug, PartialEq, Eq)]
struct Damage {
    /// Where the first of them is, and what is wrong there.
    at: usize,
    cause: &'static str,
    bytes: usize,
    /// Number of gaps between whole records.
    places: usize,
}

impl Damage {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.places += 1;
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { at, cause, bytes, places } = self;
        write!(f, "at byte {at}: {cause}; {bytes} bytes in {places} places are lost")
    }
}

/// Reads the whole records of a file in their order, and skips what is damaged between them.
struct RecordReader<'a> {
    bytes: &'a [u8],
    /// End of the last whole record.
    at: usize,
    /// Bytes of which a checksum may still be taken.
    sums_left: usize,
    damage: Option<Damage>,
}

impl<'a> RecordReader<'a> {
    fn new(bytes: &'a [u8], begin: usize) -> Self {
        let sums_left = bytes.len().saturating_mul(SUMS_PER_BYTE);
        RecordReader { bytes, at: begin, sums_left, damage: None }
    }

    /// The next whole record and its place. `None`: only damage or a torn record is left.
    fn next_whole(&mut self) -> Option<(usize, Record<'a>)> {
        let begin = self.at;
        let found = (begin..self.bytes.len()).find_map(|at| Some((at, self.record_at(at)?)));
        self.note(begin, found.map(|(at, _)| at));
        if let Some((at, (_, _, entry))) = found {
            self.at = at + HEAD_BYTES + BODY_HEAD_BYTES + entry.len();
        }
        found
    }

    fn record_at(&mut self, at: usize) -> Option<Record<'a>> {
        let rest = self.bytes.get(at..)?;
        let length = likely_length(rest)?;
        self.sums_left = self.sums_left.checked_sub(length)?;
        next_record(rest).ok()
    }

    /// Notes the bytes from `begin` to the next whole record, unless a crash has left them.
    fn note(&mut self, begin: usize, next: Option<usize>) {
        let bytes = next.unwrap_or(self.bytes.len()) - begin;
        if bytes == 0 {
            return;
        }
        if let (Some(damage), Some(_)) = (&mut self.damage, next) {
            return damage.add(bytes);
        }
        let cause = match next_record(&self.bytes[begin..]) {
            Err(None) if next.is_none() => return,
            Err(None) => "a record has a wrong length",
            Err(Some(cause)) => cause,
            Ok(_) => "too much is damaged to search for the next entry",
        };
        let nothing = Damage { at: begin, cause, bytes: 0, places: 0 };
        self.damage.get_or_insert(nothing).add(bytes);
    }
}

/// Length of the body of the record at the begin of `bytes`; `None`: there is certainly no whole
/// record. Takes no checksum.
fn likely_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    let fits = length <= bytes.len().checked_sub(HEAD_BYTES)?;
    let is_likely = match *bytes.get(HEAD_BYTES + BODY_HEAD_BYTES - 1)? {
        ADDED => (BODY_HEAD_BYTES..=BODY_MAX).contains(&length),
        REMOVED => length == BODY_HEAD_BYTES,
        _ => false,
    };
    (fits && is_likely).then_some(length)
}

/// The number, kind and bytes of the record at the begin of `bytes`; `Err(None)`: the bytes end
/// here or within a record, as a crash leaves them; `Err(Some)`: they are damaged.
fn next_record(bytes: &[u8]) -> Result<Record<'_>, Option<&'static str>> {
    let (length, rest) = bytes.split_first_chunk().ok_or(None)?;
    let (sum, rest) = rest.split_first_chunk().ok_or(None)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 && bytes.iter().all(|byte| *byte == 0) {
        return Err(None);
    }
    if !(BODY_HEAD_BYTES..=BODY_MAX).contains(&length) {
        return Err(Some("a record has an impossible length"));
    }
    let body = rest.get(..length).ok_or(None)?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return Err(Some("the checksum of a record is wrong"));
    }
    let (number, rest) = body.split_first_chunk().ok_or(None)?;
    let number = u64::from_le_bytes(*number);
    if number > NUMBER_MAX {
        return Err(Some("a record has an impossible number"));
    }
    match rest.split_first() {
        Some((&kind @ (ADDED | REMOVED), entry)) => Ok((number, kind, entry)),
        _ => Err(Some("a record has an unknown kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "test.log";
    const BYTES_MAX: u64 = 1 << 20;

    fn opened(folder: &Path) -> (EntryLog, Vec<String>) {
        let (log, entries) = EntryLog::open(folder, NAME, BYTES_MAX);
        let text = |(_, entry): (u64, Vec<u8>)| String::from_utf8(entry).unwrap();
        (log, entries.into_iter().map(text).collect())
    }

    /// The file with the entries `a`, `b` and `c`, of which `b` is removed.
    fn written(folder: &Path) -> Vec<u8> {
        let (mut log, none) = opened(folder);
        assert!(none.is_empty());
        let numbers = ["a", "b", "c"].map(|entry| log.add(entry.as_bytes()).unwrap());
        log.remove(numbers[1]).unwrap();
        log.sync().unwrap();
        fs::read(folder.join(NAME)).unwrap()
    }

    fn asides(folder: &Path) -> usize {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().contains("unreadable")).count()
    }

    #[test]
    fn entries_are_there_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let (mut log, entries) = opened(folder.path());
        assert_eq!(entries, ["a", "c"]);
        let number = log.add(b"d").unwrap();
        assert_eq!(number, 4, "numbers are not used twice");
        log.remove(1).unwrap();
        log.remove(1).unwrap();
        drop(log);
        assert_eq!(opened(folder.path()).1, ["c", "d"]);
    }

    #[test]
    fn a_torn_end_is_left_out_wherever_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let all = written(folder.path());
        for length in 0..all.len() {
            for padding in [0, 40] {
                let torn = [&all[..length], &vec![0; padding]].concat();
                fs::write(folder.path().join(NAME), torn).unwrap();
                let (mut log, mut entries) = opened(folder.path());
                log.add(b"later").unwrap();
                drop(log);
                entries.push("later".into());
                assert_eq!(opened(folder.path()).1, entries, "{length} {padding}");
            }
        }
    }

    #[test]
    fn damage_is_kept_aside_and_the_entries_around_it_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = written(folder.path());
        let begin = format!("drumline {NAME} format 1\n").len();
        let record = HEAD_BYTES + BODY_HEAD_BYTES + 1;
        all[begin + record - 1] ^= 1;
        fs::write(folder.path().join(NAME), &all).unwrap();
        let (mut log, entries) = opened(folder.path());
        assert_eq!((entries, asides(folder.path())), (vec!["c".to_owned()], 1));
        assert_eq!(log.add(b"later").unwrap(), 4);
        drop(log);
        assert_eq!(opened(folder.path()).1, ["c", "later"]);
        let newer = [b"drumline test.log format 2\n", &all[begin..]].concat();
        fs::remove_file(folder.path().join(NAME)).unwrap();
        fs::write(folder.path().join(NAME), newer).unwrap();
        assert!(opened(folder.path()).1.is_empty());
        assert!(!folder.path().join(NAME).exists());
    }

    /// The damage that a start warns of.
    fn damage(bytes: &[u8], begin: usize) -> Option<Damage> {
        let mut reader = RecordReader::new(bytes, begin);
        while reader.next_whole().is_some() {}
        reader.damage
    }

    #[test]
    fn every_flipped_bit_of_a_record_loses_this_record_alone() {
        // A flipped length can span the next record exactly, because each has 32 bytes.
        let entries = ["1-entry-xyz", "2-entry-xyz", "3-entry-xyz", "4-entry-xyz"];
        let begin = format!("drumline {NAME} format 1\n");
        let records = entries.iter().zip(1..).map(|(entry, n)| record(n, ADDED, entry.as_bytes()));
        let all = [begin.as_bytes(), &records.collect::<Vec<_>>().concat()].concat();
        for (lost, bit) in [1, 3].into_iter().flat_map(|lost| (0..32 * 8).map(move |n| (lost, n))) {
            let folder = tempfile::tempdir().unwrap();
            let (mut bytes, at) = (all.clone(), begin.len() + lost * 32);
            bytes[at + bit / 8] ^= 1 << (bit % 8);
            fs::write(folder.path().join(NAME), &bytes).unwrap();
            let mut others = entries.to_vec();
            others.remove(lost);
            let (mut log, found) = opened(folder.path());
            assert_eq!(found, others, "record {lost}, bit {bit}");
            let damage = damage(&bytes, begin.len());
            assert_eq!(asides(folder.path()), usize::from(damage.is_some()));
            match damage {
                Some(found) => assert_eq!((found.at, found.bytes, found.places), (at, 32, 1)),
                // A greater length of the last record looks like a torn end.
                None => assert!(lost == 3 && bit < 32, "record {lost}, bit {bit}"),
            }
            if bit % 8 == 0 {
                log.add(b"later").unwrap();
                others.push("later");
                assert_eq!(opened(folder.path()).1, others, "record {lost}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_removal_that_is_damaged_brings_its_entry_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = written(folder.path());
        *all.last_mut().unwrap() ^= REMOVED ^ 7;
        fs::write(folder.path().join(NAME), &all).unwrap();
        assert_eq!(opened(folder.path()).1, ["a", "b", "c"]);
        assert_eq!(asides(folder.path()), 1);
    }

    #[test]
    fn damage_is_counted_and_a_torn_end_behind_it_is_not() {
        let records: Vec<_> = (1..=7).map(|number| record(number, ADDED, b"entry")).collect();
        let (mut all, length) = (records.concat(), records[0].len());
        for damaged in [1, 3, 4] {
            all[damaged * length + HEAD_BYTES + 1] ^= 1;
        }
        let torn = &all[..7 * length - 1];
        let found = damage(torn, 0).unwrap();
        assert_eq!((found.at, found.bytes, found.places), (length, 3 * length, 2));
        let wanted = "at byte 26: the checksum of a record is wrong; 78 bytes in 2 places are lost";
        assert_eq!(found.to_string(), wanted);
    }

    #[test]
    fn a_search_for_whole_records_takes_few_checksums_of_what_looks_like_records() {
        // Every fourth byte begins what looks like a record of 64 KB.
        let noise = [1, 1, 1, 0].repeat(1 << 18);
        let last = record(1, ADDED, b"last");
        let all = [noise.as_slice(), &last].concat();
        let mut reader = RecordReader::new(&all, 0);
        let began = std::time::Instant::now();
        assert_eq!(reader.next_whole().unwrap(), (noise.len(), (1, ADDED, b"last".as_slice())));
        assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    }

    #[test]
    fn a_number_without_a_next_one_is_damage_and_a_repeated_one_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let begin = format!("drumline {NAME} format 1\n").into_bytes();
        let records = [(NUMBER_MAX, "a"), (NUMBER_MAX, "b"), (u64::MAX, "c")];
        let records = records.map(|(number, entry)| record(number, ADDED, entry.as_bytes()));
        fs::write(folder.path().join(NAME), [begin, records.concat()].concat()).unwrap();
        let (mut log, entries) = opened(folder.path());
        assert_eq!((entries, asides(folder.path())), (vec!["b".to_owned()], 1));
        assert_eq!(log.bytes, records[1].len() as u64);
        assert!(matches!(log.add(b"later"), Err(NotKept::Full)), "no number is left");
    }

    #[test]
    fn the_file_shrinks_when_entries_are_removed_and_the_bound_holds() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = opened(folder.path());
        let entry = [b'x'; 1000];
        for _ in 0..20_000 {
            let number = log.add(&entry).unwrap();
            log.remove(number).unwrap();
        }
        let size = fs::metadata(folder.path().join(NAME)).unwrap().len();
        assert!(size <= SLACK + 2000, "{size} bytes");
        let mut numbers = Vec::new();
        while let Ok(number) = log.add(&entry) {
            numbers.push(number);
        }
        assert!((1000..1049).contains(&numbers.len()), "{} entries", numbers.len());
        assert!(matches!(log.add(&entry), Err(NotKept::Full)));
        for number in numbers.drain(1..) {
            log.remove(number).unwrap();
        }
        log.add(b"last").unwrap();
        drop(log);
        assert_eq!(opened(folder.path()).1.len(), 2);
    }

    #[test]
    fn a_disk_that_takes_nothing_loses_no_earlier_entry() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let (mut log, _) = opened(folder.path());
        // Writes to this file fail.
        log.file = Some(File::open(folder.path().join(NAME)).unwrap());
        assert!(matches!(log.add(b"lost"), Err(NotKept::Io(_))));
        // The file is written anew.
        log.add(b"d").unwrap();
        drop(log);
        assert_eq!(opened(folder.path()).1, ["a", "c", "d"]);
    }

    #[test]
    fn the_first_sync_after_a_start_writes_the_file_anew() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        written(folder.path());
        let inode = || fs::metadata(folder.path().join(NAME)).unwrap().ino();
        let before = inode();
        let (mut log, _) = opened(folder.path());
        log.add(b"d").unwrap();
        assert_eq!(inode(), before, "an entry alone needs no new file");
        let kept = File::open(folder.path().join(NAME)).unwrap();
        log.sync().unwrap();
        let first = inode();
        assert_ne!(first, before);
        log.add(b"e").unwrap();
        log.sync().unwrap();
        assert_eq!(inode(), first, "later syncs write what is new");
        drop((log, kept));
        assert_eq!(opened(folder.path()).1, ["a", "c", "d", "e"]);
    }
}
