//! Client side of the wire format: upgrade, masked frames, commands and payload stamps.
//!
//! Owns the formats that the harness sends and parses. Never does I/O. Invariant: a stamped payload
//! is JSON, so every server forwards it unchanged, and has exactly the requested size, if any.

use std::io::Write as _;

/// Key of every upgrade; a fixed one has a fixed answer, so checking costs no hash.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to [`KEY`] (the example of RFC 6455).
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Mask of every frame: random ones would cost time and change nothing for the server.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Where a stamp begins.
const STAMP: &[u8] = b"{\"t\":\"";
/// The same in a string of JSON, as Pusher's protocol carries data, and what stands between the
/// time and the phase in either.
const ESCAPED: &[u8] = br#"{\"t\":\""#;
const BETWEEN: &str = r#"","q":""#;
const BETWEEN_ESCAPED: &str = r#"\",\"q\":\""#;
/// Digits of the scheduled time: 14 of ns are 27 hours.
const TIME_DIGITS: usize = 14;
/// Digits of the phase and of the sequence number behind it.
const PHASE_DIGITS: usize = 3;
const SEQUENCE_DIGITS: usize = 9;
/// First bytes of frames that a client sends: text, binary, and the answer to a ping frame.
pub const TEXT: u8 = 0x81;
/// First byte of a binary frame.
pub const BINARY: u8 = 0x82;
/// First byte of a pong frame.
pub const PONG: u8 = 0x8a;
/// The fewest bytes that a stamped payload has.
pub const PAYLOAD_MIN: usize = 48;

/// Path of Drumline's WebSocket endpoint.
pub const PATH: &str = "/connection/websocket";

/// Appends an upgrade request for `path`; `headers` are more lines of it, each with its CRLF.
pub fn upgrade(path: &str, port: u16, headers: &str, out: &mut Vec<u8>) {
    out.extend(bare_upgrade(path, &format!("Host: 127.0.0.1:{port}\r\n{headers}")));
}

/// An upgrade request for `path` with these header lines, each with its CRLF, and those of the
/// upgrade.
pub fn bare_upgrade(path: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\n{headers}Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes()
}

/// Bytes of the response head at the front of `bytes`; `None`: not whole yet.
pub fn head_bytes(bytes: &[u8]) -> Option<usize> {
    find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// Whether a response head accepts the upgrade.
pub fn accepted(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.1 101 ") && find(head, ACCEPT).is_some()
}

/// Appends a masked frame.
pub fn client_frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
}

/// Where the payload of a server's frame starts and how long it is; `None`: its header is not
/// whole yet.
pub fn server_header(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7f {
        126 => Some((4, u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?).into())),
        127 => Some((10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize)),
        short => Some((2, short.into())),
    }
}

/// Appends the first frame of a connection: connect and subscribe at once, as SDKs do.
pub fn hello(channel: &str, out: &mut Vec<u8>) {
    client_frame(TEXT, hello_text(channel).as_bytes(), out);
}

/// The commands of [`hello`].
pub fn hello_text(channel: &str) -> String {
    format!(
        "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}"
    )
}

/// The connect request of a unidirectional client of one channel. With a position, it asks for what
/// was published after that.
pub fn uni_connect(channel: &str, position: Option<&Position>) -> String {
    match position {
        None => format!("{{\"subs\":{{\"{channel}\":{{}}}}}}"),
        Some(Position { epoch, offset }) => format!(
            "{{\"subs\":{{\"{channel}\":{{\"recover\":true,\"epoch\":\"{epoch}\",\
             \"offset\":{offset}}}}}}}"
        ),
    }
}

/// Position of a subscriber in the stream of its channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Epoch of the stream.
    pub epoch: String,
    /// Offset of the last publication received.
    pub offset: u64,
}

impl Position {
    /// Updates the position from a reply or push. The highest offset counts.
    pub fn update(&mut self, text: &[u8]) {
        if let Some(epoch) = field(text, b"\"epoch\":\"") {
            let end = epoch.iter().position(|byte| *byte == b'"').unwrap_or(epoch.len());
            self.epoch = String::from_utf8_lossy(&epoch[..end]).into_owned();
        }
        let mut rest = text;
        while let Some(digits) = field(rest, b"\"offset\":") {
            let end = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            self.offset = self.offset.max(number(&digits[..end]).unwrap_or(0));
            rest = &digits[end..];
        }
    }
}

fn field<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    find(text, name).map(|at| &text[at + name.len()..])
}

/// Appends the first frame of a reconnecting client: connect, and subscribe with recovery.
pub fn recover(channel: &str, position: &Position, out: &mut Vec<u8>) {
    let Position { epoch, offset } = position;
    let text = format!(
        "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\",\
         \"recover\":true,\"epoch\":\"{epoch}\",\"offset\":{offset}}}}}"
    );
    client_frame(TEXT, text.as_bytes(), out);
}

