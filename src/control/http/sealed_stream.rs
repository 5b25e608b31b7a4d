//! The bytes of a connection with TLS on the control plane: opened for reading, sealed for writing.
//!
//! Owns the session that a shard has handed over, and what is received and not read, or sealed and
//! not sent. Never touches a socket. Both are bounded by about one record.

use std::io;

use crate::wire::tls::{SealedConnection, TlsSession, Unsealed};

/// Maximum plain bytes that are sealed at once.
const PLAIN_MAX: usize = 1 << 14;

/// A connection with TLS between its socket and its reader and writer.
pub struct SealedStream {
    session: TlsSession,
    /// Records that are not opened.
    unopened: Vec<u8>,
    /// Data that is not read, and how much of it is.
    opened: Vec<u8>,
    read: usize,
    /// Records that are not sent, and how much of them is.
    unsent: Vec<u8>,
    sent: usize,
    /// Whether unsent records have a KeyUpdate, which answers all requests of the peer.
    key_update_unsent: bool,
    /// Whether the peer sends nothing more.
    ended: bool,
    /// Whether the alert that ends the direction to the peer is sealed.
    closed: bool,
}

impl SealedStream {
    /// The stream of a connection whose first data, `opened`, the shard has read.
    pub fn new(connection: SealedConnection, opened: Vec<u8>) -> Self {
        let SealedConnection { session, unopened } = connection;
        SealedStream {
            session,
            unopened,
            opened,
            read: 0,
            unsent: Vec::new(),
            sent: 0,
            key_update_unsent: false,
            ended: false,
            closed: false,
        }
    }

    /// The connection, and the data that is not read. Everything sealed must be sent.
    pub fn into_parts(mut self) -> (SealedConnection, Vec<u8>) {
        self.opened.drain(..self.read);
        let SealedStream { session, unopened, opened, .. } = self;
        (SealedConnection { session, unopened }, opened)
    }

    /// The next data, once it is received; empty at the end.
    ///
    /// # Errors
    /// A record is faulty. [`SealedStream::unsent`] has the alert for the peer.
    pub fn read(&mut self) -> io::Result<Option<&[u8]>> {
        while self.read == self.opened.len() && !self.ended && self.open()? {}
        if self.read < self.opened.len() || self.ended {
            return Ok(Some(&self.opened[self.read..]));
        }
        (self.opened, self.read) = (Vec::new(), 0);
        Ok(None)
    }

    /// Removes data that was read.
    pub fn advance_read(&mut self, bytes: usize) {
        self.read = (self.read + bytes).min(self.opened.len());
    }

    /// Adds bytes from the socket; none: its end.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.ended |= bytes.is_empty();
        self.unopened.extend_from_slice(bytes);
    }

    /// Opens the next record; returns whether there was one.
    fn open(&mut self) -> io::Result<bool> {
        let used = match self.session.open(&mut self.unopened, &mut self.unsent) {
            Unsealed::Partial => return Ok(false),
            Unsealed::Data { used, plain } => {
                self.opened.clear();
                self.read = 0;
                self.opened.extend_from_slice(self.unopened.get(plain).unwrap_or_default());
                used
            }
            Unsealed::KeyUpdate { used, answer } => {
                if answer && !self.key_update_unsent {
                    self.session.seal_key_update(&mut self.unsent);
                    self.key_update_unsent = true;
                }
                used
            }
            Unsealed::Closed => {
                self.ended = true;
                self.unopened.len()
            }
            Unsealed::Fault(alert) => {
                if let Some(alert) = alert {
                    self.session.seal_alert(alert, &mut self.unsent);
                }
                return Err(io::Error::new(io::ErrorKind::InvalidData, "faulty TLS record"));
            }
        };
        self.unopened.drain(..used.min(self.unopened.len()));
        Ok(true)
    }

    /// Seals the beginning of `bytes`; returns how many. Call it when nothing is unsent.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let plain = bytes.len().min(PLAIN_MAX);
        if self.session.needs_key_update() {
            self.session.seal_key_update(&mut self.unsent);
        }
        self.session.seal(std::iter::once(&bytes[..plain]), plain, &mut self.unsent);
        plain
    }

    /// Seals the alert that ends the direction to the peer, once.
    pub fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.session.seal_close(&mut self.unsent);
        }
    }

    /// Records that are not sent.
    pub fn unsent(&self) -> &[u8] {
        &self.unsent[self.sent..]
    }

    /// Removes records that were sent.
    pub fn advance_sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.unsent.len() {
            (self.unsent, self.sent) = (Vec::new(), 0);
            self.key_update_unsent = false;
        }
    }
}
