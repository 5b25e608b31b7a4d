//! HTTP connections of the control plane: sockets that shards hand over, and the internal port.
//!
//! Owns each connection from its hand-over to its end. Never answers a request itself: routers do.

mod accepts;
pub mod connections;
pub mod descriptor_shares;
mod idle_connections;
pub mod refusal;
pub mod return_to_shard;
mod sealed_stream;
