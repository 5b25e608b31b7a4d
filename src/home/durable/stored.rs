//! What the store has of a durable stream, as its home knows it.
//!
//! Owns offsets and times as data. Never sends a message. The invariant: the publications of the
//! history are those from `first` to the top; memory has the newest of them, and the store has all.

use std::ops::Range;

use crate::base::planted_faults::{PlantedFault, planted};
use crate::model::storage::{CARRIED_MAX, KeyPlace};

/// Maximum number of remains on disk that a write erases.
pub const ERASED_MAX: u64 = 64;
/// Keys of failed writes of a stream at which no publication with a key is sent until the record is
/// corrected.
pub const FAILED_KEYS_MAX: usize = 1024;
/// Memory charged for a key of a failed write: the list doubles when it grows.
const FAILED_KEY_BYTES: usize = 2 * size_of::<KeyPlace>();

/// The monotonic clock in milliseconds, and unix time in milliseconds at the same moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// The monotonic clock.
    pub now: u64,
    /// Unix time.
    pub unix: u64,
}

impl Times {
    /// Unix time of a moment of the monotonic clock.
    pub fn unix_of(self, moment: u64) -> u64 {
        self.unix.saturating_add(moment).saturating_sub(self.now)
    }

    /// The moment of the monotonic clock of a unix time. What is past is now.
    pub fn moment_of(self, unix: u64) -> u64 {
        self.now.saturating_add(unix.saturating_sub(self.unix))
    }
}

/// Where a stream ends and begins: in memory as committed, or as it will be when the writes that
/// were sent are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the latest publication.
    pub top: u64,
    /// Offset of the oldest publication of the history; `top + 1` if there is none.
    pub first: u64,
    /// Offset of the oldest publication that may be on disk. Those before `first` are remains.
    pub oldest: u64,
    /// When the publication at `first` expires, by the monotonic clock; it may be earlier than
    /// that.
    pub due: u64,
    /// Bytes of the publications of the history, as in the record.
    pub bytes: u64,
}

