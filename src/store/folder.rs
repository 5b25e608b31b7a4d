//! The folder of the store: its format, and the creation of its database.
//!
//! Owns the file `FORMAT` and the names in the folder. Never deletes data: it removes only a
//! database whose creation was interrupted. The invariants: the format is on disk before the
//! database is; the database is created under another name and renamed when it is complete, so a
//! database that has its name is complete.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::base::failure::Failure;
use crate::store::disk::{Fault, FaultKind};

/// Format of the folder that this version writes.
pub const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
/// The same while it is written.
const FORMAT_NEW: &str = "FORMAT.new";
/// File that the process that uses the store locks. fjall's own lock comes too late: the journals
/// are checked and repaired before.
const LOCK_FILE: &str = "LOCK";
/// Socket of the server that uses the store.
pub const SOCKET: &str = "control.sock";
const FORMAT_WORDS: &str = "drumline store format ";
/// Longest file of the format in bytes.
const FORMAT_BYTES_MAX: u64 = 256;
/// Folder of the database.
const DATA: &str = "data";
/// Folder of a database that is being created.
const NEW_DATA: &str = "data.new";
/// Name of a snapshot, and begin of the names of its other files.
pub const SNAPSHOT: &str = "snapshot";
/// Revocations that have not ended.
pub const REVOCATIONS: &str = "revocations.log";
/// Hook events that are not delivered.
pub const HOOK_EVENTS: &str = "hook_events.log";
/// Folder that file systems have at their root.
const LOST_AND_FOUND: &str = "lost+found";

