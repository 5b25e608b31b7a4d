//! Handshakes of TLS and the connections that they make: never a panic, whatever the client sends;
//! a connection opens nothing but what an honest client has sent, in order, however its records are
//! cut, changed, repeated and mixed; a handshake whose records are only cut succeeds.
#![no_main]

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use drumline::wire::tls::handshake::HANDSHAKE_BYTES;
use drumline::wire::tls::{Handshake, TlsSession, Unsealed, record_bytes};
use libfuzzer_sys::fuzz_target;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

const CERTIFICATE: &[u8] = include_bytes!("../../src/wire/tls/testdata/certificate.der");
const KEY: &[u8] = include_bytes!("../../src/wire/tls/testdata/key.der");
/// Maximum bytes that a handshake in progress may take.
const MEMORY_MAX: usize = HANDSHAKE_BYTES + 256 * 1024;
/// Type of a record with messages of a handshake.
const HANDSHAKE: u8 = 22;
/// Bytes of a record's header.
const HEADER: usize = 5;

static SERVER: LazyLock<ServerConfig> = LazyLock::new(|| {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has both versions")
        .with_no_client_auth()
        .with_single_cert(vec![CERTIFICATE.into()], PrivateKeyDer::try_from(KEY).expect("a key"))
        .expect("the key belongs to the certificate");
    config.ticketer = Ticketer::new().expect("there are random bytes");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
});

/// A client, which resumes its sessions.
fn client_config(is_old: bool) -> Arc<ClientConfig> {
    static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(CERTIFICATE)).expect("a certificate");
        Arc::new(roots)
    });
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[if is_old { &TLS12 } else { &TLS13 }])
        .expect("the provider has both versions")
        .with_root_certificates(ROOTS.clone())
        .with_no_client_auth();
    Arc::new(config)
}

/// The server's end of a connection, as a shard has it.
enum Server {
    Shaking(Box<Handshake>),
    Established(TlsSession),
    Ended,
}

/// The server's end with its input that is not used up.
struct Connection {
    server: Server,
    unopened: Vec<u8>,
    /// Data that was opened.
    opened: Vec<u8>,
    /// Records for the client.
    out: Vec<u8>,
}

impl Connection {
    fn new() -> Self {
        let handshake = Handshake::new(&SERVER).expect("the configuration is complete");
        let server = Server::Shaking(Box::new(handshake));
        Connection { server, unopened: Vec::new(), opened: Vec::new(), out: Vec::new() }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.unopened.extend_from_slice(bytes);
        while let Some(used) = self.step() {
            self.unopened.drain(..used);
        }
    }

    /// Handles the first record, if it is whole; returns its bytes.
    fn step(&mut self) -> Option<usize> {
        match std::mem::replace(&mut self.server, Server::Ended) {
            Server::Shaking(mut handshake) => {
                let used = record_bytes(&self.unopened).filter(|used| *used <= self.unopened.len());
                let Some(used) = used else {
                    self.server = Server::Shaking(handshake);
                    return None;
                };
                let is_complete =
                    handshake.take_record(&self.unopened[..used], &mut self.out).ok()?;
                assert!(handshake.memory() <= MEMORY_MAX, "{}", handshake.memory());
                self.server = match is_complete {
                    true => Server::Established(handshake.finish().ok()?),
                    false => Server::Shaking(handshake),
                };
                Some(used)
            }
            Server::Established(mut session) => {
                let used = match session.open(&mut self.unopened, &mut self.out) {
                    Unsealed::Partial => None,
                    Unsealed::Data { used, plain } => {
                        self.opened.extend_from_slice(&self.unopened[plain]);
                        Some(used)
                    }
                    Unsealed::KeyUpdate { used, answer } => {
                        if answer {
                            session.seal_key_update(&mut self.out);
                        }
                        Some(used)
                    }
                    Unsealed::Closed => {
                        session.seal_close(&mut self.out);
                        return None;
                    }
                    Unsealed::Fault(alert) => {
                        if let Some(alert) = alert {
                            session.seal_alert(alert, &mut self.out);
                        }
                        return None;
                    }
                };
                self.server = Server::Established(session);
                used
            }
            Server::Ended => None,
        }
    }

    fn write(&mut self, data: &[u8]) {
        if let Server::Established(session) = &mut self.server {
            session.seal(data.chunks(977), data.len(), &mut self.out);
        }
    }

    fn is_established(&self) -> bool {
        matches!(self.server, Server::Established(_))
    }
}

/// Splits the records of a client.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some(used) = record_bytes(bytes) {
        let (record, rest) = bytes.split_at(used.min(bytes.len()));
        records.push(record.to_vec());
        bytes = rest;
    }
    records
}

/// A record of a handshake as two records, which is allowed.
fn fragment(record: &[u8], at: usize) -> Vec<u8> {
    let (header, content) = record.split_at(HEADER);
    let (first, second) = content.split_at(1 + at % (content.len() - 1));
    let record = |part: &[u8]| {
        let length = (part.len() as u16).to_be_bytes();
        [&header[..3], &length, part].concat()
    };
    [record(first), record(second)].concat()
}

