//! The commands `drumline store check`, `stats`, `export` and `import`.
//!
//! Owns the choice between a running server and the folder itself. Never opens a database that a
//! server has open: it asks the server.

pub mod archive;
pub mod export;
pub mod import;
mod owner;
pub mod report;
mod walk;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::base::failure::Failure;
use crate::base::{log, sys};
use crate::store::disk::Disk as _;
use crate::store::fjall_disk::FjallDisk;
use crate::store::folder::{Folder, failure};
use crate::store::service::{self, Request};
use crate::store::tools::archive::{ArchiveReader, Counts};
use crate::store::tools::report::Report;

/// Bytes that are read or written at a time.
const PIECE: usize = 256 << 10;
/// Longest report in bytes.
const REPORT_MAX: u64 = 1 << 20;

/// Last line of a check that found no fault.
const UNDAMAGED: &str = "no damage was found\n";
/// Last line of a check that found faults.
const DAMAGED: &str =
    "damage was found: import an export into a new folder with `drumline store import`\n";

/// A report as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The report.
    pub text: String,
    /// Whether the store has no fault.
    pub is_sound: bool,
}

impl From<Report> for Told {
    fn from(report: Report) -> Self {
        Told { text: report.to_string(), is_sound: report.faults_found == 0 }
    }
}

/// Opens the store in a folder that has one.
fn open(path: &Path) -> Result<FjallDisk, Failure> {
    owner::check(path, sys::user())?;
    let folder = Folder::new(path.to_owned());
    if !folder.has_store()? {
        return Err(Failure::new(
            format!("{} has no store", path.display()),
            "name the folder of store.path with --path",
        ));
    }
    opened(folder)
}

/// Opens a store of this user, or creates it, and says what that has removed from its journals.
/// The database writes files while it is open.
fn opened(folder: Folder) -> Result<FjallDisk, Failure> {
    let disk = FjallDisk::new(folder);
    let opened = disk.reopen();
    let say = |repair| log::text(format!("drumline: {repair}\n"));
    disk.take_repairs().into_iter().for_each(say);
    opened.map(|()| disk).map_err(|fault| failure(&fault))
}

/// Closes a database that a command has opened.
fn close(disk: FjallDisk) -> Result<(), Failure> {
    disk.close().map_err(|fault| failure(&fault))
}

/// Sends a request to the server that uses the store, and returns its answer after the first byte;
/// `None`: no server does.
fn ask(path: &Path, request: Request) -> Result<Option<(u8, impl Read)>, Failure> {
    // A server answers root, too.
    if sys::user() != 0 {
        owner::check(path, sys::user())?;
    }
    let asked = || -> io::Result<Option<(u8, BufReader<_>)>> {
        let Some(mut stream) = service::connect(path)? else { return Ok(None) };
        writeln!(stream, "{}", request.word())?;
        let mut stream = BufReader::with_capacity(PIECE, stream);
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(Some((first[0], stream)))
    };
    asked().map_err(|error| {
        let cause = format!("the server that uses {} gave no answer: {error}", path.display());
        Failure::new(cause, "run the command as root or as the server's user, or see its log")
    })
}

/// The report of a server.
fn read_report((first, from): (u8, impl Read)) -> Result<Told, Failure> {
    let mut text = String::new();
    from.take(REPORT_MAX).read_to_string(&mut text).map_err(|error| {
        let cause = format!("the answer of the server ends early: {error}");
        Failure::new(cause, "see the log of the server")
    })?;
    match first {
        service::DONE => Ok(Told { text, is_sound: true }),
        service::FAULTY => Ok(Told { text, is_sound: false }),
        _ => Err(told_failure(&text)),
    }
}

/// The error that a server told.
fn told_failure(text: &str) -> Failure {
    let (cause, cure) = text.split_once('\n').unwrap_or((text, "see the log of the server"));
    Failure::new(cause, cure)
}

/// Reads every record of a store, of a running server too. The last line of the report is the
/// result.
///
/// # Errors
/// The store cannot be read.
pub fn check(path: &Path) -> Result<Told, Failure> {
    let Told { text, is_sound } = match ask(path, Request::Check)? {
        Some(answer) => read_report(answer)?,
        None => {
            let disk = open(path)?;
            let report = report::check(&disk, path)?;
            close(disk)?;
            report.into()
        }
    };
    let result = if is_sound { UNDAMAGED } else { DAMAGED };
    Ok(Told { text: text + result, is_sound })
}

