//! Framing: which bytes of a stream are overhead and which are messages.
//!
//! Owns the state of the parsing, so that the bytes may come in any pieces. Never keeps a message.

/// What every event begins with.
const DATA: &[u8] = b"data: ";

/// How messages are framed on a connection.
#[derive(Debug)]
pub enum Framing {
    /// Each message is a line; its end is overhead.
    Lines,
    /// Server-sent events: everything but the text behind `data: ` is overhead.
    Events(Event),
    /// WebSocket frames: their headers are overhead.
    Frames(Frame),
}

/// The line of a server-sent event that is read.
#[derive(Debug, Default)]
pub struct Event {
    column: usize,
    other: bool,
}

/// The frame that is read.
#[derive(Debug, Default)]
pub struct Frame {
    header: [u8; 14],
    filled: usize,
    payload: u64,
}

impl Framing {
    /// A stream of server-sent events.
    pub fn events() -> Framing {
        Framing::Events(Event::default())
    }

    /// One direction of a WebSocket.
    pub fn frames() -> Framing {
        Framing::Frames(Frame::default())
    }

    /// The number of overhead bytes among the next bytes of the stream.
    pub fn overhead(&mut self, bytes: &[u8]) -> u64 {
        match self {
            Framing::Lines => bytes.iter().filter(|byte| **byte == b'\n').count() as u64,
            Framing::Events(event) => {
                bytes.iter().filter(|byte| event.is_overhead(**byte)).count() as u64
            }
            Framing::Frames(frame) => frame.overhead(bytes),
        }
    }
}

impl Event {
    fn is_overhead(&mut self, byte: u8) -> bool {
        if byte == b'\n' {
            *self = Event::default();
            return true;
        }
        let column = self.column;
        self.column += 1;
        if let Some(expected) = DATA.get(column) {
            self.other |= byte != *expected;
            return true;
        }
        self.other
    }
}

impl Frame {
    fn overhead(&mut self, mut bytes: &[u8]) -> u64 {
        let mut overhead = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let length = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
                self.payload -= length as u64;
                bytes = &bytes[length..];
                continue;
            }
            self.header[self.filled] = *first;
            self.filled += 1;
            overhead += 1;
            bytes = rest;
            if self.filled >= 2 && self.filled == self.header_length() {
                self.payload = self.payload_length();
                self.filled = 0;
            }
        }
        overhead
    }

    /// Bytes of the length behind the first two bytes.
    fn extended(&self) -> usize {
        match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn header_length(&self) -> usize {
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + self.extended() + mask
    }

    fn payload_length(&self) -> u64 {
        match self.extended() {
            0 => u64::from(self.header[1] & 0x7f),
            length => {
                self.header[2..2 + length].iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The overhead of a stream, in pieces of every size.
    fn overhead(framing: impl Fn() -> Framing, bytes: &[u8]) -> u64 {
        let in_pieces = |size: usize| {
            let mut framing = framing();
            bytes.chunks(size).map(|piece| framing.overhead(piece)).sum::<u64>()
        };
        let whole = in_pieces(bytes.len());
        for size in 1..bytes.len() {
            assert_eq!(in_pieces(size), whole, "pieces of {size}");
        }
        whole
    }

    #[test]
    fn the_end_of_a_line_is_overhead() {
        assert_eq!(overhead(|| Framing::Lines, b"{\"a\":1}\n{}\n"), 2);
    }

    #[test]
    fn all_of_an_event_but_its_data_is_overhead() {
        let events = Framing::events;
        assert_eq!(overhead(events, b"data: {\"a\":1}\n\n"), 8);
        assert_eq!(overhead(events, b"data: {\"a\":1}\nid: 12345\n\ndata: {}\n\n"), 8 + 10 + 8);
        assert_eq!(overhead(events, b": a comment\n\n"), 13);
        assert_eq!(overhead(events, b"dat"), 3);
    }

    #[test]
    fn the_header_of_a_frame_is_overhead_at_every_length() {
        let frames = Framing::frames;
        let frame = |header: &[u8], length: usize| [header, &vec![b'x'; length]].concat();
        assert_eq!(overhead(frames, &frame(&[0x81, 2], 2)), 2);
        assert_eq!(overhead(frames, &[0x89, 0]), 2, "an empty ping");
        assert_eq!(overhead(frames, &frame(&[0x81, 0x85, 1, 2, 3, 4], 5)), 6, "masked");
        let long = frame(&[0x81, 126, 0, 200], 200);
        let longer = frame(&[0x81, 127, 0, 0, 0, 0, 0, 0, 1, 0], 256);
        assert_eq!(overhead(frames, &[long, longer, frame(&[0x81, 1], 1)].concat()), 4 + 10 + 2);
    }
}
