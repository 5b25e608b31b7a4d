//! Framing: the bytes around each message on a transport.
//!
//! Owns no state. Never reads a message. The invariant: the bytes around a message depend only on
//! its length, so one written message serves all connections with the same framing. Sources: RFC
//! 6455 for WebSocket, the HTML standard for server-sent events, and the Centrifuge protocol for
//! newline-delimited and length-delimited messages.

use crate::wire::frame;
use crate::wire::http::Transport;
use crate::wire::protocol::Wire;

/// Maximum bytes of the header of a WebSocket frame; server frames have no mask.
const HEADER_MAX: usize = 10;

/// How messages are delimited on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Framing {
    /// Each message is a WebSocket frame.
    #[default]
    WebSocket,
    /// Each JSON message is a line; each protobuf message follows its length.
    Lines,
    /// Each message is a server-sent event; JSON only.
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

    /// Appends a message that `write` produces, whose length is not known in advance.
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
        // Copy the header in front of the message. If the header is shorter than the reserved
        // bytes, move the message forward.
        let mut header = [0; HEADER_MAX];
        let length = (out.len() - end).min(HEADER_MAX);
        header[..length].copy_from_slice(&out[end..end + length]);
        out.copy_within(message..end, start + length);
        out[start..start + length].copy_from_slice(&header[..length]);
        out.truncate(start + length + end - message);
    }

    /// Appends the bytes that precede a message of `length` bytes.
    pub fn open(self, wire: Wire, length: usize, out: &mut Vec<u8>) {
        match (self, wire) {
            (Framing::WebSocket, Wire::Json) => frame::write_text_header(length, out),
            (Framing::WebSocket, Wire::Protobuf) => frame::write_binary_header(length, out),
            // A protobuf message already includes its length.
            (Framing::Lines, _) => {}
            (Framing::Events, _) => out.extend_from_slice(b"data: "),
        }
    }

    /// Appends the bytes that follow a message.
    pub fn close(self, wire: Wire, out: &mut Vec<u8>) {
        match (self, wire) {
            (Framing::WebSocket, _) | (Framing::Lines, Wire::Protobuf) => {}
            (Framing::Lines, Wire::Json) => out.push(b'\n'),
            (Framing::Events, _) => out.extend_from_slice(b"\n\n"),
        }
    }

    /// A framed ping of the protocol: an empty message.
    pub fn ping(self, wire: Wire, unidirectional: bool) -> &'static [u8] {
        match (self, wire) {
            // Unidirectional clients send no pongs, so a WebSocket ping follows: the client's
            // WebSocket library answers it.
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

    /// Bytes of the first framed message in `bytes`; `None` if its end or its header is missing.
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
    fn the_end_of_a_framed_message_is_found() {
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
    fn a_header_written_after_its_message_is_the_same() {
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
    fn each_framing_writes_its_delimiters() {
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
