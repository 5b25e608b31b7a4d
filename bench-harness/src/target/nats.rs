//! NATS with WebSocket subscribers, published to by its own protocol over TCP.
//!
//! Owns its adapter, its configuration and the few lines of the protocol that it takes. Never
//! compresses. Invariant: the answer to a PING that came behind the SUB says that the subject is
//! subscribed to.

use std::fs;

use anyhow::{Context, Result, bail};

use super::{Adapter, Launch, Place};
use crate::dialect::{CONNECTED, Dialect, Heard, SUBSCRIBED};
use crate::publish::{Api, Feed};
use crate::wire::{self, find};

#[derive(Debug)]
pub(super) struct Nats;

const CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"bench\",\"version\":\"1\"}\r\n";

impl Dialect for Nats {
    fn path(&self, _channel: &str) -> String {
        "/".to_owned()
    }

    fn hello(&self, channel: &str, out: &mut Vec<u8>) {
        let text = format!("{CONNECT}SUB {channel} 1\r\nPING\r\n");
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
        "nats-server, WebSocket without compression, published to by its protocol over TCP"
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

    fn launch(&self, place: &Place) -> Result<Launch> {
        let program = place.made("nats/nats-server")?;
        let path = place.dir.join("nats.conf");
        let pings = place.ping_seconds.map(|seconds| format!("ping_interval: \"{seconds}s\"\n"));
        let pings = pings.unwrap_or_default();
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nmax_connections: 100000\nmax_pending: 64MB\n{pings}\
             websocket {{\n  listen: \"127.0.0.1:{}\"\n  no_tls: true\n  compression: false\n}}\n",
            place.publish_port, place.port
        );
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let arguments = vec!["-c".to_owned(), path.to_string_lossy().into_owned()];
        let environment = vec![("GOMAXPROCS", place.workers.to_string())];
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
    fn publications() {
        let mut out = Vec::new();
        Nats.publish("news", b"abc", &mut out);
        assert_eq!(out, b"PUB news 3\r\nabc\r\n");
        assert!(!Nats.flushed(b"INFO {}\r\n").unwrap());
        assert!(Nats.flushed(b"INFO {}\r\nPONG\r\n").unwrap());
        assert!(Nats.flushed(b"-ERR 'Unknown'\r\n").is_err());
    }
}
