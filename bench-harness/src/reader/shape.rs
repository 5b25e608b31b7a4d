//! The parts of a server's byte stream: heads, and messages in their framing.
//!
//! Owns the split. Never interprets a message. Invariant: every byte belongs to one part, as
//! framing or as message.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::way::Way;
use crate::wire;

/// What comes next in a byte stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A response head.
    Head,
    /// A body of so many bytes, then the next head.
    Sized(usize),
    /// Lines until the connection ends.
    Lines,
    /// Lines of server-sent events until the connection ends.
    Events,
    /// WebSocket frames.
    Frames,
}

/// A part of a byte stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Bytes of the part.
    pub(super) used: usize,
    /// Where its message is.
    pub(super) message: Range<usize>,
    /// What follows.
    pub(super) next: Shape,
    /// The part ends a response.
    pub(super) last: bool,
}

impl Part {
    /// Bytes that are not the message: headers and framing.
    pub(super) fn framing(&self) -> usize {
        self.used - self.message.len()
    }
}

/// The first part of `bytes`; `None`: it is incomplete.
pub(super) fn part(way: Way, shape: Shape, bytes: &[u8]) -> Result<Option<Part>> {
    match shape {
        Shape::Head => head(way, bytes),
        Shape::Sized(length) => Ok((bytes.len() >= length).then_some(Part {
            used: length,
            message: 0..length,
            next: Shape::Head,
            last: true,
        })),
        Shape::Lines => Ok(line(bytes).map(|used| Part {
            used,
            message: 0..used - 1,
            next: shape,
            last: false,
        })),
        Shape::Events => Ok(line(bytes).map(|used| {
            let data = bytes.starts_with(b"data: ");
            let message = if data { b"data: ".len()..used - 1 } else { 0..0 };
            Part { used, message, next: shape, last: false }
        })),
        Shape::Frames => frame(bytes),
    }
}

/// Bytes of the first line with its end.
fn line(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes).map(|at| at + 1)
}

fn head(way: Way, bytes: &[u8]) -> Result<Option<Part>> {
    let Some(used) = wire::head_bytes(bytes) else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..used]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).unwrap_or_default();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let next = match (status, way, length) {
        ("101", Way::WebSocket | Way::UniWebSocket, _) => Shape::Frames,
        ("204", Way::Polling, _) => Shape::Sized(0),
        ("200", _, Some(length)) if way.asks_again() => {
            Shape::Sized(length.trim().parse().context("a response with a wrong length")?)
        }
        ("200", Way::LongPolling | Way::HttpStream, None) => Shape::Lines,
        ("200", Way::Sse, None) => Shape::Events,
        _ => anyhow::bail!("unexpected answer: {text}"),
    };
    Ok(Some(Part { used, message: 0..0, next, last: false }))
}

fn frame(bytes: &[u8]) -> Result<Option<Part>> {
    let Some((start, length)) = wire::server_header(bytes) else { return Ok(None) };
    if bytes.len() < start + length {
        return Ok(None);
    }
    ensure!(bytes[0] & 0x0f != 8, "the server closed a WebSocket");
    let is_text = matches!(bytes[0] & 0x0f, 1 | 2);
    let message = if is_text { start..start + length } else { 0..0 };
    Ok(Some(Part { used: start + length, message, next: Shape::Frames, last: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Framing and message of every part.
    fn split(way: Way, mut shape: Shape, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let (mut rest, mut found) = (bytes, Vec::new());
        while let Some(part) = part(way, shape, rest).unwrap() {
            found.push((part.framing(), rest[part.message.clone()].to_vec()));
            shape = part.next;
            rest = &rest[part.used..];
            if rest.is_empty() {
                break;
            }
        }
        assert!(rest.is_empty(), "every byte belongs to a part");
        found
    }

    #[test]
    fn every_byte_of_each_way_is_framing_or_message() {
        let ok = "HTTP/1.1 200 OK\r\n\r\n";
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        let poll = format!("{sized}{{}}{sized}[]");
        let found = split(Way::Polling, Shape::Head, poll.as_bytes());
        let lengths: Vec<usize> = found.iter().map(|(framing, _)| *framing).collect();
        assert_eq!(lengths, [sized.len(), 0, sized.len(), 0]);
        assert_eq!(found[3].1, b"[]");
        let stream = format!("{ok}{{}}\n[1]\n");
        let found = split(Way::HttpStream, Shape::Head, stream.as_bytes());
        assert_eq!(found[1..], [(1, b"{}".to_vec()), (1, b"[1]".to_vec())]);
        let events = format!("{ok}data: {{}}\nid: 7\n\n");
        let found = split(Way::Sse, Shape::Head, events.as_bytes());
        assert_eq!(found[1..], [(7, b"{}".to_vec()), (6, Vec::new()), (1, Vec::new())]);
        let mut frames = b"HTTP/1.1 101 x\r\n\r\n".to_vec();
        frames.extend([0x81, 2, b'{', b'}', 0x89, 0]);
        let found = split(Way::UniWebSocket, Shape::Head, &frames);
        assert_eq!(found[1..], [(2, b"{}".to_vec()), (2, Vec::new())]);
    }

    #[test]
    fn a_frame_has_two_header_bytes_up_to_125_bytes_and_four_from_there_on() {
        for (length, header) in [(125, 2), (126, 4), (65_535, 4)] {
            let (message, mut frame) = (vec![b'x'; length], Vec::new());
            drumline::wire::frame::write_text(&message, &mut frame);
            let found = split(Way::UniWebSocket, Shape::Frames, &frame);
            assert_eq!(found, [(header, message)]);
        }
    }

    #[test]
    fn an_incomplete_part_waits_and_a_refusal_is_an_error() {
        let none = |way, shape, bytes: &[u8]| part(way, shape, bytes).unwrap().is_none();
        assert!(none(Way::Polling, Shape::Head, b"HTTP/1.1 200 OK\r\n"));
        assert!(none(Way::Polling, Shape::Sized(3), b"12"));
        assert!(none(Way::Sse, Shape::Events, b"data: 1"));
        assert!(none(Way::WebSocket, Shape::Frames, &[0x81, 2, b'{']));
        let forbidden = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
        assert!(part(Way::Polling, Shape::Head, forbidden).is_err());
        assert!(part(Way::WebSocket, Shape::Frames, &[0x88, 0]).is_err());
    }
}
