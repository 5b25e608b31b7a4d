//! Sessions of the fuzzing client: one function per transport, from connect to close.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::{API_KEY, KEY, client_frame};
use crate::random::Random;
use crate::words;

/// How long a session reads at most.
const READ_MAX: Duration = Duration::from_millis(40);

/// A socket that may fail at any time: the server may close it.
struct Line {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Line {
    fn dial(server: SocketAddr) -> std::io::Result<Line> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        Ok(Line { stream, heard: Vec::new() })
    }

    /// Sends bytes, sometimes in pieces.
    fn say(&mut self, random: &mut Random, bytes: &[u8]) -> std::io::Result<()> {
        let mut rest = bytes;
        while random.once_in(3) && rest.len() > 1 {
            let (piece, after) = rest.split_at(random.below(rest.len()));
            self.stream.write_all(piece)?;
            rest = after;
        }
        self.stream.write_all(rest)
    }

    /// Reads what comes within a short time, or until `enough` holds.
    fn listen(&mut self, enough: impl Fn(&[u8]) -> bool) -> std::io::Result<()> {
        let begun = Instant::now();
        let mut chunk = [0; 8192];
        while !enough(&self.heard) {
            let left = READ_MAX.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => self.heard.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends it in one of the ways there are.
    fn end(self, random: &mut Random) -> std::io::Result<()> {
        match random.below(4) {
            0 => self.stream.shutdown(Shutdown::Write),
            1 => socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)),
            2 => {
                let mut line = self;
                line.stream.shutdown(Shutdown::Write)?;
                line.listen(|_| false)
            }
            _ => Ok(()),
        }
    }
}

/// One session of whatever transport comes next.
pub fn session(random: &mut Random, server: SocketAddr) -> std::io::Result<()> {
    match random.below(12) {
        0..=2 => websocket(random, server, false),
        3 | 4 => websocket(random, server, true),
        5 => stream(random, server, "/connection/http_stream"),
        6 => stream(random, server, "/connection/sse"),
        7 => unidirectional_websocket(random, server),
        8 => unidirectional(random, server),
        9 | 10 => api(random, server),
        _ => garbage(random, server),
    }
}

fn upgrade(random: &mut Random, path: &str, protobuf: bool) -> Vec<u8> {
    let protocol = match (protobuf, random.below(4)) {
        (true, _) => "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n",
        (false, 0) => "Sec-WebSocket-Protocol: other, centrifuge-json\r\n",
        _ => "",
    };
    let extension = match random.below(3) {
        0 => "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        _ => "",
    };
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{protocol}{extension}\r\n"
    )
    .into_bytes();
    if random.once_in(5) {
        random.spoil(&mut head);
    }
    head
}

/// A message in one frame or in several, sometimes against the rules.
fn frames(random: &mut Random, binary: bool, payload: &[u8]) -> Vec<u8> {
    let opcode = if binary { 2 } else { 1 };
    let mut out = Vec::new();
    match random.below(12) {
        0 => {
            let (start, end) = payload.split_at(random.below(payload.len() + 1));
            out.extend(client_frame(opcode, start));
            if random.once_in(2) {
                out.extend(client_frame(0x89, &random.bytes(125)));
            }
            out.extend(client_frame(0x80, end));
        }
        1 => out.extend(client_frame(random.next() as u8, payload)),
        2 => {
            out.extend(client_frame(0x80 | opcode, payload));
            out.truncate(random.below(out.len() + 1));
        }
        3 => out.extend(client_frame(0x8a, &random.bytes(10))),
        _ => out.extend(client_frame(0x80 | opcode, payload)),
    }
    out
}

