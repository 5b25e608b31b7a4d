//! The format of exports.
//!
//! Owns reading and writing of entries. Never touches a store. An export begins with a line that
//! names the version of the format. Each entry is its length (4 bytes), a checksum (8 bytes, xxh3
//! with the number of the entry as its seed) and a message in Protocol Buffers; numbers are little
//! endian. The last entry counts the others. The invariant: an entry that is missing, repeated,
//! moved or changed, and an export that ends early, are found.

use std::io::{self, ErrorKind, Read, Write};

use prost::{Message, Oneof};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::base::failure::Failure;

/// Version of the format that this version of the server writes.
const FORMAT: u32 = 1;
const FIRST_WORDS: &str = "drumline export format ";
/// Longest first line in bytes.
const FIRST_LINE_MAX: usize = 64;
/// Longest entry in bytes.
const ENTRY_MAX: usize = 256 << 20;

/// An entry of an export.
#[derive(Clone, PartialEq, Oneof)]
pub enum Entry {
    /// A stream. Its publications follow.
    #[prost(message, tag = "1")]
    Stream(Stream),
    /// A publication of the stream before it.
    #[prost(message, tag = "2")]
    Publication(Publication),
    /// An idempotency key.
    #[prost(message, tag = "3")]
    Key(Key),
    /// A small value of another part of the server.
    #[prost(message, tag = "4")]
    Value(Value),
    /// The end.
    #[prost(message, tag = "5")]
    End(Counts),
}

/// A stream of an export.
#[derive(Clone, PartialEq, Message)]
pub struct Stream {
    /// The channel.
    #[prost(string, tag = "1")]
    pub channel: String,
    /// The record, as in the store.
    #[prost(bytes = "vec", tag = "2")]
    pub record: Vec<u8>,
}

/// A publication of an export.
#[derive(Clone, PartialEq, Message)]
pub struct Publication {
    /// The offset.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// The publication, as in the store.
    #[prost(bytes = "vec", tag = "2")]
    pub record: Vec<u8>,
}

/// An idempotency key of an export.
#[derive(Clone, PartialEq, Message)]
pub struct Key {
    /// The channel.
    #[prost(string, tag = "1")]
    pub channel: String,
    /// The key, as in the store.
    #[prost(bytes = "vec", tag = "2")]
    pub record: Vec<u8>,
}

/// A small value of an export.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// The key on disk.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// Numbers of the entries of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Counts {
    /// Streams.
    #[prost(uint64, tag = "1")]
    pub streams: u64,
    /// Publications.
    #[prost(uint64, tag = "2")]
    pub publications: u64,
    /// Idempotency keys.
    #[prost(uint64, tag = "3")]
    pub keys: u64,
    /// Small values.
    #[prost(uint64, tag = "4")]
    pub values: u64,
}

