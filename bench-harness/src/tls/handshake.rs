//! A handshake of the client's side, without I/O.
//!
//! Owns rustls's connection while it lasts. Never keeps it longer than the handshake. Invariant:
//! the secrets that rustls logs are those of the connection that the same thread is processing.

use drumline::wire::tls::{RecordKeys, Suite, TrafficKeys};
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ConnectionTrafficSecrets, HandshakeKind};

use super::client::Client;
use super::secrets::{Secrets, take_logged};

/// Bytes of a traffic secret with SHA-256.
const SECRET_BYTES: usize = 32;
/// Bytes reserved for a flight of the client.
const FLIGHT_BYTES: usize = 512;

/// A handshake that is not finished.
pub(super) struct Handshake {
    connection: UnbufferedClientConnection,
    incoming: Vec<u8>,
    secrets: Secrets,
    /// Wait for a ticket after the handshake.
    wants_ticket: bool,
}

/// The end of a handshake.
pub(super) struct Finished {
    pub(super) keys: RecordKeys,
    /// Bytes of a record that has not come whole.
    pub(super) rest: Vec<u8>,
    /// Whether a session was resumed.
    pub(super) resumed: bool,
}

impl Handshake {
    /// Begins one. Appends its first flight to `out`.
    pub(super) fn start(client: &Client, out: &mut Vec<u8>) -> Result<Self, String> {
        let connection =
            UnbufferedClientConnection::new(client.config.clone(), client.name.clone())
                .map_err(|error| format!("cannot begin a TLS handshake: {error}"))?;
        let mut handshake = Handshake {
            connection,
            incoming: Vec::new(),
            secrets: Secrets::default(),
            wants_ticket: client.tickets.is_some(),
        };
        handshake.advance(&mut Vec::new(), out)?;
        Ok(handshake)
    }

    /// Takes received bytes, and appends application data that came with the handshake to `plain`.
    /// Returns true when [`Handshake::finish`] may follow.
    pub(super) fn receive(
        &mut self,
        input: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<bool, String> {
        self.incoming.extend_from_slice(input);
        let done = self.advance(plain, out)?;
        Ok(done && (!self.wants_ticket || self.connection.tls13_tickets_received() > 0))
    }

    /// Processes what has come. Returns whether the handshake is complete.
    fn advance(&mut self, plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, String> {
        let fault = |error: rustls::Error| format!("TLS handshake: {error}");
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut self.incoming);
            let done = match state.map_err(fault)? {
                ConnectionState::EncodeTlsData(mut data) => {
                    append(out, |room| data.encode(room))?;
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    None
                }
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(fault)?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    None
                }
                ConnectionState::BlockedHandshake => Some(false),
                ConnectionState::WriteTraffic(_) => Some(true),
                state => return Err(format!("TLS handshake: ended in {state:?}")),
            };
            self.incoming.drain(..discard);
            self.secrets.add(take_logged());
            if let Some(done) = done {
                return Ok(done);
            }
        }
    }

    /// Gives up rustls's connection for the keys of its records.
    pub(super) fn finish(self) -> Result<Finished, String> {
        let resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let (extracted, _) = self
            .connection
            .dangerous_into_kernel_connection()
            .map_err(|error| format!("cannot extract the keys of a TLS connection: {error}"))?;
        let (client, server) = (&self.secrets.client, &self.secrets.server);
        if client.len() != SECRET_BYTES || server.len() != SECRET_BYTES {
            return Err("rustls has logged no traffic secrets".to_owned());
        }
        let send = traffic_keys(client, &extracted.tx)?;
        let receive = traffic_keys(server, &extracted.rx)?;
        let keys = RecordKeys::of_client(Suite::Aes128Gcm, &send, &receive)
            .map_err(|error| format!("cannot use the keys of a TLS connection: {error:?}"))?;
        Ok(Finished { keys, rest: self.incoming, resumed })
    }
}

fn traffic_keys<'a>(
    secret: &'a [u8],
    (sequence, keys): &'a (u64, ConnectionTrafficSecrets),
) -> Result<TrafficKeys<'a>, String> {
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = keys else {
        return Err("the server chose a suite that was not offered".to_owned());
    };
    let iv = iv.as_ref().try_into().map_err(|_| "an IV is 12 bytes")?;
    Ok(TrafficKeys { secret, key: key.as_ref(), iv, sequence: *sequence })
}

/// Appends what `encode` writes, with as much room as it needs.
fn append(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), String> {
    let (start, mut room) = (out.len(), FLIGHT_BYTES);
    loop {
        out.resize(start + room, 0);
        match encode(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(error)) => room = error.required_size,
            Err(error) => return Err(format!("TLS handshake: {error}")),
        }
    }
}
