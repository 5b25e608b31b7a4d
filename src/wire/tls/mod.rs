//! TLS: handshakes by rustls, and the records of established connections.
//!
//! Owns the traffic keys of a connection and the layout of a record. Never does I/O and never
//! decides when to close. The invariant: a sequence number seals at most one record of which a byte
//! leaves the process.

pub mod alert;
pub mod handshake;
pub mod keys;
pub mod legacy;
pub mod open;
pub mod record;
pub mod seal;
pub mod session;
pub mod suite;
pub mod unsealed;

#[cfg(test)]
mod rustls_peers;
#[cfg(any(test, fuzzing))]
pub mod test_peers;
#[cfg(test)]
mod tests;

pub use alert::AlertDescription;
pub use handshake::{Handshake, HandshakeFault, is_change_cipher_spec, record_bytes};
pub use keys::{RecordKeys, StaleSecret, TrafficKeys};
pub use legacy::LegacySession;
pub use open::{Content, Opened};
pub use rustls::ServerConfig;
pub use seal::Begun;
pub use session::{SealedConnection, TlsSession};
pub use suite::Suite;
pub use unsealed::Unsealed;

/// Seeds the random numbers of this thread. The library does it with the first number otherwise,
/// which takes tens of milliseconds of the first handshake.
pub fn seed_random_numbers() {
    // A failure repeats itself in the handshake, which then fails.
    let _ = aws_lc_rs::rand::fill(&mut [0]);
}