impl Counts {
    fn count(&mut self, entry: &Entry) {
        match entry {
            Entry::Stream(_) => self.streams += 1,
            Entry::Publication(_) => self.publications += 1,
            Entry::Key(_) => self.keys += 1,
            Entry::Value(_) => self.values += 1,
            Entry::End(_) => {}
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Wrapped {
    #[prost(oneof = "Entry", tags = "1, 2, 3, 4, 5")]
    entry: Option<Entry>,
}

/// Writes an export.
pub struct ArchiveWriter<W> {
    to: W,
    number: u64,
    counts: Counts,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an export.
    ///
    /// # Errors
    /// The output takes no data.
    pub fn new(mut to: W) -> io::Result<Self> {
        writeln!(to, "{FIRST_WORDS}{FORMAT}")?;
        Ok(ArchiveWriter { to, number: 0, counts: Counts::default() })
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// The output takes no data, or the entry is too long.
    pub fn write(&mut self, entry: Entry) -> io::Result<()> {
        self.counts.count(&entry);
        let bytes = Wrapped { entry: Some(entry) }.encode_to_vec();
        if bytes.len() > ENTRY_MAX {
            return Err(io::Error::other("an entry is longer than 256 MiB"));
        }
        self.to.write_all(&(bytes.len() as u32).to_le_bytes())?;
        self.to.write_all(&xxh3_64_with_seed(&bytes, self.number).to_le_bytes())?;
        self.to.write_all(&bytes)?;
        self.number += 1;
        Ok(())
    }

    /// Ends the export. Returns the output and the numbers of entries.
    ///
    /// # Errors
    /// The output takes no data.
    pub fn finish(mut self) -> io::Result<(W, Counts)> {
        let counts = self.counts;
        self.write(Entry::End(counts))?;
        self.to.flush()?;
        Ok((self.to, counts))
    }
}

/// Reads an export.
pub struct ArchiveReader<R> {
    from: R,
    number: u64,
    counts: Counts,
    is_ended: bool,
}

impl<R: Read> ArchiveReader<R> {
    /// Begins to read an export.
    ///
    /// # Errors
    /// It is no export, or one of a newer version.
    pub fn new(mut from: R) -> Result<Self, Failure> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") && line.len() < FIRST_LINE_MAX {
            let mut byte = [0];
            from.read_exact(&mut byte).map_err(|error| unreadable(&error))?;
            line.extend(byte);
        }
        let version = String::from_utf8_lossy(&line);
        let version = version.trim_end().strip_prefix(FIRST_WORDS).map(str::parse::<u32>);
        match version {
            Some(Ok(FORMAT)) => {}
            Some(Ok(newer)) if newer > FORMAT => {
                return Err(Failure::new(
                    format!("the export has format {newer}; this version reads {FORMAT}"),
                    "import it with the version of drumline that wrote it, or a newer one",
                ));
            }
            _ => {
                return Err(Failure::new(
                    "the file is no export of drumline",
                    "name a file that `drumline store export` wrote",
                ));
            }
        }
        Ok(ArchiveReader { from, number: 0, counts: Counts::default(), is_ended: false })
    }

    /// The next entry; `None`: the export is complete.
    ///
    /// # Errors
    /// The export is damaged or ends early.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Failure> {
        if self.is_ended {
            return Ok(None);
        }
        let entry = self.read().map_err(|error| unreadable(&error))?;
        self.number += 1;
        self.counts.count(&entry);
        let Entry::End(counts) = entry else { return Ok(Some(entry)) };
        self.is_ended = true;
        match counts == self.counts {
            true => Ok(None),
            false => Err(unreadable(&damaged("its entries are not as many as it says"))),
        }
    }

    fn read(&mut self) -> io::Result<Entry> {
        let (mut length, mut checksum, mut bytes) = ([0; 4], [0; 8], Vec::new());
        self.from.read_exact(&mut length)?;
        self.from.read_exact(&mut checksum)?;
        let length = u64::from(u32::from_le_bytes(length));
        if length > ENTRY_MAX as u64 {
            return Err(damaged("an entry is too long"));
        }
        if (&mut self.from).take(length).read_to_end(&mut bytes)? as u64 != length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if xxh3_64_with_seed(&bytes, self.number).to_le_bytes() != checksum {
            return Err(damaged("the checksum of an entry is wrong"));
        }
        let entry = Wrapped::decode(&bytes[..]).map_err(|error| damaged(&error.to_string()))?;
        entry.entry.ok_or_else(|| damaged("an entry is of no known kind"))
    }

    /// Numbers of the entries so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

fn unreadable(error: &io::Error) -> Failure {
    let cause = match error.kind() {
        ErrorKind::UnexpectedEof => "the export ends early".to_owned(),
        _ => format!("cannot read the export: {error}"),
    };
    Failure::new(cause, "use another export, or export again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let stream =
            |channel: &str| Entry::Stream(Stream { channel: channel.into(), record: vec![1] });
        vec![
            stream("a"),
            Entry::Publication(Publication { offset: 1, record: vec![2; 100] }),
            stream("b"),
            Entry::Key(Key { channel: "a".into(), record: vec![3] }),
            Entry::Value(Value { key: vec![4], value: Vec::new() }),
        ]
    }

    fn written(entries: Vec<Entry>) -> Vec<u8> {
        let mut writer = ArchiveWriter::new(Vec::new()).unwrap();
        for entry in entries {
            writer.write(entry).unwrap();
        }
        writer.finish().unwrap().0
    }

    fn read(bytes: &[u8]) -> Result<Vec<Entry>, Failure> {
        let mut reader = ArchiveReader::new(bytes)?;
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            found.push(entry);
        }
        assert_eq!(reader.counts().streams, 2);
        Ok(found)
    }

    #[test]
    fn an_export_reads_as_it_was_written() {
        assert_eq!(read(&written(entries())).unwrap(), entries());
    }

    #[test]
    fn every_changed_byte_and_every_early_end_is_found() {
        let whole = written(entries());
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            assert!(read(&changed).is_err(), "byte {place}");
            assert!(read(&whole[..place]).is_err(), "end at {place}");
        }
    }

    #[test]
    fn a_missing_and_a_moved_entry_are_found() {
        let mut writer = ArchiveWriter::new(Vec::new()).unwrap();
        let mut ends = vec![writer.to.len()];
        for entry in entries() {
            writer.write(entry).unwrap();
            ends.push(writer.to.len());
        }
        let whole = writer.finish().unwrap().0;
        let part = |nth: usize| &whole[ends[nth]..ends[nth + 1]];
        let rest = &whole[ends[2]..];
        let first = &whole[..ends[0]];
        assert!(read(&[first, part(0), part(1), rest].concat()).is_ok());
        assert!(read(&[first, part(0), rest].concat()).is_err(), "missing");
        assert!(read(&[first, part(1), part(0), rest].concat()).is_err(), "moved");
    }

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let refused = |bytes: &[u8]| read(bytes).unwrap_err().cause;
        assert!(refused(b"drumline export format 2\n").contains("format 2"));
        for other in [&b"PNG\n"[..], b"drumline export format x\n", &[b'a'; 1000]] {
            assert!(refused(other).contains("no export"), "{other:?}");
        }
    }
}
