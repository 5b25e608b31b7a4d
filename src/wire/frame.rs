//! WebSocket frames (RFC 6455): decodes, checks and unmasks client frames, writes server frames.
//!
//! Owns the bytes of a message whose fragments are still arriving. Never does I/O and never
//! allocates for an unfragmented message. The invariant: an event is returned only for a complete
//! and legal frame. The first illegal frame ends the connection with a close code.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::base::buffer;

/// Bytes of the longest header that a server writes: two bytes and an eight-byte length.
pub const HEADER_MAX: usize = 10;
/// Bytes of the longest payload of a control frame.
const CONTROL_MAX: u64 = 125;

/// Why the frames of a client end its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A frame breaks the rules of the protocol.
    Protocol(&'static str),
    /// A text message or a close reason is not UTF-8.
    Utf8,
    /// A message exceeds the limit of the connection.
    TooBig,
}

impl Violation {
    /// The close code that is sent to the client.
    pub fn code(self) -> u16 {
        u16::from(match self {
            Violation::Protocol(_) => CloseCode::Protocol,
            Violation::Utf8 => CloseCode::Invalid,
            Violation::TooBig => CloseCode::Size,
        })
    }

    /// The reason that is sent with the close code.
    pub fn reason(self) -> &'static str {
        match self {
            Violation::Protocol(reason) => reason,
            Violation::Utf8 => "invalid utf-8",
            Violation::TooBig => "message size limit exceeded",
        }
    }
}

/// The type of a WebSocket message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Text, which must be UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// The bytes of a message: borrowed if it arrived in one frame, owned if it arrived in fragments.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Bytes in the input buffer.
    Whole(&'a [u8]),
    /// Bytes joined from fragments.
    Joined(Vec<u8>),
}

impl std::ops::Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Whole(bytes) => bytes,
            Payload::Joined(bytes) => bytes,
        }
    }
}

/// The result of decoding one frame.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameEvent<'a> {
    /// A message is complete.
    Message(FrameKind, Payload<'a>),
    /// A compressed message is complete. Text is not yet checked to be UTF-8.
    Compressed(FrameKind, Payload<'a>),
    /// A fragment was kept; the message is incomplete.
    Fragment,
    /// A ping, which a pong with the same bytes must answer.
    Ping(&'a [u8]),
    /// An answer to a ping.
    Pong,
    /// The client closes the connection, with this code if it sent one.
    Close(Option<u16>),
}

/// The fragments of an incomplete message.
#[derive(Debug, Default)]
pub struct Fragments {
    kind: Option<FrameKind>,
    compressed: bool,
    bytes: Vec<u8>,
    /// Number of leading bytes that are checked to be complete UTF-8 characters.
    checked: usize,
}

impl Fragments {
    /// Whether no message is in progress.
    pub fn is_empty(&self) -> bool {
        self.kind.is_none()
    }

    /// Bytes allocated for the fragments.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    fn append(&mut self, payload: &[u8], limit: usize) -> Result<(), Violation> {
        if self.bytes.len() + payload.len() > limit {
            return Err(Violation::TooBig);
        }
        buffer::append(&mut self.bytes, payload);
        if self.kind == Some(FrameKind::Text) && !self.compressed {
            match std::str::from_utf8(&self.bytes[self.checked..]) {
                Ok(_) => self.checked = self.bytes.len(),
                Err(error) if error.error_len().is_some() => return Err(Violation::Utf8),
                Err(error) => self.checked += error.valid_up_to(),
            }
        }
        Ok(())
    }

    fn finish(&mut self, kind: FrameKind) -> Result<FrameEvent<'static>, Violation> {
        let fragments = std::mem::take(self);
        if fragments.compressed {
            return Ok(FrameEvent::Compressed(kind, Payload::Joined(fragments.bytes)));
        }
        if kind == FrameKind::Text && fragments.checked != fragments.bytes.len() {
            return Err(Violation::Utf8);
        }
        Ok(FrameEvent::Message(kind, Payload::Joined(fragments.bytes)))
    }
}

