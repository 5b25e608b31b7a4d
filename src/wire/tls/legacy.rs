//! An established TLS 1.2 connection, which stays with rustls.
//!
//! Owns rustls' state, some kilobytes. TLS 1.2 has a record format of its own, and clients that
//! speak nothing newer are rare.

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus, WriteTraffic};

use crate::wire::tls::record::{CONTENT_MAX, HEADER, LEGACY_CONTENT_MAX};
use crate::wire::tls::unsealed::Unsealed;

/// Maximum bytes that a record of TLS 1.2 has beyond its plain bytes.
const OVERHEAD: usize = 64;

/// An established TLS 1.2 connection.
pub struct LegacySession {
    connection: UnbufferedServerConnection,
    /// The record that rustls handles; empty between two records.
    incoming: Vec<u8>,
    /// Whether it takes no more input.
    ended: bool,
    /// Whether it ends because of a fault, and sends nothing more.
    failed: bool,
}

impl LegacySession {
    /// The connection after its handshake, with the input that rustls has not discarded.
    pub fn new(connection: UnbufferedServerConnection, incoming: Vec<u8>) -> Self {
        LegacySession { connection, incoming, ended: false, failed: false }
    }

    /// See [`super::TlsSession::open`].
    pub fn open(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Unsealed {
        let Some(length) = input.get(3..HEADER) else { return Unsealed::Partial };
        let content = usize::from(length[0]) << 8 | usize::from(length[1]);
        // Of a record that is too long, rustls gets the header. It refuses that with decode_error,
        // where RFC 5246 has record_overflow; it sends no alert that the caller chooses.
        let used = if content > LEGACY_CONTENT_MAX { HEADER } else { HEADER + content };
        let Some(record) = input.get_mut(..used) else { return Unsealed::Partial };
        if self.ended {
            return Unsealed::Closed;
        }
        self.incoming.extend_from_slice(record);
        let mut plain = Vec::new();
        let ends = self.process(&mut plain, out);
        // The plain bytes of a record are fewer than its bytes.
        let length = plain.len().min(used);
        record[..length].copy_from_slice(&plain[..length]);
        match ends {
            Ok(true) => {
                self.ended = true;
                Unsealed::Closed
            }
            // The begin of a handshake message, which is never of use after the handshake.
            Ok(false) if !self.incoming.is_empty() => {
                (self.ended, self.failed, self.incoming) = (true, true, Vec::new());
                // rustls would seal an alert only with the message.
                Unsealed::Fault(None)
            }
            Ok(false) => Unsealed::Data { used, plain: 0..length },
            Err(()) => {
                (self.ended, self.failed) = (true, true);
                // rustls has appended its alert, if it owes one.
                Unsealed::Fault(None)
            }
        }
    }

    /// Handles one record; returns whether the peer sends nothing more.
    fn process(&mut self, plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, ()> {
        let mut closed = false;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut self.incoming);
            let goes_on = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(data)) = traffic.next_record() {
                        discard += data.discard;
                        plain.extend_from_slice(data.payload);
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(out, |free| data.encode(free)).map_err(|_| ())?;
                    true
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    closed = true;
                    true
                }
                Err(_) => {
                    self.incoming.drain(..discard.min(self.incoming.len()));
                    encode_alert(&mut self.connection, &mut self.incoming, out);
                    return Err(());
                }
                _ => false,
            };
            self.incoming.drain(..discard.min(self.incoming.len()));
            if !goes_on {
                return Ok(closed);
            }
        }
    }

    /// See [`super::TlsSession::seal`].
    pub fn seal<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]>,
        plain: usize,
        out: &mut Vec<u8>,
    ) {
        let mut joined = Vec::with_capacity(plain);
        pieces.for_each(|piece| joined.extend_from_slice(piece));
        for part in joined.chunks(CONTENT_MAX) {
            self.write(out, part.len() + OVERHEAD, |traffic, free| {
                traffic.encrypt(part, free).unwrap_or(0)
            });
        }
    }

    /// Appends the alert that ends the direction to the peer.
    pub fn seal_close(&mut self, out: &mut Vec<u8>) {
        // rustls must not find a fault behind this alert: it would owe a second one.
        self.ended = true;
        self.write(out, OVERHEAD, |traffic, free| traffic.queue_close_notify(free).unwrap_or(0));
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        write: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> usize,
    ) {
        if self.failed {
            return;
        }
        let UnbufferedStatus { discard, state } =
            self.connection.process_tls_records(&mut self.incoming);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            let start = out.len();
            out.resize(start + room, 0);
            let written = write(&mut traffic, &mut out[start..]);
            out.truncate(start + written.min(room));
        }
        self.incoming.drain(..discard.min(self.incoming.len()));
    }
}

/// Appends the alert of an error, if rustls has one. It may be asked once: to find the same error
/// again, it would owe a second alert, which it never sends.
pub(super) fn encode_alert(
    connection: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    out: &mut Vec<u8>,
) {
    let status = connection.process_tls_records(incoming);
    if let Ok(ConnectionState::EncodeTlsData(mut alert)) = status.state {
        // Without the alert the connection ends all the same.
        let _ = encode(out, |free| alert.encode(free));
    }
}

/// Appends what `write` writes, with as much room as it asks for.
pub(super) fn encode(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), rustls::Error> {
    let start = out.len();
    let mut room = 1024;
    loop {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) if needed.required_size > room => {
                room = needed.required_size;
            }
            Err(error) => {
                out.truncate(start);
                return Err(rustls::Error::General(error.to_string()));
            }
        }
    }
}
