//! The disk of the store: a fjall database.
//!
//! Owns the database in the folder `data`, and closes and opens it. Never knows what keys and
//! values mean. The invariants: a batch that was committed is synced; after a fault nothing is
//! written until the database is opened anew; no call waits for a background thread of fjall that
//! may have died.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use fjall::{
    AbstractTree as _, Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Readable,
    Snapshot,
};
use rustix::fs::{StatVfs, StatVfsMountFlags};
use rustix::io::Errno;

use crate::base::sys;
use crate::store::disk::{Change, Disk, Fault, FaultKind, Order, Table, View, Visitor};
use crate::store::folder::{self, Folder};
use crate::store::journal_mark::{self, Mark};
use crate::store::journal_room::JournalRoom;
use crate::store::table_ages::{TableAges, TableInMemory};
use crate::store::{fjall_log, journals, layout, manifests};

/// Memory for blocks of tables.
const CACHE_BYTES: u64 = 4 << 20;
/// Open files of tables.
const FILES_MAX: usize = 128;
/// Bytes of journals whose tables are not written yet; the least that fjall takes.
const JOURNALS_BYTES: u64 = 64 << 20;
/// Bytes of a table in memory before it is written.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Threads that write and compact tables.
const WORKERS: usize = 2;

/// Tables in memory that wait to be written, at which a commit waits. fjall itself waits at 4, and
/// waits for ever if its threads have died. A commit adds at most one per keyspace.
const SEALED_MAX: usize = 2;
/// Runs of the first level at which a commit waits. fjall itself waits at 30 in the same way.
const RUNS_MAX: usize = 20;
/// Commits while a table in memory is full, at which a commit waits. Each of them asks fjall to
/// replace the table; its threads block each other if a thousand such messages wait.
const FULL_MAX: u32 = 200;
/// Pause between two looks at these numbers.
const PAUSE: Duration = Duration::from_millis(2);

/// Free space below which the disk counts as full after a fault: a table in memory and a step of a
/// compaction must find room.
pub const FREE_MIN: u64 = 64 << 20;

/// What a closed database tells.
const CLOSED: &str = "the store is closed";

/// Where the next batch is written.
struct JournalEnd {
    room: JournalRoom,
    /// Number of the last batch.
    number: u64,
}

/// The open database.
struct Tables {
    database: Database,
    keyspaces: [Keyspace; Table::ALL.len()],
    /// Commits since a table in memory became full.
    full: AtomicU32,
    /// The end of the journal. It is locked while a batch is written to the journal.
    journal: Mutex<JournalEnd>,
    ages: Mutex<TableAges<{ Table::ALL.len() }>>,
    mark: Mark,
}

impl Tables {
    fn of(&self, table: Table) -> &Keyspace {
        match table {
            Table::Streams => &self.keyspaces[0],
            Table::Publications => &self.keyspaces[1],
            Table::Keys => &self.keyspaces[2],
            Table::State => &self.keyspaces[3],
        }
    }

