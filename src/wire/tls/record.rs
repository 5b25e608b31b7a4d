//! The layout of a record of TLS 1.3: a header of five bytes, then the sealed content, its type,
//! padding, and the tag.
//!
//! Owns lengths and types. Never holds a key.

/// Bytes of a record's header.
pub const HEADER: usize = 5;
/// Bytes of the tag that each suite appends.
pub const TAG: usize = 16;
/// Bytes that a record without padding has beside its content: header, type and tag.
pub const OVERHEAD: usize = HEADER + 1 + TAG;
/// Maximum bytes of a record's content.
pub const CONTENT_MAX: usize = 1 << 14;
/// Maximum bytes of a sealed record with its header, as a peer may send it.
pub const RECORD_MAX: usize = HEADER + CONTENT_MAX + 256;
/// Maximum bytes of what follows the header of a record in a handshake and in TLS 1.2.
pub(super) const LEGACY_CONTENT_MAX: usize = CONTENT_MAX + 2048;
/// Bytes of a sealed record of the greatest content, as this server sends it.
pub const FULL_RECORD: usize = CONTENT_MAX + OVERHEAD;

/// Type of the record that some clients send before their Finished.
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
/// Type of a record with an alert, inside.
pub(super) const ALERT: u8 = 21;
/// Type of a record with messages of a handshake, inside.
pub(super) const HANDSHAKE: u8 = 22;
/// Type of a record with application data, inside, and of every sealed record, outside.
pub(super) const APPLICATION_DATA: u8 = 23;

/// Type of the message that announces new keys.
pub(super) const KEY_UPDATE: u8 = 24;
/// Type of the message with a ticket for resumption.
pub(super) const NEW_SESSION_TICKET: u8 = 4;

/// The header of a record with this many sealed bytes.
pub(super) fn header(sealed: usize) -> [u8; HEADER] {
    let [high, low] = (sealed as u16).to_be_bytes();
    [APPLICATION_DATA, 3, 3, high, low]
}
