//! The kernel baseline: a child process that does with sockets what the server does, and no more.
//!
//! Owns the child process, which accepts sockets with the engine's ring and sends the same bytes to
//! all of them, and the lines of its orders. Never speaks a protocol. Invariant: the child's
//! sockets have the options of the server's sockets and its sends the flags of the server's sends,
//! so that the difference between the two is the cost of the server.

mod child;
mod exchange;
mod order;
mod shard;

pub use child::Baseline;
pub use exchange::{Exchange, Outcome};
pub use order::Sent;
pub use shard::{Options, serve};
