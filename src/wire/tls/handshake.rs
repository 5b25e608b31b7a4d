//! The handshake of a TLS connection, by rustls without I/O.
//!
//! Owns rustls' state until the handshake is complete. Gives rustls one record at a time, and none
//! behind the client's Finished: data and key updates that arrive with it are opened by the keys of
//! the established connection, which so have the right sequence numbers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ConnectionTrafficSecrets, HandshakeKind, KeyLog, ProtocolVersion, ServerConfig};
use zeroize::Zeroizing;

use crate::wire::tls::keys::{RecordKeys, TrafficKeys};
use crate::wire::tls::legacy::{LegacySession, encode, encode_alert};
use crate::wire::tls::record::{CHANGE_CIPHER_SPEC, HEADER, LEGACY_CONTENT_MAX};
use crate::wire::tls::session::TlsSession;
use crate::wire::tls::suite::Suite;

/// Memory of a handshake in progress, in bytes: rustls' state after the first flight (measured
/// with rustls 0.23 and aws-lc-rs), without the buffer of its input.
pub const HANDSHAKE_BYTES: usize = 6 * 1024;

/// The protocol of a tls-alpn-01 challenge (ALPN), which has no data behind its handshake.
pub const ACME: &[u8] = b"acme-tls/1";

/// Maximum bytes of handshake messages that wait for their rest, as rustls has it.
const INCOMING_MAX: usize = 64 * 1024 + 16 * 1024;

/// Bytes of the record at the start of `input`, once its header is there. A record that is too long
/// ends with the input: rustls refuses what there is of it.
pub fn record_bytes(input: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = input.get(..HEADER)? else { return None };
    let content = usize::from(u16::from_be_bytes([high, low]));
    Some(if content > LEGACY_CONTENT_MAX { input.len() } else { HEADER + content })
}

/// Whether a record is a ChangeCipherSpec, which costs no computation. rustls takes few of them.
pub fn is_change_cipher_spec(record: &[u8]) -> bool {
    record.first() == Some(&CHANGE_CIPHER_SPEC)
}

/// Why a handshake ended without a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum HandshakeFault {
    /// rustls refused what the client sent, or the client sent an alert.
    Refused(rustls::Error),
    /// The keys do not follow from the secrets: a key update would cut the connection.
    KeysDiffer,
}

impl fmt::Display for HandshakeFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeFault::Refused(error) => write!(formatter, "{error}"),
            HandshakeFault::KeysDiffer => {
                formatter.write_str("the keys do not follow from the traffic secrets")
            }
        }
    }
}

impl From<rustls::Error> for HandshakeFault {
    fn from(error: rustls::Error) -> Self {
        HandshakeFault::Refused(error)
    }
}

/// Traffic secrets of one connection, as rustls tells them.
#[derive(Default)]
struct TrafficSecrets {
    client: Zeroizing<Vec<u8>>,
    server: Zeroizing<Vec<u8>>,
}

/// Keeps the traffic secrets of one connection; rustls gives them to the log of keys alone.
#[derive(Default)]
struct SecretKeeper(Mutex<TrafficSecrets>);

impl fmt::Debug for SecretKeeper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKeeper")
    }
}

impl KeyLog for SecretKeeper {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => secrets.client = Zeroizing::new(secret.to_vec()),
            "SERVER_TRAFFIC_SECRET_0" => secrets.server = Zeroizing::new(secret.to_vec()),
            _ => {}
        }
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }
}

/// A handshake in progress.
pub struct Handshake {
    connection: UnbufferedServerConnection,
    keeper: Arc<SecretKeeper>,
    /// Records of a handshake message that is not complete.
    incoming: Vec<u8>,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Handshake")
    }
}

impl Handshake {
    /// Begins a handshake. Errors are those of the configuration.
    pub fn new(config: &ServerConfig) -> Result<Self, HandshakeFault> {
        let keeper = Arc::new(SecretKeeper::default());
        // The log belongs to a configuration, so each connection has its own; what is large in it
        // is shared.
        let mut config = config.clone();
        config.key_log = keeper.clone();
        config.enable_secret_extraction = true;
        let connection = UnbufferedServerConnection::new(Arc::new(config))?;
        Ok(Handshake { connection, keeper, incoming: Vec::new() })
    }

