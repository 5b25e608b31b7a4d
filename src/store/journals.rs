//! The journals of the database, read before fjall reads them.
//!
//! Owns the knowledge of their format, which is that of fjall 3. Never changes a batch. fjall takes
//! the first entry that it cannot read for the end of a journal and cuts the rest off. So a flipped
//! bit in a length or a tag would silently remove every later batch. Each batch ends with the mark
//! of the database and with its number. The invariants: a torn batch at the end is cut off,
//! whatever clients have put into it; a batch that cannot be read before another one, or that is
//! not torn, is refused with its place; afterwards the last batch is on disk, even if a sync failed
//! and only the page cache had it.
//!
//! The last part works because a failed sync is the last one of its database: every earlier batch
//! was synced with success. Only pages from the begin of the last batch on may be missing on disk.
//! They are written once more and synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::store::disk::{Change, Fault};
use crate::store::journal_mark::{self, Mark};
use crate::store::layout;

/// Tags of the entries of a journal.
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Last bytes of a batch.
const MAGIC: [u8; 4] = *b"FJL\x03";
/// Bytes of the first entry of a batch.
const START_BYTES: usize = 13;
/// Bytes of an item before its key.
const ITEM_BYTES: usize = 20;
/// Bytes of the checksum and of [`MAGIC`].
const END_BYTES: usize = 12;
/// Sectors are written as a whole.
const SECTOR: usize = 512;
/// Blocks of file systems are at most as large.
const BLOCK: u64 = 1 << 20;
/// Bytes that are written again at a time.
const PIECE: usize = 1 << 20;
/// More bytes than a batch has: it takes a few MiB of writes and one request more.
const REST_MAX: usize = 64 << 20;

/// Bytes that a batch of changes and its mark take in a journal.
pub fn bytes_of(changes: &[Change]) -> u64 {
    let item = |change: &Change| {
        1 + ITEM_BYTES + change.key.len() + change.value.as_ref().map_or(0, Vec::len)
    };
    let mark = 1 + ITEM_BYTES + layout::MARK_KEY.len() + journal_mark::VALUE_BYTES;
    (START_BYTES + mark + 1 + END_BYTES + changes.iter().map(item).sum::<usize>()) as u64
}

/// What stands in a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Batches {
    /// Begin of the last batch.
    last: u64,
    /// End of the last batch.
    end: u64,
    /// Sequence number of the last batch; `None`: there is no batch.
    seqno: Option<u64>,
    /// Number of the last batch that has a mark; `None`: it is not known.
    number: Option<u64>,
}

/// What a batch tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    seqno: u64,
    /// `None`: it has no mark. `Some(None)`: its mark has no number.
    number: Option<Option<u64>>,
}

/// Why no further batch was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The bytes are no batch, or the file ends within it.
    NoBatch,
    /// Its sequence number is not above that of the batch before it.
    Order,
}

/// Reads batches one after the other.
struct Reader<R> {
    from: R,
    place: u64,
    buffer: Vec<u8>,
    /// The number in the last mark, as in [`Head`].
    number: Option<Option<u64>>,
}

impl<R: Read> Reader<R> {
    fn new(from: R, place: u64) -> Self {
        Reader { from, place, buffer: Vec::new(), number: None }
    }

    /// Reads so many bytes; `None`: the file ends before.
    fn take(&mut self, count: usize) -> io::Result<Option<&[u8]>> {
        self.buffer.clear();
        let read = (&mut self.from).take(count as u64).read_to_end(&mut self.buffer)?;
        self.place += read as u64;
        Ok((read == count).then_some(&self.buffer))
    }

