//! Joins WebSocket text messages: several frames become one, whose messages are separated by
//! newlines.
//!
//! Owns the place of the frame that may take further messages. Never changes the order of frames.
//! The invariants: only the last frame of a buffer takes further messages; it has at most
//! [`MESSAGES_MAX`] messages and [`PAYLOAD_MAX`] bytes of payload, unless one message alone is
//! larger. A compressed frame is joined as it is: the blocks of its messages follow one another,
//! because no message refers to an earlier one (RFC 7692, section 7.2.3.3, and RFC 1951).

use crate::wire::deflate::TAIL;
use crate::wire::frame;

/// Maximum messages in a frame, the same as in Centrifugo.
pub const MESSAGES_MAX: u8 = 16;
/// Maximum bytes of the payload of a frame with several messages: a header of four bytes and a
/// stored block can hold it.
const PAYLOAD_MAX: usize = 0xffff;
/// First byte of an unfragmented text frame, and the bit that marks a compressed one.
const TEXT: u8 = 0x81;
const COMPRESSED: u8 = 0x40;
/// Separates two messages.
const SEPARATOR: &[u8] = b"\n";
/// Bytes before the content of a stored block.
const STORED_HEADER: usize = 5;
/// Maximum bytes that join two compressed messages: the end of the first, the separator in a stored
/// block, and the blocks around a message that was not compressed.
pub const JOINT_MAX: usize = 32;

#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    start: usize,
    messages: u8,
}

/// Appends frames to a buffer and joins their messages.
#[derive(Debug, Default)]
pub struct FrameJoiner {
    open: Option<OpenFrame>,
}

impl FrameJoiner {
    /// Appends whole frames to `out`. A text message joins the last frame of `out` if this joiner
    /// wrote it.
    pub fn append(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        let mut rest = frames;
        while !rest.is_empty() {
            let length = frame::server_frame_bytes(rest).unwrap_or(rest.len());
            let (first, others) = rest.split_at(length.min(rest.len()));
            rest = others;
            self.append_frame(first, out);
        }
    }

    fn append_frame(&mut self, frame: &[u8], out: &mut Vec<u8>) {
        let is_text = frame.first().is_some_and(|first| first & !COMPRESSED == TEXT);
        if let Some(open) = &mut self.open
            && is_text
            && open.messages < MESSAGES_MAX
            && join(out, open.start, frame)
        {
            open.messages += 1;
            return;
        }
        self.open = is_text.then_some(OpenFrame { start: out.len(), messages: 1 });
        out.extend_from_slice(frame);
    }

    /// Notes that the first `removed` bytes of the buffer are gone, and that frames which start
    /// before the offset `fixed` of the rest must not change.
    pub fn advance(&mut self, removed: usize, fixed: usize) {
        let start = self.open.and_then(|open| open.start.checked_sub(removed));
        let open = self.open.zip(start).filter(|(_, start)| *start >= fixed);
        self.open = open.map(|(open, start)| OpenFrame { start, ..open });
    }
}

/// Joins a text frame to the last frame of `out`, which starts at `start`. Returns whether the
/// message found room.
fn join(out: &mut Vec<u8>, start: usize, frame: &[u8]) -> bool {
    let last = &out[start..];
    let (Some(before), Some(message)) = (frame::server_payload(last), frame::server_payload(frame))
    else {
        return false;
    };
    let header = last.len() - before.len();
    if before.len() + message.len() + JOINT_MAX > PAYLOAD_MAX {
        return false;
    }
    let (was_compressed, is_compressed) = (last[0] & COMPRESSED != 0, frame[0] & COMPRESSED != 0);
    if !was_compressed && !is_compressed {
        out.extend_from_slice(SEPARATOR);
        out.extend_from_slice(message);
    } else {
        if !was_compressed {
            let stored = stored_header(before.len());
            out[start] |= COMPRESSED;
            out.splice(start + header..start + header, stored);
            end_stored(out);
        }
        out.extend_from_slice(&TAIL);
        if is_compressed {
            out.extend_from_slice(&stored_header(SEPARATOR.len()));
            out.extend_from_slice(SEPARATOR);
            out.extend_from_slice(message);
        } else {
            out.extend_from_slice(&stored_header(SEPARATOR.len() + message.len()));
            out.extend_from_slice(SEPARATOR);
            out.extend_from_slice(message);
            end_stored(out);
        }
    }
    frame::update_length(out, start, header);
    true
}

/// The bytes before `length` bytes of a stored block.
fn stored_header(length: usize) -> [u8; STORED_HEADER] {
    let [low, high] = (length as u16).to_le_bytes();
    [0, low, high, !low, !high]
}

