//! The two encodings of the protocol.
//!
//! Owns the names of the encodings and what both share. Never writes a message.

/// What a connected client is told it is connected to.
pub const VERSION: &str = concat!("drumline ", env!("CARGO_PKG_VERSION"));

/// How what is said is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wire {
    /// JSON text.
    #[default]
    Json,
    /// Protocol buffers, each message behind its length.
    Protobuf,
}