    fn array<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        Ok(self.take(N)?.and_then(|bytes| bytes.try_into().ok()))
    }

    /// Reads a batch; `None`: the bytes are no batch.
    fn batch(&mut self) -> io::Result<Option<Head>> {
        self.number = None;
        let Some(start) = self.array::<START_BYTES>()? else { return Ok(None) };
        let [START, c0, c1, c2, c3, seqno @ ..] = start else { return Ok(None) };
        let mut hasher = Xxh3::new();
        for _ in 0..u32::from_le_bytes([c0, c1, c2, c3]) {
            if !self.item(&mut hasher)? {
                return Ok(None);
            }
        }
        if self.array::<1>()? != Some([END]) {
            return Ok(None);
        }
        let Some(end) = self.array::<END_BYTES>()? else { return Ok(None) };
        let expected = [&hasher.digest().to_le_bytes()[..], &MAGIC].concat();
        let head = Head { seqno: u64::from_le_bytes(seqno), number: self.number };
        Ok((end[..] == expected).then_some(head))
    }

    /// Reads a change; `false`: the bytes are none.
    fn item(&mut self, hasher: &mut Xxh3) -> io::Result<bool> {
        let Some([tag]) = self.array::<1>()? else { return Ok(false) };
        hasher.update(&[tag]);
        let (key, rest) = match tag {
            CLEAR => (0, 8),
            ITEM => {
                let Some(head) = self.array::<ITEM_BYTES>()? else { return Ok(false) };
                hasher.update(&head);
                // Kind, compression, table, length of the key, lengths of the value.
                let [_, _, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
                let key = usize::from(u16::from_le_bytes([k0, k1]));
                (key, key + u32::from_le_bytes([v0, v1, v2, v3]) as usize)
            }
            _ => return Ok(false),
        };
        let Some(bytes) = self.take(rest)? else { return Ok(false) };
        hasher.update(bytes);
        if let Some((layout::MARK_KEY, value)) = bytes.split_at_checked(key) {
            self.number = Some(journal_mark::number_of(value));
        }
        Ok(true)
    }
}

/// Reads all batches up to the first bytes that are none. `before` are those of the journal before.
fn read_batches(file: &File, before: Batches) -> io::Result<(Batches, Stop)> {
    let mut reader = Reader::new(BufReader::with_capacity(PIECE, file), 0);
    let mut batches = Batches { last: 0, end: 0, ..before };
    loop {
        let begin = reader.place;
        match reader.batch()? {
            Some(head) if batches.seqno >= Some(head.seqno) => {
                return Ok((batches, Stop::Order));
            }
            Some(Head { seqno, number }) => {
                let number = number.unwrap_or(batches.number);
                batches = Batches { last: begin, end: reader.place, seqno: Some(seqno), number };
            }
            None => return Ok((batches, Stop::NoBatch)),
        }
    }
}

/// The bytes from `place` to the end of the file, without the zeros at their end, which were
/// allocated in advance. `None`: they are more than a batch can have.
fn read_rest(mut file: &File, place: u64) -> io::Result<Option<Vec<u8>>> {
    file.seek(SeekFrom::Start(place))?;
    let (mut rest, mut piece, mut zeros) = (Vec::new(), Vec::new(), 0);
    loop {
        piece.clear();
        if file.take(PIECE as u64).read_to_end(&mut piece)? == 0 {
            return Ok(Some(rest));
        }
        let Some(last) = piece.iter().rposition(|byte| *byte != 0) else {
            zeros += piece.len();
            continue;
        };
        if rest.len() + zeros > REST_MAX {
            return Ok(None);
        }
        rest.resize(rest.len() + zeros, 0);
        rest.extend_from_slice(&piece[..=last]);
        zeros = piece.len() - last - 1;
    }
}

/// Whether bytes at a place of a file can be what a power cut left of a batch: its end is missing,
/// or sectors within it were never written. fjall writes a large batch in several parts, each of
/// whole entries. So a sector can also have the end of one part, and not the begin of the next.
fn is_torn(rest: &[u8], place: u64) -> bool {
    let to_sector = |at: usize| (SECTOR - (place as usize + at) % SECTOR) % SECTOR;
    let is_unwritten = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| *byte == 0);
    let is_unwritten_from = |at: usize| {
        let end = rest.len().min(at + to_sector(at));
        rest.get(at..end).is_some_and(is_unwritten)
    };
    let sectors = rest.get(to_sector(0)..).unwrap_or_default();
    !rest.ends_with(&MAGIC)
        || is_unwritten_from(0)
        || is_unwritten_from(end_of_entries(rest))
        || sectors.chunks(SECTOR).any(is_unwritten)
}

/// Bytes of the entries that stand at the begin of `rest`.
fn end_of_entries(rest: &[u8]) -> usize {
    let mut reader = Reader::new(rest, 0);
    let mut hasher = Xxh3::new();
    // A slice cannot fail.
    let Ok(Some([START, ..])) = reader.array::<START_BYTES>() else { return 0 };
    loop {
        let end = reader.place as usize;
        if !matches!(reader.item(&mut hasher), Ok(true)) {
            return end;
        }
    }
}

