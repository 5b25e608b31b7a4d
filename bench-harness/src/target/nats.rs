//! NATS with WebSocket subscribers, published to by its own protocol over TCP.
//!
//! Owns its adapter, its configuration and the few protocol lines that the harness uses. Never
//! compresses. Invariant: a subscriber counts as subscribed when NATS has answered the PING behind
//! its SUB, or the creation of its consumer.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Adapter, Launch, Recovery, TargetOptions};
use crate::dialect::{CONNECTED, Dialect, Heard, SUBSCRIBED, Subscriber};
use crate::publish::{Api, Feed};
use crate::wire::{self, find};

#[derive(Debug)]
pub(super) struct Nats;

const CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"bench\",\"version\":\"1\"}\r\n";

impl Dialect for Nats {
    fn path(&self, _who: &Subscriber<'_>) -> String {
        "/".to_owned()
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        let text = format!("{CONNECT}SUB {} 1\r\nPING\r\n", who.channel);
        wire::client_frame(wire::BINARY, text.as_bytes(), out);
    }

    fn awaited(&self) -> u8 {
        CONNECTED | SUBSCRIBED
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        let Some(end) = find(message, b"\r\n") else { return (message.len(), Heard::Other) };
        let (line, used) = (&message[..end], end + 2);
        if line.starts_with(b"MSG ") {
            let size = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let size = std::str::from_utf8(size).ok().and_then(|size| size.parse::<usize>().ok());
            let whole = used + size.unwrap_or(0) + 2;
            let payload = message.get(used..whole).unwrap_or_default();
            return (whole, Heard::Delivery(payload));
        }
        let heard = match line {
            b"PING" => Heard::Ping,
            b"PONG" => Heard::Subscribed(line),
            _ if line.starts_with(b"INFO ") => Heard::Connected { pong: true },
            _ if line.starts_with(b"-ERR") => Heard::Refused(line),
            _ => Heard::Other,
        };
        (used, heard)
    }

    fn pong(&self, out: &mut Vec<u8>) {
        wire::client_frame(wire::BINARY, b"PONG\r\n", out);
    }
}

/// A durable consumer of the JetStream [`STREAM`] for every client, which the server remembers.
#[derive(Debug)]
struct Durable;

/// The stream, of this name and of the subject of this name.
const STREAM: &str = "all";
/// Prefix of the subjects of answers.
const ANSWERS: &str = "answer.";
/// Maximum wait for the answer to the creation of the stream.
const PATIENCE: Duration = Duration::from_secs(10);

impl Dialect for Durable {
    fn path(&self, who: &Subscriber<'_>) -> String {
        Nats.path(who)
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        let index = who.index;
        let text = match who.position {
            Some(_) => format!("{CONNECT}SUB kept.{index} 1\r\nPING\r\n"),
            None => {
                let consumer = format!(
                    "{{\"stream_name\":\"{STREAM}\",\"config\":{{\"durable_name\":\"c{index}\",\
                     \"deliver_subject\":\"kept.{index}\",\"deliver_policy\":\"new\",\
                     \"ack_policy\":\"none\",\"mem_storage\":true}}}}"
                );
                format!(
                    "{CONNECT}SUB kept.{index} 1\r\nSUB {ANSWERS}{index} 2\r\n\
                     PUB $JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.c{index} {ANSWERS}{index} \
                     {}\r\n{consumer}\r\n",
                    consumer.len()
                )
            }
        };
        wire::client_frame(wire::BINARY, text.as_bytes(), out);
    }

    fn awaited(&self) -> u8 {
        Nats.awaited()
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        let answers =
            message.strip_prefix(b"MSG ").is_some_and(|m| m.starts_with(ANSWERS.as_bytes()));
        match Nats.hear(message) {
            (used, Heard::Delivery(answer)) if answers => match find(answer, b"\"error\":") {
                Some(_) => (used, Heard::Refused(answer)),
                None => (used, Heard::Subscribed(answer)),
            },
            heard => heard,
        }
    }

    fn pong(&self, out: &mut Vec<u8>) {
        Nats.pong(out);
    }
}

/// Makes the stream; `port` is the publishers'.
fn make_stream(port: u16) -> Result<()> {
    let stream = format!(
        "{{\"name\":\"{STREAM}\",\"subjects\":[\"{STREAM}\"],\"storage\":\"memory\",\"max_consumers\":100000}}"
    );
    let text = format!(
        "{CONNECT}SUB {ANSWERS}s 1\r\nPUB $JS.API.STREAM.CREATE.{STREAM} {ANSWERS}s {}\r\n{stream}\r\n",
        stream.len()
    );
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(text.as_bytes())?;
    let (mut heard, mut bytes) = (Vec::new(), [0; 4096]);
    while find(&heard, b"\"did_create\":true").is_none() {
        let read = socket.read(&mut bytes)?;
        heard.extend_from_slice(&bytes[..read]);
        let refused =
            read == 0 || [&b"\"error\":"[..], b"-ERR"].iter().any(|e| find(&heard, e).is_some());
        ensure!(
            !refused,
            "NATS did not create the stream: {}",
            String::from_utf8_lossy(&heard).trim_end()
        );
    }
    Ok(())
}

