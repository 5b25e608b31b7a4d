//! Metrics that shards write and the control plane reads.
//!
//! Owns one block of counters per shard, each on its own cache lines. Never blocks: every counter
//! has one writer, and a reader may see a slightly older value.

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

    /// Subtracts `n`.
    pub fn subtract(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// Sets the value.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The current value.
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

        /// Kind of a metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum MetricKind {
            /// The value only grows.
            Total,
            /// The value goes up and down.
            Gauge,
        }

        impl Metrics {
            /// Name, help text, kind and value of every counter.
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
    /// Open sockets of the shard.
    sockets: Gauge,
    /// Clients that have connected and are not closed.
    clients: Gauge,
    /// Distinct users with a connection on the shard.
    users: Gauge,
    /// Subscriptions, including pending ones.
    subscriptions: Gauge,
    /// Channels whose home is the shard.
    channels: Gauge,
    /// Channels with history whose home is the shard.
    streams: Gauge,
    /// Bytes of history of the channels whose home is the shard.
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
    /// Accepted sockets.
    accepted: Total,
    /// Connections refused with HTTP status 503.
    refused: Total,
    /// Sockets moved to another shard because this one had no free slot.
    relayed: Total,
    /// Sockets handed to the control plane.
    handed_over: Total,
    /// Connect commands answered with success.
    connects: Total,
    /// Commands of clients handled.
    commands: Total,
    /// HTTP API calls that the shard answered without the control plane.
    calls: Total,
    /// Error replies to clients.
    errors: Total,
    /// Publications accepted by the home of their channel.
    publications: Total,
    /// Streams removed to make room for new ones.
    streams_evicted: Total,
    /// Publications removed from the history because its memory budget was exceeded.
    history_shed: Total,
    /// Publications sent to subscribers, counted once per subscriber.
    deliveries: Total,
    /// Publications not sent because a later one replaced them (batch_flush_latest).
    replaced: Total,
    /// Bytes received from sockets.
    received_bytes: Total,
    /// Sends that the socket took only in part or refused.
    short_sends: Total,
    /// Pings sent to clients.
    pings: Total,
    /// Slow consumers closed with code 3008.
    slow: Total,
    /// Connections closed because unprocessed input exceeded its memory budget (code 3008, or HTTP
    /// status 503).
    unread_closed: Total,
    /// Connections closed by the server with any code.
    disconnects: Total,
    /// Connections closed by the peer or the network.
    lost: Total,
    /// Disconnect and unsubscribe events created for the backend.
    hook_events: Total,
    /// Hook events dropped because the shard had no room for them.
    hook_events_dropped: Total,
    /// Calls of io_uring_enter.
    enters: Total,
    /// Sends submitted to io_uring.
    sends: Total,
    /// Turns of the event loop, counted on the worker's first shard.
    turns: Total,
    /// Turns that took longer than a millisecond. The time of a turn is that of its pass.
    long_turns: Total,
    /// Duration of the longest turn since the start, in microseconds, as that of its pass.
    longest_turn_micros: Gauge,
    /// Passes of a worker over its shards, counted on the worker's first shard.
    passes: Total,
    /// Wall-clock time of the passes, in microseconds, counted on the worker's first shard.
    pass_micros: Total,
    /// Passes that used more than 5 milliseconds of CPU time.
    long_passes: Total,
    /// CPU time of the longest pass since the start, in microseconds.
    longest_pass_cpu_micros: Gauge,
    /// Times that a turn waited for an event.
    sleeps: Total,
    /// Times that the kernel kept completions aside because the completion queue was full.
    completion_overflows: Total,
    /// Completions that arrived after their slot was freed or reused.
    stale_completions: Total,
}
