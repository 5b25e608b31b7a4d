//! Fossil deltas: a delta describes a target document by its difference from a source document.
//!
//! Owns the format and the tables that find the bytes shared by two documents. Never decides
//! whether to send a delta: it can be slightly longer than the target, so the sender must compare.
//! The invariants: a delta applied to its source gives its target. If the target is UTF-8, so is
//! the delta: JSON connections carry it as a string, so it never splits a character. The work is
//! bounded by the lengths of the documents, for any content.
//!
//! Source of the format: fossil-scm.org, `www/delta_format.wiki`. A delta is the target's length
//! and a newline, then copies (`length@offset,` of the source) and literals (`length:bytes`), then
//! the target's checksum and a semicolon. Numbers are written in base 64. According to the page, a
//! copy of length 0 extends to the end of the source. The SDKs copy nothing, and so does this code.

use std::ops::Range;

/// Length in bytes of a window: the search finds shared parts of at least one window.
const WINDOW: usize = 16;
/// The tables hold the windows of the source that begin at multiples of this.
const STRIDE: usize = 16;
/// Maximum number of windows with the same hash to compare at one position of the target.
const PROBES_MAX: usize = 250;
/// Maximum number of attempts or compared windows per searched byte. When the search reaches it,
/// the rest of the target becomes a literal.
const WORK_PER_BYTE: usize = 8;
/// Maximum entries of a table to keep between deltas: enough for a source of 1 MiB.
const ENTRIES_KEPT: usize = 1 << 16;
/// Maximum bytes of a target that `apply` produces.
pub const TARGET_MAX: usize = 64 << 20;

const NONE: u32 = u32::MAX;
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// The bytes are not a delta, or not a delta of that source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Creates deltas. Keeps its tables between deltas to avoid allocations.
#[derive(Debug, Default)]
pub struct Differ {
    /// The first window of each chain. A chain holds the windows with the same hash.
    heads: Vec<u32>,
    /// For each window of the source, the next window of its chain, which is later in the source.
    followers: Vec<u32>,
}

/// Appends the delta from `source` to `target`. To create many deltas, keep a [`Differ`].
pub fn create(source: &[u8], target: &[u8], out: &mut Vec<u8>) {
    Differ::default().create(source, target, out);
}

impl Differ {
    /// Appends the delta from `source` to `target`. The target must be shorter than 4 GiB, the
    /// limit of the format.
    pub fn create(&mut self, source: &[u8], target: &[u8], out: &mut Vec<u8>) {
        let sayable = |document: &[u8]| u32::try_from(document.len()).is_ok();
        assert!(sayable(target), "the format has 32 bits for a length");
        let source = if sayable(source) { source } else { &[] };
        write_number(target.len(), out);
        out.push(b'\n');
        let (head, tail) = shared_ends(source, target);
        let (from, to) = (head.end(), target.len() - tail.length);
        write_literal(&target[..head.target], out);
        head.write(out);
        self.write_between(source, &target[..to], from, out);
        tail.write(out);
        write_number(checksum(target) as usize, out);
        out.push(b';');
    }

    /// Writes the part of `target` that begins at `from`.
    fn write_between(&mut self, source: &[u8], target: &[u8], from: usize, out: &mut Vec<u8>) {
        let (mut written, mut at) = (from, from);
        let mut work = 0;
        if source.len() >= WINDOW && target.len() - from >= WINDOW {
            self.index(source);
            work = WORK_PER_BYTE * (target.len() - from);
        }
        while work > 0 && at + WINDOW <= target.len() {
            match self.longest_copy(source, target, written..at, &mut work) {
                Some(copy) => {
                    write_literal(&target[written..copy.target], out);
                    copy.write(out);
                    (written, at) = (copy.end(), copy.end());
                }
                None => at += 1,
            }
        }
        write_literal(&target[written..], out);
        self.heads.clear();
        self.heads.shrink_to(ENTRIES_KEPT);
        self.followers.clear();
        self.followers.shrink_to(ENTRIES_KEPT);
    }