    /// Bytes of memory that the handshake takes.
    pub fn memory(&self) -> usize {
        HANDSHAKE_BYTES + self.incoming.capacity()
    }

    /// Whether the handshake, which is complete, resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether the handshake, which is complete, answered the challenge of an ACME authority.
    pub fn is_challenge(&self) -> bool {
        self.connection.alpn_protocol() == Some(ACME)
    }

    /// Handles one whole record of the client, and appends what the client must get to `out`, in
    /// case of an error an alert. Returns whether the handshake is complete.
    pub fn take_record(
        &mut self,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, HandshakeFault> {
        if self.incoming.len() + record.len() > INCOMING_MAX {
            return Err(rustls::Error::General("handshake messages over 64 KiB".to_owned()).into());
        }
        self.incoming.extend_from_slice(record);
        self.process(out)?;
        Ok(!self.connection.is_handshaking())
    }

    fn process(&mut self, out: &mut Vec<u8>) -> Result<(), rustls::Error> {
        loop {
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut self.incoming);
            let goes_on = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(out, |free| data.encode(free))?;
                    true
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    true
                }
                Err(error) => {
                    self.incoming.drain(..discard.min(self.incoming.len()));
                    encode_alert(&mut self.connection, &mut self.incoming, out);
                    return Err(error);
                }
                // Early data is not offered. No record follows Finished here.
                Ok(ConnectionState::ReadTraffic(_) | ConnectionState::ReadEarlyData(_)) => {
                    return Err(rustls::Error::General("data within the handshake".to_owned()));
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    return Err(rustls::Error::General("closed within the handshake".to_owned()));
                }
                _ => false,
            };
            // rustls refers to the bytes that it does not discard.
            self.incoming.drain(..discard.min(self.incoming.len()));
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// The established connection, after [`Handshake::take_record`] has returned that the handshake
    /// is complete.
    pub fn finish(self) -> Result<TlsSession, HandshakeFault> {
        if self.connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Ok(TlsSession::Legacy(Box::new(LegacySession::new(
                self.connection,
                self.incoming,
            ))));
        }
        let (extracted, _) = self.connection.dangerous_into_kernel_connection()?;
        let secrets = self.keeper.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (send_sequence, send) = extracted.tx;
        let (receive_sequence, receive) = extracted.rx;
        let (send_suite, receive_suite) = (suite(&send)?, suite(&receive)?);
        let keys = RecordKeys::new(
            send_suite,
            &keys(&send, &secrets.server, send_sequence)?,
            &keys(&receive, &secrets.client, receive_sequence)?,
        );
        match keys {
            Ok(keys) if send_suite == receive_suite => Ok(TlsSession::Keys(keys)),
            _ => Err(HandshakeFault::KeysDiffer),
        }
    }
}

fn suite(secrets: &ConnectionTrafficSecrets) -> Result<Suite, HandshakeFault> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { .. } => Ok(Suite::Aes128Gcm),
        ConnectionTrafficSecrets::Aes256Gcm { .. } => Ok(Suite::Aes256Gcm),
        ConnectionTrafficSecrets::Chacha20Poly1305 { .. } => Ok(Suite::ChaCha20Poly1305),
        _ => Err(HandshakeFault::KeysDiffer),
    }
}

fn keys<'a>(
    secrets: &'a ConnectionTrafficSecrets,
    secret: &'a [u8],
    sequence: u64,
) -> Result<TrafficKeys<'a>, HandshakeFault> {
    let (key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
        _ => return Err(HandshakeFault::KeysDiffer),
    };
    let iv = iv.as_ref().try_into().map_err(|_| HandshakeFault::KeysDiffer)?;
    Ok(TrafficKeys { secret, key: key.as_ref(), iv, sequence })
}
