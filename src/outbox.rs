//! What one connection that is behind has still to be sent.
//!
//! Owns copies of bytes that the socket did not take. Exists only while a socket is behind. The
//! invariant: the bytes are whole server frames, except that the first may have been begun; a
//! begun frame is always finished.

use crate::frame::server_frame_bytes;

/// Unsent output of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Where the unsent bytes start.
    start: usize,
    /// Bytes left of a frame, or of a response head, that the socket has taken a part of.
    begun: usize,
    /// Whether a close frame ends it: nothing may follow.
    closed: bool,
}

impl Outbox {
    /// An outbox of `segments` of which the socket took `sent` bytes. The first `preface` bytes
    /// are a response head, what follows is frames.
    pub fn new<'a>(segments: impl Iterator<Item = &'a [u8]>, preface: usize, sent: usize) -> Self {
        let mut outbox = Outbox { begun: preface, ..Outbox::default() };
        for segment in segments {
            outbox.bytes.extend_from_slice(segment);
        }
        outbox.advance(sent);
        outbox
    }

    /// Adds whole frames; ignored behind a close frame.
    pub fn append(&mut self, frames: &[u8]) {
        if !self.closed {
            self.bytes.extend_from_slice(frames);
        }
    }

    /// What is still to be sent.
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The socket took `sent` bytes.
    pub fn advance(&mut self, sent: usize) {
        assert!(sent <= self.unsent().len(), "no more is taken than was there");
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
            self.begun = server_frame_bytes(self.unsent()).expect("whole frames are appended");
        }
        if self.start * 2 > self.bytes.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Drops every frame that has not been begun, ends with `close` and takes nothing more.
    pub fn overflow(&mut self, close: &[u8]) {
        self.bytes.truncate(self.start + self.begun);
        self.bytes.extend_from_slice(close);
        self.bytes.shrink_to_fit();
        self.closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use proptest::prelude::*;

    fn frames(lengths: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for length in lengths {
            frame::write_text(&vec![b'x'; *length], &mut bytes);
        }
        bytes
    }

    #[test]
    fn overflow_finishes_the_frame_begun_and_drops_the_rest() {
        let bytes = frames(&[10, 20, 30]);
        let mut outbox = Outbox::new([&bytes[..]].into_iter(), 0, 15);
        outbox.overflow(b"CLOSE");
        outbox.append(b"ignored");
        let mut expected = bytes[15..12 + 22].to_vec();
        expected.extend_from_slice(b"CLOSE");
        assert_eq!(outbox.unsent(), expected);

        let mut outbox = Outbox::new([&bytes[..]].into_iter(), 0, 12);
        outbox.overflow(b"CLOSE");
        assert_eq!(outbox.unsent(), b"CLOSE", "a frame boundary keeps nothing");
    }

    #[test]
    fn a_response_head_counts_as_begun() {
        let mut bytes = b"HTTP/1.1 101\r\n\r\n".to_vec();
        let preface = bytes.len();
        bytes.extend(frames(&[5]));
        let mut outbox = Outbox::new([&bytes[..]].into_iter(), preface, 0);
        outbox.overflow(b"C");
        assert_eq!(outbox.unsent(), b"HTTP/1.1 101\r\n\r\nC");
    }

    proptest! {
        #[test]
        fn every_byte_leaves_once_and_in_order(
            lengths in proptest::collection::vec(0usize..300, 1..8),
            steps in proptest::collection::vec(0usize..400, 1..40),
        ) {
            let bytes = frames(&lengths);
            let mut outbox = Outbox::new([&bytes[..]].into_iter(), 0, 0);
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
