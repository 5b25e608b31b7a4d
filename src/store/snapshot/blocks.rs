//! The file of a snapshot: a line that names the format, and blocks of records with checksums.
//!
//! Owns the layout of the file. Never knows what a record means. The invariant: a file that was
//! torn, changed or written by another format is not read to its end, because the last record tells
//! the number of records, and nothing follows it.
//!
//! A block is its length (4 bytes), the XXH3 of its number and its bytes (8 bytes), and its
//! records. A record is its length as a varint and a message in Protocol Buffers. Numbers are
//! little-endian.

use std::io::{self, ErrorKind, Read, Write};

use prost::Message as _;
use xxhash_rust::xxh3::Xxh3;

use crate::store::snapshot::records::{End, Kind, Record};
use crate::store::snapshot::unreadable::{FORMAT, Unreadable};

const FORMAT_WORDS: &str = "drumline snapshot format ";
/// Maximum digits of a format.
const DIGITS_MAX: usize = 9;
/// Bytes at which a block is written. The last record of a block can exceed it.
const BLOCK_BYTES: usize = 256 << 10;
/// Maximum bytes of a block. No record comes near it.
const BLOCK_MAX: usize = 256 << 20;
/// Bytes of a block before its records.
const HEAD_BYTES: u64 = 12;

fn checksum(number: u64, block: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(block);
    hasher.digest()
}

/// Writes the blocks of a snapshot.
pub struct BlockWriter<W> {
    out: W,
    /// Records that are not written.
    block: Vec<u8>,
    blocks: u64,
    records: u64,
    written: u64,
}

impl<W: Write> BlockWriter<W> {
    /// Begins a snapshot.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn new(mut out: W) -> io::Result<Self> {
        let line = format!("{FORMAT_WORDS}{FORMAT}\n");
        out.write_all(line.as_bytes())?;
        let written = line.len() as u64;
        Ok(BlockWriter { out, block: Vec::new(), blocks: 0, records: 0, written })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn add(&mut self, kind: Kind) -> io::Result<()> {
        let record = Record { kind: Some(kind) };
        self.block.reserve(record.encoded_len() + 10);
        record.encode_length_delimited(&mut self.block).map_err(io::Error::other)?;
        self.records += 1;
        if self.block.len() < BLOCK_BYTES {
            return Ok(());
        }
        self.write_block()
    }

    fn write_block(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.block.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&checksum(self.blocks, &self.block).to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.written += HEAD_BYTES + self.block.len() as u64;
        self.blocks += 1;
        self.block.clear();
        Ok(())
    }

    /// Bytes of the snapshot so far.
    pub fn bytes(&self) -> u64 {
        self.written + self.block.len() as u64
    }

    /// Where the blocks are written.
    pub fn out(&self) -> &W {
        &self.out
    }

    /// Ends the snapshot. Returns where it was written.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.add(Kind::End(End { records: self.records }))?;
        if !self.block.is_empty() {
            self.write_block()?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads the blocks of a snapshot.
pub struct BlockReader<R> {
    input: R,
    /// The block that is read, and the place of its next record.
    block: Vec<u8>,
    at: usize,
    blocks: u64,
    records: u64,
}

impl<R: Read> BlockReader<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// The input is no snapshot, or has another format.
    pub fn new(mut input: R) -> Result<Self, Unreadable> {
        match read_format(&mut input)? {
            FORMAT => {}
            other => return Err(Unreadable::Format(other)),
        }
        Ok(BlockReader { input, block: Vec::new(), at: 0, blocks: 0, records: 0 })
    }

    /// The next record; `None`: the snapshot is complete and ends here.
    ///
    /// # Errors
    /// The input cannot be read or is damaged.
    pub fn next_record(&mut self) -> Result<Option<Kind>, Unreadable> {
        if self.at >= self.block.len() {
            self.read_block()?;
        }
        let mut rest = self.block.get(self.at..).unwrap_or_default();
        let record = Record::decode_length_delimited(&mut rest);
        self.at = self.block.len() - rest.len();
        match record.map(|record| record.kind) {
            Ok(Some(Kind::End(end))) if end.records == self.records => self.end(),
            Ok(Some(Kind::End(_))) => Err(Unreadable::Damaged("records are missing")),
            Ok(Some(kind)) => {
                self.records += 1;
                Ok(Some(kind))
            }
            Ok(None) | Err(_) => Err(Unreadable::Damaged("a record is not one of this format")),
        }
    }

    fn end(&mut self) -> Result<Option<Kind>, Unreadable> {
        let mut more = [0];
        match (self.at == self.block.len(), self.input.read(&mut more)) {
            (true, Ok(0)) => Ok(None),
            (_, Err(error)) => Err(Unreadable::Io(error)),
            _ => Err(Unreadable::Damaged("something follows its end")),
        }
    }

    fn read_block(&mut self) -> Result<(), Unreadable> {
        let (mut length, mut sum) = ([0; 4], [0; 8]);
        read_exact(&mut self.input, &mut length)?;
        read_exact(&mut self.input, &mut sum)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 || length > BLOCK_MAX {
            return Err(Unreadable::Damaged("a block has an impossible length"));
        }
        self.block.clear();
        self.at = 0;
        // The memory grows with the bytes that are there, whatever the length says.
        let read = (&mut self.input).take(length as u64).read_to_end(&mut self.block);
        if read.map_err(Unreadable::Io)? < length {
            return Err(Unreadable::Damaged("it ends within a block"));
        }
        if checksum(self.blocks, &self.block) != u64::from_le_bytes(sum) {
            return Err(Unreadable::Damaged("the checksum of a block is wrong"));
        }
        self.blocks += 1;
        Ok(())
    }
}

fn read_exact(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), Unreadable> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Unreadable::Damaged("it has no end"),
        _ => Unreadable::Io(error),
    })
}

