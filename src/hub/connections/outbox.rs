//! The outbox of a connection whose socket is full.
//!
//! Owns copies of bytes that the socket did not take. Exists only while the socket is full, or
//! while sealed bytes (of a TLS handshake, or the rest of a record) come before other output. The
//! invariant: the bytes are whole framed messages, except that the first may have been sent in
//! part; a message that was begun is always finished.

use crate::base::buffer;
use crate::hub::connections::counted_table::{CountedTable, Measured};
use crate::wire::framing::Framing;
use crate::wire::joined_frames::{FrameJoiner, JOINT_MAX};
use crate::wire::protocol::Wire;

/// Unsent output of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Sealed bytes, which are sent before everything else and are never dropped.
    sealed: Vec<u8>,
    bytes: Vec<u8>,
    /// Offset of the unsent bytes.
    start: usize,
    /// Bytes left of the message or response head that was sent in part.
    begun: usize,
    framing: Framing,
    wire: Wire,
    /// Whether the last message was added: nothing may follow.
    closed: bool,
    /// Joins messages into frames.
    joiner: Option<FrameJoiner>,
}

impl Outbox {
    /// Creates an outbox of `segments`, of which the socket took `sent` bytes. The first `preface`
    /// bytes are a response head; messages follow.
    pub fn new<'a>(
        segments: impl Iterator<Item = &'a [u8]>,
        (framing, wire): (Framing, Wire),
        preface: usize,
        sent: usize,
    ) -> Self {
        let mut outbox = Outbox { begun: preface, framing, wire, ..Outbox::default() };
        outbox.bytes = segments.collect::<Vec<_>>().concat();
        outbox.advance(sent);
        buffer::trim(&mut outbox.bytes);
        outbox
    }

    /// Creates an outbox of sealed bytes alone.
    pub fn of_sealed(sealed: Vec<u8>, (framing, wire): (Framing, Wire)) -> Self {
        Outbox { sealed, framing, wire, ..Outbox::default() }
    }

    /// Adds sealed bytes behind those that are there, before all plain bytes.
    pub fn append_sealed(&mut self, sealed: &[u8]) {
        self.sealed.extend_from_slice(sealed);
    }

    /// The sealed bytes, which are sent first.
    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// Removes sealed bytes that the socket took.
    pub fn advance_sealed(&mut self, sent: usize) {
        self.sealed.drain(..sent.min(self.sealed.len()));
        buffer::trim(&mut self.sealed);
    }

    /// Number of bytes to send.
    pub fn unsent_bytes(&self) -> usize {
        self.sealed.len() + self.unsent().len()
    }

    /// Joins messages that are added from now on into WebSocket frames.
    pub fn join_messages(&mut self) {
        self.joiner = Some(FrameJoiner::default());
    }

    /// Adds whole messages; ignored after the last one. Returns the number of bytes that were
    /// copied.
    pub fn append(&mut self, messages: &[u8]) -> usize {
        match &mut self.joiner {
            _ if self.closed => 0,
            None => buffer::append(&mut self.bytes, messages),
            Some(joiner) => {
                let moved = buffer::reserve(&mut self.bytes, messages.len() + JOINT_MAX);
                joiner.append(messages, &mut self.bytes);
                moved + messages.len()
            }
        }
    }

    /// The unsent plain bytes.
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Removes `sent` bytes that the socket took; returns how many were there.
    pub fn advance(&mut self, sent: usize) -> usize {
        let sent = sent.min(self.unsent().len());
        let mut left = sent;
        loop {
            if left < self.begun {
                self.begun -= left;
                self.start += left;
                break;
            }
            left -= self.begun;
            self.start += self.begun;
            self.begun = 0;
            if left == 0 {
                break;
            }
            let unsent = self.unsent();
            let first = self.framing.message_bytes(self.wire, unsent);
            // Bytes that are not a whole message count as one.
            self.begun = first.filter(|bytes| *bytes > 0).unwrap_or(unsent.len());
        }
        let mut removed = 0;
        if self.start * 2 > self.bytes.len() {
            removed = std::mem::take(&mut self.start);
            self.bytes.drain(..removed);
            buffer::trim(&mut self.bytes);
        }
        if let Some(joiner) = &mut self.joiner {
            joiner.advance(removed, self.start + self.begun);
        }
        sent
    }

    /// Drops every message that was not begun, adds `last` and accepts nothing more.
    pub fn overflow(&mut self, last: &[u8]) {
        self.bytes.truncate(self.start + self.begun);
        self.bytes.extend_from_slice(last);
        self.bytes.shrink_to_fit();
        self.closed = true;
    }
}

