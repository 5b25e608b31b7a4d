//! What the store needs of a disk: atomic batches, consistent reads, and a new start after a fault.
//!
//! Owns the traits and the kinds of faults. Never knows what keys and values mean. The invariants
//! that a disk must keep: a batch is on disk as a whole or not at all; a batch that was committed
//! survives a crash and a power cut; a view that begins after a commit shows it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

/// The tables of the store. Each has keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Records of streams, by channel.
    Streams,
    /// Publications, by channel and offset.
    Publications,
    /// Idempotency keys, by the minute in which they expire.
    Keys,
    /// Small values of the store itself and of other parts of the server.
    State,
}

impl Table {
    /// All tables, in the order in which a disk creates them.
    pub const ALL: [Table; 4] = [Table::Streams, Table::Publications, Table::Keys, Table::State];

    /// Name of the table on disk.
    pub fn name(self) -> &'static str {
        match self {
            Table::Streams => "streams",
            Table::Publications => "publications",
            Table::Keys => "keys",
            Table::State => "state",
        }
    }
}

/// A key gets a new value, or is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table.
    pub table: Table,
    /// The key; never empty.
    pub key: Vec<u8>,
    /// The value; `None`: the key is removed.
    pub value: Option<Vec<u8>>,
}

/// Why the disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The disk or the quota is full.
    Full,
    /// The file system is read-only.
    ReadOnly,
    /// The user of the server may not read or write a file.
    Denied,
    /// Another process has the store open.
    Locked,
    /// The database is closed for the moment.
    Closed,
    /// A read or write failed.
    Io,
    /// A file has contents that the store did not write.
    Corrupt,
}

impl FaultKind {
    /// Whether a server must not start with it: waiting does not help.
    pub fn is_permanent(self) -> bool {
        matches!(self, FaultKind::Denied | FaultKind::Locked | FaultKind::Corrupt)
    }
}

/// A fault of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind.
    pub kind: FaultKind,
    /// What failed, with the name of the file if it is known.
    pub text: String,
}

impl Fault {
    /// A fault of this kind.
    pub fn new(kind: FaultKind, text: impl Into<String>) -> Self {
        Fault { kind, text: text.into() }
    }

    /// A value that the store cannot have written.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Fault::new(FaultKind::Corrupt, what)
    }

    /// An error of the kernel about a file.
    pub fn of(path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FaultKind::Full,
            ErrorKind::ReadOnlyFilesystem => FaultKind::ReadOnly,
            ErrorKind::PermissionDenied => FaultKind::Denied,
            _ => FaultKind::Io,
        };
        Fault::new(kind, format!("{}: {error}", path.display()))
    }

    /// An error of the kernel about a file that must be there.
    pub fn of_needed(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Fault::corrupt(format!("{} is missing", path.display())),
            _ => Fault::of(path, error),
        }
    }

    /// A file whose bytes are not those that were written.
    pub fn damaged(path: &Path) -> Self {
        Fault::corrupt(format!("{} is damaged", path.display()))
    }

    /// What the operator can do about it.
    pub fn cure(&self) -> &'static str {
        match self.kind {
            FaultKind::Full => {
                "free space on the file system of store.path: the store goes on when 64 MiB are free"
            }
            FaultKind::ReadOnly => "mount the file system of store.path with write access",
            FaultKind::Denied => "let the user of the server read and write store.path",
            FaultKind::Locked => "stop the other process that uses store.path",
            FaultKind::Closed => "wait until the store is open again",
            FaultKind::Io => "look for errors of the disk in the kernel's log (`dmesg`)",
            FaultKind::Corrupt => {
                "check the disk; restore an export with `drumline store import` into a new folder"
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ascending keys.
    Ascending,
    /// Descending keys.
    Descending,
}

/// Takes a key and its value; returns whether a scan goes on.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, Fault> + 'a;

/// A consistent state of all tables.
pub trait View {
    /// The value of a key.
    ///
    /// # Errors
    /// The disk cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault>;

    /// Calls `visit` with keys and values of a range of keys until it returns false.
    ///
    /// # Errors
    /// The disk cannot be read, or `visit` fails.
    fn scan(
        &self,
        table: Table,
        keys: Range<&[u8]>,
        order: Order,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Fault>;
}

/// The disk below the store. One thread commits; several read at the same time.
pub trait Disk: Send + Sync + 'static {
    /// A consistent state for reading.
    type View<'a>: View
    where
        Self: 'a;

    /// Writes and syncs changes as a whole. No two changes have the same key. After an error, the
    /// changes may be on disk or not, and the disk refuses everything until [`Disk::reopen`].
    ///
    /// # Errors
    /// The batch was not written or not synced.
    fn commit(&self, changes: Vec<Change>) -> Result<(), Fault>;

    /// Begins to read.
    ///
    /// # Errors
    /// The database is closed.
    fn view(&self) -> Result<Self::View<'_>, Fault>;

    /// Finds faults that no commit has shown: those of work in the background.
    ///
    /// # Errors
    /// The disk must be opened anew.
    fn probe(&self) -> Result<(), Fault>;

    /// Closes the database and opens it anew. Afterwards everything that was committed is on disk,
    /// whatever the page cache has of the batch that failed.
    ///
    /// # Errors
    /// The cause remains. The disk stays closed.
    fn reopen(&self) -> Result<(), Fault>;

    /// Writes what is only in the journal to tables, so that the next start is quick, and closes
    /// the database.
    ///
    /// # Errors
    /// The tables could not be written. Nothing is lost: the journal has everything.
    fn close(&self) -> Result<(), Fault>;
}
