//! The output of one turn: for every socket, its pieces in the order of the events that caused
//! them.
//!
//! Owns the private bytes of the turn (replies, pings, close frames). Never copies shared bytes: a
//! range of a lap stays a range. The invariant: a socket has at most one entry per turn, so at most
//! one send per submission.

use crate::local::{Delivery, LocalChannels};
use crate::wire::frame;
use crate::wire::joined_frames::FrameJoiner;
use crate::wire::tls::TlsSession;

/// No entry.
pub const NONE: u32 = u32::MAX;
/// Private bytes of a turn from which no more commands are answered in it: recoveries are large.
const PRIVATE_BYTES: usize = 4 << 20;
/// Pieces per entry from which further ranges are copied and so joined into one piece.
const PIECES_MAX: u32 = 200;

#[derive(Clone, Copy)]
enum PieceSource {
    /// A range of the private bytes.
    Private { start: u32, end: u32 },
    /// A range of a lap.
    Lap { lap: u32, start: u32, end: u32 },
    /// Bytes that never change.
    Fixed(&'static [u8]),
}

struct Piece {
    source: PieceSource,
    next: u32,
}

/// The output of one socket in this turn.
#[derive(Clone, Copy, Debug)]
pub struct OutputEntry {
    /// The socket.
    pub slot: u32,
    /// Number of pieces.
    pub pieces: u32,
    /// Bytes of the response head at the front.
    pub preface: u32,
    /// The sealed bytes that are sent in place of the pieces, if the connection has TLS.
    pub sealed: SealedBytes,
    head: u32,
    tail: u32,
}

impl OutputEntry {
    fn empty(slot: u32) -> Self {
        let sealed = SealedBytes::default();
        OutputEntry { slot, pieces: 0, preface: 0, sealed, head: NONE, tail: NONE }
    }
}

/// A range of the sealed bytes of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct SealedBytes {
    start: u32,
    end: u32,
    /// Whether the last record is the alert that ends the connection.
    pub closes: bool,
}

/// A send from the front of an outbox.
pub struct OutboxFlush {
    /// The connection.
    pub slot: u32,
    /// Plain bytes from its front, or bytes of its sealed bytes if it has some.
    pub bytes: usize,
    /// The sealed bytes that are sent in place of the plain ones, if the connection has TLS.
    pub sealed: SealedBytes,
    /// Whether the send was short.
    pub short: bool,
}

