//! Section about the engine: sizes of rings, memory budgets, socket options.
//!
//! Owns the keys of `engine`. Never allocates memory.

use super::section::section;
use crate::config::span::Span;

section! {
    /// The engine.
    Engine {
        /// Connections that one shard holds; 0: as many as limits and memory allow.
        slots_per_shard: usize = 0,
        /// Whether clients must answer pings.
        pong: bool = true,
        /// Bytes of a socket's send buffer in the kernel.
        send_buffer: usize = 65_536,
        /// Bytes of a socket's receive buffer in the kernel.
        receive_buffer: usize = 65_536,
        /// How long sent data may stay unacknowledged before the connection counts as lost.
        user_timeout: Span = Span::seconds(45),
        /// Bytes of unsent output that the node keeps for clients that are behind. Past it the
        /// server closes the client with the most (3008).
        outbox_budget: usize = 256 << 20,
        /// Bytes of unread input that the node keeps: parts of requests and messages, and commands
        /// that wait. Past it the server closes the connection with the most (3008, or status 503).
        unread_budget: usize = 128 << 20,
        /// Bytes of publications that the node keeps until they are written to all subscribers,
        /// divided evenly among the shards. Past it a shard takes no more publications in.
        backlog: usize = 32 << 20,
        /// Channels with history that the node keeps, divided evenly among the shards. Past it a
        /// channel without publications, or whose publications expire first, makes room.
        streams_max: usize = 500_000,
        /// Bytes of history that the node keeps. Past it the oldest publications make room.
        history_bytes: usize = 512 << 20,
        /// Bytes of tags filters that the node keeps; equal filters of a shard count once. Past it
        /// a subscribe with a filter is answered with error 106.
        filter_budget: usize = 64 << 20,
        /// Bytes of idempotency keys that the node keeps. Past it the oldest keys make room.
        idempotency_budget: usize = 32 << 20,
        /// Bytes of disconnects and unsubscribes that wait to be sent to the backend. Past it new
        /// ones are dropped and counted.
        hook_budget: usize = 64 << 20,
        /// Bytes of tokens to verify and questions to the backend that wait for an answer. Past it
        /// a client's command is answered with error 100.
        question_budget: usize = 64 << 20,
        /// Revocations of tokens that are kept until they are over; past it none is taken.
        revocations_max: usize = 100_000,
        /// Ends of clients and subscriptions that may wait to be told to the backend.
        hooks_max: usize = 100_000,
        /// How long the backend is tried to be told of one before that is dropped.
        hook_ttl: Span = Span::seconds(3600),
        /// Messages that one inbox between shards holds.
        inbox: usize = 4096,
        /// Submission queue entries of each io_uring ring, from 1 to 32768.
        ring_submissions: usize = 1024,
        /// Maximum number of completion queue entries of each io_uring ring, up to 65536. A ring
        /// gets no more than its connections need. Small values are for tests of a full queue.
        ring_completions: usize = 65_536,
        /// Receive buffers of 4 KiB of each io_uring ring, a power of two up to 32768.
        ring_buffers: u16 = 128,
        /// Test mode: a WebSocket at /echo that sends back what it gets.
        echo: bool = false,
        /// Whether processors are held out of deep idle while serving: quicker wake-ups for more
        /// power.
        force_latency: bool = false,
        /// Threads of the HTTP side.
        control_threads: usize = 1,
    }
}
