//! TLS of a lane's connections.
//!
//! Owns a session per connection, and the sealed bytes until they are sent. Never touches the ring.
//! Invariant: all bytes of a connection are sealed in the order in which they are sent, and those
//! of one transmit are in one send.

use std::ops::Range;

use super::book::Book;
use crate::tls::{Client, Session};

/// The sessions of a lane.
pub(super) struct Secured {
    client: Client,
    sessions: Vec<Option<Session>>,
    /// Bytes to send, and whose they are.
    sealed: Vec<u8>,
    sends: Vec<(u32, Range<usize>)>,
    /// Application data of the last received bytes.
    plain: Vec<u8>,
}

impl Secured {
    pub(super) fn new(client: Client, count: u32) -> Self {
        let sessions = (0..count).map(|_| None).collect();
        Secured { client, sessions, sealed: Vec::new(), sends: Vec::new(), plain: Vec::new() }
    }

    /// Begins the handshake of a connection.
    pub(super) fn start(&mut self, slot: u32) -> Result<(), String> {
        let start = self.sealed.len();
        let session = Session::start(&self.client, &mut self.sealed)?;
        self.sessions[slot as usize] = Some(session);
        self.queue(slot, start);
        Ok(())
    }

    /// Takes received bytes and returns the application data in them. When the handshake ends, the
    /// connection's first words are queued.
    pub(super) fn receive(
        &mut self,
        slot: u32,
        index: u64,
        input: &[u8],
        book: &mut Book,
    ) -> Result<&[u8], String> {
        self.plain.clear();
        let Some(session) = &mut self.sessions[slot as usize] else { return Ok(&[]) };
        let (was_open, start) = (session.is_open(), self.sealed.len());
        let received = session.receive(&self.client, input, &mut self.plain, &mut self.sealed);
        let opens = session.is_open() && !was_open;
        self.queue(slot, start);
        received?;
        if opens {
            book.connected(slot, index);
            self.seal(book);
        }
        Ok(&self.plain)
    }

    /// Seals the queued messages of the book.
    pub(super) fn seal(&mut self, book: &mut Book) {
        for (slot, send) in &book.sends {
            let start = self.sealed.len();
            if let Some(session) = &mut self.sessions[*slot as usize] {
                session.seal(book.bytes(send), &mut self.sealed);
            }
            self.queue(*slot, start);
        }
        book.sends.clear();
        book.text.clear();
    }

    /// Queues the sealed bytes from `start` on, after those of the same connection just before.
    fn queue(&mut self, slot: u32, start: usize) {
        let end = self.sealed.len();
        match self.sends.last_mut() {
            _ if start == end => {}
            Some((last, range)) if *last == slot && range.end == start => range.end = end,
            _ => self.sends.push((slot, start..end)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// What is to be sent.
    pub(super) fn sends(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.sends.iter().map(|(slot, range)| (*slot, &self.sealed[range.clone()]))
    }

    /// Forgets what was sent.
    pub(super) fn clear(&mut self) {
        self.sends.clear();
        self.sealed.clear();
    }
}