/// The folder of a store.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder at `path`, which may not exist.
    pub fn new(path: PathBuf) -> Self {
        Folder { path }
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the database.
    pub fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// Whether the folder has a store.
    ///
    /// # Errors
    /// The folder cannot be read, or has another format or other files.
    pub fn has_store(&self) -> Result<bool, Failure> {
        match self.read_format() {
            Ok(Some(text)) => self.check_format(&text).map(|()| true),
            Ok(None) => self.check_unused().map(|()| false),
            Err(error) => Err(self.unreadable(&error)),
        }
    }

    fn read_format(&self) -> io::Result<Option<String>> {
        let file = match File::open(self.path.join(FORMAT_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        io::read_to_string(io::Read::take(file, FORMAT_BYTES_MAX)).map(Some)
    }

    fn check_format(&self, text: &str) -> Result<(), Failure> {
        let file = self.path.join(FORMAT_FILE);
        let version = text.trim_end().strip_prefix(FORMAT_WORDS);
        match version.and_then(|version| version.parse::<u32>().ok()) {
            Some(FORMAT) => Ok(()),
            Some(newer) if newer > FORMAT => Err(Failure::new(
                format!("{} names format {newer}; this version knows {FORMAT}", file.display()),
                "start the newer version of drumline that wrote the store, or restore an export \
                 into a new folder with `drumline store import`",
            )),
            _ => Err(Failure::new(
                format!("{} does not name a format of drumline", file.display()),
                "restore the file from a copy of the folder, or choose another folder for store.path",
            )),
        }
    }

    /// Checks that a folder without a format has nothing that a store would mix with.
    fn check_unused(&self) -> Result<(), Failure> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.unreadable(&error)),
        };
        for entry in entries {
            let name = entry.map_err(|error| self.unreadable(&error))?.file_name();
            let is_own = [LOST_AND_FOUND, LOCK_FILE, SOCKET, FORMAT_NEW, NEW_DATA]
                .iter()
                .any(|known| name == *known);
            // A snapshot and logs can be there without a store, if the disk was full at the first
            // start. Their other files have names that begin like these.
            let begins = [SNAPSHOT, "revocations.", "hook_events."];
            let is_own = is_own
                || begins.iter().any(|begin| name.as_encoded_bytes().starts_with(begin.as_bytes()));
            if !is_own {
                return Err(Failure::new(
                    format!(
                        "{} has no file {FORMAT_FILE}, but has {}",
                        self.path.display(),
                        name.display()
                    ),
                    "choose an empty folder for store.path, or restore the file FORMAT",
                ));
            }
        }
        Ok(())
    }

    fn unreadable(&self, error: &io::Error) -> Failure {
        Failure::new(
            format!("store.path: cannot read {}: {error}", self.path.display()),
            "name a folder that the server may read and write",
        )
    }

    /// Logs what an operator must know about a folder without a store.
    pub fn announce(&self) {
        // A folder is missing, too, if the volume that has it is not mounted.
        let state = if self.path.is_dir() { "has no store" } else { "does not exist" };
        tracing::warn!(
            target: "store",
            "{} {state}: a new store begins, and every durable stream begins anew; if there was a \
             store, stop the server and mount its volume",
            self.path.display()
        );
    }

    /// Creates the folder if it is missing, for its owner alone, and locks it until the result is
    /// dropped.
    ///
    /// # Errors
    /// Another process has locked it, or the disk is full, read-only or faulty.
    pub fn lock(&self) -> Result<File, Fault> {
        let path = self.path.join(LOCK_FILE);
        let opened = create_private(&self.path)
            .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
        let file = opened.map_err(|error| Fault::of(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::Error(error)) => Err(Fault::of(&path, &error)),
            Err(TryLockError::WouldBlock) => {
                let text = format!("{} is in use by another process", self.path.display());
                Err(Fault::new(FaultKind::Locked, text))
            }
        }
    }

    /// Whether the database is there.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn is_complete(&self) -> Result<bool, Fault> {
        self.data().try_exists().map_err(|error| Fault::of(&self.path, &error))
    }

    /// Writes the format and begins a database: returns its folder, which is empty.
    ///
    /// # Errors
    /// The disk is full, read-only or faulty, or a database that was there is missing.
    pub fn begin(&self) -> Result<PathBuf, Fault> {
        let new = self.path.join(NEW_DATA);
        if !new.exists() && self.path.join(FORMAT_FILE).exists() {
            return Err(Fault::corrupt(format!("{} is missing", self.data().display())));
        }
        // The order matters: a file of the format without a folder of a database is a loss.
        let begun = fs::create_dir_all(&new)
            .and_then(|()| self.sync_names())
            .and_then(|()| self.write_format())
            .and_then(|()| empty_folder(&new));
        begun.map(|()| new).map_err(|error| Fault::of(&self.path, &error))
    }

    /// Syncs the names in the folder and in those above it, which the server may have created.
    fn sync_names(&self) -> io::Result<()> {
        sync_folder(&self.path)?;
        sync_folder(self.path.parent().unwrap_or(&self.path))?;
        // The server did not create a folder in one that it may not open.
        let above = self.path.ancestors().skip(2);
        above.take_while(|folder| sync_folder(folder).is_ok()).for_each(drop);
        Ok(())
    }

    /// Gives the database that was begun its name.
    ///
    /// # Errors
    /// The disk is full, read-only or faulty.
    pub fn finish(&self) -> Result<(), Fault> {
        let new = self.path.join(NEW_DATA);
        let finished = sync_folders(&new)
            .and_then(|()| fs::rename(&new, self.data()))
            .and_then(|()| sync_folder(&self.path));
        finished.map_err(|error| Fault::of(&self.path, &error))
    }

    fn write_format(&self) -> io::Result<()> {
        if self.path.join(FORMAT_FILE).try_exists()? {
            return Ok(());
        }
        let new = self.path.join(FORMAT_NEW);
        let mut file = File::create(&new)?;
        writeln!(file, "{FORMAT_WORDS}{FORMAT}")?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(FORMAT_FILE))?;
        sync_folder(&self.path)
    }
}

/// Creates a folder that only its owner can read, and the folders above it with the usual mode.
fn create_private(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        // Another process was quicker.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// Syncs the names in a folder.
///
/// # Errors
/// The kernel refuses it.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

/// Syncs the names in a folder and in all folders below it.
///
/// # Errors
/// The kernel refuses it.
pub fn sync_folders(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(path)
}

fn empty_folder(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// A fault at the start as an error for the operator.
pub fn failure(fault: &Fault) -> Failure {
    let what = match fault.kind {
        FaultKind::Corrupt => "the store is damaged",
        _ => "cannot open the store",
    };
    Failure::new(format!("{what}: {fault}"), fault.cure())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fjall_disk::tests::folder as temporary;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_new_folder_is_for_its_owner_alone_and_an_existing_one_keeps_its_mode() {
        let place = temporary();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = place.path().join("above").join("store");
        drop(Folder::new(path.clone()).lock().unwrap());
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        drop(Folder::new(path.clone()).lock().unwrap());
        assert_eq!(mode(&path), 0o750);
    }
}
