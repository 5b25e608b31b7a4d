//! The machine and the counters: clocks and system calls, memory budgets, metrics, the log.
//!
//! Owns what every other layer may use. Never knows what a channel, a client or a protocol is.

pub mod budget;
pub mod crash;
pub mod failure;
pub mod faults;
pub mod connection_limits;
pub mod growth;
pub mod limits;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod ranking;
pub mod secret;
pub mod sys;
pub mod wheel;
