//! Requests to the application's HTTP server, which is called the backend.
//!
//! Owns the HTTP client, the queue of proxy requests and the queues of hook events. Never delays a
//! shard.

pub mod client;
pub mod endpoint;
pub mod hook_log;
pub mod hooks;
pub mod proxies;
pub mod proxy_calls;
pub mod targets;
