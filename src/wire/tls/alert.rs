//! Alerts of TLS.
//!
//! Owns their numbers. Never decides when one is sent.

/// The alerts that this server sends on an established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AlertDescription {
    /// The sender sends nothing more.
    CloseNotify = 0,
    /// A record or a message that does not belong here.
    UnexpectedMessage = 10,
    /// A record that the keys do not open.
    BadRecordMac = 20,
    /// A record that is longer than TLS allows.
    RecordOverflow = 22,
    /// A message with a field out of range.
    IllegalParameter = 47,
    /// A message with a wrong length.
    DecodeError = 50,
    /// A failure of this server.
    InternalError = 80,
}

/// Alert of a client that cancels a handshake. A close_notify follows.
pub(super) const USER_CANCELED: u8 = 90;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

impl AlertDescription {
    /// The body of the alert: its level and its number.
    pub(super) fn body(self) -> [u8; 2] {
        let level = if self == AlertDescription::CloseNotify { WARNING } else { FATAL };
        [level, self as u8]
    }
}
