//! The streams of a home, bounded in number and bytes.
//!
//! Owns every stream. Knows a channel only by its index. The invariant: the counted bytes are the
//! sum over the streams.

use slab::Slab;

use crate::home::history::Stream;

/// The index of no stream.
pub(super) const NONE: u32 = u32::MAX;
/// Number of streams that are compared to find one to drop.
const CANDIDATES: usize = 16;
/// Maximum number of slots visited to find them.
const PASSED_MAX: usize = 256;

struct StreamSlot {
    stream: Stream,
    /// Index of its channel.
    channel: u32,
    /// Bytes of the stream and its channel, without the kept publications.
    overhead: usize,
}

/// All streams of a home.
pub(super) struct Streams {
    slots: Slab<StreamSlot>,
    /// Bytes of the kept publications.
    kept: usize,
    /// Bytes of streams and channels without the kept publications.
    overhead: usize,
    /// One more than the highest slot that was ever taken.
    end: usize,
    /// Slot at which the last search ended; the next search continues there, so no stream is
    /// spared.
    cursor: usize,
}

impl Streams {
    /// None yet.
    pub(super) fn new() -> Self {
        Streams { slots: Slab::new(), kept: 0, overhead: 0, end: 0, cursor: 0 }
    }

    /// Number of streams.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of memory of all streams.
    pub(super) fn bytes(&self) -> usize {
        self.kept + self.overhead
    }

    /// Bytes of the kept publications of all streams.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept
    }

    /// Adds an empty stream whose channel takes `channel_bytes`; returns its index.
    pub(super) fn insert(&mut self, stream: Stream, channel: u32, channel_bytes: usize) -> u32 {
        let overhead = size_of::<StreamSlot>() + channel_bytes;
        self.overhead += overhead;
        let at = self.slots.insert(StreamSlot { stream, channel, overhead });
        self.end = self.end.max(at + 1);
        at as u32
    }

    /// Drops a stream.
    pub(super) fn remove(&mut self, at: u32) {
        let StreamSlot { stream, overhead, .. } = self.slots.remove(at as usize);
        self.kept -= stream.bytes();
        self.overhead -= overhead;
    }

    /// A stream.
    pub(super) fn get(&self, at: u32) -> &Stream {
        &self.slots[at as usize].stream
    }

    /// A stream, for changes that leave its kept publications as they are.
    pub(super) fn get_mut(&mut self, at: u32) -> &mut Stream {
        &mut self.slots[at as usize].stream
    }

    /// Changes a stream and updates the counted bytes.
    pub(super) fn change<T>(&mut self, at: u32, change: impl FnOnce(&mut Stream) -> T) -> T {
        let stream = &mut self.slots[at as usize].stream;
        let before = stream.bytes();
        let result = change(stream);
        self.kept = self.kept - before + stream.bytes();
        result
    }

    /// Compares a few streams by `rank` and returns the channel of the lowest. Streams whose rank
    /// is `None` are skipped.
    pub(super) fn lowest_ranked<R: Ord + Copy>(
        &mut self,
        rank: impl Fn(&Stream, u32) -> Option<R>,
    ) -> Option<u32> {
        let (mut found, mut first) = (0, None);
        for _ in 0..PASSED_MAX.min(self.end) {
            self.cursor = if self.cursor + 1 < self.end { self.cursor + 1 } else { 0 };
            let slots = self.slots.get(self.cursor);
            let ranked =
                slots.and_then(|slots| Some((rank(&slots.stream, slots.channel)?, slots.channel)));
            let Some(candidate) = ranked else { continue };
            first = Some(first.map_or(candidate, |first| candidate.min(first)));
            found += 1;
            if found == CANDIDATES {
                break;
            }
        }
        first.map(|(_, channel)| channel)
    }
}
