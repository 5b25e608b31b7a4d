//! The quantities that are the columns of the tables, by name.
//!
//! Owns the names. Never measures.

pub(super) const USER: &str = "user memory per connection";
pub(super) const SLOPE: &str = "user memory per connection, slope";
pub(super) const KERNEL: &str = "kernel memory per connection, both ends";
pub(super) const FIXED: &str = "memory without connections";
pub(super) const CONNECTS: &str = "connects per second";
pub(super) const CPU_PINGS: &str = "CPU of pings";
pub(super) const PINGS: &str = "pings per connection";
pub(super) const CPU: &str = "CPU per delivery";
pub(super) const CPU_BOTH: &str = "CPU per publish and delivery";
pub(super) const CPU_UNHEARD: &str = "CPU per publish without subscribers";
pub(super) const CLIENT_CPU: &str = "client's CPU per delivery";
pub(super) const SPEED: &str = "deliveries per second";
pub(super) const BUSY: &str = "processors busy, both ends";
pub(super) const P50: &str = "p50";
pub(super) const P99: &str = "p99";
pub(super) const P999: &str = "p99.9";
pub(super) const LATE: &str = "publishers' lateness, p99";
pub(super) const BACK: &str = "back";
pub(super) const WHOLE: &str = "whole";
pub(super) const CPU_CLIENT: &str = "CPU per client";
pub(super) const CLIENT_CPU_CLIENT: &str = "client's CPU per client";
pub(super) const PUBLISHES: &str = "publications per second";
pub(super) const CPU_PUBLISH: &str = "CPU per publish";
pub(super) const CLIENT_CPU_PUBLISH: &str = "client's CPU per publish";
pub(super) const CPU_ANSWER: &str = "CPU per answer";
pub(super) const CLIENT_CPU_ANSWER: &str = "client's CPU per answer";
pub(super) const TOOK: &str = "time until all are answered";
pub(super) const CPU_MEMBER: &str = "CPU per connect, join and leave";
pub(super) const TOLD: &str = "time until every join and leave is told";
pub(super) const LOST: &str = "lost";
