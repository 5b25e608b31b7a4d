//! A WebSocket over the runtime's streams: tungstenite does the frames, in memory.
//!
//! Owns the bytes between the codec and the socket. Never blocks inside the codec. Invariant: one
//! task at a time writes to the socket, and the bytes of the codec are sent in order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable,
};
use monoio::net::TcpStream;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use crate::wire;

/// Bytes of the codec's read buffer and of one read.
const READ_BYTES: usize = 4096;

/// What the codec reads from and writes to.
#[derive(Default)]
struct Memory {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.incoming.read(buffer)
    }
}

impl Write for Memory {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Inner {
    codec: WebSocket<Memory>,
    /// `None` while a task writes.
    output: Option<OwnedWriteHalf<TcpStream>>,
}

/// The sending side; copies share the socket.
#[derive(Clone)]
pub(super) struct Sender(Rc<RefCell<Inner>>);

/// The receiving side.
pub(super) struct Receiver {
    sender: Sender,
    input: OwnedReadHalf<TcpStream>,
    buffer: Vec<u8>,
    pong: bool,
    lines: VecDeque<Vec<u8>>,
}

/// Connects, upgrades, and sends the first commands.
pub(super) async fn open(server: SocketAddr, hello: &str) -> Result<(Sender, Receiver)> {
    let mut stream = TcpStream::connect_addr(server)
        .await
        .with_context(|| format!("cannot connect to {server}"))?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    let mut upgrade = Vec::new();
    wire::upgrade(wire::PATH, server.port(), "", &mut upgrade);
    let (written, _) = stream.write_all(upgrade).await;
    written.context("cannot send the upgrade")?;
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = wire::head_bytes(&bytes) {
            break head;
        }
        let (read, buffer) = stream.read(vec![0; READ_BYTES]).await;
        let read = read.context("cannot read the answer to the upgrade")?;
        ensure!(read > 0, "the server closed instead of upgrading");
        bytes.extend_from_slice(&buffer[..read]);
    };
    ensure!(wire::accepted(&bytes[..head]), "refused: {}", String::from_utf8_lossy(&bytes[..head]));
    let config = WebSocketConfig::default().read_buffer_size(READ_BYTES).write_buffer_size(0);
    let rest = bytes.split_off(head);
    let codec = WebSocket::from_partially_read(Memory::default(), rest, Role::Client, Some(config));
    let (input, output) = stream.into_split();
    let sender = Sender(Rc::new(RefCell::new(Inner { codec, output: Some(output) })));
    sender.send(hello.to_owned()).await?;
    let buffer = vec![0; READ_BYTES];
    let receiver =
        Receiver { sender: sender.clone(), input, buffer, pong: false, lines: VecDeque::new() };
    Ok((sender, receiver))
}

impl Sender {
    /// Sends a text frame.
    pub(super) async fn send(&self, text: String) -> Result<()> {
        self.0.borrow_mut().codec.send(Message::text(text)).context("the codec refused a text")?;
        self.drain().await
    }

    /// Ends the sending direction, and with it the connection: the server closes its side.
    pub(super) async fn end(&self) -> Result<()> {
        let output = self.0.borrow_mut().output.take();
        match output {
            Some(mut output) => output.shutdown().await.context("cannot end a connection"),
            None => Ok(()),
        }
    }

    /// Writes the bytes of the codec to the socket. If another task is writing, that task also
    /// writes these bytes.
    async fn drain(&self) -> Result<()> {
        while let Some((mut output, bytes)) = self.take() {
            let (written, _) = output.write_all(bytes).await;
            self.0.borrow_mut().output = Some(output);
            written.context("cannot write to the server")?;
        }
        Ok(())
    }

    /// The socket and the bytes to write; `None` if there are none or another task is writing.
    fn take(&self) -> Option<(OwnedWriteHalf<TcpStream>, Vec<u8>)> {
        let mut inner = self.0.borrow_mut();
        if inner.codec.get_ref().outgoing.is_empty() {
            return None;
        }
        let output = inner.output.take()?;
        Some((output, std::mem::take(&mut inner.codec.get_mut().outgoing)))
    }
}

impl Receiver {
    /// The next line that the server sent; `None` at the end. Pings are answered and skipped.
    pub(super) async fn line(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                match wire::line(&line) {
                    wire::Line::Ping if self.pong => self.sender.send("{}".to_owned()).await?,
                    wire::Line::Ping | wire::Line::Other(b"") => {}
                    _ => return Ok(Some(line)),
                }
                continue;
            }
            let read = self.sender.0.borrow_mut().codec.read();
            match read {
                Ok(Message::Text(text)) => self.split(text.as_str().as_bytes()),
                Ok(Message::Close(frame)) => bail!("closed by the server: {frame:?}"),
                Ok(_) => self.sender.drain().await?,
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.fill().await? {
                        return Ok(None);
                    }
                }
                Err(Error::ConnectionClosed) => return Ok(None),
                Err(error) => return Err(error).context("the server sent an invalid frame"),
            }
        }
    }

    fn split(&mut self, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n') {
            if let wire::Line::Reply(1, reply) = wire::line(line) {
                self.pong |= wire::find(reply, b"\"pong\":true").is_some();
            }
            self.lines.push_back(line.to_vec());
        }
    }

    async fn fill(&mut self) -> Result<bool> {
        let (read, buffer) = self.input.read(std::mem::take(&mut self.buffer)).await;
        let read = read.context("cannot read from the server")?;
        self.sender.0.borrow_mut().codec.get_mut().incoming.extend(&buffer[..read]);
        self.buffer = buffer;
        Ok(read > 0)
    }

    /// Waits for the replies to the first `count` commands.
    pub(super) async fn replies(&mut self, count: u32) -> Result<()> {
        for wanted in 1..=count {
            let line = self.line().await?.context("the server closed before it answered")?;
            match wire::line(&line) {
                wire::Line::Reply(id, _) if id == wanted => {}
                _ => bail!("answered `{}`", String::from_utf8_lossy(&line)),
            }
        }
        Ok(())
    }
}
