//! permessage-deflate (RFC 7692) without context takeover: compresses server frames and
//! decompresses client messages.
//!
//! Owns one compressor and one decompressor for all connections of a shard, because no message
//! refers to an earlier one. Both are allocated on first use. The invariants: a payload that would
//! not get smaller is sent uncompressed. Decompressing a message is bounded in memory by the
//! message limit and in time by the work of a turn, for any content.

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use crate::wire::frame::{self, FrameKind, Violation};

/// The name of the extension.
const NAME: &str = "permessage-deflate";
/// The responses to an accepted offer, without and with the window size of the server.
const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const ACCEPTED_WINDOW: &str = "permessage-deflate; server_no_context_takeover; \
                               client_no_context_takeover; server_max_window_bits=15";
/// Window size in bits of the server: the largest, which can also read smaller windows.
const WINDOW_BITS: u8 = 15;
/// The end that a sender removes from each message: the length of an empty stored block.
pub(super) const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The removed end and a final block, which ends the stream if the message is complete.
const END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
/// Longer payloads are sent uncompressed, because compressing them takes over 1 ms.
const DEFLATED_MAX: usize = 64 * 1024;
/// The same limit for levels above [`QUICK_LEVEL`].
const DEFLATED_MAX_THOROUGH: usize = 16 * 1024;
/// The highest compression level that is quick.
const QUICK_LEVEL: u8 = 6;
/// Maximum blocks of a message, plus one block per `BLOCK_BYTES` of content. An empty block takes
/// up to 4 us: a 64 KiB message of empty blocks took 13 ms.
const BLOCKS: usize = 64;
const BLOCK_BYTES: usize = 8 * 1024;
/// The cost of decompression, in bytes that could be inflated in the same time: `BLOCK_COST` per
/// block after the first `FREE_BLOCKS`, which ordinary messages have, and `MESSAGE_COST` per
/// message.
const FREE_BLOCKS: usize = 8;
const BLOCK_COST: usize = 2048;
const MESSAGE_COST: usize = 512;
/// Cost per turn in inflated bytes. After that, compressed messages wait for the next turn.
const TURN_BYTES: usize = 64 * 1024;
/// Maximum bytes of a buffer that is kept for the next message.
const KEPT_BYTES: usize = 64 * 1024;

/// Settings of the compression of server messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Compression level from 1 (fastest) to 9 (smallest).
    pub level: u8,
    /// Messages with fewer bytes are sent uncompressed.
    pub min_bytes: usize,
}

impl Default for Compression {
    fn default() -> Self {
        Compression { level: 1, min_bytes: 0 }
    }
}

/// The response to the first acceptable offer of a client; `None` if none is acceptable. `offers`
/// is the value of Sec-WebSocket-Extensions.
pub fn negotiate(offers: &str) -> Option<&'static str> {
    offers.split(',').find_map(accept)
}

/// The response to one offer; `None` if a parameter is unknown, invalid or repeated.
fn accept(offer: &str) -> Option<&'static str> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let mut seen: Vec<&str> = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (part, None),
        };
        let legal = match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => true,
            ("client_max_window_bits", None) => true,
            ("client_max_window_bits", Some(bits)) => is_window(bits),
            // Smaller windows are refused, because all connections share one compressor.
            ("server_max_window_bits", Some(bits)) => bits == "15",
            _ => false,
        };
        if !legal || seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    let has_window = seen.contains(&"server_max_window_bits");
    Some(if has_window { ACCEPTED_WINDOW } else { ACCEPTED })
}