    /// Adds the windows of `source` to the tables. The source holds at least one window.
    fn index(&mut self, source: &[u8]) {
        let count = (source.len() - WINDOW) / STRIDE + 1;
        self.heads.resize(count.next_power_of_two(), NONE);
        self.followers.resize(count, NONE);
        // Go backwards, so that a chain begins with the earliest window, which allows the longest
        // copy.
        for nth in (0..count).rev() {
            let head = self.chain(&source[nth * STRIDE..][..WINDOW]);
            self.followers[nth] = self.heads[head];
            self.heads[head] = nth as u32;
        }
    }

    /// Index of the chain of a window.
    fn chain(&self, window: &[u8]) -> usize {
        let [first, second]: [u64; 2] = bytemuck::pod_read_unaligned(window);
        let first = first.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = first.wrapping_add(second.wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
        // The upper bits depend on all bytes of the window.
        mixed.rotate_left(self.heads.len().trailing_zeros()) as usize & (self.heads.len() - 1)
    }

    /// The longest copy around the window at the end of `unwritten`, the part of the target that is
    /// not written yet. `None` if no copy is shorter than a literal.
    fn longest_copy(
        &self,
        source: &[u8],
        target: &[u8],
        unwritten: Range<usize>,
        work: &mut usize,
    ) -> Option<Shared> {
        let at = unwritten.end;
        let window = &target[at..][..WINDOW];
        let mut best = Shared::default();
        let mut next = self.heads[self.chain(window)];
        for _ in 0..PROBES_MAX {
            if next == NONE || *work == 0 {
                break;
            }
            let offset = next as usize * STRIDE;
            next = self.followers[next as usize];
            *work -= 1;
            let ahead_max = (source.len() - offset).min(target.len() - at);
            let length_max = ahead_max + offset.min(unwritten.len());
            if length_max <= best.length || source[offset..][..WINDOW] != *window {
                continue;
            }
            let ahead = shared_start(&source[offset..], &target[at..]);
            let behind = shared_end(&source[..offset], &target[unwritten.clone()]);
            *work = work.saturating_sub((ahead + behind) / WINDOW);
            if ahead + behind > best.length {
                best =
                    Shared { source: offset - behind, target: at - behind, length: ahead + behind };
            }
        }
        best.between_characters(target).if_shorter()
    }
}

/// A range of bytes that the source and the target share.
#[derive(Clone, Copy, Debug, Default)]
struct Shared {
    source: usize,
    target: usize,
    length: usize,
}

impl Shared {
    /// End of the range in the target.
    fn end(&self) -> usize {
        self.target + self.length
    }

    /// Removes split characters at both ends of the range. A split character has at most three
    /// bytes in the range; with more, the target is not UTF-8.
    fn between_characters(mut self, target: &[u8]) -> Self {
        let is_continuation = |at: usize| target.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        for _ in 0..3 {
            if self.length > 0 && is_continuation(self.target) {
                self.source += 1;
                self.target += 1;
                self.length -= 1;
            }
        }
        for _ in 0..3 {
            if self.length > 0 && is_continuation(self.end()) {
                self.length -= 1;
            }
        }
        self
    }

