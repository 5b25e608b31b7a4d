//! How the messages of a server stand in its stream of bytes.
//!
//! Owns where a part ends. Never reads a message. Invariant: what is not whole yet is no part.

use drumline::wire::frame::server_frame_bytes;

/// How messages stand in the stream, behind the head of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// In frames of a WebSocket.
    WebSocket,
    /// A message a line.
    Lines,
    /// A message a `data` line of text/event-stream.
    Events,
}

/// What stands at the front of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A frame, with its header.
    Frame(&'a [u8]),
    /// A message by itself.
    Message(&'a [u8]),
}

impl Framing {
    /// The part at the front and the bytes that it takes; `None`: not whole yet.
    pub fn part(self, bytes: &[u8]) -> Option<(usize, Part<'_>)> {
        if self == Framing::WebSocket {
            let length = server_frame_bytes(bytes)?;
            return Some((length, Part::Frame(bytes.get(..length)?)));
        }
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        // Other lines of an event, and the empty one behind it, say nothing.
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
    fn parts() {
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