/// Reads the line that names the format.
fn read_format(input: &mut impl Read) -> Result<u32, Unreadable> {
    let foreign = || Unreadable::Damaged("it is no snapshot of drumline");
    let mut words = [0; FORMAT_WORDS.len()];
    let read = read_exact(input, &mut words);
    if matches!(read, Err(Unreadable::Io(_))) {
        return read.map(|()| 0);
    }
    if words != FORMAT_WORDS.as_bytes() {
        return Err(foreign());
    }
    let mut digits = String::new();
    loop {
        let mut byte = [0];
        read_exact(input, &mut byte)?;
        match byte[0] {
            b'\n' => return digits.parse().map_err(|_| foreign()),
            digit @ b'0'..=b'9' if digits.len() < DIGITS_MAX => digits.push(digit.into()),
            _ => return Err(foreign()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::snapshot::records::Generations;

    /// A record with so many numbers.
    fn record(numbers: u32) -> Kind {
        let generations = (0..numbers).collect();
        Kind::Generations(Generations { partitions: vec![7], generations })
    }

    fn written(records: &[Kind]) -> Vec<u8> {
        let mut writer = BlockWriter::new(Vec::new()).unwrap();
        for record in records {
            writer.add(record.clone()).unwrap();
        }
        let bytes = writer.bytes();
        let all = writer.finish().unwrap();
        assert!((bytes..bytes + 64).contains(&(all.len() as u64)), "{bytes} {}", all.len());
        all
    }

    fn read(bytes: &[u8]) -> Result<Vec<Kind>, String> {
        let mut reader = BlockReader::new(bytes).map_err(|cause| cause.to_string())?;
        let mut found = Vec::new();
        while let Some(kind) = reader.next_record().map_err(|cause| cause.to_string())? {
            found.push(kind);
        }
        Ok(found)
    }

    #[test]
    fn records_read_as_they_were_written() {
        // Records of several blocks, and one that is larger than a block.
        let records: Vec<Kind> = [1, 0, 100_000, 50_000, 3, 200_000].map(record).into();
        assert_eq!(read(&written(&records)).unwrap(), records);
        assert_eq!(read(&written(&[])).unwrap(), []);
    }

    #[test]
    fn a_torn_snapshot_is_refused_wherever_it_ends() {
        let all = written(&[record(5), record(6)]);
        for length in 0..all.len() {
            let cause = read(&all[..length]).unwrap_err();
            assert!(cause.contains("end") || cause.contains("no snapshot"), "{length}: {cause}");
        }
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let all = written(&[record(5), record(6)]);
        for bit in 0..all.len() * 8 {
            let mut changed = all.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_snapshot_that_goes_on_or_lacks_a_block_is_refused() {
        let all = written(&[record(5)]);
        assert_eq!(read(&[&all[..], b"x"].concat()).unwrap_err(), "something follows its end");
        let block = |numbers| {
            let mut writer = BlockWriter::new(Vec::new()).unwrap();
            writer.add(record(numbers)).unwrap();
            writer.write_block().unwrap();
            writer.out
        };
        let begun = block(5);
        let line = format!("{FORMAT_WORDS}{FORMAT}\n").len();
        let twice = [&begun[..], &begun[line..]].concat();
        assert_eq!(read(&twice).unwrap_err(), "the checksum of a block is wrong");
    }

    #[test]
    fn other_formats_and_foreign_files_are_named() {
        let all = written(&[]);
        let line = format!("{FORMAT_WORDS}{FORMAT}\n").len();
        let with = |first: &str| read(&[first.as_bytes(), &all[line..]].concat()).unwrap_err();
        assert_eq!(
            with("drumline snapshot format 20\n"),
            "it has format 20, and this version reads format 1"
        );
        let foreign = ["", "\n", "drumline store format 1\n", "drumline snapshot format \n"];
        let longer = ["drumline snapshot format -1\n", "drumline snapshot format 1234567890\n"];
        for first in foreign.into_iter().chain(longer) {
            assert_eq!(with(first), "it is no snapshot of drumline", "{first}");
        }
    }
}
