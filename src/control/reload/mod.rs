//! Reload: a new configuration for the running server.
//!
//! Owns the order in which the parts get it, and the ways to ask for it: SIGHUP and the command
//! `drumline reload`. Never closes a connection.

pub mod reloader;
pub mod requests;
pub mod socket;
