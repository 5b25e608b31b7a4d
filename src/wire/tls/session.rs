//! An established TLS connection: its keys for TLS 1.3, and rustls itself for TLS 1.2.
//!
//! Seals and opens the bytes of a connection without I/O. The invariant: plain bytes that were
//! sealed and not begun to be sent can be sealed again, or the sealed bytes are kept.

use std::fmt;

use crate::wire::tls::alert::AlertDescription;
use crate::wire::tls::keys::RecordKeys;
use crate::wire::tls::legacy::LegacySession;
use crate::wire::tls::open::{Content, Opened};
use crate::wire::tls::seal::Begun;
use crate::wire::tls::unsealed::Unsealed;

/// An established TLS connection.
pub enum TlsSession {
    /// TLS 1.3: the keys alone.
    Keys(RecordKeys),
    /// TLS 1.2: the state of rustls, some kilobytes.
    Legacy(Box<LegacySession>),
}

const _: () = assert!(size_of::<Option<TlsSession>>() <= 16);

impl fmt::Debug for TlsSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TlsSession")
    }
}

/// A TLS connection that changes between a shard and the control plane.
#[derive(Debug)]
pub struct SealedConnection {
    /// Its keys.
    pub session: TlsSession,
    /// Records that are received and not opened.
    pub unopened: Vec<u8>,
}

impl TlsSession {
    /// Opens the first record of `input` in place. An alert of TLS 1.2 that the peer must get is
    /// appended to `out`.
    pub fn open(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Unsealed {
        match self {
            TlsSession::Keys(keys) => open(keys, input),
            TlsSession::Legacy(session) => session.open(input, out),
        }
    }

    /// Reads the memory that [`TlsSession::seal`] needs, so that a cache of the processor has it.
    pub fn read_ahead(&self) {
        if let TlsSession::Keys(keys) = self {
            keys.read_ahead();
        }
    }

    /// Seals the pieces, together `plain` bytes, and appends the records to `out`.
    pub fn seal<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]>,
        plain: usize,
        out: &mut Vec<u8>,
    ) {
        match self {
            TlsSession::Keys(keys) => {
                let start = out.len();
                out.resize(start + RecordKeys::sealed_len(plain), 0);
                keys.seal(pieces, &mut out[start..]);
            }
            TlsSession::Legacy(session) => session.seal(pieces, plain, out),
        }
    }

    /// Appends the alert that ends the direction to the peer.
    pub fn seal_close(&mut self, out: &mut Vec<u8>) {
        self.seal_alert(AlertDescription::CloseNotify, out);
    }

    /// Appends an alert.
    pub fn seal_alert(&mut self, alert: AlertDescription, out: &mut Vec<u8>) {
        match self {
            TlsSession::Keys(keys) => keys.seal_alert(alert, out),
            TlsSession::Legacy(session) => session.seal_close(out),
        }
    }

    /// Whether the keys must change before many more records are sealed.
    pub fn needs_key_update(&self) -> bool {
        matches!(self, TlsSession::Keys(keys) if keys.needs_key_update())
    }

    /// Appends the record that tells the peer of new keys, and seals with them from now on.
    pub fn seal_key_update(&mut self, out: &mut Vec<u8>) {
        if let TlsSession::Keys(keys) = self {
            keys.seal_key_update(false, out);
        }
    }

    /// The socket took only the first `taken` of the `sealed` bytes that were sealed last from
    /// `plain` bytes, with the alert of [`TlsSession::seal_close`] behind them if `closes`. Returns
    /// how many of the plain bytes need not be sealed again, and which of the sealed bytes are left
    /// to send. An alert that was not begun must be sealed again.
    pub fn take_back(&mut self, sealed: usize, plain: usize, closes: bool, taken: usize) -> Begun {
        let TlsSession::Keys(keys) = self else {
            return Begun { plain, rest: taken.min(sealed)..sealed, closes };
        };
        let data = if closes { RecordKeys::sealed_len(plain) } else { sealed };
        if taken > data {
            return Begun { plain, rest: taken.min(sealed)..sealed, closes };
        }
        if closes {
            keys.take_back_alert();
        }
        keys.take_back(data, taken)
    }
}

fn open(keys: &mut RecordKeys, input: &mut [u8]) -> Unsealed {
    let base = input.as_ptr() as usize;
    match keys.open(input) {
        Ok(Opened::Partial) => Unsealed::Partial,
        Ok(Opened::Record { used, content }) => match content {
            Content::Data(plain) => {
                let start = plain.as_ptr() as usize - base;
                Unsealed::Data { used, plain: start..start + plain.len() }
            }
            Content::Nothing => Unsealed::Data { used, plain: 0..0 },
            Content::KeyUpdate { answer } => Unsealed::KeyUpdate { used, answer },
            Content::Closed => Unsealed::Closed,
            Content::Alert(_) => Unsealed::Fault(None),
        },
        Err(alert) => Unsealed::Fault(Some(alert)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::tls::keys::TrafficKeys;
    use crate::wire::tls::suite::Suite;

    /// A session whose secrets are zeroes.
    pub(crate) fn session() -> TlsSession {
        let (suite, secret) = (Suite::Aes128Gcm, [0; 32]);
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        suite.derive(&secret, "key", &mut key);
        suite.derive(&secret, "iv", &mut iv);
        let keys = TrafficKeys { secret: &secret, key: &key, iv, sequence: 0 };
        TlsSession::Keys(RecordKeys::new(suite, &keys, &keys).unwrap())
    }
}
