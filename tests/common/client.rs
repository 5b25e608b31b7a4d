//! A client that sees every byte: WebSocket frames, replies and pushes, lines of streams.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{PATIENCE, Server, WEBSOCKET, upgrade_request};

/// A masked frame, as a client sends it.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// One end of a connection, byte for byte.
pub struct Client {
    pub stream: TcpStream,
    pub(super) bytes: Vec<u8>,
    texts: std::collections::VecDeque<String>,
}

/// A push without the info of its publisher.
pub fn without_publisher(push: &str) -> String {
    let Some(start) = push.find(r#","info":{"#) else { return push.to_owned() };
    let end = start + push[start..].find('}').expect("an object ends");
    format!("{}{}", &push[..start], &push[end + 1..])
}

impl Client {
    /// A TCP connection that has sent nothing.
    pub fn dial(server: impl Into<SocketAddr>) -> Client {
        Client::over(TcpStream::connect(server.into()).expect("the server takes connections"))
    }

    pub fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // A Unix socket has no such option.
        let _ = stream.set_nodelay(true);
        Client { stream, bytes: Vec::new(), texts: Default::default() }
    }

    /// Switched to a path's transport.
    pub fn open(server: impl Into<SocketAddr>, path: &str) -> Client {
        Client::dial(server).upgrade(path)
    }

    fn upgrade(mut self, path: &str) -> Client {
        self.send_raw(upgrade_request(path).as_bytes());
        let head = self.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        self
    }

    /// Connected as a client of the bidirectional protocol; its connect command had id 1.
    pub fn connected(server: impl Into<SocketAddr>) -> Client {
        Client::open(server, WEBSOCKET).connect()
    }

    fn connect(mut self) -> Client {
        self.send(r#"{"id":1,"connect":{}}"#);
        let reply = self.text();
        assert!(reply.starts_with(r#"{"id":1,"connect":{"client":""#), "{reply}");
        self
    }

    /// Connected and subscribed to a channel; that command had id 2.
    pub fn subscribed(server: &Server, channel: &str) -> Client {
        Client::connected(server).subscribe(channel)
    }

    /// The same over a socket whose kernel takes this many bytes, or about twice as many.
    pub fn subscribed_with_buffer(server: &Server, channel: &str, bytes: usize) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        socket.connect(&server.address().into()).unwrap();
        Client::over(TcpStream::from(socket)).upgrade(WEBSOCKET).connect().subscribe(channel)
    }

    fn subscribe(mut self, channel: &str) -> Client {
        self.send(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        assert_eq!(self.text(), r#"{"id":2,"subscribe":{}}"#);
        self
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes bytes");
    }

    /// Sends a text frame.
    pub fn send(&mut self, text: &str) {
        self.send_raw(&client_frame(0x81, text.as_bytes()));
    }

    pub(super) fn fill(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.bytes.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// One frame as it came: its first byte and its payload. `None`: the connection has ended.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((start, length)) = server_header(&self.bytes)
                && self.bytes.len() >= start + length
            {
                let rest = self.bytes.split_off(start + length);
                let mut frame = std::mem::replace(&mut self.bytes, rest);
                return Some((frame[0], frame.split_off(start)));
            }
            match self.fill() {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame in time: {error}"),
            }
        }
    }

    /// The next reply or push.
    pub fn text(&mut self) -> String {
        loop {
            if let Some(text) = self.texts.pop_front() {
                return text;
            }
            match self.frame() {
                Some((0x81, payload)) => {
                    let text = String::from_utf8(payload).expect("text is UTF-8");
                    self.texts.extend(text.split('\n').map(str::to_owned));
                }
                other => panic!("not a text frame: {other:?}"),
            }
        }
    }

    /// The next reply or push, if it is there already.
    pub fn poll_text(&mut self) -> Option<String> {
        self.stream.set_nonblocking(true).unwrap();
        let filled = self.fill();
        self.stream.set_nonblocking(false).unwrap();
        assert!(!matches!(filled, Ok(0)), "the connection has ended");
        let whole = server_header(&self.bytes)
            .is_some_and(|(start, length)| self.bytes.len() >= start + length);
        (whole || !self.texts.is_empty()).then(|| self.text())
    }

    /// The next push, without the info of its publisher.
    pub fn push(&mut self) -> String {
        without_publisher(&self.text())
    }

    /// Sends a command and returns the next text.
    pub fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.text()
    }

    /// Reads on to the close frame, which must come, answers it and sees the end.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.frame() {
                Some((0x88, payload)) => {
                    let code = u16::from_be_bytes(*payload.first_chunk().expect("a close code"));
                    let reason = String::from_utf8(payload[2..].to_vec()).expect("UTF-8");
                    // The server may have closed already, and then needs no answer.
                    let _ = self.stream.write_all(&client_frame(0x88, &payload[..2]));
                    assert!(self.frame().is_none(), "nothing follows a close frame");
                    return (code, reason);
                }
                Some(_) => {}
                None => panic!("ended without a close frame"),
            }
        }
    }

    /// A line, without its end.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let rest = self.bytes.split_off(at + 1);
                let mut line = std::mem::replace(&mut self.bytes, rest);
                line.pop();
                return String::from_utf8(line).expect("lines are text");
            }
            let count = self.fill().expect("a line in time");
            assert!(count > 0, "closed within a line: {:?}", String::from_utf8_lossy(&self.bytes));
        }
    }

    /// Reads to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("no end in time: {error}"),
            }
        }
        std::mem::take(&mut self.bytes)
    }

    /// Whether the connection still answers: a WebSocket ping comes back.
    pub fn is_alive(&mut self) -> bool {
        if self.stream.write_all(&client_frame(0x89, b"alive?")).is_err() {
            return false;
        }
        loop {
            match self.frame() {
                Some((0x8a, payload)) if payload == b"alive?" => return true,
                Some((0x88, _)) | None => return false,
                Some(_) => {}
            }
        }
    }

    /// Ends the connection with a reset, without a close frame.
    pub fn vanish(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Where the payload of a server's frame starts and how long it is. Server frames are unmasked.
fn server_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let second = *bytes.get(1)?;
    assert_eq!(second & 0x80, 0, "a server must not mask");
    match second {
        126 => Some((4, u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?).into())),
        127 => Some((10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize)),
        short => Some((2, short.into())),
    }
}
