//! TLS 1.3 after the handshake: seals and opens the records of an established connection.
//!
//! Owns the traffic keys of a connection and the layout of a record. Never does I/O, never runs a
//! handshake and never decides when to close. The invariant: a sequence number seals at most one
//! record of which a byte leaves the process.

pub mod alert;
pub mod keys;
pub mod open;
pub mod record;
pub mod seal;
pub mod suite;

#[cfg(test)]
mod rustls_peers;
#[cfg(any(test, fuzzing))]
pub mod test_peers;
#[cfg(test)]
mod tests;

pub use alert::AlertDescription;
pub use keys::{RecordKeys, StaleSecret, TrafficKeys};
pub use open::{Content, Opened};
pub use seal::Begun;
pub use suite::Suite;
