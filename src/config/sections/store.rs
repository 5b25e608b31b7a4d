//! Section about the store of durable channels, and the snapshot of the others.
//!
//! Owns its keys. Never opens the store.

use super::section::section;
use crate::config::duration::ConfigDuration;

section! {
    /// The store: publications of durable channels on disk.
    Store {
        /// Folder of the store. The server creates it if it is missing. Empty: there is no store,
        /// no channel can be durable, and a stop writes no snapshot.
        path: String = String::new(),
        /// Maximum bytes of the publications of all durable channels. Past it, every history loses
        /// the same share of its oldest publications, within a few minutes. It is measured by walks
        /// over the store; files can be larger. 0: only `history_size` and `history_ttl` bound the
        /// store.
        max_bytes: u64 = 0,
        /// Time at the end of a graceful shutdown that is kept for the snapshot, which the next
        /// start takes over: positions and idempotency keys of all channels, and histories of
        /// channels that are not durable. It is part of `shutdown.timeout`, and not taken from
        /// `shutdown.spread`.
        snapshot_timeout: ConfigDuration = ConfigDuration::seconds(10),
        /// Maximum bytes of the snapshot. Histories beyond it are left out, then idempotency keys,
        /// then positions. 0: a stop writes no snapshot.
        snapshot_max_bytes: usize = 1 << 30,
        /// Maximum bytes of the revocations in the folder of the store, and of the hook events that
        /// are not delivered. Their files can be twice as large. Past it, the API answers a
        /// revocation with error 106, and hook events are in memory only.
        log_max_bytes: usize = 64 << 20,
    }
}
