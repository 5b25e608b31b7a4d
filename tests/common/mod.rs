//! Shared by the tests that talk to the server over its sockets: the real binary on a free port, a
//! client that sees every byte, HTTP requests, a fake backend, tokens.
//!
//! Every wait has an end. The helpers read and write frames by their own code, not by the engine's.

#![allow(dead_code, missing_docs, unused_imports, clippy::unwrap_used)]

pub mod backend;
pub mod certificates;
mod client;
pub mod disks;
mod http;
pub mod pebble;
mod server;
pub mod tokens;

use std::time::{Duration, Instant};

pub use client::{Client, client_frame, without_publisher};
pub use http::{api_request, request, upgrade_request};
pub use server::{Server, binary, command, free_port};

/// How long a test waits before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The key of the API where the public port has it.
pub const API_KEY: &str = "secret";
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const WEBSOCKET: &str = "/connection/websocket";
pub const UNI_WEBSOCKET: &str = "/connection/uni_websocket";

/// Waits until `done` returns a value; fails after [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
