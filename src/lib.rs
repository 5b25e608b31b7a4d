//! Drumline: an io_uring, thread-per-core, high-density push engine for Linux.
//!
//! The modules stand from the ground up; each imports only from those above it.

// Floor 0: the machine.
pub mod faults;
pub mod growth;
pub mod log;
pub mod crash;
pub mod memory;
pub mod metrics;
pub mod ranking;
pub mod sys;
pub mod wheel;
pub mod budget;

// Floor 1: bytes and their meaning.
pub mod secret;
pub mod auth;
pub mod reading;
pub mod local;
pub mod token;
pub mod delta;
pub mod filter;
pub mod frame;
pub mod deflate;
pub mod gate;
pub mod ids;
pub mod protocol;
pub mod http;
pub mod framing;
pub mod event_id;
pub mod proxy;
pub mod publication;
pub mod revocation;

// Floor 2: state, without I/O, clock or threads.
pub mod message;
pub mod history;
pub mod namespaces;
pub mod channels;
pub mod outbox;
pub mod unread;
pub mod turn;
pub mod connection;
pub mod hub;

// Floor 3: the edges.
#[allow(unsafe_code)]
pub mod ring;
pub mod bus;

// Floor 4: the engine.
pub mod shard;
pub mod worker;
pub mod node;

// Floor 5: the process.
pub mod preflight;
pub mod config;
pub mod banner;
pub mod control;
pub mod server;
