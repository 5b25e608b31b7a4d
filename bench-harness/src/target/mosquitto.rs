//! mosquitto, MQTT 3.1.1 over WebSocket, published to by MQTT over TCP.
//!
//! Owns its adapter, its configuration and the few packets that the harness uses. Never uses another
//! quality of service than 0 (at most once), except where messages are recovered: 1 (at least once).
//! Invariant: a subscriber counts as subscribed when mosquitto has sent SUBACK.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{Adapter, Launch, Recovery, TargetOptions, installed};
use crate::dialect::{CONNECTED, Dialect, Heard, SUBSCRIBED, Subscriber};
use crate::publish::{Api, Feed};
use crate::wire::{self, Stamp};

#[derive(Debug)]
pub(super) struct Mosquitto;

/// First bytes of packets.
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBLISH_AT_LEAST_ONCE: u8 = 0x32;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;
/// MQTT 3.1.1, a clean session, no keep-alive, and a name that the broker makes up.
const HELLO: [u8; 12] = [0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 0];
/// The same, but a session that is kept; the name follows.
const HELLO_AGAIN: [u8; 10] = [0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 0];

/// Text behind its length.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// Appends a packet.
fn packet(first: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(first);
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// First byte, body and bytes in all of the packet at the front; `None`: not whole.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let mut length = 0;
    for at in 1..5 {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let whole = at + 1 + length;
            return Some((bytes[0], bytes.get(at + 1..whole)?, whole));
        }
    }
    None
}

impl Dialect for Mosquitto {
    fn path(&self, _who: &Subscriber<'_>) -> String {
        "/mqtt".to_owned()
    }

    fn headers(&self) -> &'static str {
        "Sec-WebSocket-Protocol: mqtt\r\n"
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        let (mut connect, mut subscribe) = (Vec::new(), Vec::new());
        packet(CONNECT, &[&HELLO], &mut connect);
        packet(SUBSCRIBE, &[&[0, 1], &text(who.channel), &[0]], &mut subscribe);
        wire::client_frame(wire::BINARY, &connect, out);
        wire::client_frame(wire::BINARY, &subscribe, out);
    }

    fn awaited(&self) -> u8 {
        CONNECTED | SUBSCRIBED
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        let Some((first, body, whole)) = split(message) else {
            return (message.len(), Heard::Other);
        };
        let heard = match (first & 0xf0, body) {
            (CONNACK, [_, 0]) => Heard::Connected { pong: false },
            (SUBACK, [_, _, 0 | 1]) => Heard::Subscribed(body),
            (CONNACK | SUBACK, _) => Heard::Refused(&message[..whole]),
            (PUBLISH, body) => Heard::Delivery(body),
            _ => Heard::Other,
        };
        (whole, heard)
    }
}

impl Feed for Mosquitto {
    fn hello(&self, out: &mut Vec<u8>) {
        packet(CONNECT, &[&HELLO], out);
    }

    fn publish(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        packet(PUBLISH, &[&text(channel), payload], out);
    }

    fn flush(&self, out: &mut Vec<u8>) {
        packet(PINGREQ, &[], out);
    }

    fn flushed(&self, mut heard: &[u8]) -> Result<bool> {
        while let Some((first, body, whole)) = split(heard) {
            ensure!(first != CONNACK || body == [0, 0], "mosquitto refused a publisher: {body:?}");
            if first == PINGRESP {
                return Ok(true);
            }
            heard = &heard[whole..];
        }
        Ok(false)
    }
}

/// With a session that is kept, and messages that are kept until they are acknowledged.
#[derive(Debug)]
struct Kept;

impl Dialect for Kept {
    fn path(&self, who: &Subscriber<'_>) -> String {
        Mosquitto.path(who)
    }

    fn headers(&self) -> &'static str {
        Mosquitto.headers()
    }

    fn hello(&self, who: &Subscriber<'_>, out: &mut Vec<u8>) {
        let (mut connect, mut subscribe) = (Vec::new(), Vec::new());
        packet(CONNECT, &[&HELLO_AGAIN, &text(&format!("c{}", who.index))], &mut connect);
        packet(SUBSCRIBE, &[&[0, 1], &text(who.channel), &[1]], &mut subscribe);
        wire::client_frame(wire::BINARY, &connect, out);
        wire::client_frame(wire::BINARY, &subscribe, out);
    }

    fn awaited(&self) -> u8 {
        Mosquitto.awaited()
    }

    fn hear<'a>(&self, message: &'a [u8]) -> (usize, Heard<'a>) {
        Mosquitto.hear(message)
    }

    fn acknowledge(&self, delivery: &[u8], out: &mut Vec<u8>) {
        // The message's number follows the topic.
        let Some(length) = delivery.first_chunk::<2>() else { return };
        let at = 2 + usize::from(u16::from_be_bytes(*length));
        let Some(number) = delivery.get(at..at + 2) else { return };
        let mut answer = Vec::new();
        packet(PUBACK, &[number], &mut answer);
        wire::client_frame(wire::BINARY, &answer, out);
    }
}

