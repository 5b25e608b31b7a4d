//! Drumline: an io_uring, thread-per-core, high-density push engine for Linux.
//!
//! The modules stand from the ground up; each imports only from those above it.

// Floor 0: the machine.
pub mod sys;
pub mod wheel;

// Floor 1: bytes and their meaning.
pub mod frame;
pub mod http;
pub mod protocol;

// Floor 3: the edges.
#[allow(unsafe_code)]
pub mod ring;
