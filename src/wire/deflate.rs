//! permessage-deflate (RFC 7692) without context takeover: frames made smaller, and what clients
//! made smaller read back.
//!
//! Owns one compressor and one decompressor, for all connections of a shard: no message refers to
//! one before it. Neither is there before it is needed. The invariants: what would not get smaller
//! goes as it is; a message takes no more memory than its limit, and no longer than a shard may be
//! held up, however it was made.

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use crate::wire::frame::{self, FrameKind, Violation};

/// The name of the extension.
const NAME: &str = "permessage-deflate";
/// What an offer is answered with, and one that names the largest window.
const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const ACCEPTED_WINDOW: &str = "permessage-deflate; server_no_context_takeover; \
                               client_no_context_takeover; server_max_window_bits=15";
/// The largest window, in bits: ours, and what any smaller one can be read with.
const WINDOW_BITS: u8 = 15;
/// What a sender leaves out behind a message: the length of an empty stored block.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The same, and a last block, which ends the stream if the message was whole.
const END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
/// Payloads longer than this go out as they are: compressing them takes over a millisecond.
const DEFLATED_MAX: usize = 64 * 1024;
/// The same for levels that take their time.
const DEFLATED_MAX_THOROUGH: usize = 16 * 1024;
/// The last level that is quick.
const QUICK_LEVEL: u8 = 6;
/// Blocks of a message that are read whatever it holds, and bytes for which it may have one more. A
/// block without content takes up to 4 us: a 64 KiB message of nothing else took 13 ms.
const BLOCKS: usize = 64;
const BLOCK_BYTES: usize = 8 * 1024;
/// What reading a message takes, in bytes that could be inflated meanwhile: a block past those of
/// an ordinary message and its end, and the message itself.
const FREE_BLOCKS: usize = 8;
const BLOCK_COST: usize = 2048;
const MESSAGE_COST: usize = 512;
/// Bytes inflated in a turn past which compressed messages wait for the next.
const TURN_BYTES: usize = 64 * 1024;
/// A buffer that grew beyond this is not kept.
const KEPT_BYTES: usize = 64 * 1024;

/// How messages of a server are made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// From 1, the quickest, to 9.
    pub level: u8,
    /// Bytes below which a message goes as it is.
    pub min_bytes: usize,
}

impl Default for Compression {
    fn default() -> Self {
        Compression { level: 1, min_bytes: 0 }
    }
}

/// The answer to a client's offers, the first that can be taken; `None`: none can. `offers` is the
/// value of Sec-WebSocket-Extensions.
pub fn negotiate(offers: &str) -> Option<&'static str> {
    offers.split(',').find_map(accept)
}

/// The answer to one offer. One with a parameter that is unknown, wrong or given twice is none.
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
            // A smaller window than the one that all share.
            ("server_max_window_bits", Some(bits)) => bits == "15",
            _ => false,
        };
        if !legal || seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    let named = seen.contains(&"server_max_window_bits");
    Some(if named { ACCEPTED_WINDOW } else { ACCEPTED })
}

/// Whether this is a window's size in bits, without zeros in front.
fn is_window(bits: &str) -> bool {
    matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

/// Makes frames smaller.
#[derive(Default)]
pub struct Deflater {
    compression: Compression,
    state: Option<Deflate>,
    packed: Vec<u8>,
}

impl Deflater {
    /// One that has not been used yet.
    pub fn new(compression: Compression) -> Self {
        Deflater { compression, state: None, packed: Vec::new() }
    }

    /// Compresses the frame that `out` has from `start` to its end, if that makes it smaller.
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
        // What fills this is no shorter, or is not all of it.
        self.packed.resize(payload.len() + TAIL.len(), 0);
        let status = state.compress(payload, &mut self.packed, DeflateFlush::SyncFlush);
        let packed = state.total_out() as usize;
        if status == Ok(Status::Ok) && packed < self.packed.len() {
            frame::replace_by_compressed(out, start, &self.packed[..packed - TAIL.len()]);
        }
    }
}

/// Reads compressed messages.
#[derive(Default)]
pub struct Inflater {
    state: Option<Inflate>,
    spare: Vec<u8>,
    spent: usize,
}

impl Inflater {
    /// A new turn begins.
    pub fn renew(&mut self) {
        self.spent = 0;
    }

    /// Whether this turn has read as many compressed messages as it may.
    pub fn is_spent(&self) -> bool {
        self.spent > TURN_BYTES
    }

    /// What a compressed message says, of at most `limit` bytes. Give the bytes back when they
    /// have been used.
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

    /// Takes bytes back that a message was read into.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() <= KEPT_BYTES {
            self.spare = bytes;
        }
    }

    /// Reads a message into `out`, which is as long as the message afterwards.
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
            // One byte past the limit tells that there are more.
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
                // The sender may say itself that this was the last block, and leave it at that.
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

/// Makes room for `bytes`, and for no more than `limit`.
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

    /// A frame of this payload, and what compression makes of it.
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

    /// Parts of a message, each written out by its own flush.
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
    fn an_offer_is_taken_or_passed_over() {
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
    fn a_frame_gets_smaller_or_stays_as_it_is() {
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
    fn other_senders_are_understood() {
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
    fn what_is_malformed_is_refused() {
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
    fn a_bomb_takes_no_more_memory_than_the_limit() {
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
    fn a_turn_reads_so_much_and_no_more() {
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
        fn what_was_compressed_comes_back(text in "[a-f ]{0,4000}", level in 1u8..10) {
            let compression = Compression { level, min_bytes: 0 };
            let (plain, packed) = compressed(text.as_bytes(), compression);
            prop_assert!(packed.len() <= plain.len());
            let payload = frame::server_payload(&packed).unwrap();
            let read = if packed[0] == 0xc1 { inflate(payload, LIMIT).unwrap() } else { payload.to_vec() };
            prop_assert_eq!(read, text.as_bytes());
        }

        #[test]
        fn flushes_do_not_matter(parts in proptest::collection::vec("[a-f]{0,300}", 1..20)) {
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