    fn open(path: &Path, mark: Mark) -> Result<Self, Fault> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(FILES_MAX))
            .max_journaling_size(JOURNALS_BYTES)
            .worker_threads(WORKERS)
            .open()
            .map_err(|error| fault(path, &error))?;
        let open = |table: Table| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            database.keyspace(table.name(), options).map_err(|error| fault(path, &error))
        };
        let [streams, publications, keys, state] = Table::ALL;
        let keyspaces = [open(streams)?, open(publications)?, open(keys)?, open(state)?];
        let last = keyspaces[3].get(layout::MARK_KEY).map_err(|error| fault(path, &error))?;
        // A new database, or one of an earlier version, has no number.
        let number = last.and_then(|value| journal_mark::number_of(&value)).unwrap_or(0);
        let journal = Mutex::new(JournalEnd { room: JournalRoom::new(path), number });
        let ages = Mutex::new(TableAges::new(Instant::now()));
        Ok(Tables { database, keyspaces, full: AtomicU32::new(0), journal, ages, mark })
    }

    /// Whether the background threads are behind.
    fn is_behind(&self) -> bool {
        let size = |keyspace: &Keyspace| keyspace.tree.active_memtable().size();
        let largest = self.keyspaces.iter().map(size).max().unwrap_or(0);
        if largest <= MEMTABLE_BYTES {
            self.full.store(0, Ordering::Relaxed);
        }
        let waits = self.keyspaces.iter().any(|keyspace| {
            keyspace.sealed_memtable_count() >= SEALED_MAX
                || keyspace.tree.l0_run_count() >= RUNS_MAX
        });
        waits || largest > 2 * MEMTABLE_BYTES || self.full.load(Ordering::Relaxed) >= FULL_MAX
    }

    fn probe(&self) -> fjall::Result<()> {
        self.database.persist(PersistMode::Buffer)
    }

    /// Waits until the background threads have caught up.
    fn catch_up(&self) -> fjall::Result<()> {
        while self.is_behind() {
            self.probe()?;
            std::thread::sleep(PAUSE);
        }
        self.full.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Begins to write tables that have been in memory for long.
    fn write_old(&self) -> fjall::Result<()> {
        let mut ages = self.ages.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = || {
            self.keyspaces.each_ref().map(|keyspace| {
                let table = keyspace.tree.active_memtable();
                TableInMemory { id: table.id(), is_empty: table.is_empty() }
            })
        };
        let old = ages.old(Instant::now(), tables);
        for (keyspace, _) in self.keyspaces.iter().zip(old).filter(|(_, is_old)| *is_old) {
            keyspace.rotate_memtable()?;
        }
        Ok(())
    }

    fn commit(&self, changes: Vec<Change>) -> fjall::Result<()> {
        self.catch_up()?;
        self.write_old()?;
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.room.take(journals::bytes_of(&changes));
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for Change { table, key, value } in changes {
            match value {
                Some(value) => batch.insert(self.of(table), key, value),
                None => batch.remove(self.of(table), key),
            }
        }
        // The last item.
        let number = journal.number.saturating_add(1);
        let mark = journal_mark::value(&self.mark, number);
        batch.insert(self.of(Table::State), layout::MARK_KEY, mark);
        batch.commit()?;
        // After a failure the database is opened anew: only then it is known what was written.
        journal.number = number;
        Ok(())
    }

    /// Writes the tables in memory to disk.
    fn flush(&self) -> fjall::Result<()> {
        for keyspace in &self.keyspaces {
            keyspace.rotate_memtable()?;
        }
        while self.keyspaces.iter().any(|keyspace| keyspace.sealed_memtable_count() > 0) {
            self.probe()?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// Why fjall failed.
fn fault(path: &Path, error: &fjall::Error) -> Fault {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => {
            match error.kind() {
                // The disk has read what it has: a file is cut off, or names no place in it.
                ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput => {
                    Fault::corrupt(format!("{}: a file is damaged: {error}", path.display()))
                }
                _ => Fault::of(path, error),
            }
        }
        fjall::Error::Poisoned => background_fault(path),
        fjall::Error::Locked => {
            let text = format!("{} is open in another process", path.display());
            Fault::new(FaultKind::Locked, text)
        }
        fjall::Error::Storage(LsmError::ChecksumMismatch { .. }) => {
            let text = "a block of a table is damaged: it does not match its checksum";
            Fault::corrupt(format!("{}: {text}", path.display()))
        }
        error => Fault::corrupt(format!("{}: {error}", path.display())),
    }
}

/// The cause of a fault in a background thread: what fjall has logged, and what the file system
/// tells of itself.
fn background_fault(path: &Path) -> Fault {
    let logged = fjall_log::take().unwrap_or_else(|| "a background write failed".to_owned());
    let text = format!("{}: {logged}", path.display());
    let of = |errno: Errno| Fault::of(path, &errno.into());
    let has = |words: &[&str]| words.iter().any(|word| logged.contains(word));
    match rustix::fs::statvfs(path) {
        Ok(found) if found.f_flag.contains(StatVfsMountFlags::RDONLY) => of(Errno::ROFS),
        Ok(found) if free(&found) < FREE_MIN => of(Errno::NOSPC),
        // There is room again since.
        _ if has(&["StorageFull"]) => of(Errno::NOSPC),
        _ if has(&["QuotaExceeded"]) => of(Errno::DQUOT),
        _ if has(&["ChecksumMismatch", "Invalid", "Unrecoverable", "UnexpectedEof"]) => {
            Fault::corrupt(text)
        }
        _ => Fault::new(FaultKind::Io, text),
    }
}

/// Free bytes of a file system.
fn free(found: &StatVfs) -> u64 {
    found.f_bavail.saturating_mul(found.f_frsize)
}

/// A fjall database in the folder of a store.
pub struct FjallDisk {
    folder: Folder,
    path: PathBuf,
    tables: RwLock<Option<Arc<Tables>>>,
    /// Whether a database may be created: none was open yet.
    may_create: AtomicBool,
    /// The lock of the folder, once it was taken.
    lock: Mutex<Option<File>>,
    /// Whether the database closes: views end.
    is_closing: AtomicBool,
    /// Whether the last fault was a full disk.
    was_full: AtomicBool,
    /// What the last start has removed from journals, if nobody has taken it up.
    repairs: Mutex<Vec<String>>,
}

impl FjallDisk {
    /// A closed database. [`Disk::reopen`] opens it, and the first time creates it if the folder
    /// has none.
    pub fn new(folder: Folder) -> Self {
        let path = folder.data();
        fjall_log::install();
        FjallDisk {
            folder,
            path,
            tables: RwLock::new(None),
            may_create: true.into(),
            lock: Mutex::new(None),
            is_closing: false.into(),
            was_full: false.into(),
            repairs: Mutex::default(),
        }
    }

    /// Takes the texts about what the last [`Disk::reopen`] has removed from journals. The log has
    /// them, too.
    pub fn take_repairs(&self) -> Vec<String> {
        std::mem::take(&mut self.repairs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> Result<(), Fault> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            *lock = Some(self.folder.lock()?);
        }
        Ok(())
    }

    /// Creates a database with all tables and the secret.
    fn create(&self) -> Result<(), Fault> {
        let path = self.folder.begin()?;
        let tables = Tables::open(&path, journal_mark::create(&path)?)?;
        let (table, key) = (Table::State, layout::SECRET_KEY.to_vec());
        let value = Some(sys::random::<16>().map_err(|error| Fault::of(&path, &error))?.to_vec());
        let written = tables.commit(vec![Change { table, key, value }]);
        written.and_then(|()| tables.flush()).map_err(|error| fault(&path, &error))?;
        drop(tables);
        self.folder.finish()
    }

    fn tables(&self) -> Result<OpenTables<'_>, Fault> {
        let guard = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let closed = || Fault::new(FaultKind::Closed, CLOSED);
        let tables = guard.clone().ok_or_else(closed)?;
        Ok(OpenTables { tables, _guard: guard })
    }

    /// Takes the tables away once no thread uses them.
    fn take(&self) -> Option<Arc<Tables>> {
        self.is_closing.store(true, Ordering::Relaxed);
        let taken = self.tables.write().unwrap_or_else(PoisonError::into_inner).take();
        self.is_closing.store(false, Ordering::Relaxed);
        taken
    }

    /// Notes a fault.
    fn fault(&self, error: &fjall::Error) -> Fault {
        let fault = fault(&self.path, error);
        self.was_full.store(fault.kind == FaultKind::Full, Ordering::Relaxed);
        fault
    }

    /// After the disk was full, waits for more room than the next write needs: otherwise the store
    /// would become available and unavailable in turn.
    fn check_room(&self) -> Result<(), Fault> {
        let free = rustix::fs::statvfs(&self.path).map_or(u64::MAX, |found| free(&found));
        if self.was_full.load(Ordering::Relaxed) && free < FREE_MIN {
            let (path, free) = (self.path.display(), free >> 20);
            let text = format!("{path}: {free} MiB are free, the store needs {}", FREE_MIN >> 20);
            return Err(Fault::new(FaultKind::Full, text));
        }
        Ok(())
    }

    fn open(&self) -> Result<Tables, Fault> {
        manifests::check(&self.path)?;
        let mark = journal_mark::read(&self.path)?;
        self.take_repairs();
        journals::secure(&self.path, &mark, |repair| {
            tracing::info!(target: "store", "{repair}");
            self.repairs.lock().unwrap_or_else(PoisonError::into_inner).push(repair);
        })?;
        folder::sync_folders(&self.path).map_err(|error| Fault::of(&self.path, &error))?;
        let tables = Tables::open(&self.path, mark)?;
        let mark = tables.of(Table::State).get(layout::IMPORT_KEY);
        if mark.map_err(|error| self.fault(&error))?.is_some() {
            let text = format!("an import into {} is not complete", self.folder.path().display());
            return Err(Fault::corrupt(text));
        }
        let (table, key) = (Table::State, layout::TRIAL_KEY.to_vec());
        let trial = tables.commit(vec![Change { table, key, value: Some(Vec::new()) }]);
        trial.map_err(|error| self.fault(&error))?;
        Ok(tables)
    }
}

/// Tables that stay open. The guard comes last: when it is released, no reference is left.
struct OpenTables<'a> {
    tables: Arc<Tables>,
    _guard: RwLockReadGuard<'a, Option<Arc<Tables>>>,
}

