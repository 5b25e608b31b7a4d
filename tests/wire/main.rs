//! Tests of the server over its sockets: the real binary over TCP, byte for byte.
//!
//! One file per subject. Each test starts its own server, and every wait has a time limit.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod abuse;
mod access;
mod acme;
mod anonymous_clients;
mod api_calls;
mod backends;
mod cli;
mod channel_names;
mod client_addresses;
mod closes;
mod command_rates;
mod commands;
mod deflate;
mod disk_trouble;
mod drain;
mod durable;
mod ends;
mod events;
mod formats;
mod health;
mod help;
mod http_connections;
mod kept;
mod large_answers;
mod listeners;
mod load;
mod logs;
mod memlock;
mod memory;
mod output;
mod overflow;
mod overrides;
mod pauses;
mod permissions;
mod polling;
mod readme;
mod recovery;
mod reload;
mod request_heads;
mod secrets;
mod signals;
mod slots;
mod snapshots;
mod start;
mod store_commands;
mod store_load;
mod streams;
mod tls;
mod tls_connections;
mod tls_sessions;
mod token_lifetime;
mod traces;
mod uni;
