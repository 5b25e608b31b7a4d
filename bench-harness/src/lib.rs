//! The harness as a library: what a measurement is, how it is kept and how it is told.
//!
//! Owns the list of modules, from the ground up: a module uses only those above its own line.
//! Never measures anything by itself. Invariant: no number leaves here without the environment it
//! was taken in, and no expected delivery goes uncounted.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod rows;

pub mod grid;

pub mod environment;

pub mod account;

pub mod latency;

pub mod clock;

pub mod wire;

pub mod dialect;

pub mod progress;

pub mod dense;

pub mod subprocess;

pub mod baseline;

pub mod signer;

pub mod verifier;

pub mod publish;

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
