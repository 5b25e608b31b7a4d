//! A blocking connection, plain or over TLS.
//!
//! Owns the socket and the TLS session. Never retries. Invariant: what was received is opened
//! before the next read.

use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::client::Client;
use super::session::Session;

/// Bytes of one read.
const CHUNK: usize = 16 * 1024;

/// A connection.
pub struct Stream {
    socket: TcpStream,
    secured: Option<(Client, Session)>,
}

impl Stream {
    /// Connects, and makes the TLS handshake if there is TLS. Reads and writes end after
    /// `patience`.
    pub fn connect(server: SocketAddr, tls: Option<&Client>, patience: Duration) -> Result<Self> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let mut stream = Stream { socket, secured: None };
        if let Some(client) = tls {
            let mut out = Vec::new();
            let session = Session::start(client, &mut out).map_err(Error::other)?;
            stream.secured = Some((client.clone(), session));
            stream.socket.write_all(&out)?;
            while stream.secured.as_ref().is_some_and(|(_, session)| !session.is_open()) {
                if stream.read(&mut Vec::new())? == 0 {
                    return Err(Error::other("closed within the TLS handshake"));
                }
            }
        }
        Ok(stream)
    }

    /// The socket, for its options and for polls.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends all bytes.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let Some((_, session)) = &mut self.secured else { return self.socket.write_all(bytes) };
        let mut out = Vec::new();
        session.seal(bytes, &mut out);
        self.socket.write_all(&out)
    }

    /// Reads once and appends what came to `input`. Returns the bytes read from the socket, which
    /// over TLS may carry no data; 0 at the end.
    pub fn read(&mut self, input: &mut Vec<u8>) -> Result<usize> {
        let mut chunk = [0; CHUNK];
        let count = self.socket.read(&mut chunk)?;
        let bytes = chunk.get(..count).unwrap_or_default();
        let Some((client, session)) = &mut self.secured else {
            input.extend_from_slice(bytes);
            return Ok(count);
        };
        let mut out = Vec::new();
        let received = session.receive(client, bytes, input, &mut out);
        self.socket.write_all(&out)?;
        received.map_err(Error::other)?;
        Ok(count)
    }
}