/// What happens to records on their way; every record uses three bytes of the plan.
struct Plan<'a> {
    steps: &'a [u8],
    /// A record that comes later.
    held: Vec<u8>,
    /// Records that were sent, to be sent again.
    earlier: Vec<Vec<u8>>,
    /// Whether a record differs from what the client sent.
    damages: bool,
}

impl Plan<'_> {
    fn next(&mut self) -> [u8; 3] {
        let (step, rest) = self.steps.split_first_chunk().unwrap_or((&[0; 3], &[]));
        self.steps = rest;
        *step
    }

    /// What arrives of a record of a client whose handshake is, or is not, in the clear.
    fn carry(&mut self, record: Vec<u8>) -> Vec<u8> {
        let [step, high, low] = self.next();
        let number = usize::from(u16::from_be_bytes([high, low]));
        let mut carried = record.clone();
        match step % 10 {
            1 if record[0] == HANDSHAKE && record.len() > HEADER + 1 && is_clear(&record) => {
                carried = fragment(&record, number);
            }
            2 => carried[number % record.len()] ^= 1 << (step >> 4 & 7),
            3 => carried.truncate(number % record.len()),
            4 => carried.extend_from_slice(&record),
            5 => self.held.append(&mut carried),
            6 => carried = self.earlier.get(number).cloned().unwrap_or_default(),
            7 => carried = [carried, vec![HANDSHAKE, 3, 3, high & 3, low, 1, 0]].concat(),
            8 => carried[0] = high,
            9 => carried.clear(),
            _ => {}
        }
        self.damages |= !matches!(step % 10, 0 | 1);
        if step % 10 != 5 && !self.held.is_empty() {
            carried.append(&mut self.held);
        }
        self.earlier.push(record);
        carried
    }
}

/// Whether a record of a handshake can be a message in the clear: its length is that of the record.
fn is_clear(record: &[u8]) -> bool {
    let Some(&[kind, high, middle, low]) = record[HEADER..].first_chunk() else { return false };
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    matches!(kind, 1 | 16) && length + 4 == record.len() - HEADER
}

/// A client and its server. Returns whether the plan ended before the connection.
fn converse(config: &Arc<ClientConfig>, plan: &mut Plan<'_>, data: &[u8], piece: usize) -> bool {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(config.clone(), name).expect("a client");
    let mut server = Connection::new();
    let (mut sent, mut got, mut written) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..8 {
        let mut records = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut records).expect("a vector takes everything");
        }
        let carried: Vec<u8> =
            split(&records).into_iter().flat_map(|record| plan.carry(record)).collect();
        carried.chunks(piece).for_each(|part| server.receive(part));
        assert!(sent.starts_with(&server.opened), "opened what nobody sent");
        assert!(plan.damages || server.opened == sent, "data is missing");
        if server.is_established() {
            let part = if round % 4 == 3 { data } else { &data[..data.len().min(50)] };
            server.write(part);
            written.extend_from_slice(part);
        }
        let answer = std::mem::take(&mut server.out);
        if !receive(&mut client, &answer, &mut got) {
            assert!(plan.damages, "the client refuses an answer");
            return false;
        }
        assert!(written.starts_with(&got), "the client opened what nobody sent");
        assert!(plan.damages || written == got, "the client lacks data");
        if client.is_handshaking() {
            continue;
        }
        let part = &data[..data.len().min(round * 100)];
        client.writer().write_all(part).expect("there is room");
        sent.extend_from_slice(part);
        if round % 3 == 2 {
            // TLS 1.2 has no new keys.
            let _ = client.refresh_traffic_keys();
        }
    }
    assert!(plan.damages || server.is_established(), "the handshake failed");
    true
}

/// Gives the client what the server has sent; returns whether the connection goes on.
fn receive(client: &mut ClientConnection, mut bytes: &[u8], got: &mut Vec<u8>) -> bool {
    while !bytes.is_empty() {
        if client.read_tls(&mut bytes).unwrap_or(0) == 0 {
            return false;
        }
        let Ok(state) = client.process_new_packets() else { return false };
        let start = got.len();
        got.resize(start + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut got[start..]).expect("as much as rustls tells");
    }
    true
}

fuzz_target!(|input: &[u8]| {
    let Some((&[mode, length, piece], rest)) = input.split_first_chunk() else { return };
    let piece = usize::from(piece) * usize::from(piece) + 1;
    if mode & 1 == 0 {
        // Anything as a client.
        let mut server = Connection::new();
        rest.chunks(piece).for_each(|part| server.receive(part));
        assert!(server.opened.is_empty(), "nobody knows the keys");
        return;
    }
    let (data, steps) = rest.split_at(rest.len().min(usize::from(length)));
    let data = if mode & 4 == 0 { data.to_vec() } else { data.repeat(80) };
    let config = client_config(mode & 2 != 0);
    let mut plan = Plan { steps, held: Vec::new(), earlier: Vec::new(), damages: false };
    // The second connection resumes the session of the first.
    while converse(&config, &mut plan, &data, piece) && mode & 8 != 0 && !plan.steps.is_empty() {}
});
