//! Framing of messages in the byte stream of a server.
//!
//! Owns the split of the byte stream into parts. Never interprets a message. Invariant: an
//! incomplete part is not returned.

use drumline::wire::frame::server_frame_bytes;

/// Framing of the messages after the response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// WebSocket frames.
    WebSocket,
    /// One message per line.
    Lines,
    /// One message per `data` line of text/event-stream.
    Events,
}

/// The first part of a byte stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A frame, with its header.
    Frame(&'a [u8]),
    /// A message without its framing.
    Message(&'a [u8]),
}

impl Framing {
    /// The first part and its length in bytes; `None`: it is incomplete.
    pub fn part(self, bytes: &[u8]) -> Option<(usize, Part<'_>)> {
        if self == Framing::WebSocket {
            let length = server_frame_bytes(bytes)?;
            return Some((length, Part::Frame(bytes.get(..length)?)));
        }
        let end = memchr::memchr(b'\n', bytes)?;
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        // Other lines of an event, and the empty line after it, become empty messages.
        let message = match self {
            Framing::Events => line.strip_prefix(b"data: ").unwrap_or_default(),
            _ => line,
        };
        Some((end + 1, Part::Message(message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_parts_are_returned() {
        let frame = [0x81, 2, b'{', b'}', 0x81];
        assert_eq!(Framing::WebSocket.part(&frame), Some((4, Part::Frame(&frame[..4]))));
        assert_eq!(Framing::WebSocket.part(&frame[..3]), None);
        assert_eq!(Framing::Lines.part(b"{}\n{"), Some((3, Part::Message(b"{}"))));
        assert_eq!(Framing::Lines.part(b"{"), None);
        for (text, message) in [("\r\n", ""), ("data: {}\n\n", "{}"), ("id: 7\n", "")] {
            let (_, part) = Framing::Events.part(text.as_bytes()).unwrap();
            assert_eq!(part, Part::Message(message.as_bytes()));
        }
    }
}
