//! What one connection that is behind has still to be sent.
//!
//! Owns copies of bytes that the socket did not take. Exists only while a socket is behind. The
//! invariant: the bytes are whole messages as they are framed, except that the first may have been
//! begun; what was begun is always finished.

use slab::Slab;

use crate::base::growth;
use crate::base::memory::Share;
use crate::base::ranking::Counted;
use crate::wire::framing::Framing;
use crate::wire::protocol::Wire;

/// Unsent output of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Where the unsent bytes start.
    start: usize,
    /// Bytes left of a message, or of a response head, that the socket has taken a part of.
    begun: usize,
    framing: Framing,
    wire: Wire,
    /// Whether a last message ends it: nothing may follow.
    closed: bool,
}

impl Outbox {
    /// An outbox of `segments` of which the socket took `sent` bytes. The first `preface` bytes
    /// are a response head, what follows is messages.
    pub fn new<'a>(
        segments: impl Iterator<Item = &'a [u8]>,
        (framing, wire): (Framing, Wire),
        preface: usize,
        sent: usize,
    ) -> Self {
        let mut outbox = Outbox { begun: preface, framing, wire, ..Outbox::default() };
        outbox.bytes = segments.collect::<Vec<_>>().concat();
        outbox.advance(sent);
        growth::trim(&mut outbox.bytes);
        outbox
    }

    /// Adds whole messages; ignored behind a last one. Returns how many bytes were copied.
    pub fn append(&mut self, messages: &[u8]) -> usize {
        if self.closed { 0 } else { growth::append(&mut self.bytes, messages) }
    }

    /// Bytes that it takes in memory.
    fn size(&self) -> usize {
        size_of::<Held>() + self.bytes.capacity()
    }

    /// What is still to be sent.
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The socket took `sent` bytes, or all that there are; returns how many.
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
            // What is no whole message counts as one.
            self.begun = first.filter(|bytes| *bytes > 0).unwrap_or(unsent.len());
        }
        if self.start * 2 > self.bytes.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
            growth::trim(&mut self.bytes);
        }
        sent
    }

    /// Drops every message that has not been begun, ends with `last` and takes nothing more.
    pub fn overflow(&mut self, last: &[u8]) {
        self.bytes.truncate(self.start + self.begun);
        self.bytes.extend_from_slice(last);
        self.bytes.shrink_to_fit();
        self.closed = true;
    }
}

struct Held {
    slot: u32,
    outbox: Outbox,
}

/// The outboxes of a shard, and what they take.
///
/// Never closes a connection: it says which one is furthest behind. What it counts is what the
/// bytes take in memory.
pub struct Outboxes {
    held: Slab<Held>,
    counted: Counted,
}

impl Outboxes {
    /// None yet; `share` counts them.
    pub fn new(share: Share) -> Self {
        Outboxes { held: Slab::new(), counted: Counted::new(share) }
    }

    /// Number of connections that are behind.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What the shard uses of the node's budget.
    pub fn share(&self) -> &Share {
        self.counted.share()
    }

    /// Takes the outbox of a slot in; its number.
    pub fn insert(&mut self, slot: u32, outbox: Outbox) -> u32 {
        let at = self.held.insert(Held { slot, outbox }) as u32;
        self.count(at, 0);
        at
    }

    /// An outbox.
    pub fn get(&self, at: u32) -> Option<&Outbox> {
        self.held.get(at as usize).map(|held| &held.outbox)
    }

    /// Bytes that are unsent in an outbox.
    pub fn unsent(&self, at: u32) -> usize {
        self.get(at).map_or(0, |outbox| outbox.unsent().len())
    }

    /// Changes an outbox; returns what the change does.
    pub fn change<T>(&mut self, at: u32, change: impl FnOnce(&mut Outbox) -> T) -> Option<T> {
        let held = self.held.get_mut(at as usize)?;
        let before = held.outbox.size();
        let changed = change(&mut held.outbox);
        self.count(at, before);
        Some(changed)
    }

    fn count(&mut self, at: u32, before: usize) {
        let after = self.held.get(at as usize).map_or(0, |held| held.outbox.size());
        if before != after {
            self.counted.change(at, before, after, true);
        }
    }

    /// Drops an outbox.
    pub fn remove(&mut self, at: u32) {
        if let Some(held) = self.held.try_remove(at as usize) {
            self.count(at, held.outbox.size());
        }
    }

    /// The outboxes that are kept for a slot, found by looking through all of them.
    pub fn of_slot(&self, slot: u32) -> impl Iterator<Item = &Outbox> {
        let held = self.held.iter().filter(move |(_, held)| held.slot == slot);
        held.map(|(_, held)| &held.outbox)
    }

    /// The slot whose outbox is the largest.
    pub fn largest(&self) -> Option<u32> {
        self.held.get(self.counted.largest()? as usize).map(|held| held.slot)
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
    fn overflow_finishes_the_frame_begun_and_drops_the_rest() {
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
    fn a_line_begun_is_finished() {
        let lines = (Framing::Lines, Wire::Json);
        let mut outbox = Outbox::new([&b"{\"a\":1}\n{\"b\":2}\n"[..]].into_iter(), lines, 0, 3);
        outbox.overflow(b"{}\n");
        assert_eq!(outbox.unsent(), b"\":1}\n{}\n");
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