impl Disk for FjallDisk {
    type View<'a> = FjallView<'a>;

    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        self.tables()?.tables.commit(changes).map_err(|error| self.fault(&error))
    }

    fn view(&self) -> Result<FjallView<'_>, Fault> {
        let open = self.tables()?;
        let snapshot = open.tables.database.snapshot();
        Ok(FjallView { snapshot, open, path: &self.path, is_closing: &self.is_closing })
    }

    fn probe(&self) -> Result<(), Fault> {
        let open = self.tables()?;
        let found = open.tables.probe().and_then(|()| open.tables.write_old());
        found.map_err(|error| self.fault(&error))
    }

    fn reopen(&self) -> Result<(), Fault> {
        drop(self.take());
        self.check_room()?;
        self.lock()?;
        if self.may_create.load(Ordering::Relaxed) && !self.folder.is_complete()? {
            self.create()?;
        }
        let tables = self.open().inspect_err(|fault| {
            self.was_full.store(fault.kind == FaultKind::Full, Ordering::Relaxed);
        })?;
        self.may_create.store(false, Ordering::Relaxed);
        self.was_full.store(false, Ordering::Relaxed);
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(tables));
        Ok(())
    }

    fn close(&self) -> Result<(), Fault> {
        let Some(tables) = self.take() else { return Ok(()) };
        tables.flush().map_err(|error| self.fault(&error))
    }
}