impl Feed for Kept {
    fn hello(&self, out: &mut Vec<u8>) {
        Feed::hello(&Mosquitto, out);
    }

    fn publish(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        // A number of its own, and never 0.
        let number = Stamp::find(payload).map_or(1, |stamp| (stamp.sequence % 0xffff) as u16 + 1);
        packet(PUBLISH_AT_LEAST_ONCE, &[&text(channel), &number.to_be_bytes(), payload], out);
    }

    fn flush(&self, out: &mut Vec<u8>) {
        Mosquitto.flush(out);
    }

    fn flushed(&self, heard: &[u8]) -> Result<bool> {
        Mosquitto.flushed(heard)
    }
}

impl Adapter for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn about(&self) -> &'static str {
        "mosquitto, Debian's, one thread, MQTT over WebSocket, publications by MQTT over TCP"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Mosquitto
    }

    fn api(&self) -> Api {
        Api::Stream(&Mosquitto)
    }

    fn has_publish_port(&self) -> bool {
        true
    }

    fn recovery(&self) -> Option<Recovery> {
        let by = "from the client's kept session, quality of service 1";
        Some(Recovery { by, dialect: &Kept, api: Api::Stream(&Kept) })
    }

    fn launch(&self, options: &TargetOptions) -> Result<Launch> {
        let program = installed(&["/usr/sbin/mosquitto"], "Debian's mosquitto")?;
        let path = options.dir.join("mosquitto.conf");
        let text = format!(
            "allow_anonymous true\nset_tcp_nodelay true\npersistence false\nlog_dest stderr\n\
             log_type error\nuser root\nlistener {} 127.0.0.1\nprotocol websockets\n\
             listener {} 127.0.0.1\nprotocol mqtt\n",
            options.port, options.publish_port
        );
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let arguments = vec!["-c".to_owned(), path.to_string_lossy().into_owned()];
        Ok(Launch { program, arguments, environment: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_all_sizes_come_back() {
        for length in [0, 127, 128, 16_383, 16_384] {
            let body = vec![7u8; length];
            let mut bytes = Vec::new();
            packet(PUBLISH, &[&body], &mut bytes);
            for cut in [1, bytes.len() - 1] {
                assert_eq!(split(&bytes[..cut]), None);
            }
            let whole = bytes.len();
            bytes.push(0);
            assert_eq!(split(&bytes), Some((PUBLISH, &body[..], whole)));
        }
        assert_eq!(split(&[]), None);
        assert_eq!(split(&[PUBLISH, 0xff, 0xff, 0xff, 0xff, 1]), None);
    }

    #[test]
    fn answers() {
        let hear = |bytes| Mosquitto.hear(bytes);
        assert_eq!(hear(&[CONNACK, 2, 0, 0]), (4, Heard::Connected { pong: false }));
        assert_eq!(hear(&[CONNACK, 2, 0, 5]).1, Heard::Refused(&[CONNACK, 2, 0, 5]));
        assert_eq!(hear(&[SUBACK, 3, 0, 1, 0]), (5, Heard::Subscribed(&[0, 1, 0])));
        assert!(matches!(hear(&[SUBACK, 3, 0, 1, 0x80]).1, Heard::Refused(_)));
        let mut out = Vec::new();
        Mosquitto.publish("c", b"hi", &mut out);
        assert_eq!(out, [PUBLISH, 5, 0, 1, b'c', b'h', b'i']);
        assert_eq!(hear(&out), (7, Heard::Delivery(&[0, 1, b'c', b'h', b'i'])));
        assert!(!Mosquitto.flushed(&[CONNACK, 2, 0, 0]).unwrap());
        assert!(Mosquitto.flushed(&[CONNACK, 2, 0, 0, PINGRESP, 0]).unwrap());
        assert!(Mosquitto.flushed(&[CONNACK, 2, 0, 5]).is_err());
    }

    #[test]
    fn kept_messages_are_numbered_and_acknowledged() {
        let mut out = Vec::new();
        Kept.publish("c", b"hi", &mut out);
        assert_eq!(out, [PUBLISH_AT_LEAST_ONCE, 7, 0, 1, b'c', 0, 1, b'h', b'i']);
        assert!(Kept.flushed(&[CONNACK, 2, 0, 0, PUBACK, 2, 0, 1, PINGRESP, 0]).unwrap());
        let (_, Heard::Delivery(body)) = Kept.hear(&out) else { panic!("no delivery") };
        let (mut answer, mut wanted) = (Vec::new(), Vec::new());
        Kept.acknowledge(body, &mut answer);
        wire::client_frame(wire::BINARY, &[PUBACK, 2, 0, 1], &mut wanted);
        assert_eq!(answer, wanted);
        Kept.acknowledge(&[0], &mut answer);
        assert_eq!(answer, wanted, "what is no message is not acknowledged");
    }
}
