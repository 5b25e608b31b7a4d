//! The engine: io_uring rings, the bus between endpoints, shards, and the workers that run them.
//!
//! Owns the sockets and threads of the data plane. Never decides what a client gets: the hub does.

mod atomics;
pub mod bus;
mod completions;
mod moves;
pub mod news_poll;
pub mod node;
pub mod ready;
#[allow(unsafe_code)]
pub mod ring;
pub mod shard;
mod shutdown;
mod wakeups;
pub mod worker;
