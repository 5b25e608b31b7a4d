//! The two encodings of the protocol.
//!
//! Owns the names of the encodings and the server version. Never writes a message.

/// Server name and version, sent to clients in connect replies.
pub const VERSION: &str = concat!("drumline ", env!("CARGO_PKG_VERSION"));

/// The encoding of commands, replies and pushes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wire {
    /// JSON text.
    #[default]
    Json,
    /// Protocol buffers, each message preceded by its length.
    Protobuf,
}