/// A snapshot of the database.
pub struct FjallView<'a> {
    snapshot: Snapshot,
    open: OpenTables<'a>,
    path: &'a Path,
    is_closing: &'a AtomicBool,
}

impl View for FjallView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let found = self.snapshot.get(self.open.tables.of(table), key);
        let found = found.map_err(|error| fault(self.path, &error))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        keys: Range<&[u8]>,
        order: Order,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Fault> {
        let mut found = self.snapshot.range(self.open.tables.of(table), keys);
        let mut next = || match order {
            Order::Ascending => found.next(),
            Order::Descending => found.next_back(),
        };
        while let Some(entry) = next() {
            let (key, value) = entry.into_inner().map_err(|error| fault(self.path, &error))?;
            if !visit(&key, &value)? {
                break;
            }
            if self.is_closing.load(Ordering::Relaxed) {
                return Err(Fault::new(FaultKind::Closed, CLOSED));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder in memory if the system has a place for it: syncs of a busy disk take long.
    pub(crate) fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    /// An open disk in a folder.
    pub(crate) fn opened(path: &Path) -> FjallDisk {
        let disk = closed(path);
        disk.reopen().unwrap();
        disk
    }

    pub(crate) fn closed(path: &Path) -> FjallDisk {
        FjallDisk::new(Folder::new(path.to_owned()))
    }

    pub(crate) fn put(table: Table, key: &str, value: &[u8]) -> Change {
        Change { table, key: key.as_bytes().to_vec(), value: Some(value.to_vec()) }
    }

    /// The keys of a table.
    pub(crate) fn keys(disk: &FjallDisk, table: Table) -> Vec<String> {
        let mut found = Vec::new();
        let (view, end) = (disk.view().unwrap(), [0xff; 16]);
        let scanned = view.scan(table, &b"\x01"[..]..&end[..], Order::Ascending, &mut |key, _| {
            found.push(String::from_utf8_lossy(key).into_owned());
            Ok(true)
        });
        scanned.unwrap();
        found
    }

    /// Copies a folder as a crash of the process leaves it.
    pub(crate) fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &to),
                false => std::fs::copy(entry.path(), to).map(|_| ()).unwrap(),
            }
        }
    }

    #[test]
    fn the_cure_of_a_full_disk_says_how_much_room_is_needed() {
        let cure = Fault::new(FaultKind::Full, "").cure();
        assert!(cure.contains(&format!(" {} MiB ", FREE_MIN >> 20)), "{cure}");
    }

    #[test]
    fn a_batch_changes_all_tables_and_is_there_after_a_crash_and_after_a_close() {
        let folder = folder();
        let (path, crashed) = (folder.path().join("a"), folder.path().join("b"));
        let disk = opened(&path);
        disk.commit(Table::ALL.map(|table| put(table, "k", b"1")).to_vec()).unwrap();
        let before = disk.view().unwrap();
        let removal = Change { table: Table::Keys, key: b"k".to_vec(), value: None };
        disk.commit(vec![put(Table::Streams, "k", b"2"), removal]).unwrap();
        assert_eq!(before.get(Table::Streams, b"k").unwrap().unwrap(), b"1");
        drop(before);
        copy(&path, &crashed);
        disk.close().unwrap();
        drop(disk);
        for path in [path, crashed] {
            let disk = opened(&path);
            let view = disk.view().unwrap();
            assert_eq!(view.get(Table::Streams, b"k").unwrap().unwrap(), b"2");
            assert_eq!(view.get(Table::Keys, b"k").unwrap(), None);
            assert_eq!(view.get(Table::Publications, b"k").unwrap().unwrap(), b"1");
            assert!(view.get(Table::State, layout::SECRET_KEY).unwrap().is_some());
        }
    }

    #[test]
    fn a_scan_has_the_keys_of_its_range_in_both_orders() {
        let folder = folder();
        let disk = opened(folder.path());
        let names = ["a", "b", "c", "d"];
        disk.commit(names.map(|name| put(Table::Keys, name, b"")).to_vec()).unwrap();
        let view = disk.view().unwrap();
        let scan = |order, most| {
            let mut found = String::new();
            let scanned = view.scan(Table::Keys, &b"b"[..]..&b"d"[..], order, &mut |key, _| {
                found += &String::from_utf8_lossy(key);
                Ok(found.len() < most)
            });
            scanned.unwrap();
            found
        };
        assert_eq!(scan(Order::Ascending, 9), "bc");
        assert_eq!(scan(Order::Descending, 9), "cb");
        assert_eq!(scan(Order::Descending, 1), "c");
    }

    #[test]
    fn a_folder_is_used_by_one_process_at_a_time() {
        let folder = folder();
        let disk = opened(folder.path());
        assert_eq!(closed(folder.path()).reopen().unwrap_err().kind, FaultKind::Locked);
        disk.commit(vec![put(Table::Keys, "a", b"")]).unwrap();
        drop(disk);
        assert_eq!(keys(&opened(folder.path()), Table::Keys), ["a"]);
    }

    #[test]
    fn a_closed_disk_refuses_and_can_be_opened_again() {
        let folder = folder();
        let disk = opened(folder.path());
        disk.close().unwrap();
        assert_eq!(disk.view().map(|_| ()).unwrap_err().kind, FaultKind::Closed);
        let refused = disk.commit(vec![put(Table::Keys, "a", b"")]);
        assert_eq!(refused.unwrap_err().kind, FaultKind::Closed);
        for name in ["a", "b", "c"] {
            disk.reopen().unwrap();
            disk.commit(vec![put(Table::Keys, name, b"")]).unwrap();
        }
        assert_eq!(keys(&disk, Table::Keys), ["a", "b", "c"]);
    }

    #[test]
    fn an_interrupted_creation_begins_again_and_a_missing_database_is_refused() {
        let folder = folder();
        let begun = Folder::new(folder.path().to_owned()).begin().unwrap();
        std::fs::write(begun.join("version"), "half").unwrap();
        let disk = opened(folder.path());
        disk.commit(vec![put(Table::Keys, "a", b"")]).unwrap();
        drop(disk);
        std::fs::rename(folder.path().join("data"), folder.path().join("moved")).unwrap();
        let fault = closed(folder.path()).reopen().unwrap_err();
        assert_eq!(fault.kind, FaultKind::Corrupt);
        assert!(fault.text.contains("data"), "{fault}");
    }

    #[test]
    fn a_table_that_is_cut_off_is_damage_and_not_an_error_of_the_disk() {
        let kinds = [ErrorKind::UnexpectedEof, ErrorKind::InvalidData, ErrorKind::InvalidInput];
        for kind in kinds {
            let errors =
                [fjall::Error::Io(kind.into()), fjall::Error::Storage(LsmError::Io(kind.into()))];
            let found = errors.map(|error| fault(Path::new("data"), &error).kind);
            assert_eq!(found, [FaultKind::Corrupt; 2], "{kind}");
        }
        let other = fjall::Error::Io(std::io::Error::from_raw_os_error(5));
        assert_eq!(fault(Path::new("data"), &other).kind, FaultKind::Io);
        let folder = folder();
        let disk = opened(folder.path());
        disk.commit(vec![put(Table::Streams, "a", b"1")]).unwrap();
        disk.close().unwrap();
        drop(disk);
        let tables = folder.path().join("data/keyspaces/1/tables");
        let table = std::fs::read_dir(tables).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read(&table).unwrap();
        for length in [19, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&table, &whole[..length]).unwrap();
            let fault = closed(folder.path()).reopen().unwrap_err();
            assert_eq!(fault.kind, FaultKind::Corrupt, "{length}: {fault}");
        }
    }
}