impl Span {
    /// Bytes of the publications from `first` on, if all are as large as the mean.
    pub fn bytes_from(&self, first: u64) -> u64 {
        let count = (self.top + 1).saturating_sub(self.first);
        let kept = (self.top + 1).saturating_sub(first).min(count);
        let bytes = u128::from(self.bytes) * u128::from(kept) / u128::from(count.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// The offsets of old remains that a write may erase, at most `most`.
    pub fn remains(&self, most: u64) -> Range<u64> {
        self.oldest..self.first.min(self.oldest.saturating_add(most)).max(self.oldest)
    }
}

/// Version of a publication and the version epoch, as the application gave them.
pub type Version = Option<Box<(u64, Box<str>)>>;

/// What the store has of a stream.
#[derive(Debug, Default)]
pub struct StoredPart {
    /// Offset of the oldest publication of the history; the next offset if there is none.
    pub first: u64,
    /// Offset of the oldest publication that may be on disk. Those before `first` are remains.
    pub oldest: u64,
    /// The stream after the writes that were sent.
    pub sent: Span,
    /// The version of a publication that was sent and is not committed.
    pub sent_version: Version,
    /// Whether a write failed, so that the record on disk may differ from the stream.
    pub is_uncertain: bool,
    /// The highest offset that failed writes may have left on disk; 0: none.
    pub remains: u64,
    /// The keys that failed writes may have left on disk.
    pub failed_keys: Vec<KeyPlace>,
    /// Serial of the write that corrects what failed writes may have left; 0: none is sent.
    pub correction: u64,
    /// Whether the store has a record of the stream.
    pub is_recorded: bool,
    /// Whether a write that ends the stream is on its way: the record will be gone.
    pub is_ending: bool,
    /// Top offset of the record that the table of streams has at least.
    pub recorded: u64,
    /// When the stream ends after the writes that were sent, in unix time; 0: no publication was
    /// sent. It never decreases, because a wrong clock may have set the times of some publications.
    pub ends: u64,
    /// When the oldest publication expires, by the monotonic clock; it may be earlier than that.
    pub due: u64,
    /// Bytes of the publications of the history.
    pub bytes: u64,
    /// Older remains than this are erased without a publication: the application or the store has
    /// removed them.
    pub removed_before: u64,
    /// Whether the stream waits for upkeep.
    pub has_upkeep: bool,
}

impl StoredPart {
    /// What the write with this serial must erase because earlier ones failed: offsets behind its
    /// `top`, and keys. Later writes must not erase it again: they may follow one that has written
    /// the same offsets and keys anew.
    pub fn begin_correction(&mut self, serial: u64, top: u64) -> (Range<u64>, Vec<KeyPlace>) {
        let next = top + 1;
        let is_sent = self.correction > 0 && !planted(PlantedFault::ErasedAgain);
        if !self.is_uncertain || is_sent {
            return (next..next, Vec::new());
        }
        self.correction = serial;
        (next..self.remains.max(top) + 1, self.failed_keys.clone())
    }

    /// A write failed. A correction up to the serial `kept` is on disk; a later one has failed,
    /// too. Returns the memory that is free.
    pub fn take_back_correction(&mut self, kept: u64) -> usize {
        let is_kept = (1..=kept).contains(&self.correction);
        let freed = if is_kept { self.end_correction() } else { 0 };
        self.correction = 0;
        freed
    }

    /// The correction is on disk. Returns the memory that is free.
    pub fn end_correction(&mut self) -> usize {
        (self.is_uncertain, self.remains, self.correction) = (false, 0, 0);
        std::mem::take(&mut self.failed_keys).len() * FAILED_KEY_BYTES
    }

    /// Notes the key of a failed write. Returns the memory that it takes.
    pub fn note_failed(&mut self, key: Option<KeyPlace>) -> usize {
        let Some(key) = key else { return 0 };
        self.failed_keys.push(key);
        FAILED_KEY_BYTES
    }

    /// Whether a publication at this offset can carry the record of the stream, which continues the
    /// one in the table of streams.
    pub fn can_carry(&self, top: u64) -> bool {
        let has_record = self.is_recorded && !self.is_ending && !self.is_uncertain;
        has_record && top <= self.recorded + CARRIED_MAX
    }

    /// Whether remains are on disk for which the next publication is too late or too small.
    pub fn has_many_remains(&self) -> bool {
        let is_removed = self.sent.oldest < self.removed_before.min(self.first);
        is_removed || self.first.saturating_sub(self.sent.oldest) > ERASED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a history of at most `kept` publications after publications of these sizes.
    fn bytes_after(kept: u64, sizes: impl IntoIterator<Item = u64>) -> u64 {
        let mut span = Span { first: 1, ..Span::default() };
        for size in sizes {
            let top = span.top + 1;
            let first = span.first.max((top + 1).saturating_sub(kept));
            span = Span { top, first, bytes: span.bytes_from(first) + size, ..span };
        }
        span.bytes
    }

    #[test]
    fn a_history_counts_as_many_bytes_as_it_has_had() {
        let one = |size: u64| std::iter::once(size);
        let many = |size: u64, count: usize| std::iter::repeat_n(size, count);
        assert_eq!(bytes_after(100, many(10, 60)), 600);
        assert_eq!(bytes_after(100, many(10, 1_000)), 1_000);
        // One large publication behind many small ones, and a small one behind large ones.
        assert_eq!(bytes_after(20_000, many(1, 12_400).chain(one(60_000))), 72_400);
        assert_eq!(bytes_after(200, many(300_000, 200).chain(one(1))), 59_700_001);
        let mixed = (0..10_000).map(|nth| if nth % 2 == 0 { 1_000 } else { 1 });
        assert!((45_000..55_000).contains(&bytes_after(100, mixed)));
    }

    #[test]
    fn bytes_are_shared_by_the_publications_of_a_span() {
        let span = Span { top: 10, first: 1, bytes: 1_000, ..Span::default() };
        let found = [0, 1, 6, 10, 11, 12].map(|first| span.bytes_from(first));
        assert_eq!(found, [1_000, 1_000, 500, 100, 0, 0]);
        assert_eq!(Span::default().bytes_from(0), 0);
        let large = Span { top: u64::MAX - 1, first: 0, bytes: u64::MAX, ..Span::default() };
        assert_eq!(large.bytes_from(0), u64::MAX);
    }
}