/// Kind of one line in a text frame of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// Nothing: an empty reply is a ping.
    Ping,
    /// A publication.
    Push(&'a [u8]),
    /// An answer without an error: the command's number and the line.
    Reply(u32, &'a [u8]),
    /// An answer with an error.
    Error(&'a [u8]),
    /// None of these.
    Other(&'a [u8]),
}

/// Classifies a line of a text frame.
pub fn line(text: &[u8]) -> Line<'_> {
    if text == b"{}" {
        return Line::Ping;
    }
    if text.starts_with(b"{\"push\":") {
        return Line::Push(text);
    }
    let Some(rest) = text.strip_prefix(b"{\"id\":") else {
        return Line::Other(text);
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if rest[digits..].starts_with(b",\"error\":") {
        return Line::Error(text);
    }
    number(&rest[..digits]).map_or(Line::Other(text), |id| Line::Reply(id as u32, text))
}

/// Stamp of a payload: scheduled time, phase and sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When it should have been sent, in ns since the start of the run.
    pub due_ns: u64,
    /// The phase of the run that it belongs to.
    pub phase: u16,
    /// Its number within its channel, from 1.
    pub sequence: u32,
}

impl Stamp {
    /// Appends a JSON payload of `bytes` bytes, at least [`PAYLOAD_MIN`], with this stamp.
    pub fn write(&self, bytes: usize, out: &mut Vec<u8>) {
        let start = out.len();
        self.begin(out);
        out.extend_from_slice(b",\"p\":\"");
        out.resize((start + bytes).saturating_sub(2).max(out.len()), b'x');
        out.extend_from_slice(b"\"}");
    }

    /// Appends an object that is still open, with this stamp.
    fn begin(&self, out: &mut Vec<u8>) {
        let Stamp { due_ns, phase, sequence } = self;
        let written = write!(
            out,
            "{{\"t\":\"{due_ns:0t$}\",\"q\":\"{phase:0p$}{sequence:0s$}\"",
            t = TIME_DIGITS,
            p = PHASE_DIGITS,
            s = SEQUENCE_DIGITS
        );
        debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
    }

    /// Appends a quote of a share with this stamp: a document of which little changes from one
    /// message to the next.
    fn write_quote(&self, out: &mut Vec<u8>) {
        self.begin(out);
        let nth = u64::from(self.sequence);
        let (bid, size) = (10_000 + nth * 7 % 100, 1_000 + nth * 3 % 20 * 100);
        let price = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
        let written = write!(
            out,
            ",\"symbol\":\"DRUM\",\"name\":\"Drumline Holdings N.V.\",\"isin\":\"NL0012345678\",\
             \"venue\":\"XAMS\",\"currency\":\"EUR\",\"session\":\"continuous\",\"open\":100.42,\
             \"high\":101.87,\"low\":99.63,\"close\":100.18,\"bid\":{},\"bidSize\":{size},\
             \"ask\":{},\"askSize\":{},\"last\":{},\"volume\":{},\"currencySymbol\":\"\u{20ac}\"}}",
            price(bid),
            price(bid + 2),
            size + 300,
            price(bid + 1),
            1_834_211 + nth * 25,
        );
        debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
    }

    /// The stamps of all payloads in `text`, in order.
    pub fn all(mut text: &[u8]) -> impl Iterator<Item = Self> + '_ {
        std::iter::from_fn(move || {
            let stamp = Stamp::find(text)?;
            text = field(text, STAMP)?;
            Some(stamp)
        })
    }

    /// The stamp of the first payload in `text`.
    pub fn find(text: &[u8]) -> Option<Self> {
        let (at, between) = match find(text, STAMP) {
            Some(at) => (at + STAMP.len(), BETWEEN),
            None => (find(text, ESCAPED)? + ESCAPED.len(), BETWEEN_ESCAPED),
        };
        let time = text.get(at..at + TIME_DIGITS)?;
        let at = at + TIME_DIGITS + between.len();
        let phase = text.get(at..at + PHASE_DIGITS)?;
        let at = at + PHASE_DIGITS;
        let sequence = text.get(at..at + SEQUENCE_DIGITS)?;
        Some(Stamp {
            due_ns: number(time)?,
            phase: number(phase)? as u16,
            sequence: number(sequence)? as u32,
        })
    }
}

/// Kind of data of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Filling, up to so many bytes in all, at least [`PAYLOAD_MIN`].
    Filled(usize),
    /// A quote of a share, of about 350 bytes.
    Quote,
}

impl Data {
    /// Appends the payload with this stamp.
    pub fn write(self, stamp: &Stamp, out: &mut Vec<u8>) {
        match self {
            Data::Filled(bytes) => stamp.write(bytes, out),
            Data::Quote => stamp.write_quote(out),
        }
    }
}