/// The bytes of one send.
pub enum Segments<'a> {
    /// Pieces of the turn.
    Turn(Pieces<'a>),
    /// The front of an outbox, or sealed bytes.
    Whole(&'a [u8]),
}

/// The output of a turn.
#[derive(Default)]
pub struct TurnOutput {
    entries: Vec<OutputEntry>,
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
    /// Scratch of [`TurnOutput::join_messages`].
    joined: Vec<u8>,
    /// Records of this turn.
    sealed: Vec<u8>,
}

impl TurnOutput {
    /// Entries of the sockets that get output. The slot of a withdrawn entry is [`NONE`].
    pub fn entries(&self) -> &[OutputEntry] {
        &self.entries
    }

    /// Number of private bytes.
    pub fn private_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn add(&mut self, handle: &mut u32, slot: u32, source: PieceSource) {
        if *handle == NONE {
            *handle = self.entries.len() as u32;
            self.entries.push(OutputEntry::empty(slot));
        }
        let entry = &mut self.entries[*handle as usize];
        if let (Some(tail), PieceSource::Private { start, end }) =
            (self.pieces.get_mut(entry.tail as usize), source)
            && let PieceSource::Private { end: last, .. } = &mut tail.source
            && *last == start
        {
            *last = end;
            return;
        }
        let at = self.pieces.len() as u32;
        self.pieces.push(Piece { source, next: NONE });
        match self.pieces.get_mut(entry.tail as usize) {
            Some(tail) => tail.next = at,
            None => entry.head = at,
        }
        entry.tail = at;
        entry.pieces += 1;
    }

    /// Removes the entry of a connection, whose output is sent in another way.
    pub fn withdraw(&mut self, handle: &mut u32) {
        if let Some(entry) = self.entries.get_mut(std::mem::replace(handle, NONE) as usize) {
            *entry = OutputEntry::empty(NONE);
        }
    }

    /// Whether the private bytes reach their limit: commands and deliveries wait for the next turn.
    pub fn is_full(&self) -> bool {
        self.bytes.len() > PRIVATE_BYTES
    }

    fn private_end(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a turn's bytes are bounded")
    }

    /// Adds the private bytes that `write` appends. `handle` is the index of the entry of the
    /// connection.
    pub fn write_private(&mut self, handle: &mut u32, slot: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.private_end();
        write(&mut self.bytes);
        let end = self.private_end();
        if start < end {
            self.add(handle, slot, PieceSource::Private { start, end });
        }
    }

    /// Takes the private bytes, to append to them while the output cannot be borrowed.
    /// [`TurnOutput::return_private`] must follow before any other call.
    pub fn take_private(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Returns the private bytes. Those from `start` on are output of the socket.
    pub fn return_private(&mut self, handle: &mut u32, slot: u32, bytes: Vec<u8>, start: usize) {
        self.bytes = bytes;
        let (start, end) = (start as u32, self.private_end());
        if start < end {
            self.add(handle, slot, PieceSource::Private { start, end });
        }
    }

    /// Adds a response head, which must be the first output of the socket in this turn.
    pub fn write_head(&mut self, handle: &mut u32, slot: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.write_private(handle, slot, write);
        self.entries[*handle as usize].preface = (self.bytes.len() - start) as u32;
    }

    /// Adds bytes that never change.
    pub fn push_static(&mut self, handle: &mut u32, slot: u32, bytes: &'static [u8]) {
        self.add(handle, slot, PieceSource::Fixed(bytes));
    }

    /// Adds a range of a lap.
    pub fn push_delivery(&mut self, handle: &mut u32, delivery: &Delivery, locals: &LocalChannels) {
        let Delivery { slot, lap, start, end, .. } = *delivery;
        if *handle != NONE && self.entries[*handle as usize].pieces >= PIECES_MAX {
            let range = start as usize..end as usize;
            self.write_private(handle, slot, |out| out.extend_from_slice(&locals.lap(lap)[range]));
        } else {
            self.add(handle, slot, PieceSource::Lap { lap, start, end });
        }
    }

    /// Joins the messages of the entry at index `at` into as few WebSocket frames as possible.
    /// Returns the number of bytes copied: a single message stays where it is.
    pub fn join_messages(&mut self, at: usize, locals: &LocalChannels) -> usize {
        let entry = self.entries[at];
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        if !self.is_single_message(&entry, locals) {
            let (mut joiner, mut preface) = (FrameJoiner::default(), entry.preface as usize);
            for piece in self.segments(&entry, locals) {
                let (head, frames) = piece.split_at(preface.min(piece.len()));
                preface -= head.len();
                joined.extend_from_slice(head);
                joiner.append(frames, &mut joined);
            }
            let start = self.private_end();
            self.bytes.extend_from_slice(&joined);
            let source = PieceSource::Private { start, end: self.private_end() };
            let only = self.pieces.len() as u32;
            self.pieces.push(Piece { source, next: NONE });
            self.entries[at] = OutputEntry { pieces: 1, head: only, tail: only, ..entry };
        }
        let copied = 2 * joined.len();
        keep_scratch(&mut joined);
        self.joined = joined;
        copied
    }

    fn is_single_message(&self, entry: &OutputEntry, locals: &LocalChannels) -> bool {
        let first = self.segments(entry, locals).next().unwrap_or_default();
        let first = first.get(entry.preface as usize..).unwrap_or_default();
        entry.pieces <= 1
            && frame::server_frame_bytes(first).is_none_or(|bytes| bytes >= first.len())
    }

    /// The pieces of an entry, in order.
    pub fn segments<'a>(&'a self, entry: &OutputEntry, locals: &'a LocalChannels) -> Pieces<'a> {
        Pieces { turn: self, locals, next: entry.head, left: entry.pieces as usize }
    }

    /// Number of bytes for the socket with this entry.
    pub fn bytes_of(&self, handle: u32, locals: &LocalChannels) -> usize {
        let entry = self.entries.get(handle as usize);
        entry.map_or(0, |entry| self.segments(entry, locals).map(<[u8]>::len).sum())
    }

    /// Adds an entry without bytes, so that the socket gets the alert that ends its connection.
    pub fn add_empty(&mut self, handle: &mut u32, slot: u32) {
        if *handle == NONE {
            *handle = self.entries.len() as u32;
            self.entries.push(OutputEntry::empty(slot));
        }
    }

    /// Seals the pieces of the entry at index `at`, and the alert that ends the connection if it
    /// `closes`. Returns the number of plain bytes.
    pub fn seal(
        &mut self,
        at: usize,
        locals: &LocalChannels,
        session: &mut TlsSession,
        closes: bool,
    ) -> usize {
        let entry = self.entries[at];
        let mut sealed = std::mem::take(&mut self.sealed);
        let plain = self.segments(&entry, locals).map(<[u8]>::len).sum();
        let pieces = self.segments(&entry, locals);
        self.entries[at].sealed = seal(session, pieces, plain, closes, &mut sealed);
        self.sealed = sealed;
        plain
    }

    /// Seals bytes that a flush sends in place of the plain ones.
    pub fn seal_flush(
        &mut self,
        plain: &[u8],
        session: &mut TlsSession,
        closes: bool,
    ) -> SealedBytes {
        seal(session, std::iter::once(plain), plain.len(), closes, &mut self.sealed)
    }

    /// Sealed bytes of this turn.
    pub fn sealed(&self, range: SealedBytes) -> &[u8] {
        self.sealed.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// Clears the output after it was sent.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.pieces.clear();
        self.bytes.clear();
        self.sealed.clear();
        keep_scratch(&mut self.bytes);
        keep_scratch(&mut self.sealed);
    }
}

/// Appends records to the sealed bytes of a turn.
fn seal<'a>(
    session: &mut TlsSession,
    pieces: impl Iterator<Item = &'a [u8]>,
    plain: usize,
    closes: bool,
    sealed: &mut Vec<u8>,
) -> SealedBytes {
    let start = sealed.len();
    if plain > 0 {
        session.seal(pieces, plain, sealed);
    }
    if closes {
        session.seal_close(sealed);
    }
    SealedBytes { start: start as u32, end: sealed.len() as u32, closes }
}

/// Frees most of the capacity of a large buffer that is used again.
fn keep_scratch(bytes: &mut Vec<u8>) {
    if bytes.capacity() > 1 << 20 {
        bytes.clear();
        bytes.shrink_to(1 << 16);
    }
}

/// Iterates over the pieces of an entry.
pub struct Pieces<'a> {
    turn: &'a TurnOutput,
    locals: &'a LocalChannels,
    next: u32,
    left: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let piece = self.turn.pieces.get(self.next as usize)?;
        self.next = piece.next;
        self.left -= 1;
        Some(match piece.source {
            PieceSource::Private { start, end } => &self.turn.bytes[start as usize..end as usize],
            PieceSource::Lap { lap, start, end } => {
                &self.locals.lap(lap)[start as usize..end as usize]
            }
            PieceSource::Fixed(bytes) => bytes,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Pieces<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_their_order_and_adjacent_bytes_join() {
        let (mut turn, locals) = (TurnOutput::default(), LocalChannels::default());
        let (mut one, mut two) = (NONE, NONE);
        turn.write_private(&mut one, 1, |out| out.extend_from_slice(b"a"));
        turn.write_private(&mut one, 1, |out| out.extend_from_slice(b"b"));
        turn.write_private(&mut two, 2, |out| out.extend_from_slice(b"x"));
        turn.push_static(&mut one, 1, b"c");
        turn.write_private(&mut one, 1, |out| out.extend_from_slice(b"d"));
        turn.write_private(&mut two, 2, |_| {});
        let all: Vec<(u32, Vec<&[u8]>)> = turn
            .entries()
            .iter()
            .map(|entry| (entry.slot, turn.segments(entry, &locals).collect()))
            .collect();
        assert_eq!(all, [(1, vec![&b"ab"[..], b"c", b"d"]), (2, vec![&b"x"[..]])]);
    }
}