/// Counts the records of a store, of a running server too.
///
/// # Errors
/// The store cannot be read.
pub fn stats(path: &Path) -> Result<Told, Failure> {
    if let Some(answer) = ask(path, Request::Stats)? {
        return read_report(answer);
    }
    let disk = open(path)?;
    let report = report::stats(&disk, path)?;
    close(disk)?;
    Ok(report.into())
}

/// Writes an export of a store, of a running server too.
///
/// # Errors
/// The store cannot be read, or the output takes no data.
pub fn export(path: &Path, to: impl Write) -> Result<Counts, Failure> {
    let mut to = BufWriter::with_capacity(PIECE, to);
    if let Some(answer) = ask(path, Request::Export)? {
        let counts = copy_answer(answer, &mut to)?;
        return to.flush().map(|()| counts).map_err(|error| export::unwritable(&error));
    }
    let disk = open(path)?;
    let counts = export::write(&disk, sys::unix_millis(), &mut to)?;
    close(disk)?;
    Ok(counts)
}

/// Copies the export that a server answers with.
fn copy_answer((first, from): (u8, impl Read), to: impl Write) -> Result<Counts, Failure> {
    if first == service::FAILED {
        let mut text = String::new();
        // An answer that ends early still has the begin of its cause.
        let _ = from.take(REPORT_MAX).read_to_string(&mut text);
        return Err(told_failure(&text));
    }
    let mut copied = Copied { from, to, refused: None };
    // The export is read while it is copied, so an early end is noticed.
    let counts = read_whole(&mut copied);
    counts.map_err(|failure| match copied.refused {
        Some(error) => export::unwritable(&error),
        None => Failure::new(
            format!("the server did not complete the export: {}", failure.cause),
            service::UNAVAILABLE_CURE,
        ),
    })
}

/// Reads an export to its end.
fn read_whole(from: impl Read) -> Result<Counts, Failure> {
    let mut archive = ArchiveReader::new(from)?;
    while archive.next_entry()?.is_some() {}
    Ok(archive.counts())
}

/// Writes an export to a new file, which only its owner can read. The file has its name once it is
/// complete and on disk.
///
/// # Errors
/// The store cannot be read, the file exists, or the disk takes no data.
pub fn export_file(path: &Path, file: &Path) -> Result<Counts, Failure> {
    let uncreatable = |error: &io::Error| export::uncreatable(file, error);
    if file.symlink_metadata().is_ok() {
        return Err(uncreatable(&rustix::io::Errno::EXIST.into()));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let new = tempfile::Builder::new()
        .prefix(".drumline-export-")
        .tempfile_in(folder.unwrap_or(Path::new(".")));
    let new = new.map_err(|error| uncreatable(&error))?;
    let counts = export(path, new.as_file())?;
    new.as_file().sync_all().map_err(|error| uncreatable(&error))?;
    new.persist_noclobber(file).map_err(|refused| uncreatable(&refused.error))?;
    Ok(counts)
}

/// Writes what is read from it to a second place.
struct Copied<R, W> {
    from: R,
    to: W,
    /// Why the second place takes no data.
    refused: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Copied<R, W> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(bytes)?;
        match self.to.write_all(bytes.get(..count).unwrap_or_default()) {
            Ok(()) => Ok(count),
            Err(error) => {
                let kind = error.kind();
                self.refused = Some(error);
                Err(kind.into())
            }
        }
    }
}

/// Reads an export into a new folder, or into a store that no server uses and that has none of its
/// channels.
///
/// # Errors
/// The export is damaged, the store has one of its channels or is in use, or the disk fails.
pub fn import(path: &Path, file: &Path) -> Result<Counts, Failure> {
    owner::check(path, sys::user())?;
    let folder = Folder::new(path.to_owned());
    let existing = folder.has_store()?.then(|| opened(folder.clone())).transpose()?;
    // A damaged export creates no folder.
    import::check(existing.as_ref(), archive_file(file)?)?;
    let disk = match existing {
        Some(disk) => disk,
        None => opened(folder)?,
    };
    let secret = sys::random().map_err(|error| {
        let cause = format!("the kernel has no random numbers: {error}");
        Failure::new(cause, "allow the system call getrandom")
    })?;
    let counts = import::write(&disk, archive_file(file)?, secret)?;
    close(disk)?;
    Ok(counts)
}

