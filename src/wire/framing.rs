//! Framing: how messages stand one behind the other on each transport.
//!
//! Owns nothing. Never looks into a message. The invariant: what stands around a message follows
//! from its length alone, so one written message serves everybody who is framed alike. Sources:
//! RFC 6455 for WebSocket, the HTML standard for server-sent events, the Centrifuge protocol for
//! streams of lines and of lengths.

use crate::wire::frame;
use crate::wire::http::Transport;
use crate::wire::protocol::Wire;

/// Bytes of a WebSocket frame's header, at most: a server masks nothing.
const HEADER_MAX: usize = 10;

/// How messages stand one behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Framing {
    /// A WebSocket frame each.
    #[default]
    WebSocket,
    /// A line each in JSON; behind its length in protocol buffers.
    Lines,
    /// A server-sent event each; JSON only.
    Events,
}

impl Framing {
    /// The framing of a transport.
    pub fn of(transport: Transport) -> Self {
        match transport {
            Transport::WebSocket | Transport::UniWebSocket | Transport::Echo => Framing::WebSocket,
            Transport::HttpStream | Transport::UniHttpStream | Transport::LongPolling => {
                Framing::Lines
            }
            Transport::Sse | Transport::UniSse => Framing::Events,
        }
    }

    /// Appends a message.
    pub fn write(self, wire: Wire, message: &[u8], out: &mut Vec<u8>) {
        self.open(wire, message.len(), out);
        out.extend_from_slice(message);
        self.close(wire, out);
    }

    /// Appends the message that `write` appends, whose length is known only then.
    pub fn write_with(self, wire: Wire, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if self != Framing::WebSocket {
            self.open(wire, 0, out);
            write(out);
            return self.close(wire, out);
        }
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_MAX]);
        let message = out.len();
        write(out);
        let end = out.len();
        self.open(wire, end - message, out);
        // The header goes to its place. Only a short message has a shorter one, and is moved.
        let mut header = [0; HEADER_MAX];
        let length = (out.len() - end).min(HEADER_MAX);
        header[..length].copy_from_slice(&out[end..end + length]);
        out.copy_within(message..end, start + length);
        out[start..start + length].copy_from_slice(&header[..length]);
        out.truncate(start + length + end - message);
    }

    /// Appends what stands before a message of `length` bytes.
    pub fn open(self, wire: Wire, length: usize, out: &mut Vec<u8>) {
        match (self, wire) {
            (Framing::WebSocket, Wire::Json) => frame::write_text_header(length, out),
            (Framing::WebSocket, Wire::Protobuf) => frame::write_binary_header(length, out),
            // The message brings its own length along.
            (Framing::Lines, _) => {}
            (Framing::Events, _) => out.extend_from_slice(b"data: "),
        }
    }

    /// Appends what stands behind a message.
    pub fn close(self, wire: Wire, out: &mut Vec<u8>) {
        match (self, wire) {
            (Framing::WebSocket, _) | (Framing::Lines, Wire::Protobuf) => {}
            (Framing::Lines, Wire::Json) => out.push(b'\n'),
            (Framing::Events, _) => out.extend_from_slice(b"\n\n"),
        }
    }

    /// A ping of the protocol: a message without content.
    pub fn ping(self, wire: Wire, unidirectional: bool) -> &'static [u8] {
        match (self, wire) {
            // A WebSocket ping goes with it, which the peer's own end answers.
            (Framing::WebSocket, Wire::Json) if unidirectional => {
                &[0x81, 0x02, b'{', b'}', 0x89, 0x00]
            }
            (Framing::WebSocket, Wire::Json) => &[0x81, 0x02, b'{', b'}'],
            (Framing::WebSocket, Wire::Protobuf) => &[0x82, 0x01, 0x00],
            (Framing::Lines, Wire::Json) => b"{}\n",
            (Framing::Lines, Wire::Protobuf) => &[0x00],
            (Framing::Events, _) => b"data: {}\n\n",
        }
    }

    /// How many bytes the first of whole messages takes with all around it.
    pub fn message_bytes(self, wire: Wire, bytes: &[u8]) -> Option<usize> {
        match (self, wire) {
            (Framing::WebSocket, _) => frame::server_frame_bytes(bytes),
            (Framing::Lines, Wire::Json) => {
                bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
            }
            (Framing::Lines, Wire::Protobuf) => {
                let mut rest = bytes;
                let length = prost::decode_length_delimiter(&mut rest).ok()?;
                Some(bytes.len() - rest.len() + length).filter(|end| *end <= bytes.len())
            }
            (Framing::Events, _) => {
                bytes.windows(2).position(|pair| pair == b"\n\n").map(|at| at + 2)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_ends_where_it_was_written_to_end() {
        let protobuf = b"\x03abc\x01";
        let cases = [
            (Framing::WebSocket, Wire::Json, &b"{\"a\":1}"[..]),
            (Framing::WebSocket, Wire::Protobuf, &b"\x03abc"[..]),
            (Framing::Lines, Wire::Json, &b"{\"a\":1}"[..]),
            (Framing::Lines, Wire::Protobuf, &protobuf[..4]),
            (Framing::Events, Wire::Json, &b"{\"a\":1}"[..]),
        ];
        for (framing, wire, message) in cases {
            let mut bytes = Vec::new();
            framing.write(wire, message, &mut bytes);
            let mut written_with = b"before".to_vec();
            framing.write_with(wire, &mut written_with, |out| out.extend_from_slice(message));
            assert_eq!(&written_with[6..], bytes, "{framing:?} {wire:?}");
            let end = bytes.len();
            assert!(bytes.windows(message.len()).any(|part| part == message));
            for cut in 0..end {
                let found = framing.message_bytes(wire, &bytes[..cut]);
                assert!(found.is_none_or(|found| found > cut), "{framing:?} {wire:?} {cut}");
            }
            for unidirectional in [false, true] {
                bytes.truncate(end);
                bytes.extend_from_slice(framing.ping(wire, unidirectional));
                assert_eq!(framing.message_bytes(wire, &bytes), Some(end), "{framing:?} {wire:?}");
                let ping = framing.message_bytes(wire, &bytes[end..]);
                assert!(ping.is_some_and(|ping| ping >= 1), "{framing:?} {wire:?}");
            }
        }
    }

    #[test]
    fn a_header_fits_whatever_is_written_behind_it() {
        for length in [0, 125, 126, 65_535, 65_536, 200_000] {
            let message = vec![b'x'; length];
            let (mut one, mut other) = (Vec::new(), Vec::new());
            Framing::WebSocket.write(Wire::Json, &message, &mut one);
            Framing::WebSocket
                .write_with(Wire::Json, &mut other, |out| out.extend_from_slice(&message));
            assert_eq!(one, other, "{length}");
        }
    }

    #[test]
    fn messages_are_lines_events_and_frames() {
        let written = |framing: Framing, wire| {
            let mut bytes = Vec::new();
            framing.write(wire, b"{}", &mut bytes);
            bytes
        };
        assert_eq!(written(Framing::Lines, Wire::Json), b"{}\n");
        assert_eq!(written(Framing::Lines, Wire::Protobuf), b"{}");
        assert_eq!(written(Framing::Events, Wire::Json), b"data: {}\n\n");
        assert_eq!(written(Framing::WebSocket, Wire::Json), b"\x81\x02{}");
        assert_eq!(written(Framing::WebSocket, Wire::Protobuf), b"\x82\x02{}");
    }
}