impl Feed for Nats {
    fn hello(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(CONNECT.as_bytes());
    }

    fn publish(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(format!("PUB {channel} {}\r\n", payload.len()).as_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn flush(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PING\r\n");
    }

    fn flushed(&self, heard: &[u8]) -> Result<bool> {
        if let Some(at) = find(heard, b"-ERR") {
            bail!("NATS answered `{}`", String::from_utf8_lossy(&heard[at..]).trim_end());
        }
        Ok(find(heard, b"PONG\r\n").is_some())
    }
}

impl Adapter for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn about(&self) -> &'static str {
        "nats-server, WebSocket without compression, publications by its protocol over TCP"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Nats
    }

    fn api(&self) -> Api {
        Api::Stream(&Nats)
    }

    fn has_publish_port(&self) -> bool {
        true
    }

    fn pings(&self) -> bool {
        true
    }

    fn recovery(&self) -> Option<Recovery> {
        let by = "from a JetStream stream in memory, one durable push consumer without \
                  acknowledgements per client";
        Some(Recovery { by, dialect: &Durable, api: self.api() })
    }

    fn prepare_recovery(&self, options: &TargetOptions) -> Result<()> {
        make_stream(options.publish_port).context("cannot make a stream")
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        let program = options.made("nats/nats-server")?;
        let path = options.dir.join("nats.conf");
        let pings = options.ping_seconds.map(|seconds| format!("ping_interval: \"{seconds}s\"\n"));
        let pings = pings.unwrap_or_default();
        let dir = options.dir.display();
        let stream = format!("jetstream {{ store_dir: \"{dir}/jetstream\" }}\n");
        let stream = if options.recovers { stream } else { String::new() };
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nmax_connections: 100000\nmax_pending: 64MB\n{pings}{stream}\
             websocket {{\n  listen: \"127.0.0.1:{}\"\n  no_tls: true\n  compression: false\n}}\n",
            options.publish_port, options.port
        );
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let arguments = vec!["-c".to_owned(), path.to_string_lossy().into_owned()];
        let environment = vec![("GOMAXPROCS".to_owned(), options.workers.to_string())];
        Ok(Launch { program, arguments, environment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_share_a_frame() {
        let mut message = b"INFO {\"a\":1}\r\nPONG\r\nMSG all 1 4\r\na\r\nb\r\nPING\r\n".to_vec();
        let mut heard = Vec::new();
        let mut at = 0;
        while at < message.len() {
            let (used, one) = Nats.hear(&message[at..]);
            heard.push(format!("{one:?}"));
            at += used;
        }
        let delivery = format!("{:?}", Heard::Delivery(b"a\r\nb\r\n"));
        let pinged = format!("{:?}", Heard::Ping);
        assert_eq!(heard[0], format!("{:?}", Heard::Connected { pong: true }));
        assert_eq!(heard[1], format!("{:?}", Heard::Subscribed(b"PONG")));
        assert_eq!(heard[2..], [delivery, pinged]);
        message.truncate(40);
        Nats.hear(&message[20..]);
    }

    #[test]
    fn consumers_are_made_once() {
        let new = Subscriber { index: 7, channel: "all", position: None };
        let (mut first, mut again) = (Vec::new(), Vec::new());
        Dialect::hello(&Durable, &new, &mut first);
        let position = wire::Position::default();
        Durable.hello(&Subscriber { position: Some(&position), ..new }, &mut again);
        assert!(first.len() > again.len());
        let hear = |message: &'static [u8]| Durable.hear(message).1;
        assert_eq!(hear(b"MSG answer.7 2 2\r\n{}\r\n"), Heard::Subscribed(b"{}\r\n"));
        let refused = hear(b"MSG answer.7 2 11\r\n{\"error\":1}\r\n");
        assert_eq!(refused, Heard::Refused(b"{\"error\":1}\r\n"));
        let kept = hear(b"MSG kept.7 1 $JS.ACK.all.c7.1.2.1.5.0 1\r\na\r\n");
        assert_eq!(kept, Heard::Delivery(b"a\r\n"));
    }

    #[test]
    fn publications() {
        let mut out = Vec::new();
        Nats.publish("news", b"abc", &mut out);
        assert_eq!(out, b"PUB news 3\r\nabc\r\n");
        assert!(!Nats.flushed(b"INFO {}\r\n").unwrap());
        assert!(Nats.flushed(b"INFO {}\r\nPONG\r\n").unwrap());
        assert!(Nats.flushed(b"-ERR 'Unknown'\r\n").is_err());
    }
}
