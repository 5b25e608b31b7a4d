//! The Centrifuge client protocol: commands, replies and pushes in JSON and protobuf, error codes
//! and close codes.
//!
//! Owns no state. Never does I/O. Source of every name and number: the protocol's public
//! documentation and definitions (centrifugal/protocol).

pub mod command;
mod encoding;
mod error;
pub mod json;
mod position;
pub mod protobuf;
pub mod reply;
mod write;

pub use self::encoding::{VERSION, Wire};
pub use self::error::{Disconnect, Error};
pub use self::position::{Epoch, Position};
pub use self::write::{write_member, write_push, write_reply};
