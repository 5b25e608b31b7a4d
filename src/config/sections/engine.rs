//! Section about the engine: sizes of rings, memory budgets, socket options.
//!
//! Owns the keys of `engine`. Never allocates memory.

use super::section::section;
use crate::config::duration::ConfigDuration;

section! {
    /// Engine: memory budgets, buffers and io_uring.
    Engine {
        /// Maximum number of connections per shard. 0: as many as open files and memory allow.
        slots_per_shard: usize = 0,
        /// Require clients to answer pings. Without it, the server does not detect clients that
        /// stopped reading.
        pong: bool = true,
        /// Size of a socket's send buffer in the kernel, in bytes.
        send_buffer: usize = 65_536,
        /// Size of a socket's receive buffer in the kernel, in bytes.
        receive_buffer: usize = 65_536,
        /// Time for which sent data may stay unacknowledged before the kernel closes the connection
        /// (TCP_USER_TIMEOUT).
        user_timeout: ConfigDuration = ConfigDuration::seconds(45),
        /// Maximum number of unsent bytes on the node, for all slow consumers together. Past it,
        /// the server closes the client with the most unsent bytes (code 3008).
        outbox_budget: usize = 256 << 20,
        /// Maximum number of unprocessed input bytes on the node: partial requests, partial
        /// messages and waiting commands. Past it, the server closes the connection that holds the
        /// most (code 3008, or HTTP status 503).
        unread_budget: usize = 128 << 20,
        /// Maximum number of bytes of publications on the node that are not yet written to all
        /// subscribers, divided evenly among the shards. Past it, a shard accepts no more
        /// publications until it has written some.
        backlog: usize = 32 << 20,
        /// Maximum number of channels with history on the node, divided evenly among the shards.
        /// Past it, the server drops the stream of a channel without publications, or of the one
        /// whose publications expire first.
        streams_max: usize = 500_000,
        /// Maximum size of all history in memory on the node in bytes. Past it, the server drops
        /// the oldest publications; those of durable channels stay on disk and are read from there.
        history_bytes: usize = 512 << 20,
        /// Maximum size of all tags filters on the node in bytes. Equal filters on a shard count
        /// once. Past it, the server answers a subscribe with a filter with error 106.
        filter_budget: usize = 64 << 20,
        /// Maximum size of all idempotency keys on the node in bytes. Past it, the server forgets
        /// the oldest keys.
        idempotency_budget: usize = 32 << 20,
        /// Maximum size in bytes of the hook events that wait for delivery to the backend. Past it,
        /// the server drops new events and counts them.
        hook_budget: usize = 64 << 20,
        /// Maximum size in bytes of the waiting requests to the backend and tokens to verify. Past
        /// it, the server answers a client's command with error 100 (temporary).
        question_budget: usize = 64 << 20,
        /// Maximum size in bytes of the publications on their way to the store, and of the requests
        /// that wait for it. Past it, the server answers requests about durable channels with error
        /// 100 (temporary).
        store_budget: usize = 64 << 20,
        /// Maximum number of token revocations. A revocation is kept until it expires. Past the
        /// maximum, the API refuses new ones.
        revocations_max: usize = 100_000,
        /// Maximum number of hook events that wait for delivery to the backend. Past it, the server
        /// drops new events and counts them.
        hooks_max: usize = 100_000,
        /// Time for which the server retries the delivery of a hook event. After it, the server
        /// drops the event and counts it.
        hook_ttl: ConfigDuration = ConfigDuration::seconds(3600),
        /// Maximum number of messages in each inbox between two shards, from 1 to 1048576.
        inbox: usize = 4096,
        /// Submission queue entries of each io_uring ring, from 1 to 32768.
        ring_submissions: usize = 1024,
        /// Maximum number of completion queue entries of each io_uring ring, up to 65536. A ring
        /// gets no more than its connections need. Lower it only to test a full queue.
        ring_completions: usize = 65_536,
        /// Number of receive buffers of 4 KiB per io_uring ring, a power of two up to 32768.
        ring_buffers: u16 = 128,
        /// Test mode: enable a WebSocket at `/echo` that sends back what it receives.
        echo: bool = false,
        /// Keep processors out of deep idle states while serving: lower latency for more power. It
        /// requires root. It helps most on virtual machines.
        force_latency: bool = false,
        /// Number of threads that serve the HTTP API and metrics and send requests to the backend,
        /// from 1 to 256.
        control_threads: usize = 1,
    }
}
