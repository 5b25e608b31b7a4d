//! Counters that shards write and the control plane reads.
//!
//! Owns one block of counters a shard, each block on cache lines of its own. Never blocks: each
//! counter has one writer, and a reader may be a moment behind.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number written by one thread and read by others.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        // One writer: a load and a store suffice, without a locked instruction.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` away.
    pub fn subtract(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// Sets the number.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident,)*) => {
        /// The counters of one shard.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: Counter,)*
        }

        /// What a counter is to those who read it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum MetricKind {
            /// Only grows.
            Total,
            /// Goes up and down.
            Gauge,
        }

        impl Metrics {
            /// Name, meaning, kind and value of every counter.
            pub fn list(&self) -> Vec<(&'static str, &'static str, MetricKind, u64)> {
                vec![$((
                    stringify!($name),
                    concat!($($doc),+).trim_ascii(),
                    MetricKind::$kind,
                    self.$name.get(),
                ),)*]
            }
        }
    };
}

counters! {
    /// Open sockets.
    sockets: Gauge,
    /// Clients connected.
    clients: Gauge,
    /// Different users with a connection on the shard.
    users: Gauge,
    /// Subscriptions, including pending ones.
    subscriptions: Gauge,
    /// Channels whose home is the shard.
    channels: Gauge,
    /// Channels with history whose home is the shard.
    streams: Gauge,
    /// Bytes of history.
    history_bytes: Gauge,
    /// Connections with unsent output.
    outboxes: Gauge,
    /// Bytes of unsent output.
    outbox_bytes: Gauge,
    /// Connections with unprocessed input.
    unread: Gauge,
    /// Bytes of unprocessed input.
    unread_bytes: Gauge,
    /// Bytes of publications that are not yet written to all subscribers.
    backlog_bytes: Gauge,
    /// Sockets accepted.
    accepted: Total,
    /// Connections refused with 503.
    refused: Total,
    /// Sockets moved to a shard with room.
    relayed: Total,
    /// Sockets handed to the control plane.
    handed_over: Total,
    /// Client connects answered.
    connects: Total,
    /// Commands handled.
    commands: Total,
    /// API calls that the shard answered without the control plane.
    calls: Total,
    /// Error replies.
    errors: Total,
    /// Publications accepted by the home of their channel.
    publications: Total,
    /// Streams dropped to make room for new ones.
    streams_evicted: Total,
    /// Publications dropped from the history to make room for newer ones.
    history_shed: Total,
    /// Publications written to subscribers.
    deliveries: Total,
    /// Publications not sent because a later one replaced them (batch_flush_latest).
    replaced: Total,
    /// Bytes received.
    received_bytes: Total,
    /// Sends that the socket took only in part or refused.
    short_sends: Total,
    /// Pings sent.
    pings: Total,
    /// Slow consumers closed (3008).
    slow: Total,
    /// Connections closed because unprocessed input exceeded the budget (3008, or 503).
    unread_closed: Total,
    /// Connections closed by the server, with any code.
    disconnects: Total,
    /// Connections closed by the peer or the network.
    lost: Total,
    /// Disconnect and unsubscribe events for the backend.
    hook_events: Total,
    /// Hook events dropped because the shard had no room for them.
    hook_events_dropped: Total,
    /// Turns of the event loop.
    turns: Total,
    /// Turns that took longer than a millisecond.
    long_turns: Total,
    /// The longest turn since the start, in microseconds.
    longest_turn_micros: Gauge,
    /// Passes of a worker over its shards, counted at its first shard.
    passes: Total,
    /// Passes that took more than 5 milliseconds of processor time.
    long_passes: Total,
    /// The pass that took the most processor time since the start, in microseconds.
    longest_pass_cpu_micros: Gauge,
    /// Times a turn waited.
    sleeps: Total,
    /// Times the kernel had to keep completions because the ring's completion queue was full.
    completion_overflows: Total,
    /// Completions of operations on a slot that has another connection, or none, by now.
    stale_completions: Total,
}