    /// The range if its copy is shorter than its bytes, including the header of a literal that
    /// follows the copy.
    fn if_shorter(self) -> Option<Self> {
        let cost = digits(self.length) + digits(self.source) + "@,0:".len();
        Some(self).filter(|copy| copy.length > cost)
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.length > 0 {
            write_number(self.length, out);
            out.push(b'@');
            write_number(self.source, out);
            out.push(b',');
        }
    }
}

/// The common beginning of both documents, and the common end after it. Most successive documents
/// differ in one place, so the search between has little to do.
fn shared_ends(source: &[u8], target: &[u8]) -> (Shared, Shared) {
    let head = Shared { source: 0, target: 0, length: shared_start(source, target) };
    let head = head.between_characters(target).if_shorter().unwrap_or_default();
    let length = shared_end(source, &target[head.end()..]);
    let tail = Shared { source: source.len() - length, target: target.len() - length, length };
    (head, tail.between_characters(target).if_shorter().unwrap_or_default())
}

/// Number of bytes at the beginning of both slices that are equal.
fn shared_start(one: &[u8], other: &[u8]) -> usize {
    let pairs = one.chunks_exact(WINDOW).zip(other.chunks_exact(WINDOW));
    let whole = WINDOW * pairs.take_while(|(one, other)| one == other).count();
    let pairs = one[whole..].iter().zip(&other[whole..]);
    whole + pairs.take_while(|(one, other)| one == other).count()
}

/// Number of bytes at the end of both slices that are equal.
fn shared_end(one: &[u8], other: &[u8]) -> usize {
    let pairs = one.rchunks_exact(WINDOW).zip(other.rchunks_exact(WINDOW));
    let whole = WINDOW * pairs.take_while(|(one, other)| one == other).count();
    let (one, other) = (&one[..one.len() - whole], &other[..other.len() - whole]);
    let pairs = one.iter().rev().zip(other.iter().rev());
    whole + pairs.take_while(|(one, other)| one == other).count()
}

fn write_literal(bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        write_number(bytes.len(), out);
        out.push(b':');
        out.extend_from_slice(bytes);
    }
}

/// Number of base-64 digits of a number.
fn digits(number: usize) -> usize {
    number.max(1).ilog2() as usize / 6 + 1
}

fn write_number(number: usize, out: &mut Vec<u8>) {
    for nth in (0..digits(number)).rev() {
        out.push(DIGITS[number >> (6 * nth) & 63]);
    }
}

/// The sum of the document's big-endian 32-bit words; the last word is padded with zeros.
fn checksum(document: &[u8]) -> u32 {
    let (words, rest) = document.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let sum = |sum: u32, word: &[u8; 4]| sum.wrapping_add(u32::from_be_bytes(*word));
    words.iter().fold(u32::from_be_bytes(last), sum)
}

/// Applies `delta` to `source`. The target has at most [`TARGET_MAX`] bytes.
pub fn apply(source: &[u8], delta: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut rest = delta;
    let (length, b'\n') = read_number(&mut rest)? else {
        return Err(Malformed("no newline after the length"));
    };
    if length > TARGET_MAX {
        return Err(Malformed("the target is too long"));
    }
    let mut target = Vec::new();
    loop {
        let piece = match read_number(&mut rest)? {
            (sum, b';') => {
                let whole = target.len() == length && rest.is_empty();
                let is_correct = whole && sum == checksum(&target) as usize;
                return is_correct.then_some(target).ok_or(Malformed("wrong length or checksum"));
            }
            (count, b':') => rest.split_off(..count),
            (count, b'@') => match read_number(&mut rest)? {
                (offset, b',') => source.get(offset..).and_then(|source| source.get(..count)),
                _ => return Err(Malformed("no comma after a copy")),
            },
            _ => return Err(Malformed("neither a copy nor a literal")),
        };
        let piece = piece.ok_or(Malformed("a copy or a literal exceeds its input"))?;
        if piece.len() > length - target.len() {
            return Err(Malformed("the target is longer than its length"));
        }
        target.extend_from_slice(piece);
    }
}