/// Decodes the first frame of `input` and unmasks it in place. Returns the bytes consumed and the
/// event, or `None` if the frame is incomplete. `limit` is the maximum bytes per message, counted
/// before decompression. `compresses` allows compressed messages.
pub fn decode<'a>(
    input: &'a mut [u8],
    fragments: &mut Fragments,
    limit: usize,
    compresses: bool,
) -> Result<Option<(usize, FrameEvent<'a>)>, Violation> {
    let mut cursor = Cursor::new(&*input);
    let parsed = FrameHeader::parse(&mut cursor);
    let Some((header, length)) = parsed.map_err(|_| Violation::Protocol("reserved opcode"))? else {
        return Ok(None);
    };
    let start = cursor.position() as usize;
    let may_be_compressed =
        compresses && matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
    if header.rsv1 && !may_be_compressed {
        return Err(Violation::Protocol("reserved bit set"));
    }
    let mask = check_header(&header, length, fragments, limit)?;
    let end = start + length as usize;
    if input.len() < end {
        return Ok(None);
    }
    let payload = &mut input[start..end];
    unmask(payload, mask);
    Ok(Some((end, frame_event(&header, payload, fragments, limit)?)))
}

fn check_header(
    header: &FrameHeader,
    length: u64,
    fragments: &Fragments,
    limit: usize,
) -> Result<[u8; 4], Violation> {
    if header.rsv2 || header.rsv3 {
        return Err(Violation::Protocol("reserved bit set"));
    }
    let Some(mask) = header.mask else {
        return Err(Violation::Protocol("client frame not masked"));
    };
    match header.opcode {
        OpCode::Control(_) if !header.is_final => {
            return Err(Violation::Protocol("fragmented control frame"));
        }
        OpCode::Control(_) if length > CONTROL_MAX => {
            return Err(Violation::Protocol("control frame too long"));
        }
        OpCode::Data(Data::Continue) if fragments.is_empty() => {
            return Err(Violation::Protocol("continuation frame without a started message"));
        }
        OpCode::Data(Data::Text | Data::Binary) if !fragments.is_empty() => {
            return Err(Violation::Protocol("new message inside a fragmented one"));
        }
        _ => {}
    }
    if length > (limit - fragments.bytes.len().min(limit)) as u64
        && matches!(header.opcode, OpCode::Data(_))
    {
        return Err(Violation::TooBig);
    }
    Ok(mask)
}

fn frame_event<'a>(
    header: &FrameHeader,
    payload: &'a [u8],
    fragments: &mut Fragments,
    limit: usize,
) -> Result<FrameEvent<'a>, Violation> {
    let kind = match header.opcode {
        OpCode::Control(Control::Ping) => return Ok(FrameEvent::Ping(payload)),
        OpCode::Control(Control::Pong) => return Ok(FrameEvent::Pong),
        OpCode::Control(_) => return close_event(payload),
        OpCode::Data(Data::Text) => FrameKind::Text,
        OpCode::Data(Data::Binary) => FrameKind::Binary,
        OpCode::Data(_) => fragments
            .kind
            .ok_or(Violation::Protocol("continuation frame without a started message"))?,
    };
    if header.is_final && fragments.is_empty() {
        if header.rsv1 {
            return Ok(FrameEvent::Compressed(kind, Payload::Whole(payload)));
        }
        if kind == FrameKind::Text && std::str::from_utf8(payload).is_err() {
            return Err(Violation::Utf8);
        }
        return Ok(FrameEvent::Message(kind, Payload::Whole(payload)));
    }
    fragments.compressed |= header.rsv1;
    fragments.kind = Some(kind);
    fragments.append(payload, limit)?;
    if header.is_final { fragments.finish(kind) } else { Ok(FrameEvent::Fragment) }
}

fn close_event(payload: &[u8]) -> Result<FrameEvent<'static>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(FrameEvent::Close(None))
        } else {
            Err(Violation::Protocol("close code cut short"))
        };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(Violation::Protocol("close code not allowed"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Violation::Utf8);
    }
    Ok(FrameEvent::Close(Some(code)))
}

/// XORs `bytes` with the repeated mask, eight bytes at a time between the unaligned ends.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let (head, words, tail) = bytemuck::pod_align_to_mut::<u8, u64>(bytes);
    for (index, byte) in head.iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
    let mask: [u8; 4] = std::array::from_fn(|index| mask[(index + head.len()) % 4]);
    let pattern = u64::from_ne_bytes(std::array::from_fn(|index| mask[index % 4]));
    for word in words {
        *word ^= pattern;
    }
    for (index, byte) in tail.iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
}

