//! TLS between a model client and its socket: rustls without I/O.
//!
//! The lengths of all records follow from the seed: keys and signatures have one length each.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig};

use super::{Client, Manners};

/// TLS of a node and of its clients.
pub struct Trust {
    pub server: Arc<ServerConfig>,
    /// Clients of TLS 1.3 and of TLS 1.2, which resume their sessions.
    clients: [Arc<ClientConfig>; 2],
}

impl Trust {
    pub fn new() -> Self {
        static PAIR: LazyLock<(CertificateDer<'static>, Vec<u8>)> = LazyLock::new(|| {
            let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
            let mut params = CertificateParams::new(vec!["node".into()]).expect("a name");
            params.serial_number = Some(1u64.into());
            let certificate = params.self_signed(&pair).expect("a certificate");
            (certificate.der().clone(), pair.serialize_der())
        });
        let (certificate, key) = &*PAIR;
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        });
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider has both versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.clone()],
                PrivateKeyDer::try_from(key.clone()).expect("a key"),
            )
            .expect("the key belongs to the certificate");
        server.ticketer = aws_lc_rs::Ticketer::new().expect("there are random bytes");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a certificate");
        let roots = Arc::new(roots);
        let clients = [&TLS13, &TLS12].map(|version| {
            let builder = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[version])
                .expect("the provider has both versions");
            Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
        });
        Trust { server: Arc::new(server), clients }
    }

    /// The end of a client with TLS 1.3, or 1.2.
    pub fn client(&self, is_old: bool) -> Box<ClientConnection> {
        let name = "node".try_into().expect("a name");
        let config = self.clients[usize::from(is_old)].clone();
        let mut client = ClientConnection::new(config, name).expect("a client");
        client.set_buffer_limit(None);
        Box::new(client)
    }
}

impl Client {
    /// Sends bytes, through TLS if the client has it.
    pub fn put(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.socket.input.extend(bytes),
            // After an alert, rustls takes nothing more.
            Some(tls) => _ = tls.writer().write_all(bytes),
        }
        self.put_records();
    }

    /// Sends the records that wait; returns whether there were some.
    pub fn put_records(&mut self) -> bool {
        let mut records = Vec::new();
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            tls.write_tls(&mut records).expect("a vector takes everything");
        }
        self.socket.input.extend(&records);
        !records.is_empty()
    }

    /// Changes the keys of what the client sends, and asks the shard for new keys.
    pub fn renew_keys(&mut self) {
        if let Some(tls) = self.tls.as_mut().filter(|tls| !tls.is_handshaking()) {
            // TLS 1.2 has no new keys.
            let _ = tls.refresh_traffic_keys();
            self.put_records();
        }
    }

    /// Ends the client's direction, perhaps after an alert that says so.
    pub fn end_input(&mut self, announces: bool) {
        let at_rest = self.socket.output.is_empty() && self.outstanding.is_empty();
        let announces = announces && at_rest && !self.manners.broken;
        if let Some(tls) = self.tls.as_mut().filter(|tls| announces && !tls.is_handshaking()) {
            tls.send_close_notify();
            self.manners.announced = true;
        }
        self.put_records();
        self.socket.ended = true;
    }

    /// Sends a record that no key opens.
    pub fn break_records(&mut self, filling: u8) {
        let mut record = vec![23, 3, 3, 0, 40];
        record.resize(5 + 40, filling);
        self.socket.input.extend(&record);
        self.manners.broken = true;
    }

    /// Whether the shard has announced its end by an alert, if it must: it answers the client's.
    /// For lack of memory it may end a connection without one.
    pub(super) fn has_heard_end(&mut self) -> bool {
        let Manners { announced, may_be_slow, .. } = self.manners;
        let Some(tls) = self.tls.as_mut().filter(|_| announced && !may_be_slow) else {
            return true;
        };
        match tls.process_new_packets() {
            Ok(state) => state.peer_has_closed(),
            Err(error) => matches!(error, Error::AlertReceived(_)),
        }
    }

    /// Adds bytes from the socket to what the client has received.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let Some(tls) = &mut self.tls else {
            self.received.extend(bytes);
            return Ok(());
        };
        // What follows the alert of a fault means nothing.
        let has_failed = self.manners.broken && self.closed.is_some();
        while !bytes.is_empty() && !has_failed {
            if tls.read_tls(&mut bytes).map_err(|error| error.to_string())? == 0 {
                return Err("bytes behind the alert that ends the connection".into());
            }
            match tls.process_new_packets() {
                Ok(state) => {
                    let start = self.received.len();
                    self.received.resize(start + state.plaintext_bytes_to_read(), 0);
                    let read = tls.reader().read_exact(&mut self.received[start..]);
                    read.map_err(|error| error.to_string())?;
                }
                // The shard ends the connection because of the client's record.
                Err(Error::AlertReceived(_)) if self.manners.broken => {
                    self.closed = Some(0);
                    self.received.clear();
                    return Ok(());
                }
                Err(error) => return Err(format!("TLS: {error}")),
            }
        }
        Ok(())
    }
}
