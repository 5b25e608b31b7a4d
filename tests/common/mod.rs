//! What the wire tests share: the real binary on a free port, and a client that sees every byte.
//!
//! Owns the server's process and ends it by its id. Every wait has an end. The invariant: nothing
//! here uses the engine's own code for frames, so that it checks what it is told, not itself.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

/// How long anything may take before a test calls it lost.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const WEBSOCKET: &str = "/connection/websocket";
pub const UNI_WEBSOCKET: &str = "/connection/uni_websocket";

/// The binary under test: the one that cargo built, or the one named by DRUMLINE.
pub fn binary() -> PathBuf {
    std::env::var_os("DRUMLINE").map_or_else(|| env!("CARGO_BIN_EXE_drumline").into(), Into::into)
}

/// The binary under test, in an environment that configures nothing.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("DRUMLINE_") || text.starts_with("CENTRIFUGO_") {
            command.env_remove(&name);
        }
    }
    command
}

/// A port that nobody uses, below those that the kernel gives to clients.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + ((std::process::id() * 131 + nth) % 18_000) as u16;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Waits until `done` says something.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Flags of the transports that are off by default.
const UNIDIRECTIONAL: [&str; 4] = [
    "--uni_websocket.enabled",
    "--uni_http_stream.enabled",
    "--uni_sse.enabled",
    "--long_polling.enabled",
];

/// The key of the API where the public port has it.
pub const API_KEY: &str = "secret";

/// A running server.
pub struct Server {
    child: Child,
    pub port: u16,
    pub internal: u16,
}

impl Server {
    /// Insecure, two small shards, every transport, and the flags given.
    pub fn start(flags: &[&str]) -> Server {
        Server::with(&Server::small(flags))
    }

    /// The same, with everything on the one public port and [`API_KEY`] as the key of its API.
    pub fn on_one_port(flags: &[&str]) -> Server {
        let mut all = Server::small(flags);
        all.extend(["--http_api.key", API_KEY]);
        let port = free_port();
        Server::spawn(&all, port, port)
    }

    /// The flags given and no others, with everything on the one public port.
    pub fn on_public_port(flags: &[&str]) -> Server {
        let port = free_port();
        Server::spawn(flags, port, port)
    }