impl Measured for Outbox {
    fn trimmed_bytes(&mut self) -> usize {
        self.bytes.capacity() + self.sealed.capacity()
    }
}

/// The outboxes of a shard.
pub type Outboxes = CountedTable<Outbox>;

impl Outboxes {
    /// Number of unsent bytes of an outbox.
    pub fn unsent(&self, at: u32) -> usize {
        self.get(at).map_or(0, Outbox::unsent_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;
    use proptest::prelude::*;

    const FRAMES: (Framing, Wire) = (Framing::WebSocket, Wire::Json);

    fn frames(lengths: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for length in lengths {
            frame::write_text(&vec![b'x'; *length], &mut bytes);
        }
        bytes
    }

    #[test]
    fn an_overflow_finishes_the_begun_frame_and_drops_the_rest() {
        let bytes = frames(&[10, 20, 30]);
        let mut outbox = Outbox::new([&bytes[..]].into_iter(), FRAMES, 0, 15);
        outbox.overflow(b"CLOSE");
        outbox.append(b"ignored");
        let mut expected = bytes[15..12 + 22].to_vec();
        expected.extend_from_slice(b"CLOSE");
        assert_eq!(outbox.unsent(), expected);

        let mut outbox = Outbox::new([&bytes[..]].into_iter(), FRAMES, 0, 12);
        outbox.overflow(b"CLOSE");
        assert_eq!(outbox.unsent(), b"CLOSE", "a frame boundary keeps nothing");
    }

    #[test]
    fn a_response_head_counts_as_begun() {
        let mut bytes = b"HTTP/1.1 101\r\n\r\n".to_vec();
        let preface = bytes.len();
        bytes.extend(frames(&[5]));
        let mut outbox = Outbox::new([&bytes[..]].into_iter(), FRAMES, preface, 0);
        outbox.overflow(b"C");
        assert_eq!(outbox.unsent(), b"HTTP/1.1 101\r\n\r\nC");
    }

    #[test]
    fn an_overflow_finishes_the_begun_line() {
        let lines = (Framing::Lines, Wire::Json);
        let mut outbox = Outbox::new([&b"{\"a\":1}\n{\"b\":2}\n"[..]].into_iter(), lines, 0, 3);
        outbox.overflow(b"{}\n");
        assert_eq!(outbox.unsent(), b"\":1}\n{}\n");
    }

    #[test]
    fn messages_join_the_last_frame_unless_its_sending_began() {
        let message = frames(&[10]);
        let mut outbox = Outbox::new([&message[..]].into_iter(), FRAMES, 0, 5);
        outbox.join_messages();
        (0..3).for_each(|_| _ = outbox.append(&message));
        let mut joined = Vec::new();
        frame::write_text(b"xxxxxxxxxx\nxxxxxxxxxx\nxxxxxxxxxx", &mut joined);
        assert_eq!(outbox.unsent(), [&message[5..], &joined].concat());

        outbox.advance(7 + 10);
        outbox.append(&message);
        let last = [&joined[10..], &message].concat();
        assert_eq!(outbox.unsent(), last, "the begun frame stays as it is");
        outbox.overflow(b"CLOSE");
        assert_eq!(outbox.unsent(), [&joined[10..], b"CLOSE"].concat());
    }

    proptest! {
        #[test]
        fn every_byte_leaves_once_and_in_order(
            lengths in proptest::collection::vec(0usize..300, 1..8),
            steps in proptest::collection::vec(0usize..400, 1..40),
        ) {
            let bytes = frames(&lengths);
            let mut outbox = Outbox::new([&bytes[..]].into_iter(), FRAMES, 0, 0);
            let mut taken = Vec::new();
            for step in steps {
                let step = step.min(outbox.unsent().len());
                taken.extend_from_slice(&outbox.unsent()[..step]);
                outbox.advance(step);
            }
            taken.extend_from_slice(outbox.unsent());
            prop_assert_eq!(taken, bytes);
        }
    }
}
