//! Metrics of the store.
//!
//! Owns the numbers. Never blocks: the threads of the store write them, and a reader may see a
//! slightly older value.

use crate::base::counter::Counter;
use crate::base::histogram::Histogram;

/// Counters, gauges and histograms of the store.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// 1 while the store accepts writes, otherwise 0.
    pub accepts: Counter,
    /// Batches that were written and synced.
    pub batches: Counter,
    /// Writes of homes in these batches.
    pub writes: Counter,
    /// Publications in these batches.
    pub publications: Counter,
    /// Bytes of the keys and values in these batches.
    pub bytes: Counter,
    /// Writes that are not kept: refused, or part of a batch that failed.
    pub refused_writes: Counter,
    /// Questions that were answered.
    pub reads: Counter,
    /// Questions that were refused or failed.
    pub refused_reads: Counter,
    /// Times that the store became unavailable.
    pub failures: Counter,
    /// Bytes of publications, as the last walk over all streams has found; 0 without a maximum.
    pub stored_bytes: Counter,
    /// Duration of commits in microseconds, with the sync.
    pub commit_micros: Histogram,
    /// Duration of the longest commit since the start, in microseconds.
    pub longest_commit_micros: Counter,
    /// Number of writes per batch.
    pub batch_sizes: Histogram,
}
