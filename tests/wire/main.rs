//! The wire is the contract: the real binary over TCP, byte for byte.
//!
//! One file a subject; each test starts a server of its own and every wait has an end.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod abuse;
mod answers;
mod access;
mod backends;
mod calls;
mod closes;
mod commands;
mod deflate;
mod events;
mod formats;
mod heads;
mod help;
mod leases;
mod limits;
mod load;
mod overflow;
mod memlock;
mod output;
mod overrides;
mod memory;
mod places;
mod readme;
mod recovery;
mod pauses;
mod room;
mod rules;
mod signals;
mod secrets;
mod start;
mod streams;
mod uni;
