//! The folder of a run's stores: on a disk, empty at the start, removed at the end.
//!
//! Owns the folder, the bytes that a process wrote to disks, and the page cache of the folder.
//! Never measures. Invariant: no store of a run lies in memory, where a sync costs nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise, statfs, syncfs};
use tempfile::TempDir;

/// Types of file systems that lie in memory: tmpfs and ramfs (statfs(2)).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
/// Setting that drops the page cache of the machine, and its value for pages, dentries and inodes.
const DROP: (&str, &str) = ("/proc/sys/vm/drop_caches", "3");

/// A folder on a disk.
pub struct Folder {
    path: PathBuf,
    /// Removes the folder when dropped; `None`: the folder is kept.
    _removed: Option<TempDir>,
}

impl Folder {
    /// Makes an empty folder in `parent`, which the end of the run removes.
    pub fn temporary(parent: &Path) -> Result<Self> {
        let told = || format!("cannot make a folder in {}; choose another", parent.display());
        let parent = parent.canonicalize().with_context(told)?;
        on_disk(&parent)?;
        let made = tempfile::Builder::new().prefix("drumline-store-").tempdir_in(&parent);
        let made = made.with_context(told)?;
        Ok(Folder { path: made.path().to_owned(), _removed: Some(made) })
    }

    /// Uses a folder that stays, and makes it if it does not exist.
    pub fn kept(path: &Path) -> Result<Self> {
        let told = || format!("cannot make the folder {}; choose another", path.display());
        fs::create_dir_all(path).with_context(told)?;
        let path = path.canonicalize().with_context(told)?;
        on_disk(&path)?;
        Ok(Folder { path, _removed: None })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it.
    pub fn sub(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Writes back what the page cache holds of the disk and drops it. Returns how.
    pub fn drop_cache(&self) -> Result<String> {
        let told = || format!("cannot drop the page cache of {}", self.path.display());
        let folder = File::open(&self.path).with_context(told)?;
        syncfs(&folder).with_context(told)?;
        if fs::write(DROP.0, DROP.1).is_ok() {
            return Ok(format!("{} written to {}", DROP.1, DROP.0));
        }
        for file in files(&self.path)? {
            let file = File::open(&file).with_context(told)?;
            fadvise(&file, 0, None, Advice::DontNeed).with_context(told)?;
        }
        Ok("posix_fadvise(POSIX_FADV_DONTNEED) for each file of the folder".to_owned())
    }
}

fn on_disk(path: &Path) -> Result<()> {
    let found = statfs(path).with_context(|| format!("cannot ask for {}", path.display()))?;
    ensure!(
        !IN_MEMORY.contains(&found.f_type),
        "{} is in memory; choose a folder on a disk with --folder",
        path.display()
    );
    Ok(())
}

/// All files below a folder. Files that vanish meanwhile are left out.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder);
        let entries = entries.with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Bytes that a process caused to be written to disks so far, with children that have ended.
pub(super) fn written_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/io");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    let bytes = line.and_then(|digits| digits.trim().parse().ok());
    bytes.with_context(|| format!("{path} has no write_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_folder_in_memory_is_refused() {
        let told = format!("{:#}", Folder::temporary(Path::new("/dev/shm")).err().unwrap());
        assert!(told.contains("--folder"), "{told}");
        assert!(Folder::temporary(Path::new("/no/such/folder")).is_err());
    }

    #[test]
    fn synced_bytes_are_counted_and_files_are_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = Folder::temporary(root).unwrap();
        let path = folder.sub("a").unwrap().join("b");
        let before = written_bytes(std::process::id()).unwrap();
        let mut file = File::create(&path).unwrap();
        file.write_all(&[1; 65_536]).unwrap();
        file.sync_data().unwrap();
        assert!(written_bytes(std::process::id()).unwrap() >= before + 65_536);
        assert_eq!(files(folder.path()).unwrap(), [path]);
        folder.drop_cache().unwrap();
        let kept = folder.path().to_owned();
        drop(folder);
        assert!(!kept.exists());
    }
}
