//! Durable channels: speed, latency, restart, kills and stalls.
//!
//! Owns the list of the scenarios and of what they share. Never measures. Invariant: a publication
//! counts as acknowledged only when its publisher has read the confirmation.

mod bare_log;
mod closed_loop;
mod data;
mod folder;
pub mod latency;
mod node;
mod redis;
mod talk;
pub mod throughput;
mod turn;