fn websocket(random: &mut Random, server: SocketAddr, protobuf: bool) -> std::io::Result<()> {
    let mut line = Line::dial(server)?;
    let head = upgrade(random, "/connection/websocket", protobuf);
    line.say(random, &head)?;
    let first = match (protobuf, random.once_in(12)) {
        (true, _) => words::protobuf_frame(random, 1),
        (false, true) => words::frame(random, 1),
        (false, false) => format!(r#"{{"id":1,"connect":{}}}"#, words::connect(random)).into(),
    };
    let first = frames(random, protobuf, &first);
    line.say(random, &first)?;
    let reads = !random.once_in(4);
    for round in 0..random.below(8) {
        let from = 2 + 10 * round;
        let said = match protobuf {
            true => words::protobuf_frame(random, from),
            false => words::frame(random, from),
        };
        let said = frames(random, protobuf, &said);
        line.say(random, &said)?;
        if reads {
            line.heard.clear();
            line.listen(|heard| !heard.is_empty())?;
        }
    }
    line.end(random)
}

/// A client that subscribes to much and stays for a while; some read nothing.
pub fn audience(random: &mut Random, server: SocketAddr) -> std::io::Result<()> {
    let mut line = Line::dial(server)?;
    let mut said = upgrade(random, "/connection/websocket", false);
    let mut commands = vec![r#"{"id":1,"connect":{}}"#.to_owned()];
    for id in 2..16 {
        commands.push(format!(r#"{{"id":{id},"subscribe":{}}}"#, words::subscribe(random)));
    }
    said.extend(client_frame(0x81, commands.join("\n").as_bytes()));
    line.say(random, &said)?;
    let reads = !random.once_in(4);
    for _ in 0..random.below(40) {
        match reads {
            true => line.listen(|_| false)?,
            false => std::thread::sleep(READ_MAX),
        }
        line.heard.clear();
        if random.once_in(4) {
            line.say(random, &client_frame(0x81, b"{}"))?;
        }
    }
    line.end(random)
}

fn post(path: &str, kind: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: {kind}\r\n{headers}\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn percent(text: &[u8]) -> String {
    text.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// A text field of what was heard.
fn named(heard: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(heard);
    let start = text.find(&format!(r#""{name}":""#))? + name.len() + 4;
    text[start..].split('"').next().map(str::to_owned)
}

/// A session of http_stream or SSE, with commands posted to `/emulation`.
fn stream(random: &mut Random, server: SocketAddr, path: &str) -> std::io::Result<()> {
    let mut line = Line::dial(server)?;
    let connect = format!(r#"{{"id":1,"connect":{}}}"#, words::connect(random));
    let mut request = match path.ends_with("sse") {
        true => {
            let query = percent(connect.as_bytes());
            format!("GET {path}?cf_connect={query} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes()
        }
        false => post(path, "application/json", "", connect.as_bytes()),
    };
    random.spoil(&mut request);
    line.say(random, &request)?;
    line.listen(|heard| heard.windows(10).any(|window| window == br#""session":"#))?;
    let session = named(&line.heard, "session").unwrap_or_else(|| "0".repeat(50));
    let node = named(&line.heard, "node").unwrap_or_default();
    for round in 0..random.below(5) {
        let data = String::from_utf8_lossy(&words::frame(random, 2 + 10 * round)).into_owned();
        let body = serde_json::json!({"session": session, "node": node, "data": data});
        let mut request = post("/emulation", "application/json", "", body.to_string().as_bytes());
        random.spoil(&mut request);
        let mut other = Line::dial(server)?;
        other.say(random, &request)?;
        other.listen(|heard| !heard.is_empty())?;
        line.listen(|_| random_is_done(round))?;
    }
    line.end(random)
}

/// Every second round waits for what comes.
fn random_is_done(round: usize) -> bool {
    round.is_multiple_of(2)
}

fn unidirectional_websocket(random: &mut Random, server: SocketAddr) -> std::io::Result<()> {
    let mut line = Line::dial(server)?;
    let head = upgrade(random, "/connection/uni_websocket", false);
    line.say(random, &head)?;
    let mut connect = words::connect(random).into_bytes();
    random.spoil(&mut connect);
    let connect = frames(random, false, &connect);
    line.say(random, &connect)?;
    line.listen(|_| false)?;
    line.end(random)
}

/// Unidirectional streams and long polling, by a query or by a body.
fn unidirectional(random: &mut Random, server: SocketAddr) -> std::io::Result<()> {
    let mut line = Line::dial(server)?;
    let path = random.one_of(&[
        "/connection/uni_sse",
        "/connection/uni_http_stream",
        "/connection/long_polling",
    ]);
    let connect = words::connect(random);
    let last = match random.below(3) {
        0 => format!("Last-Event-ID: {}:abcdefgh:{}\r\n", random.below(9), words::channel(random)),
        1 => format!("Last-Event-ID: {}\r\n", percent(&random.bytes(20))),
        _ => String::new(),
    };
    // A name may hold what no header may: then it is the server's to refuse it.
    let mut request = match random.below(2) {
        0 => {
            let query = percent(connect.as_bytes());
            format!("GET {path}?cf_connect={query} HTTP/1.1\r\nHost: test\r\n{last}\r\n")
                .into_bytes()
        }
        _ => post(path, "application/json", &last, connect.as_bytes()),
    };
    random.spoil(&mut request);
    line.say(random, &request)?;
    line.listen(|_| false)?;
    line.end(random)
}

/// Requests of the API over one connection, some of them at once.
fn api(random: &mut Random, server: SocketAddr) -> std::io::Result<()> {
    let mut line = Line::dial(server)?;
    for _ in 0..=random.below(6) {
        let (method, body) = words::call(random);
        let key = if random.once_in(20) { "wrong" } else { API_KEY };
        let headers = format!("X-API-Key: {key}\r\n");
        let mut request = post(&format!("/api/{method}"), "application/json", &headers, &body);
        if random.once_in(8) {
            random.spoil(&mut request);
        }
        line.say(random, &request)?;
        if !random.once_in(4) {
            line.heard.clear();
            line.listen(|heard| !heard.is_empty())?;
        }
    }
    line.end(random)
}

/// Bytes that belong to no transport, and pages that anybody may ask for.
fn garbage(random: &mut Random, server: SocketAddr) -> std::io::Result<()> {
    let mut line = Line::dial(server)?;
    let path = random.one_of(&["/", "/health", "/metrics", "/api", "/nothing", "*", "/swagger"]);
    let mut bytes = match random.below(3) {
        0 => random.bytes(2000),
        1 => format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
        _ => format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "y".repeat(random.below(20_000))
        )
        .into_bytes(),
    };
    random.spoil(&mut bytes);
    line.say(random, &bytes)?;
    line.listen(|_| false)?;
    line.end(random)
}
