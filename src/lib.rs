//! Drumline: an io_uring, thread-per-core, high-density push engine for Linux.
//!
//! The folders are layers, listed from the ground up. A file imports only from its own layer and
//! from the layers above it in this list.

pub mod base;
pub mod wire;
pub mod model;
pub mod home;
pub mod local;
pub mod hub;
pub mod engine;
pub mod config;
pub mod tls;
pub mod link;
pub mod store;
pub mod feeds;
pub mod control;
pub mod process;
