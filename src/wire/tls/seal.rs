//! Seals what a connection sends.
//!
//! Owns the split of data into records and the order of their sequence numbers. Never allocates
//! for data: each byte is copied once, into the caller's buffer, and encrypted there.

use std::ops::Range;

use aws_lc_rs::aead::{Aad, LessSafeKey};

use crate::base::planted_faults::{PlantedFault, planted};
use crate::wire::tls::alert::AlertDescription;
use crate::wire::tls::keys::{Direction, RecordKeys, Side};
use crate::wire::tls::record::{
    self, ALERT, APPLICATION_DATA, CONTENT_MAX, FULL_RECORD, HANDSHAKE, HEADER, KEY_UPDATE,
    OVERHEAD,
};

/// Records after which the key must change (RFC 8446, 5.5), less what one more `seal` can use.
const RECORDS_MAX: u64 = (1 << 24) - (1 << 16);

/// How much of a sealed buffer a socket has begun to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Plain bytes of the records of which at least one byte was taken.
    pub plain: usize,
    /// The part of the buffer that must still be sent as it is: the rest of the last such record.
    pub rest: Range<usize>,
    /// Whether the alert that ends the direction is among those records.
    pub closes: bool,
}

impl RecordKeys {
    /// Bytes that `seal` writes for `plain` bytes of application data.
    pub const fn sealed_len(plain: usize) -> usize {
        plain + plain.div_ceil(CONTENT_MAX) * OVERHEAD
    }

    /// Joins the pieces and seals them as application data into `out`, which must have exactly
    /// `sealed_len` of their bytes.
    pub fn seal<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, out: &mut [u8]) {
        if out.is_empty() {
            return;
        }
        let mut side = self.side(Direction::Send);
        let key = side.expanded();
        let (mut pieces, mut piece) = (pieces, &[][..]);
        for sealed in out.chunks_mut(FULL_RECORD) {
            let mut room = sealed.len().saturating_sub(OVERHEAD);
            let mut at = HEADER;
            while room > 0 {
                if piece.is_empty() {
                    // Never seals what an earlier call left in the buffer.
                    piece = pieces.next().expect("`out` has the length of the pieces, sealed");
                    continue;
                }
                let (now, later) = piece.split_at(piece.len().min(room));
                sealed[at..at + now.len()].copy_from_slice(now);
                (piece, at, room) = (later, at + now.len(), room - now.len());
            }
            seal_record(&mut side, &key, APPLICATION_DATA, sealed);
        }
    }

    /// Tells how much of what the last `seal` wrote, `out_len` bytes, a socket has begun to take.
    /// Later records are taken back: their sequence numbers seal other data, because no byte of
    /// them has left the process. Call it before anything else is sealed.
    pub fn take_back(&mut self, out_len: usize, taken: usize) -> Begun {
        let taken = taken.min(out_len);
        let (records, begun) = (out_len.div_ceil(FULL_RECORD), taken.div_ceil(FULL_RECORD));
        if !planted(PlantedFault::RecordsNotTakenBack) {
            *self.side(Direction::Send).word -= (records - begun) as u64;
        }
        let end = out_len.min(begun * FULL_RECORD);
        Begun { plain: end - begun * OVERHEAD, rest: taken..end, closes: false }
    }

    /// Appends a sealed alert, which may be the close_notify, to `out`.
    pub fn seal_alert(&mut self, alert: AlertDescription, out: &mut Vec<u8>) {
        self.append(ALERT, &alert.body(), out);
    }

    /// Takes back the alert that was sealed last: no byte of it has left the process, so its
    /// sequence number seals other data.
    pub fn take_back_alert(&mut self) {
        *self.side(Direction::Send).word -= 1;
    }

    /// Appends a sealed KeyUpdate to `out` and changes the keys of what is sealed after it. The
    /// answer to the peer's request does not request one in turn.
    pub fn seal_key_update(&mut self, request_answer: bool, out: &mut Vec<u8>) {
        self.append(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, u8::from(request_answer)], out);
        let mut side = self.side(Direction::Send);
        side.next_keys();
        *side.word = 0;
    }

    /// Whether the keys of this side must change before the next `seal` of at most 1 GiB.
    pub fn needs_key_update(&self) -> bool {
        self.sent() >= RECORDS_MAX && self.suite().limits_records()
    }

    /// Appends a record with this short content.
    fn append(&mut self, inner_type: u8, content: &[u8], out: &mut Vec<u8>) {
        let begin = out.len();
        out.resize(begin + content.len() + OVERHEAD, 0);
        let (_, sealed) = out.split_at_mut(begin);
        sealed[HEADER..HEADER + content.len()].copy_from_slice(content);
        let mut side = self.side(Direction::Send);
        let key = side.expanded();
        seal_record(&mut side, &key, inner_type, sealed);
    }
}

/// Seals the record in place: its content begins behind the header and ends before type and tag.
pub(super) fn seal_record(
    side: &mut Side<'_>,
    key: &LessSafeKey,
    inner_type: u8,
    sealed: &mut [u8],
) {
    let (header, body) = sealed.split_at_mut(HEADER);
    header.copy_from_slice(&record::header(body.len()));
    let (inner, tag) = body.split_at_mut(body.len() - record::TAG);
    if let Some(last) = inner.last_mut() {
        *last = inner_type;
    }
    let sealed = key
        .seal_in_place_separate_tag(side.nonce(*side.word), Aad::from(&*header), inner)
        .expect("a record is short enough for every suite");
    tag.copy_from_slice(sealed.as_ref());
    *side.word += 1;
}