/// Appends the header of an unmasked, unfragmented frame.
fn write_header(opcode: OpCode, length: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(length as u64, out).expect("writing to a Vec cannot fail");
}

/// Appends a whole frame.
fn write_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    write_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends the header of a text frame. The caller appends the payload.
pub fn write_text_header(length: usize, out: &mut Vec<u8>) {
    write_header(OpCode::Data(Data::Text), length, out);
}

/// Appends the header of a binary frame. The caller appends the payload.
pub fn write_binary_header(length: usize, out: &mut Vec<u8>) {
    write_header(OpCode::Data(Data::Binary), length, out);
}

/// Appends a text frame.
pub fn write_text(payload: &[u8], out: &mut Vec<u8>) {
    write_frame(OpCode::Data(Data::Text), payload, out);
}

/// Appends a binary frame.
pub fn write_binary(payload: &[u8], out: &mut Vec<u8>) {
    write_frame(OpCode::Data(Data::Binary), payload, out);
}

/// Appends a pong with the payload of a ping.
pub fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write_frame(OpCode::Control(Control::Pong), payload, out);
}

/// Appends a message of either type.
pub fn write_message(kind: FrameKind, payload: &[u8], out: &mut Vec<u8>) {
    let data = match kind {
        FrameKind::Text => Data::Text,
        FrameKind::Binary => Data::Binary,
    };
    write_frame(OpCode::Data(data), payload, out);
}

/// Appends a close frame, which is empty without a code. A reason that is too long is cut.
pub fn write_close(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let Some(code) = code else {
        return write_frame(OpCode::Control(Control::Close), &[], out);
    };
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(CONTROL_MAX as usize - 2)];
    write_header(OpCode::Control(Control::Close), reason.len() + 2, out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason);
}

/// Replaces the payload of the last frame in `out`, which starts at `start`, with a compressed one,
/// and marks the frame as compressed.
pub fn replace_by_compressed(out: &mut Vec<u8>, start: usize, payload: &[u8]) {
    const RSV1: u8 = 0x40;
    let first = out[start] | RSV1;
    out.truncate(start);
    write_header(OpCode::Data(Data::Binary), payload.len(), out);
    out[start] = first;
    out.extend_from_slice(payload);
}

/// Updates the length of the last frame in `out`, which starts at `start` and got more payload than
/// its header of `header` bytes says, but at most 65,535 bytes.
pub fn update_length(out: &mut Vec<u8>, start: usize, header: usize) {
    let length = out.len() - start - header;
    let [high, low] = (length as u16).to_be_bytes();
    match (header, length) {
        (2, ..=125) => out[start + 1] = low,
        (2, _) => _ = out.splice(start + 1..start + 2, [126, high, low]),
        _ => out[start + 2..start + 4].copy_from_slice(&[high, low]),
    }
}

/// The payload of the server frame `bytes`; `None` if the header is incomplete.
pub fn server_payload(bytes: &[u8]) -> Option<&[u8]> {
    let header = match bytes.get(1)? & 0x7f {
        126 => 4,
        127 => HEADER_MAX,
        _ => 2,
    };
    bytes.get(header..)
}