/// The data of a push: what lies between `"data":` and the object's end. Only for payloads that
/// hold no closing brace within, as ours.
pub fn data(push: &[u8]) -> Option<&[u8]> {
    let at = find(push, b"\"data\":")? + b"\"data\":".len();
    let end = push[at..].iter().position(|&byte| byte == b'}')?;
    Some(&push[at..at + end + 1])
}

/// The first place of `what` in `text`.
pub fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use drumline::wire::frame::{Fragments, FrameEvent, FrameKind, decode};

    #[test]
    fn stamps_come_back_and_sizes_are_exact() {
        let stamp = Stamp { due_ns: 1_234_567_890, phase: 7, sequence: 42 };
        for bytes in [PAYLOAD_MIN, 128, 512] {
            let mut payload = Vec::new();
            stamp.write(bytes, &mut payload);
            assert_eq!(payload.len(), bytes);
            serde_json::from_slice::<serde_json::Value>(&payload).unwrap();
            let mut push = br#"{"push":{"channel":"c","pub":{"data":"#.to_vec();
            push.extend(&payload);
            push.extend(br#","offset":5}}}"#);
            assert_eq!(Stamp::find(&push), Some(stamp));
            assert_eq!(data(&push), Some(&payload[..]));
            let string = serde_json::to_vec(&String::from_utf8(payload).unwrap()).unwrap();
            assert_eq!(Stamp::find(&string), Some(stamp), "in a string of JSON");
        }
        assert_eq!(Stamp::find(b"{\"t\":\"1"), None);
    }

    #[test]
    fn quotes_differ_a_little() {
        let quote = |sequence| {
            let mut out = Vec::new();
            Data::Quote.write(&Stamp { due_ns: 5, phase: 3, sequence }, &mut out);
            out
        };
        let (one, other) = (quote(1), quote(2));
        assert_eq!(Stamp::find(&other).unwrap().sequence, 2);
        serde_json::from_slice::<serde_json::Value>(&one).unwrap();
        assert!((200..=500).contains(&one.len()), "{} bytes", one.len());
        let different = one.iter().zip(&other).filter(|(one, other)| one != other).count();
        assert!((5..one.len() / 8).contains(&different), "{different} bytes differ");
    }

    #[test]
    fn the_engine_reads_our_frames() {
        for bytes in [0, 125, 126, 70_000] {
            let mut frame = Vec::new();
            client_frame(TEXT, &vec![b'a'; bytes], &mut frame);
            let (used, event) =
                decode(&mut frame.clone(), &mut Fragments::default(), 1 << 20, false)
                    .map(|step| step.map(|(used, event)| (used, format!("{event:?}"))))
                    .unwrap()
                    .unwrap();
            assert_eq!(used, frame.len());
            let wanted = FrameEvent::Message(
                FrameKind::Text,
                drumline::wire::frame::Payload::Joined(vec![b'a'; bytes]),
            );
            assert_eq!(event.replace("Whole", "Joined"), format!("{wanted:?}"));
        }
    }

    #[test]
    fn positions_and_recovered_stamps() {
        let mut text = b"{\"id\":2,\"subscribe\":{\"epoch\":\"abcd\",\"publications\":[".to_vec();
        for sequence in [1, 2] {
            text.extend(b"{\"data\":");
            Stamp { due_ns: 5, phase: 3, sequence }.write(64, &mut text);
            text.extend(format!(",\"offset\":{}}},", sequence + 6).bytes());
        }
        text.extend(b"],\"offset\":6}}");
        let sequences: Vec<u32> = Stamp::all(&text).map(|stamp| stamp.sequence).collect();
        assert_eq!(sequences, [1, 2]);
        let mut position = Position::default();
        position.update(&text);
        assert_eq!(position, Position { epoch: "abcd".into(), offset: 8 });
        position.update(b"{\"push\":{}}");
        assert_eq!(position.offset, 8);
    }

    #[test]
    fn lines_of_a_frame_are_classified() {
        assert_eq!(line(b"{}"), Line::Ping);
        assert_eq!(line(b"{\"push\":{}}"), Line::Push(b"{\"push\":{}}"));
        let reply = b"{\"id\":12,\"connect\":{}}";
        assert_eq!(line(reply), Line::Reply(12, reply));
        let error = b"{\"id\":2,\"error\":{\"code\":103}}";
        assert_eq!(line(error), Line::Error(error));
        assert_eq!(line(b""), Line::Other(b""));
    }

    #[test]
    fn only_a_101_with_the_right_key_is_an_accepted_upgrade() {
        let key = tungstenite::handshake::derive_accept_key(KEY.as_bytes());
        assert_eq!(key.as_bytes(), ACCEPT);
        let head = format!("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: {key}\r\n\r\n");
        assert_eq!(head_bytes(head.as_bytes()), Some(head.len()));
        assert!(accepted(head.as_bytes()));
        assert!(!accepted(b"HTTP/1.1 503 x\r\n\r\n"));
    }
}
