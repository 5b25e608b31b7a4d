//! Durable channels: speed, latency, restart, kills, power cuts and stalls.
//!
//! Owns the list of the scenarios and of what they share. Never measures. Invariant: a publication
//! counts as acknowledged only when its publisher has read the confirmation.

mod bare_log;
mod closed_loop;
mod data;
pub(super) mod folder;
pub mod kill;
pub mod latency;
mod ledger;
mod node;
pub mod power;
mod redis;
pub mod restart;
pub mod steady;
mod stream;
mod talk;
pub mod throughput;
mod turn;