/// Length in bytes of the first server frame in `bytes`, header included; `None` if the header is
/// incomplete.
pub fn server_frame_bytes(bytes: &[u8]) -> Option<usize> {
    let second = *bytes.get(1)?;
    match second & 0x7f {
        126 => Some(4 + usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => Some(10 + u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
        short => Some(2 + usize::from(short)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            medium @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(medium as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        frame
    }

    fn check(first: u8, payload: &[u8], expected: Result<FrameEvent<'static>, Violation>) {
        let mut frame = client_frame(first, payload, [1, 2, 3, 4]);
        let got = decode(&mut frame, &mut Fragments::default(), 1 << 20, false)
            .map(|step| step.expect("a whole frame").1);
        assert_eq!(format!("{got:?}"), format!("{expected:?}"), "{first:#x} {payload:?}");
    }

    #[test]
    fn each_kind_of_frame_gives_its_event_or_violation() {
        check(0x81, b"hi", Ok(FrameEvent::Message(FrameKind::Text, Payload::Whole(b"hi"))));
        check(0x82, b"\xff", Ok(FrameEvent::Message(FrameKind::Binary, Payload::Whole(b"\xff"))));
        check(0x01, b"hi", Ok(FrameEvent::Fragment));
        check(0x89, b"p", Ok(FrameEvent::Ping(b"p")));
        check(0x8a, b"", Ok(FrameEvent::Pong));
        check(0x88, b"", Ok(FrameEvent::Close(None)));
        check(0x88, b"\x03\xe8bye", Ok(FrameEvent::Close(Some(1000))));
        check(0x88, b"\x03", Err(Violation::Protocol("close code cut short")));
        check(0x88, b"\x03\xed", Err(Violation::Protocol("close code not allowed")));
        check(0x88, b"\x03\xe8\xff", Err(Violation::Utf8));
        check(0x81, b"\xff", Err(Violation::Utf8));
        check(0x80, b"x", Err(Violation::Protocol("continuation frame without a started message")));
        check(0xc1, b"x", Err(Violation::Protocol("reserved bit set")));
        check(0x83, b"x", Err(Violation::Protocol("reserved opcode")));
        check(0x09, b"x", Err(Violation::Protocol("fragmented control frame")));
        check(0x89, &[0; 126], Err(Violation::Protocol("control frame too long")));
    }

    #[test]
    fn an_unmasked_frame_is_refused() {
        let mut frame = [0x81, 1, b'x'];
        let got = decode(&mut frame, &mut Fragments::default(), 10, false);
        assert_eq!(got.unwrap_err(), Violation::Protocol("client frame not masked"));
    }

    #[test]
    fn the_size_limit_counts_all_fragments_before_the_payload_arrives() {
        let mut fragments = Fragments::default();
        let mut first = client_frame(0x01, &[b'a'; 8], [0; 4]);
        decode(&mut first, &mut fragments, 10, false).unwrap();
        let mut header_only = client_frame(0x80, &[b'b'; 8], [0; 4])[..6].to_vec();
        assert_eq!(
            decode(&mut header_only, &mut fragments, 10, false).unwrap_err(),
            Violation::TooBig
        );
    }

    #[test]
    fn the_length_of_a_server_frame_is_read_from_its_header() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut frame = Vec::new();
            write_text(&vec![b'x'; length], &mut frame);
            assert_eq!(server_frame_bytes(&frame), Some(frame.len()));
            assert_eq!(server_frame_bytes(&frame[..1]), None);
        }
    }

    proptest! {
        #[test]
        fn masked_payloads_are_unmasked(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            mask: [u8; 4],
            offset in 0usize..9,
        ) {
            let mut bytes = vec![0; offset];
            bytes.extend(client_frame(0x82, &payload, mask));
            let (used, event) = decode(&mut bytes[offset..], &mut Fragments::default(), 1000, false)
                .unwrap().unwrap();
            prop_assert_eq!(event, FrameEvent::Message(FrameKind::Binary, Payload::Whole(&payload)));
            prop_assert_eq!(used + offset, client_frame(0x82, &payload, mask).len() + offset);
        }

        #[test]
        fn fragments_are_joined_to_the_original_message(text: String, cuts in proptest::collection::vec(0usize..40, 0..4)) {
            let bytes = text.as_bytes();
            let mut fragments = Fragments::default();
            let mut at = 0;
            let mut first = 0x01;
            for cut in cuts {
                let end = (at + cut).min(bytes.len());
                let mut frame = client_frame(first, &bytes[at..end], [9, 8, 7, 6]);
                prop_assert_eq!(decode(&mut frame, &mut fragments, 1 << 20, false).unwrap().unwrap().1, FrameEvent::Fragment);
                (at, first) = (end, 0x00);
            }
            let mut frame = client_frame(first | 0x80, &bytes[at..], [9, 8, 7, 6]);
            let event = decode(&mut frame, &mut fragments, 1 << 20, false).unwrap().unwrap().1;
            let FrameEvent::Message(FrameKind::Text, payload) = event else { panic!("{event:?}") };
            prop_assert_eq!(&*payload, bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut fragments = Fragments::default();
            let mut rest = &mut bytes[..];
            while let Ok(Some((used, _))) = decode(rest, &mut fragments, 64, true) {
                rest = &mut std::mem::take(&mut rest)[used..];
            }
        }
    }
}