/// Ends a message after a stored block: the type of an empty block, whose length a sender leaves
/// out.
fn end_stored(out: &mut Vec<u8>) {
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::deflate::{Compression, Deflater, Inflater};
    use crate::wire::frame::FrameKind;
    use proptest::prelude::*;

    const PING: &[u8] = &[0x89, 0];

    fn text(message: &[u8], compressed: bool) -> Vec<u8> {
        let mut out = Vec::new();
        frame::write_text(message, &mut out);
        if compressed {
            Deflater::new(Compression::default()).compress_frame(&mut out, 0);
        }
        out
    }

    fn join_all<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut out, mut joiner) = (Vec::new(), FrameJoiner::default());
        frames.into_iter().for_each(|frame| joiner.append(frame, &mut out));
        out
    }

    /// The payloads of frames after decompression; a frame without text as it is.
    fn read(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while !bytes.is_empty() {
            let (frame, rest) = bytes.split_at(frame::server_frame_bytes(bytes).unwrap());
            let payload = frame::server_payload(frame).unwrap();
            let inflate =
                || Inflater::default().inflate(FrameKind::Text, payload, 1 << 20).unwrap();
            payloads.push(match frame[0] {
                0x81 => payload.to_vec(),
                0xc1 => inflate(),
                _ => frame.to_vec(),
            });
            bytes = rest;
        }
        payloads
    }

    #[test]
    fn messages_of_a_run_become_one_frame() {
        let (one, two, three) = (text(b"{\"a\":1}", false), text(b"{}", false), text(b"3", false));
        assert_eq!(join_all([&one[..]]), one, "one message stays as it is");
        assert_eq!(join_all([&[one.clone(), two.clone()].concat()[..], &three]), {
            let mut joined = Vec::new();
            frame::write_text(b"{\"a\":1}\n{}\n3", &mut joined);
            joined
        });
        let split = join_all([&one[..], PING, &two, &three]);
        assert_eq!(read(&split), [&b"{\"a\":1}"[..], PING, b"{}\n3"]);
        let binary = [0x82, 1, 0];
        assert_eq!(read(&join_all([&one[..], &binary, &binary, &two])).len(), 4);
    }

    #[test]
    fn a_frame_has_sixteen_messages_and_64_kib_at_most() {
        let message = text(b"{}", false);
        let payloads = read(&join_all([&message[..]; 40]));
        let messages = |payload: &Vec<u8>| payload.split(|byte| *byte == b'\n').count();
        assert_eq!(payloads.iter().map(messages).collect::<Vec<_>>(), [16, 16, 8]);
        for (length, frames) in [(100, 1), (32_000, 2), (40_000, 3), (70_000, 3)] {
            let long = text(&vec![b'x'; length], false);
            let joined = join_all([&long[..]; 3]);
            assert_eq!(read(&joined).len(), frames, "{length}");
            let content = read(&joined).join(&b'\n');
            assert_eq!(content, vec![vec![b'x'; length]; 3].join(&b'\n'), "{length}");
        }
    }

    #[test]
    fn a_frame_that_was_sent_in_part_takes_no_message() {
        let message = text(b"{}", false);
        for (removed, fixed, expected) in [
            (0, 0, &[&b"ab"[..], b"{}\n{}"][..]),
            (0, 4, &[b"ab", b"{}\n{}"]),
            (0, 8, &[b"ab", b"{}", b"{}"]),
            (4, 0, &[b"{}\n{}"]),
            (4, 4, &[b"{}", b"{}"]),
            (8, 0, &[b"{}"]),
        ] {
            let (mut out, mut joiner) = (text(b"ab", false), FrameJoiner::default());
            joiner.append(&message, &mut out);
            out.drain(..removed);
            joiner.advance(removed, fixed);
            joiner.append(&message, &mut out);
            assert_eq!(read(&out), expected, "{removed} {fixed}");
        }
    }

    proptest! {
        #[test]
        fn every_message_arrives_in_order(
            messages in proptest::collection::vec(("[a-d]{0,400}", any::<bool>(), 0..9), 0..60),
        ) {
            let mut joined = Vec::new();
            let (mut joiner, mut expected, mut plain) = (FrameJoiner::default(), Vec::new(), 0);
            for (message, compressed, ping) in &messages {
                let frame = text(message.as_bytes(), *compressed);
                plain += frame.len();
                joiner.append(&frame, &mut joined);
                expected.push(message.clone().into_bytes());
                if *ping == 0 {
                    joiner.append(PING, &mut joined);
                    expected.push(PING.to_vec());
                }
            }
            let payloads = read(&joined);
            let lines = |payload: &[u8]| payload.split(|byte| *byte == b'\n').count();
            prop_assert!(payloads.iter().all(|payload| lines(payload) <= usize::from(MESSAGES_MAX)));
            prop_assert!(joined.len() <= plain + 2 * expected.len() + JOINT_MAX * messages.len());
            let read: Vec<Vec<u8>> = payloads
                .iter()
                .flat_map(|payload| payload.split(|byte| *byte == b'\n').map(<[u8]>::to_vec))
                .collect();
            prop_assert_eq!(read, expected);
        }
    }
}