/// A journal and what stands in it.
struct Journal {
    id: u64,
    path: PathBuf,
    file: File,
    batches: Batches,
    stop: Stop,
}

impl Journal {
    fn fault(&self, what: &str) -> Fault {
        let Journal { path, batches, .. } = self;
        Fault::corrupt(format!("{}: {what} at byte {}", path.display(), batches.end))
    }

    /// Checks that nothing but a torn batch stands behind the batches. Returns its bytes.
    fn check_end(&self, mark: &Mark, is_followed: bool) -> Result<usize, Fault> {
        let end = self.batches.end;
        let rest = read_rest(&self.file, end).map_err(|error| Fault::of(&self.path, &error))?;
        let before_others = || Err(self.fault("a batch before others is damaged"));
        let Some(rest) = rest else { return before_others() };
        if rest.is_empty() {
            return Ok(0);
        }
        if self.stop == Stop::Order {
            return Err(self.fault("a batch is out of order"));
        }
        if is_followed {
            return before_others();
        }
        // Where a batch behind the batches ends, if that part of it was written.
        let Some(place) = memchr::memmem::find(&rest, mark) else { return Ok(rest.len()) };
        let found = rest.get(place..).unwrap_or_default();
        match found.len() > journal_mark::VALUE_BYTES + 1 + END_BYTES || self.is_behind_gap(found) {
            true => before_others(),
            false if is_torn(&rest, end) => Ok(rest.len()),
            false => Err(self.fault("the last batch is damaged")),
        }
    }

    /// Whether a mark behind the batches is that of a later batch than the next one. A number of
    /// which only a part was written is lower than it was.
    fn is_behind_gap(&self, mark: &[u8]) -> bool {
        let number = mark.get(..journal_mark::VALUE_BYTES).and_then(journal_mark::number_of);
        let last = self.batches.number;
        number.zip(last).is_some_and(|(found, last)| found > last.saturating_add(1))
    }

    /// Cuts off what stands behind the batches, and writes and syncs the last batch once more.
    fn secure(&self) -> io::Result<()> {
        let Batches { last, end, .. } = self.batches;
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        file.set_len(end)?;
        let mut place = last - last % BLOCK;
        let mut piece = vec![0; PIECE];
        while place < end {
            let count = PIECE.min((end - place) as usize);
            let part = piece.get_mut(..count).unwrap_or_default();
            file.read_exact_at(part, place)?;
            file.write_all_at(part, place)?;
            place += count as u64;
        }
        file.sync_all()
    }
}

/// IDs and paths of the journals of a folder, in any order. `None`: the name has no ID.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path) -> io::Result<Vec<(Option<u64>, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let id = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            found.push((id, path));
        }
    }
    Ok(found)
}

/// Opens and reads all journals of a folder, oldest first.
fn read(folder: &Path) -> Result<Vec<Journal>, Fault> {
    let mut paths = Vec::new();
    for (id, path) in list(folder).map_err(|error| Fault::of(folder, &error))? {
        let unknown = || Fault::corrupt(format!("{} is no journal", path.display()));
        paths.push((id.ok_or_else(unknown)?, path));
    }
    paths.sort();
    let mut journals: Vec<Journal> = Vec::new();
    let mut before = Batches::default();
    for (id, path) in paths {
        let missing = journals.last().map(|before| before.id + 1).filter(|next| *next != id);
        if let Some(missing) = missing {
            let path = folder.join(format!("{missing}.jnl"));
            return Err(Fault::corrupt(format!("{} is missing", path.display())));
        }
        let file = File::open(&path).map_err(|error| Fault::of(&path, &error))?;
        let (batches, stop) =
            read_batches(&file, before).map_err(|error| Fault::of(&path, &error))?;
        before = batches;
        journals.push(Journal { id, path, file, batches, stop });
    }
    Ok(journals)
}

/// Checks the journals of a database without a change.
///
/// # Errors
/// A batch is damaged, or a journal is missing or cannot be read.
pub fn check(folder: &Path) -> Result<(), Fault> {
    check_ends(&read(folder)?, &journal_mark::read(folder)?).map(|_| ())
}

