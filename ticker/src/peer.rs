//! A peer: one end of a connection, with the bytes that are read and not yet used.
//!
//! Owns the socket and the buffer. Never looks into the bytes.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection.
pub struct Peer {
    /// Its socket.
    pub stream: TcpStream,
    /// What is read and not yet used.
    pub unread: Vec<u8>,
}

impl Peer {
    /// The peer at the other end of a socket.
    pub fn new(stream: TcpStream) -> Peer {
        // A price must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        Peer { stream, unread: Vec::new() }
    }

    /// Connects.
    pub async fn connect(to: SocketAddr) -> io::Result<Peer> {
        TcpStream::connect(to).await.map(Peer::new)
    }

    /// Waits for more bytes. Returns their number; 0: the peer has closed.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.unread.reserve(16 * 1024);
        self.stream.read_buf(&mut self.unread).await
    }

    /// The first bytes, which are then used.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.unread.split_off(length.min(self.unread.len()));
        std::mem::replace(&mut self.unread, rest)
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Waits until `read` finds what it needs at the beginning of the bytes. `None`: the peer
    /// closed before it sent any.
    pub async fn until<T>(
        &mut self,
        read: impl Fn(&[u8]) -> Result<Option<T>, &'static str>,
    ) -> io::Result<Option<T>> {
        loop {
            let found = read(&self.unread);
            let found = found.map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, cause))?;
            if found.is_some() {
                return Ok(found);
            }
            if self.fill().await? == 0 {
                let is_clean = self.unread.is_empty();
                return if is_clean { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }
}