/// Whether the text is a window size in bits, without leading zeros.
fn is_window(bits: &str) -> bool {
    matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

/// Compresses frames.
#[derive(Default)]
pub struct Deflater {
    compression: Compression,
    state: Option<Deflate>,
    packed: Vec<u8>,
}

impl Deflater {
    /// A compressor, which allocates its state on first use.
    pub fn new(compression: Compression) -> Self {
        Deflater { compression, state: None, packed: Vec::new() }
    }

    /// Compresses the last frame in `out`, which starts at `start`, if that makes it smaller.
    pub fn compress_frame(&mut self, out: &mut Vec<u8>, start: usize) {
        let Compression { level, min_bytes } = self.compression;
        let max = if level > QUICK_LEVEL { DEFLATED_MAX_THOROUGH } else { DEFLATED_MAX };
        let Some(payload) = frame::server_payload(&out[start..]) else { return };
        if payload.len() < min_bytes || payload.len() > max {
            return;
        }
        let new = || Deflate::new(level.into(), false, WINDOW_BITS);
        let state = self.state.get_or_insert_with(new);
        state.reset();
        // Output that fills this buffer is not shorter than the payload, or is incomplete.
        self.packed.resize(payload.len() + TAIL.len(), 0);
        let status = state.compress(payload, &mut self.packed, DeflateFlush::SyncFlush);
        let packed = state.total_out() as usize;
        if status == Ok(Status::Ok) && packed < self.packed.len() {
            frame::replace_by_compressed(out, start, &self.packed[..packed - TAIL.len()]);
        }
    }
}

/// Decompresses messages.
#[derive(Default)]
pub struct Inflater {
    state: Option<Inflate>,
    spare: Vec<u8>,
    spent: usize,
}

impl Inflater {
    /// Starts a new turn.
    pub fn renew(&mut self) {
        self.spent = 0;
    }

    /// Whether this turn has spent its work on compressed messages.
    pub fn is_spent(&self) -> bool {
        self.spent > TURN_BYTES
    }

    /// Decompresses a message of at most `limit` bytes. Return the bytes with [`Self::recycle`]
    /// after use.
    pub fn inflate(
        &mut self,
        kind: FrameKind,
        message: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, Violation> {
        let mut bytes = std::mem::take(&mut self.spare);
        let result = self.read(message, limit, &mut bytes);
        let is_text = || kind == FrameKind::Binary || std::str::from_utf8(&bytes).is_ok();
        match result {
            Ok(()) if is_text() => Ok(bytes),
            Ok(()) => Err(Violation::Utf8),
            Err(violation) => Err(violation),
        }
    }

    /// Keeps the buffer of a message for the next one.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() <= KEPT_BYTES {
            self.spare = bytes;
        }
    }

    /// Decompresses a message into `out` and sets its length to that of the message.
    fn read(&mut self, message: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Violation> {
        const MALFORMED: Violation = Violation::Protocol("malformed compressed message");
        let state = self.state.get_or_insert_with(|| Inflate::new(false, WINDOW_BITS));
        state.reset(false);
        out.clear();
        grow(out, 4 * message.len().max(KEPT_BYTES / 64), limit);
        let (mut filled, mut blocks) = (0, 0);
        let mut parts = [message, &END[..]].into_iter();
        let mut rest = parts.next().unwrap_or_default();
        let result = loop {
            if blocks > BLOCKS + filled / BLOCK_BYTES {
                break Err(Violation::TooBig);
            }
            let before = (state.total_in(), state.total_out());
            // At the limit, room for one more byte shows whether the message is longer.
            let (room, mut past) = (&mut out[filled..], [0]);
            let room = if filled == limit { &mut past[..] } else { room };
            let status = state.decompress(rest, room, InflateFlush::Block);
            let used = (state.total_in() - before.0) as usize;
            let made = (state.total_out() - before.1) as usize;
            rest = &rest[used..];
            if filled + made > limit {
                break Err(Violation::TooBig);
            }
            filled += made;
            if filled == out.len() && filled < limit {
                grow(out, 2 * filled, limit);
                continue;
            }
            blocks += 1;
            match status {
                Err(_) => break Err(MALFORMED),
                // The sender may end the message with a final block of its own.
                Ok(Status::StreamEnd) if rest.is_empty() => break Ok(()),
                Ok(Status::StreamEnd) => state.reset(false),
                Ok(_) if rest.is_empty() && used == 0 => match parts.next() {
                    Some(part) => rest = part,
                    None => break Err(MALFORMED),
                },
                Ok(_) => {}
            }
        };
        self.spent += MESSAGE_COST + filled + BLOCK_COST * blocks.saturating_sub(FREE_BLOCKS);
        out.truncate(filled);
        result
    }
}

/// Grows `out` to `bytes`, but not beyond `limit`.
fn grow(out: &mut Vec<u8>, bytes: usize, limit: usize) {
    let bytes = bytes.min(limit);
    out.reserve_exact(bytes.saturating_sub(out.len()));
    out.resize(bytes, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 64 * 1024;
    const MALFORMED: Violation = Violation::Protocol("malformed compressed message");

    /// A frame with this payload, uncompressed and compressed.
    fn compressed(payload: &[u8], compression: Compression) -> (Vec<u8>, Vec<u8>) {
        let mut plain = b"before".to_vec();
        frame::write_text(payload, &mut plain);
        let mut out = plain.clone();
        Deflater::new(compression).compress_frame(&mut out, 6);
        assert!(out.starts_with(b"before"));
        (plain.split_off(6), out.split_off(6))
    }

    fn inflate(message: &[u8], limit: usize) -> Result<Vec<u8>, Violation> {
        Inflater::default().inflate(FrameKind::Binary, message, limit)
    }

    /// A compressed message with a flush after each part.
    fn flushed(parts: &[&[u8]], flush: DeflateFlush) -> Vec<u8> {
        let mut state = Deflate::new(9, false, WINDOW_BITS);
        let mut out = vec![0; parts.concat().len() * 2 + 100 * (parts.len() + 1)];
        for part in parts {
            let filled = state.total_out() as usize;
            state.compress(part, &mut out[filled..], flush).unwrap();
        }
        out.truncate(state.total_out() as usize);
        out
    }

    #[test]
    fn the_first_acceptable_offer_is_accepted() {
        let check = |offers: &str, expected: Option<&str>| {
            assert_eq!(negotiate(offers), expected, "{offers}");
        };
        check("permessage-deflate", Some(ACCEPTED));
        check("Permessage-Deflate; client_max_window_bits", Some(ACCEPTED));
        check("permessage-deflate; client_max_window_bits=\"12\"", Some(ACCEPTED));
        check("permessage-deflate; server_max_window_bits=15", Some(ACCEPTED_WINDOW));
        check("permessage-deflate;server_max_window_bits=10, permessage-deflate", Some(ACCEPTED));
        let both = "server_no_context_takeover; client_no_context_takeover";
        check(&format!("x-other, permessage-deflate ; {both}"), Some(ACCEPTED));
        for refused in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=09",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; unknown",
            "permessage-deflate;",
        ] {
            check(refused, None);
        }
    }

    #[test]
    fn a_frame_is_compressed_only_if_it_gets_smaller() {
        let payload = b"{\"a\":1}".repeat(30);
        let (plain, packed) = compressed(&payload, Compression::default());
        assert!(packed.len() < 30, "{packed:?}");
        assert_eq!((plain[0], packed[0]), (0x81, 0xc1));
        assert_eq!(inflate(&packed[2..], LIMIT).unwrap(), payload);
        let large = Compression { min_bytes: payload.len() + 1, ..Compression::default() };
        for (payload, compression) in [
            (&payload[..], large),
            (b"short", Compression::default()),
            (b"", Compression::default()),
            (&vec![b'x'; DEFLATED_MAX + 1], Compression::default()),
            (&vec![b'x'; DEFLATED_MAX_THOROUGH + 1], Compression { level: 9, min_bytes: 0 }),
        ] {
            let (plain, packed) = compressed(payload, compression);
            assert!(plain == packed, "{}", payload.len());
        }
    }

    #[test]
    fn messages_of_other_compressors_are_read() {
        let stored = [0, 2, 0, 0xfd, 0xff, b'h', b'i', 0];
        assert_eq!(inflate(&stored, LIMIT).unwrap(), b"hi");
        assert_eq!(inflate(&[0], LIMIT).unwrap(), b"");
        let parts = flushed(&[b"one", b"two", b"three"], DeflateFlush::SyncFlush);
        assert_eq!(inflate(&parts[..parts.len() - 4], LIMIT).unwrap(), b"onetwothree");
        let mut last = flushed(&[b"the last block"], DeflateFlush::Finish);
        assert_eq!(inflate(&last, LIMIT).unwrap(), b"the last block");
        last.push(0);
        assert_eq!(inflate(&last, LIMIT).unwrap(), b"the last block");
        let two = [&last[..last.len() - 1], &last].concat();
        assert_eq!(inflate(&two, LIMIT).unwrap(), b"the last block".repeat(2));
    }

    #[test]
    fn malformed_messages_are_refused() {
        for message in [&b""[..], b"\xff\xff\xff", b"\x06", &[0, 2, 0, 0xfd, 0xff, b'h']] {
            assert_eq!(inflate(message, LIMIT), Err(MALFORMED), "{message:?}");
        }
        let whole = flushed(&[&b"cut short".repeat(9)], DeflateFlush::SyncFlush);
        for cut in 1..whole.len() - 5 {
            assert_eq!(inflate(&whole[..cut], LIMIT), Err(MALFORMED), "{cut}");
        }
        let bytes = flushed(&[b"\xff"], DeflateFlush::SyncFlush);
        let text = Inflater::default().inflate(FrameKind::Text, &bytes[..bytes.len() - 4], LIMIT);
        assert_eq!(text, Err(Violation::Utf8));
    }

    #[test]
    fn a_decompression_bomb_is_refused_at_the_limit() {
        let bomb = flushed(&[&[b'0'; 1 << 20]], DeflateFlush::SyncFlush);
        assert!(bomb.len() < 2000);
        let mut inflater = Inflater::default();
        for limit in [0, 1, 1000, LIMIT] {
            let refused = inflater.inflate(FrameKind::Binary, &bomb, limit);
            assert_eq!(refused, Err(Violation::TooBig));
        }
        let fits = flushed(&[&[b'0'; LIMIT]], DeflateFlush::SyncFlush);
        let whole = inflater.inflate(FrameKind::Binary, &fits[..fits.len() - 4], LIMIT).unwrap();
        assert_eq!((whole.len(), whole.capacity()), (LIMIT, LIMIT));
        let refused = inflater.inflate(FrameKind::Binary, &fits[..fits.len() - 4], LIMIT - 1);
        assert_eq!(refused, Err(Violation::TooBig));
        let blocks = [0, 0, 0, 0xff, 0xff].repeat(1000);
        assert_eq!(inflater.inflate(FrameKind::Binary, &blocks, LIMIT), Err(Violation::TooBig));
    }

    #[test]
    fn a_turn_is_spent_after_bounded_work() {
        let large = flushed(&[&[b'0'; LIMIT]], DeflateFlush::SyncFlush);
        let costly = [0, 0, 0, 0xff, 0xff].repeat(1000);
        for (message, times) in [(&large[..large.len() - 4], 1), (&costly, 1), (&[0], 120)] {
            let mut inflater = Inflater::default();
            for _ in 0..times {
                assert!(!inflater.is_spent());
                let _ = inflater.inflate(FrameKind::Binary, message, LIMIT);
            }
            (0..20).for_each(|_| _ = inflater.inflate(FrameKind::Binary, &[0], LIMIT));
            assert!(inflater.is_spent());
            inflater.renew();
            assert!(!inflater.is_spent());
        }
    }

    proptest! {
        #[test]
        fn compressed_frames_decompress_to_their_payload(text in "[a-f ]{0,4000}", level in 1u8..10) {
            let compression = Compression { level, min_bytes: 0 };
            let (plain, packed) = compressed(text.as_bytes(), compression);
            prop_assert!(packed.len() <= plain.len());
            let payload = frame::server_payload(&packed).unwrap();
            let read = if packed[0] == 0xc1 { inflate(payload, LIMIT).unwrap() } else { payload.to_vec() };
            prop_assert_eq!(read, text.as_bytes());
        }

        #[test]
        fn flushes_inside_a_message_are_read(parts in proptest::collection::vec("[a-f]{0,300}", 1..20)) {
            let all: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
            for flush in [DeflateFlush::SyncFlush, DeflateFlush::FullFlush] {
                let message = [flushed(&all, flush), vec![0]].concat();
                let read = inflate(&message, LIMIT).unwrap();
                prop_assert_eq!(String::from_utf8(read).unwrap(), parts.concat());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(read) = inflate(&bytes, 1000) {
                prop_assert!(read.len() <= 1000);
            }
        }
    }
}
