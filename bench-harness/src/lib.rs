//! The benchmark harness as a library: load generators, scenarios, result files and reports.
//!
//! Owns the list of modules, from the ground up: a module uses only the modules above its line.
//! Never measures by itself. Invariant: every result names the environment of its run, and every
//! expected delivery is counted as received or missing.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod rows;

pub mod grid;

pub mod environment;

pub mod account;

pub mod namespace;

pub mod blackhole;

mod profile;

pub mod latency;

pub mod clock;

pub mod random;

pub mod timeline;

pub mod wire;

pub mod protobuf;

pub mod dialect;

pub mod progress;

pub mod tls;

pub mod dense;

pub mod subprocess;

pub mod baseline;

pub mod bare_tls;

pub mod signer;

pub mod verifier;

pub mod publish;

pub mod reader;

pub mod server;

pub mod plain;

pub mod target;

pub mod scenario;

mod table;

mod plot;

mod histogram_text;

mod run;

pub mod compare;

pub mod export;

mod headlines;

pub mod results;
