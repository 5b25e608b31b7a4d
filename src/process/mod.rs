//! The process: the check of the machine, the banner, start and shutdown of a node.
//!
//! Owns the order in which the parts start and stop. Never serves a client itself.

pub mod banner;
mod pid_file;
pub mod preflight;
mod restart;
pub mod server;