/// Opens an export, which is read twice.
fn archive_file(path: &Path) -> Result<impl Read, Failure> {
    let refused = |cause: String| {
        let cause = format!("cannot read {}: {cause}", path.display());
        Failure::new(cause, "name a file that `drumline store export` wrote")
    };
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.is_file(), file)));
    match opened {
        Ok((true, file)) => Ok(BufReader::with_capacity(PIECE, file)),
        Ok((false, _)) => Err(refused("it is no regular file".into())),
        Err(error) => Err(refused(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::Names;
    use crate::model::storage::{StoreFound, StoreQuery, StoredKey};
    use crate::store::batch::Batch;
    use crate::store::batch::tests::publish;
    use crate::store::disk::{Change, Table};
    use crate::store::fjall_disk::tests::{folder as temporary, opened as disk_in};
    use crate::store::layout;
    use crate::store::reading::{self, tests::question};
    use crate::store::service::Service;
    use crate::wire::protocol::{Epoch, Position};
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::PathBuf;
    use std::sync::Arc;

    const FAR: u64 = u64::MAX / 4;

    /// A store with 300 streams of three publications each, one of them with a key.
    fn filled(path: &Path) {
        let disk = disk_in(path);
        let view = disk.view().unwrap();
        let mut batch = Batch::new(&view, reading::epochs(&view).unwrap());
        for nth in 0..300 {
            for offset in 1..=3 {
                let mut write = publish(&format!("c{nth}"), offset, 1);
                let record = write.change.record.as_mut().unwrap();
                (record.ends, record.due) = (FAR, FAR);
                write.change.publication.as_mut().unwrap().expires = FAR;
                if nth == 7 {
                    let position = Position { offset, epoch: Epoch::from_random(1) };
                    write.change.key = Some(StoredKey { key: "k".into(), position, until: FAR });
                }
                batch.add(&write).unwrap();
            }
        }
        let mut changes = batch.into_changes();
        let key = layout::state_key("hooks", b"1");
        changes.push(Change { table: Table::State, key, value: Some(b"v".to_vec()) });
        drop(view);
        disk.commit(changes).unwrap();
        close(disk).unwrap();
    }

    fn loaded(path: &Path, channel: &str) -> crate::model::storage::LoadedStream {
        let disk = disk_in(path);
        let query = StoreQuery::Load { limit: 10, bytes: 1 << 20 };
        let names = Names::new([0; 16], 1);
        let (answer, _) = reading::answer(disk.view(), &names, question(channel, 0, query));
        match answer.result {
            Ok(StoreFound::Stream(stream)) => stream,
            other => panic!("{other:?}"),
        }
    }

    const COUNTS: Counts = Counts { streams: 300, publications: 900, keys: 3, values: 1 };

    #[test]
    fn an_import_has_what_was_exported_under_new_epochs() {
        let folder = temporary();
        let [old, new, file] = ["old", "new", "file"].map(|name| folder.path().join(name));
        filled(&old);
        assert_eq!(export_file(&old, &file).unwrap(), COUNTS);
        let refused = export_file(&old, &file).unwrap_err();
        assert!(refused.cause.contains(&file.display().to_string()), "{refused}");
        let missing = export_file(&old, &folder.path().join("none/file")).unwrap_err();
        assert!(missing.cause.contains("none/file"), "{missing}");
        assert_eq!(import(&new, &file).unwrap(), COUNTS);
        let (was, is) = (loaded(&old, "c7"), loaded(&new, "c7"));
        let (before, after) = (was.record.unwrap(), is.record.unwrap());
        assert_eq!((before.top, before.first), (after.top, after.first));
        assert_ne!(before.epoch, after.epoch);
        let offsets = is.newest.iter().filter_map(|stored| stored.publication.position());
        let positions: Vec<_> = offsets.map(|at| (at.offset, at.epoch)).collect();
        assert_eq!(positions, [1, 2, 3].map(|offset| (offset, after.epoch)));
        let keys = is.keys.iter().map(|key| (key.position.offset, key.position.epoch));
        assert_eq!(keys.collect::<Vec<_>>(), positions, "keys name positions of the new stream");
        assert_ne!(loaded(&new, "c8").record.unwrap().epoch, after.epoch);
        let checked = check(&new).unwrap();
        assert!(checked.is_sound && checked.text.ends_with("no damage was found\n"), "{checked:?}");
        let report = stats(&new).unwrap().text;
        assert!(report.contains("publications:     900"), "{report}");
        assert!(report.contains("other values:     1") && !report.contains("damage"), "{report}");
    }

    #[test]
    fn an_import_changes_no_stream_of_a_store() {
        let folder = temporary();
        let [one, two, file] = ["one", "two", "file"].map(|name| folder.path().join(name));
        filled(&one);
        export_file(&one, &file).unwrap();
        let refused = import(&one, &file).unwrap_err();
        assert!(refused.cause.contains("channel `c0`"), "{refused}");
        // A history that was removed leaves its stream, so a removal would not help.
        assert!(refused.cure.starts_with("import into a new folder"), "{refused}");
        assert!(!refused.cure.contains("remove"), "{refused}");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(import(&two, &file).unwrap_err().cause.contains("ends early"));
        assert!(!two.exists(), "a damaged export creates nothing");
        assert!(import(&one, folder.path()).unwrap_err().cause.contains("no regular file"));
    }

    #[test]
    fn a_store_whose_import_was_interrupted_does_not_open() {
        let folder = temporary();
        let disk = disk_in(folder.path());
        let mut archive = archive::ArchiveWriter::new(Vec::new()).unwrap();
        let stream = archive::Stream { channel: "a".into(), record: b"\xff".to_vec() };
        archive.write(archive::Entry::Stream(stream)).unwrap();
        let (bytes, _) = archive.finish().unwrap();
        assert!(import::write(&disk, &bytes[..], [0; 16]).is_err());
        drop(disk);
        let refused = stats(folder.path()).unwrap_err();
        assert!(refused.cause.contains("is not complete"), "{refused}");
    }

    /// An export of these entries, with valid checksums.
    fn archive_of(file: &Path, entries: Vec<archive::Entry>) {
        let mut archive = archive::ArchiveWriter::new(File::create(file).unwrap()).unwrap();
        for entry in entries {
            archive.write(entry).unwrap();
        }
        archive.finish().unwrap();
    }

    #[test]
    fn an_export_with_a_record_that_cannot_be_decoded_is_refused_before_it_changes_anything() {
        use archive::{Entry, Key, Publication, Stream};
        let folder = temporary();
        let [old, new, file] = ["old", "new", "file"].map(|name| folder.path().join(name));
        filled(&old);
        export_file(&old, &file).unwrap();
        let mut archive = ArchiveReader::new(archive_file(&file).unwrap()).unwrap();
        let mut sound = Vec::new();
        while let Some(entry) = archive.next_entry().unwrap() {
            sound.push(entry);
        }
        let publication = |offset, record: &[u8]| {
            Entry::Publication(Publication { offset, record: record.to_vec() })
        };
        // A publication whose kind (field 2) is unknown, and one whose carried record (field 6)
        // names no epoch: both are well-formed messages.
        let damages = [
            (2, publication(2, b"\xff"), "publication of channel `c0` at offset 2"),
            (2, publication(2, b"\x10\x09"), "publication of channel `c0` at offset 2"),
            (2, publication(2, b"\x32\x00"), "publication of channel `c0` at offset 2"),
            (2, publication(9, b""), "publication of channel `c0` at offset 9"),
            (0, Entry::Stream(Stream { channel: "x".into(), record: vec![255] }), "channel `x`"),
            (0, publication(1, b""), "a publication at offset 1 has no stream"),
            (1200, Entry::Key(Key { channel: "y".into(), record: vec![255] }), "channel `y`"),
        ];
        for (place, damage, expected) in damages {
            let mut entries = sound.clone();
            entries[place] = damage;
            archive_of(&file, entries);
            let refused = import(&new, &file).map(|_| expected).unwrap_err();
            assert!(refused.cause.contains(expected), "{expected}: {refused}");
            assert!(!new.exists(), "{expected}");
        }
        archive_of(&file, sound);
        assert_eq!(import(&new, &file).unwrap(), COUNTS);
    }

    #[test]
    fn commands_ask_the_server_that_uses_the_store() {
        let folder = temporary();
        let path = folder.path().join("store");
        filled(&path);
        let disk = Arc::new(disk_in(&path));
        let service = Service::start(&path, disk.clone()).unwrap();
        let mut bytes = Vec::new();
        assert_eq!(export(&path, &mut bytes).unwrap(), COUNTS);
        let mut archive = ArchiveReader::new(&bytes[..]).unwrap();
        while archive.next_entry().unwrap().is_some() {}
        assert_eq!(archive.counts(), COUNTS);
        let checked = check(&path).unwrap();
        assert!(checked.is_sound && checked.text.ends_with("no damage was found\n"), "{checked:?}");
        // A publication that its stream does not have.
        let key = layout::publication_key("c1", 2);
        disk.commit(vec![Change { table: Table::Publications, key, value: None }]).unwrap();
        let Told { text, is_sound } = check(&path).unwrap();
        assert!(!is_sound && text.contains("c1: offset 3 follows where 2 is expected"), "{text}");
        assert!(stats(&path).unwrap().text.contains("publications:     899"));
        disk.close().unwrap();
        for refused in [stats(&path).map(drop), export(&path, io::sink()).map(drop)] {
            let refused = refused.unwrap_err();
            assert!(refused.cause.contains("the server's store is unavailable"), "{refused}");
            assert!(refused.cause.contains("closed"), "the server tells its error: {refused}");
            assert!(refused.cure.contains("drumline_store_accepts_writes"), "{refused}");
        }
        service.stop();
        assert!(stats(&path).unwrap_err().cause.contains("in use"), "the lock is still held");
        drop(disk);
        assert!(stats(&path).unwrap().is_sound);
    }

    /// An output without room.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_answer_that_ends_early_and_an_output_without_room_are_told_apart() {
        let folder = temporary();
        let path = folder.path().join("store");
        filled(&path);
        let mut bytes = Vec::new();
        export(&path, &mut bytes).unwrap();
        let early = (service::DONE, &bytes[..bytes.len() - 1]);
        let refused = copy_answer(early, io::sink()).unwrap_err();
        assert!(refused.cause.contains("the server did not complete the export"), "{refused}");
        assert!(refused.cure.contains("see the log of the server"), "{refused}");
        let refused = copy_answer((service::DONE, &bytes[..]), Full).unwrap_err();
        assert!(refused.cause.contains("cannot write the export"), "{refused}");
    }

    #[test]
    fn a_check_finds_records_that_do_not_belong_together() {
        let folder = temporary();
        filled(folder.path());
        let disk = disk_in(folder.path());
        let set = |table, key, value: &[u8]| Change { table, key, value: Some(value.to_vec()) };
        let changes = vec![
            set(Table::Streams, layout::stream_key("c2"), b"\xff"),
            Change {
                value: None,
                ..set(Table::Publications, layout::publication_key("c3", 3), b"")
            },
            Change { value: None, ..set(Table::Streams, layout::stream_key("c4"), b"") },
            set(Table::Publications, layout::publication_key("c5", 2), b"\xff"),
            set(Table::Keys, layout::channel_bucket(9, "a"), b"\xff"),
        ];
        disk.commit(changes).unwrap();
        close(disk).unwrap();
        let Told { text, is_sound } = check(folder.path()).unwrap();
        assert!(!is_sound);
        for expected in [
            "fault: c2: cannot decode",
            "fault: c3: offsets end before 3, the top is 3",
            "fault: c5, offset 2: cannot decode",
            "fault: an idempotency key: cannot decode",
            "remains:          3",
            "damage was found: import an export into a new folder",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    /// Every file below a folder with its owner.
    fn files(folder: &Path) -> BTreeMap<PathBuf, u32> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let (path, metadata) = entry.map(|entry| (entry.path(), entry.metadata())).unwrap();
            let metadata = metadata.unwrap();
            if metadata.is_dir() {
                found.extend(files(&path));
            }
            found.insert(path, metadata.uid());
        }
        found
    }

    #[test]
    fn root_changes_nothing_in_a_stopped_store_of_another_user() {
        const USER: u32 = 65532;
        if sys::user() != 0 {
            return;
        }
        let folder = temporary();
        let [store, file] = ["store", "file"].map(|name| folder.path().join(name));
        filled(&store);
        export_file(&store, &file).unwrap();
        for path in files(&store).into_keys().chain([store.clone()]) {
            std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
        }
        let before = files(&store);
        let refused = [
            check(&store).map(drop),
            stats(&store).map(drop),
            export(&store, io::sink()).map(drop),
            import(&store, &file).map(drop),
        ];
        for refused in refused {
            let refused = refused.unwrap_err();
            assert!(refused.cause.contains("belongs to user"), "{refused}");
        }
        assert_eq!(files(&store), before);
    }

    #[test]
    fn a_folder_without_a_store_is_refused_by_its_name() {
        let folder = temporary();
        let missing = folder.path().join("none");
        assert!(stats(&missing).unwrap_err().cause.contains("none has no store"));
        assert!(!missing.exists());
        std::fs::write(folder.path().join("FORMAT"), "drumline store format 2\n").unwrap();
        assert!(check(folder.path()).unwrap_err().cause.contains("names format 2"));
    }
}