/// Reads the number at the beginning of `rest` and the byte after it.
fn read_number(rest: &mut &[u8]) -> Result<(usize, u8), Malformed> {
    let mut number: u32 = 0;
    for (nth, byte) in rest.iter().enumerate() {
        match DIGITS.iter().position(|digit| digit == byte) {
            Some(digit) if number.leading_zeros() >= 6 => number = number << 6 | digit as u32,
            Some(_) => return Err(Malformed("a number exceeds 32 bits")),
            None if nth == 0 => return Err(Malformed("no number")),
            None => {
                *rest = &rest[nth + 1..];
                return Ok((number as usize, *byte));
            }
        }
    }
    Err(Malformed("the delta ends early"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;

    fn delta(source: &[u8], target: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        create(source, target, &mut out);
        out
    }

    /// Creates a delta and checks that it gives the target, is short and splits no character.
    fn checked(differ: &mut Differ, source: &[u8], target: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        differ.create(source, target, &mut out);
        let delta = out.split_off(b"before".len());
        assert_eq!(out, b"before");
        assert_eq!(apply(source, &delta).as_deref(), Ok(target));
        assert!(delta.len() <= target.len() + 20, "{} for {}", delta.len(), target.len());
        if std::str::from_utf8(target).is_ok() {
            assert!(std::str::from_utf8(&delta).is_ok(), "{delta:?} cuts a character");
        }
        delta
    }

    #[test]
    fn numbers_and_checksums_match_the_format() {
        let check = |number, expected: &str| {
            let mut out = Vec::new();
            write_number(number, &mut out);
            assert_eq!(out, expected.as_bytes());
            assert_eq!(digits(number), expected.len());
            out.push(b';');
            assert_eq!(read_number(&mut &out[..]), Ok((number, b';')));
        };
        check(0, "0");
        check(63, "~");
        check(64, "10");
        // The next two numbers are from the page of the format.
        check(6246, "1Xb");
        check(-1101438770i32 as u32 as usize, "2zMM3E");
        check(u32::MAX as usize, "3~~~~~");
        assert_eq!(checksum(b""), 0);
        assert_eq!(checksum(b"abcd"), 0x61626364);
        assert_eq!(checksum(b"abcde"), 0x61626364u32.wrapping_add(0x65000000));
        assert_eq!(checksum(&[0xff; 8]), 0xffff_fffe);
    }

    /// Appends the checksum of `target` to the pieces of a delta.
    fn sealed(pieces: &str, target: &[u8]) -> Vec<u8> {
        let mut delta = pieces.as_bytes().to_vec();
        write_number(checksum(target) as usize, &mut delta);
        delta.push(b';');
        delta
    }

    #[test]
    fn deltas_consist_of_copies_and_literals() {
        let check = |source: &str, target: &str, expected: &str| {
            let expected = sealed(expected, target.as_bytes());
            let found = delta(source.as_bytes(), target.as_bytes());
            assert_eq!(String::from_utf8(found).unwrap(), String::from_utf8(expected).unwrap());
        };
        let long = "a sentence of some length that comes again";
        check("", "", "0\n");
        check(long, "", "0\n");
        check("", "new!", "4\n4:new!");
        check("short", "short", "5\n5:short");
        check("rather short", "rather short", "C\nC@0,");
        check(long, long, "f\nf@0,");
        check(long, &format!("{long}, and more!"), "q\nf@0,B:, and more!");
        check(long, &format!("More: {long}"), "l\n6:More: f@0,");
        check(long, &long.replace("some", "any!"), "f\nE@0,4:any!O@I,");
        // The windows find text that has moved.
        let (before, after) = ("<".repeat(99), ">".repeat(99));
        let moved = format!("{before}{long}{after}");
        check(&format!("{long}, then"), &moved, &format!("3l\n1Z:{before}f@0,1Z:{after}"));
    }

    #[test]
    fn a_delta_never_splits_a_character() {
        // The documents differ in the last or the first byte of a character.
        let mut differ = Differ::default();
        for (one, other) in [("ä", "ö"), ("ä", "ф"), ("€", "₭"), ("😀", "😁"), ("a", "é")]
        {
            let around = "сорок байт текста вокруг знака";
            let source = format!("{around}{one}{around}{one}{around}");
            let target = format!("{around}{other}{around}{other}{around}");
            let delta = checked(&mut differ, source.as_bytes(), target.as_bytes());
            assert!(delta.len() < 50, "{delta:?}");
        }
        // Continuation bytes that are not UTF-8.
        checked(&mut differ, &[0x80; 100], &[0x80; 90]);
    }

    #[test]
    fn malformed_deltas_are_refused() {
        let source = b"0123456789";
        let check = |delta: &[u8], expected: Result<&[u8], Malformed>| {
            let found = apply(source, delta);
            let shown = String::from_utf8_lossy(delta);
            match expected {
                Ok(target) => assert_eq!(found.as_deref(), Ok(target), "{shown:?}"),
                Err(_) => assert!(found.is_err(), "{shown:?} {found:?}"),
            }
        };
        let no = Err(Malformed("any"));
        check(b"0\n0;", Ok(b""));
        check(&sealed("4\n4:abcd", b"abcd"), Ok(b"abcd"));
        check(&sealed("4\n4:abcd", b"abce"), no);
        check(&sealed("5\n4:abcd", b"abcd"), no);
        check(&sealed("3\n4:abcd", b"abcd"), no);
        check(&sealed("D\n3:abcA@0,", b"abc0123456789"), Ok(b"abc0123456789"));
        check(&sealed("D\n3:abcA@0.", b"abc0123456789"), no);
        check(&sealed("7\n0@0,2@8,0:5@1,", b"8912345"), Ok(b"8912345"));
        for text in ["", "0", "\n", "0\n", "0\n0", "0\n;", "0\n1;", "0\n0;0", "1\n0;", "0\n0?"] {
            check(text.as_bytes(), no);
        }
        for text in
            ["A\nA@0,", "A\nA@0;", "A\nB@0,0;", "A\n5@6,0;", "9\nA@0,0;", "5\n6:ab", "5\n@0,"]
        {
            check(text.as_bytes(), no);
        }
        for text in ["~~~~~~\n0;", "4000000\n0;", "3~~~~~\n0;", "A\n3~~~~~@3~~~~~,0;", "\u{e9}\n"] {
            check(text.as_bytes(), no);
        }
    }

    #[test]
    fn a_small_delta_of_a_huge_target_is_refused() {
        let source = vec![b'x'; 1 << 20];
        let mut delta = b"3~~~~~\n".to_vec();
        delta.extend(b"40000@0,".repeat(4000));
        assert_eq!(apply(&source, &delta), Err(Malformed("the target is too long")));
    }

    /// Documents for which an unbounded search would take minutes or hours.
    fn hostile() -> Vec<(Vec<u8>, Vec<u8>)> {
        let length = 1 << 20;
        let same = |byte: u8| vec![byte; length];
        let mut ending = same(b'a');
        ending[length - 1] = b'b';
        let mut middle = same(b'a');
        middle[length / 2] = b'b';
        // Equal windows between windows that all differ.
        let between = |salt: u64| -> Vec<u8> {
            let unlike = |nth: u64| (nth ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            let pair = |nth| [&[0; WINDOW][..], &unlike(nth), &unlike(nth + salt)].concat();
            (0..length as u64 / 32).flat_map(pair).collect()
        };
        vec![
            (same(b'a'), same(b'a')),
            (same(b'a'), ending.clone()),
            (ending, middle.clone()),
            (middle, same(b'a')),
            (between(1), between(1 << 40)),
            (same(0), between(1)),
            (between(1), [b"x", &same(0)[..], b"x"].concat()),
            (b"ab".repeat(length / 2), [b"x", &b"ba".repeat(length / 2)[..], b"x"].concat()),
        ]
    }

    #[test]
    fn hostile_documents_take_bounded_work() {
        let mut differ = Differ::default();
        let begun = std::time::Instant::now();
        for (source, target) in hostile() {
            checked(&mut differ, &source, &target);
        }
        assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
        assert!(differ.heads.capacity() <= ENTRIES_KEPT);
    }

    #[test]
    fn a_reused_differ_gives_the_same_deltas() {
        let mut differ = Differ::default();
        let documents = documents();
        for source in &documents {
            for target in &documents {
                let found = checked(&mut differ, source, target);
                assert_eq!(found, delta(source, target));
            }
        }
    }

    /// Documents of several kinds; documents of one kind are similar.
    fn documents() -> Vec<Vec<u8>> {
        let mut all = vec![Vec::new(), b"{}".to_vec(), b"null".to_vec(), b"[1,2,3]".to_vec()];
        for salt in 0..6u64 {
            let mut text = String::from("{\"rows\":[");
            for row in (0..40u64).filter(|row| (row + salt) % 7 > 0) {
                let price = row * 1931 + (row % 5) * salt;
                let comma = if text.ends_with('[') { "" } else { "," };
                let name = ["Δίκη", "naïve", "東京", "plain", "😀😁"][(row % 5) as usize];
                write!(text, "{comma}{{\"id\":{row},\"name\":\"{name}\",\"price\":{price}}}")
                    .unwrap();
            }
            all.push((text + "]}").into_bytes());
            let byte = |nth: u64| (nth * nth * 31 + nth / 100 * salt) as u8;
            all.push((0..3000 + salt * 10).map(byte).collect());
            all.push(vec![b'0'; 500 + salt as usize]);
        }
        all
    }

    /// Writes the cases of tests/sdk/delta.mjs, one per line: source, target and delta in
    /// hexadecimal.
    #[test]
    #[ignore = "writes a file; scripts/test.sh runs it"]
    fn cases_for_the_sdk() {
        let name = std::env::var_os("DRUMLINE_DELTA_CASES").expect("the file to write");
        let mut lines = String::new();
        let mut differ = Differ::default();
        let documents = documents();
        for source in &documents {
            for target in &documents {
                let delta = checked(&mut differ, source, target);
                let hexadecimal = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
                let [source, target, delta] = [source, target, &delta].map(|it| hexadecimal(it));
                writeln!(lines, "{source},{target},{delta}").unwrap();
            }
        }
        std::fs::write(name, lines).unwrap();
    }

    /// A document and an edited copy of it.
    fn similar() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let bytes = || proptest::collection::vec(0u8..4, 0..400);
        let edits = proptest::collection::vec((any::<u16>(), 0usize..60, bytes()), 0..6);
        (proptest::collection::vec(any::<u8>(), 0..2000), edits).prop_map(|(source, edits)| {
            let mut target = source.clone();
            for (at, count, bytes) in edits {
                let at = at as usize % (target.len() + 1);
                let end = (at + count).min(target.len());
                target.splice(at..end, bytes);
            }
            (source, target)
        })
    }

    fn text() -> impl Strategy<Value = String> {
        let word = prop_oneof!["[a-e€😀ф]{0,9}", Just("a rather long phrase; ".to_owned())];
        proptest::collection::vec(word, 0..30).prop_map(|words| words.concat())
    }

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            proptest::collection::vec(0u8..2, 0..600),
            proptest::collection::vec(0x7eu8..0x82, 0..200),
            (any::<u8>(), 0usize..600).prop_map(|(byte, count)| vec![byte; count]),
        ]
    }

    proptest! {
        #[test]
        fn a_delta_between_any_documents_gives_the_target(source in any_bytes(), target in any_bytes()) {
            checked(&mut Differ::default(), &source, &target);
        }

        #[test]
        fn a_delta_between_similar_documents_gives_the_target((source, target) in similar()) {
            checked(&mut Differ::default(), &source, &target);
        }

        #[test]
        fn a_delta_between_texts_gives_the_target(source in text(), target in text()) {
            checked(&mut Differ::default(), source.as_bytes(), target.as_bytes());
        }

        #[test]
        fn arbitrary_bytes_never_panic(source in any_bytes(), delta in any_bytes()) {
            let _ = apply(&source, &delta);
        }

        #[test]
        fn arbitrary_pieces_never_panic(source in any_bytes(), delta in "[0-9A-Z]{1,2}\n([0-9A~]{0,3}[@:,;]){0,9}") {
            if let Ok(target) = apply(&source, delta.as_bytes()) {
                prop_assert!(target.len() < 64 * 64);
            }
        }

        #[test]
        fn corrupted_deltas_never_panic((source, target) in similar(), at: u16, byte: u8) {
            let mut corrupted = delta(&source, &target);
            let at = at as usize % corrupted.len();
            corrupted[at] = byte;
            let _ = apply(&source, &corrupted);
        }
    }
}
