//! A blocking client that can send arbitrary bytes.
//!
//! Owns one socket. Never waits longer than its timeout. Invariant: it returns the server's frames
//! unchanged and answers none of them.

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt;

use crate::tls::{Client, Stream};
use crate::wire;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Subprotocol of clients that speak protobuf.
const PROTOBUF: &str = "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n";

/// A connection.
pub struct HostileClient {
    stream: Stream,
    input: Vec<u8>,
}

impl HostileClient {
    /// A TCP connection.
    pub fn dial(server: SocketAddr) -> Result<Self> {
        Self::dial_over(server, None)
    }

    /// A TCP connection, over TLS if there is TLS.
    pub fn dial_over(server: SocketAddr, tls: Option<&Client>) -> Result<Self> {
        let stream = Stream::connect(server, tls, PATIENCE);
        let stream = stream.with_context(|| format!("connect to {server}"))?;
        Ok(HostileClient { stream, input: Vec::new() })
    }

    /// A WebSocket without any command sent.
    pub fn open(server: SocketAddr, headers: &str) -> Result<Self> {
        Self::dial(server)?.upgraded(server, headers)
    }

    /// Upgrades an open HTTP connection to a WebSocket.
    pub fn upgraded(mut self, server: SocketAddr, headers: &str) -> Result<Self> {
        let mut upgrade = Vec::new();
        wire::upgrade(wire::PATH, server.port(), headers, &mut upgrade);
        self.write(&upgrade)?;
        let head = self.head()?;
        ensure!(wire::accepted(&head), "refused: {}", String::from_utf8_lossy(&head));
        Ok(self)
    }

    /// A connected client of the JSON protocol.
    pub fn connected(server: SocketAddr) -> Result<Self> {
        Self::connected_over(server, None)
    }

    /// The same, over TLS if there is TLS.
    pub fn connected_over(server: SocketAddr, tls: Option<&Client>) -> Result<Self> {
        let mut client = Self::dial_over(server, tls)?.upgraded(server, "")?;
        let answer = client.ask("{\"id\":1,\"connect\":{}}")?;
        ensure!(answer.contains("\"connect\":{"), "a connect was answered `{answer}`");
        Ok(client)
    }

    /// A connected client of the protobuf protocol.
    pub fn connected_by_protobuf(server: SocketAddr) -> Result<Self> {
        let mut client = Self::open(server, PROTOBUF)?;
        // A command with id 1 and an empty connect request, behind its length.
        client.send_frame(wire::BINARY, b"\x04\x08\x01\x22\x00")?;
        client.frame(PATIENCE)?.context("closed instead of an answer to the connect")?;
        Ok(client)
    }

    /// A connected client that has subscribed with this request.
    pub fn subscribed(server: SocketAddr, request: &str) -> Result<Self> {
        let mut client = Self::connected(server)?;
        let answer = client.ask(&format!("{{\"id\":2,\"subscribe\":{request}}}"))?;
        ensure!(answer.contains("\"subscribe\":{"), "a subscribe was answered `{answer}`");
        Ok(client)
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("write to the server")
    }

    /// Sends a frame.
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        wire::client_frame(first, payload, &mut frame);
        self.write(&frame)
    }

    /// Sends a text frame.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.send_frame(wire::TEXT, text.as_bytes())
    }

    /// Sends a command; the text of the next frame.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        self.send(command)?;
        let frame = self.frame(PATIENCE)?.context("closed instead of an answer")?;
        Ok(String::from_utf8_lossy(&frame).into_owned())
    }

    /// A response's head.
    pub fn head(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(head) = wire::head_bytes(&self.input) {
                let rest = self.input.split_off(head);
                return Ok(std::mem::replace(&mut self.input, rest));
            }
            ensure!(self.fill()? > 0, "closed within a response's head");
        }
    }

    /// A whole response with a length. Returns its head.
    pub fn response(&mut self) -> Result<Vec<u8>> {
        let head = self.head()?;
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(Ok(0), |length| length.trim().parse())?;
        while self.input.len() < length {
            ensure!(self.fill()? > 0, "closed within a response's body");
        }
        self.input.drain(..length);
        Ok(head)
    }

    fn fill(&mut self) -> Result<usize> {
        match self.stream.read(&mut self.input) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            Err(error) => Err(error).context("read from the server"),
        }
    }

    /// The payload of the next text or binary frame; `None` where the server has closed.
    pub fn frame(&mut self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let begun = Instant::now();
        loop {
            while let Some((opcode, payload)) = self.take_frame() {
                match opcode {
                    1 | 2 => return Ok(Some(payload)),
                    8 => return Ok(None),
                    _ => {}
                }
            }
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                bail!("no frame within {patience:?}");
            }
            self.stream.socket().set_read_timeout(Some(left))?;
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next whole frame that has come: its opcode and payload.
    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (start, length) = wire::server_header(&self.input)?;
        let end = start.checked_add(length).filter(|end| *end <= self.input.len())?;
        let rest = self.input.split_off(end);
        let mut frame = std::mem::replace(&mut self.input, rest);
        let payload = frame.split_off(start);
        Some((frame[0] & 0x0f, payload))
    }

    /// Reads and drops what comes, until `deadline` or the end of the connection.
    pub fn drain(&mut self, deadline: Instant) {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.socket().set_read_timeout(Some(left)).is_err() {
                return;
            }
            self.input.clear();
            if !self.fill().is_ok_and(|count| count > 0) {
                return;
            }
        }
    }

    /// Whether the server has closed the connection, or has said so, as far as can be seen without
    /// waiting.
    pub fn is_closed(&mut self) -> bool {
        if self.stream.socket().set_nonblocking(true).is_err() {
            return true;
        }
        let ended = loop {
            match self.stream.read(&mut self.input) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
        };
        let mut closes = false;
        while let Some((opcode, _)) = self.take_frame() {
            closes |= opcode == 8;
        }
        ended || closes || self.stream.socket().set_nonblocking(false).is_err()
    }

    /// Ends the client's direction of the connection: the server reads the end of the input.
    pub fn end_output(&self) -> Result<()> {
        self.stream.socket().shutdown(Shutdown::Write).context("shut down the output")
    }

    /// The connection. Bytes that are already read are dropped.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Ends the connection with a reset.
    pub fn reset(self) -> Result<()> {
        sockopt::set_socket_linger(self.stream.socket(), Some(Duration::ZERO))
            .context("set SO_LINGER")
    }
}