    fn small<'a>(flags: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["--client.insecure", "--page.enabled"];
        all.extend(UNIDIRECTIONAL);
        if !flags.contains(&"--shards") {
            all.extend(["--shards", "2"]);
        }
        if !flags.contains(&"--engine.slots_per_shard") {
            all.extend(["--engine.slots_per_shard", "500"]);
        }
        all.extend(flags);
        all
    }

    /// The flags given and no others, except for the ports and the metrics, which tests ask for.
    pub fn with(flags: &[&str]) -> Server {
        Server::spawn(flags, free_port(), free_port())
    }

    /// The internal port may be the public one. Another process may have taken a port since it
    /// was found free: then the server starts on others.
    fn spawn(flags: &[&str], port: u16, internal: u16) -> Server {
        let one = port == internal;
        let mut ports = (port, internal);
        for _ in 0..3 {
            match Server::try_spawn(flags, ports.0, ports.1) {
                Ok(server) => return server,
                Err(status) => eprintln!("the server ended at once: {status}, flags {flags:?}"),
            }
            let port = free_port();
            ports = (port, if one { port } else { free_port() });
        }
        panic!("the server does not start");
    }

    /// The flags given and no others, on ports of its own, and not waited for.
    pub fn launch(flags: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
        Server::launch_on(flags, free_port(), free_port(), prepare)
    }

    fn launch_on(
        flags: &[&str],
        port: u16,
        internal: u16,
        prepare: impl FnOnce(&mut Command),
    ) -> Server {
        let own = if internal == port { 0 } else { internal };
        let mut command = command();
        command
            .args(["serve", "--prometheus.enabled"])
            .args(["--http_server.port", &port.to_string()])
            .args(["--http_server.internal_port", &own.to_string()])
            .args(flags)
            .stdin(Stdio::null());
        prepare(&mut command);
        let child = command.spawn().expect("the binary starts");
        Server { child, port, internal }
    }

    fn try_spawn(flags: &[&str], port: u16, internal: u16) -> Result<Server, ExitStatus> {
        let mut server = Server::launch_on(flags, port, internal, |_| {});
        let ended = wait_for("the server to listen", || {
            let ended = server.child.try_wait().unwrap();
            let listens = || TcpStream::connect(server.internal_address()).is_ok();
            (ended.is_some() || listens()).then_some(ended)
        });
        if let Some(status) = ended {
            return Err(status);
        }
        server.settle();
        Ok(server)
    }

    /// Waits until no socket of a client is held, and returns the number of slots taken then:
    /// those that wait for a socket.
    pub fn settle(&self) -> u64 {
        let mut last = u64::MAX;
        wait_for("the number of sockets to settle", || {
            let now = self.metric("drumline_sockets");
            std::thread::sleep(Duration::from_millis(30));
            (std::mem::replace(&mut last, now) == now).then_some(now)
        })
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn internal_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.internal))
    }

    /// Has a client of its own publish into a channel.
    pub fn publish(&self, channel: &str, data: &str) {
        let mut publisher = Client::connected(self);
        let command = format!(r#"{{"id":2,"publish":{{"channel":"{channel}","data":{data}}}}}"#);
        assert_eq!(publisher.ask(&command), r#"{"id":2,"publish":{}}"#);
    }

    /// What the API answers, with [`API_KEY`] where it asks for one.
    pub fn api(&self, method: &str, body: &str) -> String {
        let mut client = Client::dial(self.internal_address());
        let head = format!(
            "POST /api/{method} HTTP/1.1\r\nHost: test\r\nX-API-Key: {API_KEY}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.send_raw(head.as_bytes());
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        client.read_body(&head)
    }

    /// The sum of a metric over all shards.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics();
        let values = values(&text, name);
        assert!(!values.is_empty(), "no metric {name} in:\n{text}");
        values.iter().sum::<f64>() as u64
    }

    /// The largest value of a metric among the shards; `None`: there is no such metric.
    pub fn largest(&self, name: &str) -> Option<u64> {
        values(&self.metrics(), name).into_iter().max_by(f64::total_cmp).map(|most| most as u64)
    }

    /// All metrics, as text.
    pub fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.internal_address()).expect("the internal port");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("metrics are text");
        text
    }

    /// Waits until a metric says so.
    pub fn wait_metric(&self, name: &str, mut accept: impl FnMut(u64) -> bool) -> u64 {
        let mut last = 0;
        wait_for(name, || {
            last = self.metric(name);
            accept(last).then_some(last)
        })
    }

    pub fn signal_stop(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the server runs");
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the server to end", || child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// The values of a metric in the text of all.
fn values(text: &str, name: &str) -> Vec<f64> {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .map(|rest| rest.rsplit(' ').next().unwrap().parse().expect("a number"))
        .collect()
}

impl From<&Server> for SocketAddr {
    fn from(server: &Server) -> SocketAddr {
        server.address()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request head for an upgrade of `path`.
pub fn upgrade_request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

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
    bytes: Vec<u8>,
    texts: std::collections::VecDeque<String>,
}

/// A push without who published it.
pub fn without_publisher(push: &str) -> String {
    let Some(start) = push.find(r#","info":{"#) else { return push.to_owned() };
    let end = start + push[start..].find('}').expect("an object ends");
    format!("{}{}", &push[..start], &push[end + 1..])
}

impl Client {
    /// A TCP connection without a word said.
    pub fn dial(server: impl Into<SocketAddr>) -> Client {
        Client::over(TcpStream::connect(server.into()).expect("the server takes connections"))
    }

    pub fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
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

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.bytes.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// A response head, its empty line included.
    pub fn read_head(&mut self) -> String {
        loop {
            if let Some(at) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.bytes.split_off(at + 4);
                let head = std::mem::replace(&mut self.bytes, rest);
                return String::from_utf8(head).expect("a head is text");
            }
            let count = self.fill().expect("a response head in time");
            assert!(count > 0, "closed within a head: {:?}", String::from_utf8_lossy(&self.bytes));
        }
    }

    /// A response's body of a known length.
    pub fn read_body(&mut self, head: &str) -> String {
        let length: usize = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
            })
            .unwrap_or_else(|| panic!("no content-length in {head}"));
        while self.bytes.len() < length {
            assert!(self.fill().expect("a body in time") > 0, "closed within a body");
        }
        let rest = self.bytes.split_off(length);
        String::from_utf8(std::mem::replace(&mut self.bytes, rest)).expect("a body of text")
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

    /// The next push, without who published it.
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

    /// Ends the connection with a reset and no goodbye.
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
