//! Disks of tests: small file systems that only the servers of a test see as mounted, and a library
//! with faults.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A small file system.
pub struct SmallDisk {
    /// Keeps the mount.
    holder: Child,
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts what the arguments of `mount` name. `None`: mounting is not permitted here.
    pub fn mount(arguments: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let script =
            format!("mount {arguments} {} && echo mounted && exec cat", folder.path().display());
        let mut holder = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let disk = SmallDisk { holder, folder };
        (line == "mounted\n").then_some(disk)
    }

    /// A file system on an image of so many megabytes in a file.
    pub fn ext4(image: &Path, megabytes: u64) -> Option<Self> {
        let file = fs::File::create(image).unwrap();
        file.set_len(megabytes << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image).status().unwrap();
        assert!(made.success());
        SmallDisk::mount(&format!("-o loop {}", image.display()))
    }

    /// Mounts the same file system with other options.
    pub fn remount(&self, option: &str) {
        let done = Command::new("nsenter")
            .args(["-m", "-t", &self.process().to_string(), "mount", "-o"])
            .arg(format!("remount,{option}"))
            .arg(self.path())
            .status();
        assert!(done.unwrap().success(), "cannot remount {option}");
    }

    /// The process that has the mount.
    pub fn process(&self) -> u32 {
        self.holder.id()
    }

    /// Path as the servers see it.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Path as the test sees it.
    pub fn here(&self) -> PathBuf {
        let path = self.folder.path().strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.process())).join(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A folder in memory if the system has a place for it: syncs of a busy disk take long.
pub fn folder_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Fills the file system of a folder.
pub fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

/// The names in the folder of a store, without the socket of a running server.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "control.sock").collect();
    names.sort();
    names
}

/// Faults below a folder, see `disk_faults.c`.
pub struct Faults {
    folder: tempfile::TempDir,
    byte: fs::File,
}

impl Faults {
    /// Builds the library with `cc`. The server gets [`Faults::variables`].
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/disk_faults.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(folder.path().join("faults.so"))
            .args([source, "-ldl"])
            .status();
        assert!(built.unwrap().success());
        let byte = fs::File::create(folder.path().join("fault")).unwrap();
        let faults = Faults { folder, byte };
        faults.set(b'n');
        faults
    }

    /// Selects a fault.
    pub fn set(&self, fault: u8) {
        self.byte.write_all_at(&[fault], 0).unwrap();
    }

    /// Variables of a server whose files below `folder` get the faults.
    pub fn variables(&self, folder: &Path) -> [(&'static str, String); 2] {
        let own = |name| self.folder.path().join(name).display().to_string();
        let faults = format!("{}:{}", folder.display(), own("fault"));
        [("LD_PRELOAD", own("faults.so")), ("DISK_FAULTS", faults)]
    }
}
