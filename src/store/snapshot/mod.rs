//! The snapshot of a node: what is in memory alone is written at the end of a drain, and read at
//! the next start.
//!
//! Owns the decision whether a file is used. The invariants: a snapshot is removed, and the folder
//! synced, before anything of it is used, so no later start uses it again; a file with the name of
//! a snapshot is complete.

pub mod blocks;
pub mod entries;
pub mod files;
pub mod generations;
pub mod reader;
pub mod records;
pub mod unreadable;
pub mod writer;

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::Path;

use crate::store::snapshot::reader::{Limits, Snapshot};
use crate::store::snapshot::unreadable::Unreadable;

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// What a start finds in the folder of the store.
pub enum Found {
    /// There is no snapshot.
    Nothing,
    /// A snapshot, whose file is still there.
    Snapshot(Box<Snapshot>),
    /// The file of a snapshot that cannot be used and not be moved aside.
    Stuck,
}

/// Reads the snapshot of a folder. One that cannot be read is moved aside with a warning.
pub fn read(folder: &Path, limits: &Limits<'_>) -> Found {
    let path = folder.join(files::FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Found::Nothing,
        opened => opened.map_err(Unreadable::Io),
    };
    let open = |file| BufReader::with_capacity(READ_BYTES, file);
    let cause = match file.and_then(|file| Snapshot::read(open(file), limits)) {
        Ok(snapshot) => return Found::Snapshot(Box::new(snapshot)),
        Err(cause) => cause,
    };
    let what = format!(
        "the snapshot {} is ignored, so clients get `recovered: false`: {cause}",
        path.display()
    );
    match files::move_aside(folder) {
        Ok(aside) => {
            tracing::warn!(target: "store", "{what}; it is kept as {}", aside.display());
            Found::Nothing
        }
        Err(error) => {
            let cure = "move the file away, or a later start may use it";
            tracing::error!(target: "store", "{what}; it cannot be renamed: {error}; {cure}");
            Found::Stuck
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::storage::StreamRecord;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::model::names::{Names, partition};
    use crate::model::snapshot::{NodeSecrets, RestoredHome, SavedKey, SavedStream};
    use crate::store::records::tests::{record, stored};
    use crate::store::snapshot::entries::Entries;
    use crate::store::snapshot::files::{FILE, NEW_FILE};
    use crate::store::snapshot::writer::SnapshotWriter;
    use crate::wire::protocol::{Epoch, Position};

    const SECRETS: NodeSecrets = NodeSecrets { names: [3; 16], epochs: 9 };

    fn names(shards: u8) -> Names {
        Names::new(SECRETS.names, shards)
    }

    fn stream(channel: &str, top: u64) -> SavedStream {
        SavedStream {
            channel: channel.into(),
            hash: names(1).hash(channel),
            generation: 4,
            record: StreamRecord { bytes: 0, ..record(top, 1) },
            was_subscribed: true,
        }
    }

    fn key(key: &str, position: Option<Position>) -> SavedKey {
        SavedKey { hash: names(1).hash("a"), key: key.into(), position, until: 5_000 }
    }

    /// A snapshot of the streams "a" and "b" with two and three publications, and two keys.
    fn write(folder: &Path, bytes_max: u64) -> Entries {
        let mut writer = SnapshotWriter::create(folder, SECRETS, bytes_max).unwrap();
        assert!(!folder.join(FILE).exists() && folder.join(NEW_FILE).exists());
        let numbers = writer.add_streams(&[stream("a", 2), stream("b", 3)]).unwrap();
        writer.add_generations(vec![(7, 1), (8, 2)]);
        writer.end_streams().unwrap();
        let position = Position { offset: 2, epoch: Epoch::from_random(1) };
        writer.add_keys(&[key("one", Some(position)), key("two", None)]).unwrap();
        for (channel, number, top) in [("a", numbers[0], 2), ("b", numbers[1], 3)] {
            let Some(number) = number else { continue };
            let all: Vec<_> =
                (1..=top).rev().map(|offset| (number, stored(channel, offset, 2_000))).collect();
            writer.add_publications(&all).unwrap();
        }
        let left_out = writer.left_out();
        let size = writer.finish().unwrap();
        assert_eq!(fs::metadata(folder.join(FILE)).unwrap().len(), size);
        assert!(!folder.join(NEW_FILE).exists());
        left_out
    }

    fn limits(keeps: &dyn Fn(&str) -> bool) -> Limits<'_> {
        Limits { shards: 3, now: 1_000, history_bytes: 1 << 20, keeps }
    }

    fn found(folder: &Path, limits: &Limits<'_>) -> Snapshot {
        match read(folder, limits) {
            Found::Snapshot(snapshot) => *snapshot,
            Found::Nothing => panic!("there is no snapshot"),
            Found::Stuck => panic!("the snapshot is stuck"),
        }
    }

    /// Channels with their numbers of publications, keys, and partitions with their generations.
    type Contents = (Vec<(Arc<str>, usize)>, Vec<Arc<str>>, Vec<(u32, u32)>);

    fn contents(homes: Vec<RestoredHome>) -> Contents {
        let (mut streams, mut keys, mut generations) = (Vec::new(), Vec::new(), Vec::new());
        for (home, number) in homes.into_iter().zip(0..) {
            assert_eq!(home.epochs, SECRETS.epochs);
            for one in home.streams {
                assert_eq!(names(3).home(one.stream.hash), number);
                assert_eq!(one.stream, stream(&one.stream.channel, one.stream.record.top));
                let offsets: Vec<u64> =
                    one.publications.iter().filter_map(|one| one.publication.offset()).collect();
                assert!(offsets.is_sorted());
                streams.push((one.stream.channel, offsets.len()));
            }
            keys.extend(home.keys.into_iter().map(|key| key.key));
            generations.extend(home.generations);
        }
        streams.sort();
        keys.sort();
        generations.sort_unstable();
        (streams, keys, generations)
    }

    #[test]
    fn a_snapshot_reads_as_it_was_written_for_any_number_of_homes() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write(folder.path(), 1 << 20).is_empty());
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds secrets");
        let snapshot = found(folder.path(), &limits(&|_| true));
        assert_eq!(snapshot.secrets, SECRETS);
        assert_eq!(snapshot.entries(), Entries { streams: 2, publications: 5, keys: 2 });
        let expected = (
            vec![("a".into(), 2), ("b".into(), 3)],
            vec!["one".into(), "two".into()],
            vec![(7, 1), (8, 2)],
        );
        assert_eq!(contents(snapshot.into_homes()), expected);
        assert!(folder.path().join(FILE).exists(), "reading removes nothing");
        files::remove(folder.path()).unwrap();
        assert!(matches!(read(folder.path(), &limits(&|_| true)), Found::Nothing));
    }

    #[test]
    fn channels_that_became_durable_begin_a_new_epoch() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 1 << 20);
        let snapshot = found(folder.path(), &limits(&|channel| channel != "a"));
        assert_eq!(snapshot.left_out(), Entries { streams: 1, ..Entries::default() });
        let (streams, _, generations) = contents(snapshot.into_homes());
        assert_eq!(streams, [("b".into(), 3)]);
        assert!(generations.contains(&(partition(names(1).hash("a")) as u32, 1)));
    }

    #[test]
    fn what_expired_is_left_out_and_history_ends_at_the_budget() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 1 << 20);
        let keeps = |_: &str| true;
        let later = found(folder.path(), &Limits { now: 2_000, ..limits(&keeps) });
        assert_eq!(later.entries(), Entries { streams: 2, publications: 0, keys: 2 });
        let later = found(folder.path(), &Limits { now: 5_000, ..limits(&keeps) });
        assert_eq!(later.entries(), Entries { streams: 2, publications: 0, keys: 0 });
        let size = stored("b", 1, 0).publication.size();
        let smaller =
            found(folder.path(), &Limits { history_bytes: 3 * size + size / 2, ..limits(&keeps) });
        let left_out = Entries { publications: 2, ..Entries::default() };
        assert_eq!((smaller.entries().publications, smaller.left_out()), (3, left_out));
        let (streams, ..) = contents(smaller.into_homes());
        assert_eq!(streams, [("a".into(), 2), ("b".into(), 1)]);
    }

    #[test]
    fn positions_come_before_histories_within_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let generations = |partition| (partition, 1);
        for bytes_max in (0..2_000).step_by(20) {
            let left_out = write(folder.path(), bytes_max);
            let snapshot = found(folder.path(), &limits(&|_| true));
            let entries = snapshot.entries();
            assert_eq!(entries.streams + left_out.streams, 2);
            assert_eq!(entries.keys + left_out.keys, 2);
            assert!(entries.publications == 0 || entries.streams + entries.keys == 4);
            let (_, _, renewed) = contents(snapshot.into_homes());
            let lost = [("a", 2), ("b", 1)].into_iter().filter(|(_, n)| left_out.streams >= *n);
            for (channel, _) in lost {
                let partition = partition(names(1).hash(channel)) as u32;
                let is_last = channel == "b" || left_out.streams == 2;
                assert!(!is_last || renewed.contains(&generations(partition)), "{channel}");
            }
        }
    }

    #[test]
    fn a_snapshot_that_cannot_be_read_is_kept_under_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        write(folder.path(), 1 << 20);
        let whole = fs::read(&path).unwrap();
        let torn = whole[..whole.len() - 1].to_vec();
        let newer = [b"drumline snapshot format 2\n", &whole[27..]].concat();
        for bytes in [torn, newer, Vec::new(), b"something else".to_vec()] {
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(read(folder.path(), &limits(&|_| true)), Found::Nothing));
            assert!(!path.exists());
            let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
            let aside: Vec<_> = entries.collect();
            assert_eq!(aside.len(), 1);
            assert_eq!(fs::read(aside[0].path()).unwrap(), bytes);
            fs::remove_file(aside[0].path()).unwrap();
        }
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "old").unwrap();
        fs::write(folder.path().join(NEW_FILE), "half").unwrap();
        let writer = SnapshotWriter::create(folder.path(), SECRETS, 0).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let missing: PathBuf = folder.path().join("missing");
        assert!(SnapshotWriter::create(&missing, SECRETS, 0).is_err());
    }
}