/// Checks what stands behind the batches of the journals. Returns those that have a torn batch, and
/// its bytes.
fn check_ends<'a>(
    journals: &'a [Journal],
    mark: &Mark,
) -> Result<Vec<(&'a Journal, usize)>, Fault> {
    let (mut torn, mut is_followed) = (Vec::new(), false);
    for journal in journals.iter().rev() {
        let bytes = journal.check_end(mark, is_followed)?;
        is_followed |= journal.batches.end > 0;
        torn.extend((bytes > 0).then_some((journal, bytes)));
    }
    Ok(torn)
}

/// Checks the journals of a database that is closed, removes a torn batch at the end and makes sure
/// that everything else is on disk. `removed` gets a text for each batch, once it is removed.
///
/// # Errors
/// A batch is damaged, or a journal is missing: nothing was changed. Or the disk cannot be written.
pub fn secure(folder: &Path, mark: &Mark, mut removed: impl FnMut(String)) -> Result<(), Fault> {
    let journals = read(folder)?;
    let torn = check_ends(&journals, mark)?;
    for journal in &journals {
        journal.secure().map_err(|error| Fault::of(&journal.path, &error))?;
        if let Some((_, bytes)) = torn.iter().find(|(one, _)| std::ptr::eq(*one, journal)) {
            let (path, at) = (journal.path.display(), journal.batches.end);
            removed(format!(
                "{path}: removed {bytes} bytes at byte {at}: a write that did not end"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sys;
    use crate::store::disk::{Disk as _, FaultKind, Table};
    use crate::store::fjall_disk::tests::{closed, copy, folder, keys, opened, put};

    /// A store with a batch per name, as a crash leaves it, and its journal.
    struct Crashed {
        folder: tempfile::TempDir,
        journal: Vec<u8>,
        /// Begin and end of each of these batches.
        batches: Vec<(usize, usize)>,
    }

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    impl Crashed {
        fn new(value_bytes: usize) -> Self {
            let folder = folder();
            let disk = opened(&folder.path().join("live"));
            let journal = |path: &Path| fs::read(path.join("data/0.jnl")).unwrap();
            let end = || {
                let bytes = journal(&folder.path().join("live"));
                bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
            };
            let mut batches = Vec::new();
            for name in NAMES {
                let begin = end();
                // Values without zeros: a sector of zeros counts as torn.
                disk.commit(vec![put(Table::Keys, name, &vec![7; value_bytes])]).unwrap();
                batches.push((begin, end()));
            }
            copy(&folder.path().join("live"), &folder.path().join("dead"));
            drop(disk);
            let mut journal = journal(&folder.path().join("dead"));
            // fjall allocates new journals in advance.
            journal.resize(1 << 16, 0);
            Crashed { folder, journal, batches }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("dead")
        }

        /// Starts with a changed journal. Returns the names that are there.
        fn start(&self, journal: &[u8]) -> Result<Vec<String>, Fault> {
            let path = self.folder.path().join("started");
            if !path.exists() {
                copy(&self.path(), &path);
            }
            let file = path.join("data/0.jnl");
            fs::write(&file, journal).unwrap();
            let disk = closed(&path);
            let before = check(&path.join("data"));
            let result = disk.reopen();
            assert_eq!(before, result.clone(), "the check finds what the start finds");
            if let Err(fault) = result {
                assert!(fs::read(file).unwrap() == journal, "a refused start changes nothing");
                return Err(fault);
            }
            let names = keys(&disk, Table::Keys);
            disk.commit(vec![put(Table::Keys, "later", b"")]).unwrap();
            drop(disk);
            let again = keys(&opened(&path), Table::Keys);
            assert_eq!(again.len(), names.len() + 1, "{again:?}");
            fs::remove_dir_all(&path).unwrap();
            Ok(names)
        }
    }

    #[test]
    fn a_torn_batch_at_the_end_is_removed() {
        let crashed = Crashed::new(40);
        assert_eq!(crashed.start(&crashed.journal).unwrap(), NAMES);
        let (begin, end) = crashed.batches[3];
        for cut in [begin, begin + 1, begin + 13, begin + 20, (begin + end) / 2, end - 4, end - 1] {
            let short = &crashed.journal[..cut];
            assert_eq!(crashed.start(short).unwrap(), NAMES[..3], "cut at {cut}");
            // The rest of the file was allocated in advance.
            let padded = [short, &vec![0; crashed.journal.len() - cut]].concat();
            assert_eq!(crashed.start(&padded).unwrap(), NAMES[..3], "zeros from {cut}");
        }
    }

    #[test]
    fn a_batch_with_sectors_that_were_never_written_is_torn() {
        let crashed = Crashed::new(4000);
        let (begin, end) = crashed.batches[3];
        for hole in [begin / 512 * 512 + 512, end / 512 * 512 - 512] {
            let mut journal = crashed.journal.clone();
            journal[hole..hole + 512].fill(0);
            assert_eq!(crashed.start(&journal).unwrap(), NAMES[..3], "hole at {hole}");
        }
        let mut journal = crashed.journal.clone();
        journal[begin..begin / 512 * 512 + 512].fill(0);
        assert_eq!(crashed.start(&journal).unwrap(), NAMES[..3], "hole at the begin");
    }

    #[test]
    fn a_batch_with_a_sector_of_which_only_the_first_entries_were_written_is_torn() {
        // The begin of the batch and of its value lie in one sector.
        let is_early = |crashed: &Crashed| crashed.batches[3].0 % 512 < 256;
        let crashed = (4000..).step_by(50).map(Crashed::new).find(is_early).unwrap();
        let (begin, _) = crashed.batches[3];
        let hole = begin + START_BYTES;
        assert_eq!(begin / 512, hole / 512, "both entries begin in one sector");
        let mut journal = crashed.journal.clone();
        journal[hole..hole / 512 * 512 + 512].fill(0);
        assert_eq!(crashed.start(&journal).unwrap(), NAMES[..3]);
        // The value of the item begins before these zeros.
        let mut journal = crashed.journal.clone();
        let inside = hole + 1 + ITEM_BYTES + 40;
        assert_eq!(begin / 512, inside / 512, "the value begins in the same sector");
        journal[inside..inside / 512 * 512 + 512].fill(0);
        assert_eq!(crashed.start(&journal).unwrap_err().kind, FaultKind::Corrupt);
    }

    #[test]
    fn a_damaged_batch_before_others_is_refused_with_its_place() {
        let crashed = Crashed::new(40);
        for (begin, end) in crashed.batches[..3].iter().copied() {
            for place in begin..end {
                let mut journal = crashed.journal.clone();
                journal[place] ^= 1 << (place % 8);
                let fault = crashed.start(&journal).unwrap_err();
                assert_eq!(fault.kind, FaultKind::Corrupt);
                let is_named = fault.text.contains("data/0.jnl") && fault.text.contains("at byte");
                assert!(is_named, "{fault}");
            }
        }
    }

    #[test]
    fn a_damaged_last_batch_is_refused_unless_its_end_is_missing() {
        let crashed = Crashed::new(40);
        let (begin, end) = crashed.batches[3];
        let mark = end - END_BYTES - 1 - journal_mark::VALUE_BYTES;
        let mark = mark..mark + journal_mark::BYTES;
        for place in (begin..end - MAGIC.len()).filter(|place| !mark.contains(place)) {
            let mut journal = crashed.journal.clone();
            journal[place] ^= 1 << (place % 8);
            match crashed.start(&journal) {
                Err(fault) => assert_eq!(fault.kind, FaultKind::Corrupt, "{place}"),
                // A higher sequence number does no harm.
                Ok(names) => assert!((begin + 5..begin + 13).contains(&place), "{place} {names:?}"),
            }
        }
    }

    /// A whole batch as a client can make it.
    fn forged(items: usize, seqno: u64) -> Vec<u8> {
        let mut batch = vec![START];
        batch.extend((items as u32).to_le_bytes());
        batch.extend(seqno.to_le_bytes());
        let mut hasher = Xxh3::new();
        for _ in 0..items {
            let clear = [&[CLEAR][..], &7u64.to_le_bytes()].concat();
            hasher.update(&clear);
            batch.extend(clear);
        }
        batch.push(END);
        batch.extend(hasher.digest().to_le_bytes());
        batch.extend(MAGIC);
        assert!(Reader::new(&batch[..], 0).batch().unwrap().is_some(), "it is whole");
        batch
    }

    #[test]
    fn what_clients_put_into_a_torn_batch_does_not_pass_for_another_one() {
        let folder = folder();
        let disk = opened(&folder.path().join("live"));
        disk.commit(vec![put(Table::Keys, "a", b"1")]).unwrap();
        let path = folder.path().join("live/data/0.jnl");
        let length = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let begin = length(&fs::read(&path).unwrap());
        let value = [&b"x"[..], &forged(1, u64::MAX / 2), &MAGIC.repeat(20), b"y"].concat();
        disk.commit(vec![put(Table::Keys, "b", &value)]).unwrap();
        let mut journal = fs::read(&path).unwrap();
        let end = length(&journal);
        journal.truncate(1 << 16);
        copy(&folder.path().join("live"), &folder.path().join("dead"));
        drop(disk);
        let crashed = Crashed { folder, journal, batches: vec![(begin, end)] };
        assert_eq!(crashed.start(&crashed.journal).unwrap(), ["a", "b"]);
        // Everything before the mark and its end.
        for cut in (begin..end - END_BYTES - 1).step_by(13) {
            let padded = [&crashed.journal[..cut], &[0; 600]].concat();
            assert_eq!(crashed.start(&padded).unwrap(), ["a"], "cut at {cut}");
        }
    }

    #[test]
    fn a_long_torn_batch_is_judged_in_one_pass() {
        let crashed = Crashed::new(40);
        let (begin, end) = crashed.batches[3];
        // Each of these begins could be a batch up to the end, for a search that tries all.
        let begins = [1, 9, 9, 9, 4, 9, 9, 9, 9].repeat(1 << 18);
        let head = crashed.journal[begin..begin + START_BYTES].to_vec();
        let journal = [&crashed.journal[..end], &head, &begins].concat();
        let mut reads = Journal {
            id: 0,
            path: PathBuf::from("0.jnl"),
            file: tempfile::tempfile().unwrap(),
            batches: Batches { end: end as u64, ..Batches::default() },
            stop: Stop::NoBatch,
        };
        io::Write::write_all(&mut reads.file, &journal).unwrap();
        let before = sys::thread_micros();
        let torn = reads.check_end(&[7; journal_mark::BYTES], false).unwrap();
        assert_eq!(torn, START_BYTES + begins.len());
        let took = sys::thread_micros() - before;
        assert!(took < 2_000_000, "{took} us of processor time");
    }

    #[test]
    fn bytes_far_behind_the_end_are_refused_without_taking_memory() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.set_len(4 << 20).unwrap();
        assert_eq!(read_rest(&file, 0).unwrap().unwrap(), b"begin");
        file.write_all_at(b"far", 2 * REST_MAX as u64).unwrap();
        assert_eq!(read_rest(&file, 0).unwrap(), None);
    }

    #[test]
    fn a_database_without_its_mark_is_refused_by_name() {
        let crashed = Crashed::new(40);
        let mark = crashed.path().join("data/journal.mark");
        for content in [&b"short"[..], &[0; 16], &[7; 17]] {
            fs::write(&mark, content).unwrap();
            let fault = closed(&crashed.path()).reopen().unwrap_err();
            assert!(fault.text.contains("journal.mark has no mark"), "{fault}");
        }
        fs::remove_file(&mark).unwrap();
        let fault = closed(&crashed.path()).reopen().unwrap_err();
        assert!(fault.text.contains("journal.mark is missing"), "{fault}");
        assert_eq!(fault.kind, FaultKind::Corrupt);
    }

    #[test]
    fn a_repeated_batch_is_refused() {
        let crashed = Crashed::new(40);
        let (begin, end) = crashed.batches[1];
        let last = crashed.batches[3].1;
        let mut journal = crashed.journal.clone();
        journal.copy_within(begin..end, last);
        let fault = crashed.start(&journal).unwrap_err();
        assert!(fault.text.contains("out of order"), "{fault}");
    }

    #[test]
    fn a_damaged_end_of_a_journal_that_others_follow_and_a_missing_journal_are_refused() {
        let crashed = Crashed::new(40);
        let data = crashed.path().join("data");
        let (begin, end) = crashed.batches[3];
        // The last batch stands in a journal of its own.
        fs::write(data.join("1.jnl"), &crashed.journal[begin..end]).unwrap();
        fs::write(data.join("0.jnl"), &crashed.journal[..begin]).unwrap();
        assert_eq!(check(&data), Ok(()));
        fs::write(data.join("0.jnl"), &crashed.journal[..begin - 1]).unwrap();
        let fault = check(&data).unwrap_err();
        assert!(fault.text.contains("0.jnl: a batch before others is damaged"), "{fault}");
        fs::write(data.join("1.jnl"), b"").unwrap();
        assert_eq!(check(&data), Ok(()), "nothing follows");
        fs::write(data.join("3.jnl"), b"").unwrap();
        assert!(check(&data).unwrap_err().text.contains("2.jnl is missing"));
        fs::write(data.join("x.jnl"), b"").unwrap();
        assert!(check(&data).unwrap_err().text.contains("x.jnl is no journal"));
    }

    #[test]
    fn zeros_over_several_batches_are_refused() {
        let crashed = Crashed::new(1500);
        let [_, second, third, last] = crashed.batches[..] else { panic!("four batches") };
        let begin = second.0.next_multiple_of(SECTOR);
        assert!(begin < third.0);
        // The end of the last batch alone is left; or the whole of it.
        for end in [(last.0 + 40).next_multiple_of(SECTOR), last.0] {
            let mut journal = crashed.journal.clone();
            journal[begin..end].fill(0);
            let fault = crashed.start(&journal).unwrap_err();
            assert!(fault.text.contains("a batch before others is damaged"), "{fault}");
        }
        // Of the number in the last mark, only the first bytes were written.
        let mut journal = crashed.journal.clone();
        journal[third.1 + START_BYTES..last.1 - END_BYTES - 2].fill(0);
        assert_eq!(crashed.start(&journal).unwrap(), NAMES[..3]);
    }

    #[test]
    fn zeros_over_several_batches_of_a_new_journal_are_refused() {
        let crashed = Crashed::new(1500);
        let data = crashed.path().join("data");
        let [_, second, third, last] = crashed.batches[..] else { panic!("four batches") };
        fs::write(data.join("0.jnl"), &crashed.journal[..second.0]).unwrap();
        let start = |begin: usize| {
            let rest = [&vec![0; 600], &crashed.journal[begin..last.1]].concat();
            fs::write(data.join("1.jnl"), rest).unwrap();
            check(&data)
        };
        assert!(start(third.0 + 600).is_err());
        // The second batch is torn.
        let rest = [&vec![0; 600], &crashed.journal[second.0 + 600..second.1]].concat();
        fs::write(data.join("1.jnl"), rest).unwrap();
        assert_eq!(check(&data), Ok(()));
    }

    /// The numbers of the batches of a journal.
    fn numbers(folder: &Path) -> Vec<Option<u64>> {
        let file = File::open(folder.join("data/0.jnl")).unwrap();
        let mut reader = Reader::new(BufReader::new(file), 0);
        let next = || reader.batch().unwrap().map(|head| head.number);
        std::iter::from_fn(next).flatten().collect()
    }

    #[test]
    fn numbers_continue_after_a_start_and_after_a_torn_batch() {
        let crashed = Crashed::new(40);
        // The secret, the trial of the start, and the batches.
        let expected = |last: u64| (1..=last).map(Some).collect::<Vec<_>>();
        assert_eq!(numbers(&crashed.path()), expected(6));
        let journal = crashed.path().join("data/0.jnl");
        let end = crashed.batches[3].1;
        fs::write(&journal, &crashed.journal[..end - 1]).unwrap();
        let disk = opened(&crashed.path());
        disk.commit(vec![put(Table::Keys, "e", b"")]).unwrap();
        assert_eq!(numbers(&crashed.path()), expected(7), "a trial and a batch");
        disk.close().unwrap();
        disk.reopen().unwrap();
        drop(disk);
        assert_eq!(numbers(&crashed.path()), expected(8));
    }

    #[test]
    fn marks_without_numbers_are_judged_as_before() {
        let crashed = Crashed::new(40);
        let mark = journal_mark::read(&crashed.path().join("data")).unwrap();
        let found = |number: Option<u64>, value: &[u8]| {
            let batches = Batches { number, ..Batches::default() };
            let (path, file) = (PathBuf::new(), tempfile::tempfile().unwrap());
            Journal { id: 0, path, file, batches, stop: Stop::NoBatch }.is_behind_gap(value)
        };
        let value = |number| journal_mark::value(&mark, number);
        assert!(found(Some(4), &value(6)));
        assert!(!found(Some(4), &value(5)) && !found(Some(4), &value(0)));
        assert!(!found(None, &value(9)) && !found(Some(u64::MAX), &value(9)));
        assert!(!found(Some(4), &mark) && !found(Some(4), &[&mark[..], &[0, 0, 9]].concat()));
        // The rest of a batch of an earlier version.
        let rest = [&mark[..], &[END], &[1; END_BYTES]].concat();
        assert!(!found(Some(4), &rest), "{rest:?}");
    }
}
