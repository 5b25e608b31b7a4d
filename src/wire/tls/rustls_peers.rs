//! Records against rustls: one end of a connection is rustls, the other end is extracted from
//! rustls after the handshake and goes on with `RecordKeys`.
#![cfg(test)]

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, ConnectionTrafficSecrets, ExtractedSecrets,
    KeyLog, RootCertStore, ServerConfig, ServerConnection, SideData,
};

use crate::wire::tls::keys::{RecordKeys, TrafficKeys};
use crate::wire::tls::open::{Content, Opened};
use crate::wire::tls::{AlertDescription, Suite};

const CERTIFICATE: &[u8] = include_bytes!("testdata/certificate.der");
const KEY: &[u8] = include_bytes!("testdata/key.der");

/// Keeps the traffic secrets of one connection.
#[derive(Debug, Default)]
struct Secrets(Mutex<Vec<(String, Vec<u8>)>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().push((label.to_owned(), secret.to_vec()));
    }
}

impl Secrets {
    fn get(&self, label: &str) -> Vec<u8> {
        let secrets = self.0.lock().unwrap();
        secrets.iter().find(|(name, _)| name == label).unwrap().1.clone()
    }
}

fn suites() -> [(Suite, Arc<CryptoProvider>); 3] {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    [
        (Suite::Aes128Gcm, TLS13_AES_128_GCM_SHA256),
        (Suite::Aes256Gcm, TLS13_AES_256_GCM_SHA384),
        (Suite::ChaCha20Poly1305, TLS13_CHACHA20_POLY1305_SHA256),
    ]
    .map(|(suite, rustls_suite)| {
        let provider =
            CryptoProvider { cipher_suites: vec![rustls_suite], ..aws_lc_rs::default_provider() };
        (suite, Arc::new(provider))
    })
}

/// Both ends after the handshake, and the secrets of the connection.
fn established(provider: &Arc<CryptoProvider>) -> (ServerConnection, ClientConnection, Secrets) {
    let certificate = CertificateDer::from(CERTIFICATE);
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let secrets = Arc::new(Secrets::default());
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(KEY).unwrap())
        .unwrap();
    server.enable_secret_extraction = true;
    server.key_log = secrets.clone();
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    while server.is_handshaking() || client.is_handshaking() {
        let to_server = written(&mut client);
        read(&mut server, &to_server);
        if server.is_handshaking() || client.is_handshaking() {
            let to_client = written(&mut server);
            read(&mut client, &to_client);
        }
    }
    // The server still holds its tickets, which must be sent before the secrets are extracted.
    let secrets = Secrets(Mutex::new(secrets.0.lock().unwrap().drain(..).collect()));
    (server, client, secrets)
}

fn written<S: SideData>(connection: &mut ConnectionCommon<S>) -> Vec<u8> {
    let mut out = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut out).unwrap();
    }
    out
}

/// Gives the bytes to the connection. Returns the data that it opened.
fn read<S: SideData>(connection: &mut ConnectionCommon<S>, mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while !bytes.is_empty() {
        connection.read_tls(&mut bytes).unwrap();
        let opened = connection.process_new_packets().unwrap().plaintext_bytes_to_read();
        let begin = data.len();
        data.resize(begin + opened, 0);
        connection.reader().read_exact(&mut data[begin..]).unwrap();
    }
    data
}

fn parts(secrets: &ConnectionTrafficSecrets) -> (Vec<u8>, [u8; 12]) {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (key.as_ref().to_vec(), iv.as_ref().try_into().unwrap())
        }
        _ => panic!("a suite of TLS 1.3"),
    }
}

/// The record layer of an end whose secrets were taken out of rustls.
fn record_keys(
    suite: Suite,
    extracted: &ExtractedSecrets,
    secrets: &Secrets,
    is_client: bool,
) -> RecordKeys {
    let labels = ["SERVER_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0"];
    let [send, receive] = if is_client { [labels[1], labels[0]] } else { labels };
    let (send, receive) = (secrets.get(send), secrets.get(receive));
    let ((send_key, send_iv), (key, iv)) = (parts(&extracted.tx.1), parts(&extracted.rx.1));
    let sequence = extracted.tx.0;
    let send = TrafficKeys { secret: &send, key: &send_key, iv: send_iv, sequence };
    let receive = TrafficKeys { secret: &receive, key: &key, iv, sequence: extracted.rx.0 };
    let new = if is_client { RecordKeys::of_client } else { RecordKeys::new };
    new(suite, &send, &receive).unwrap()
}

/// What the keys open: data joined, other records by their names.
fn open(keys: &mut RecordKeys, mut input: &mut [u8]) -> (Vec<u8>, Vec<String>) {
    let (mut data, mut others) = (Vec::new(), Vec::new());
    while !input.is_empty() {
        let Opened::Record { used, content } = keys.open(input).unwrap() else { panic!() };
        match content {
            Content::Data(content) => data.extend_from_slice(content),
            other => others.push(format!("{other:?}")),
        }
        input = &mut input[used..];
    }
    (data, others)
}

fn seal(keys: &mut RecordKeys, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; RecordKeys::sealed_len(plain.len())];
    keys.seal(plain.chunks(7_000), &mut out);
    out
}

/// Data of several records, with every byte value.
fn long() -> Vec<u8> {
    (0..100_000u32).map(|at| (at % 251) as u8).collect()
}

/// Exchanges data, changes keys from both ends and closes from both ends.
fn converse<S: SideData>(
    mut keys: RecordKeys,
    mut peer: impl std::ops::DerefMut<Target = ConnectionCommon<S>>,
) {
    let long = long();
    for round in 0..3 {
        peer.set_buffer_limit(None);
        peer.writer().write_all(&long).unwrap();
        assert_eq!(open(&mut keys, &mut written(&mut peer)).0, long);
        assert_eq!(read(&mut peer, &seal(&mut keys, b"short")), b"short", "round {round}");
        let sealed = seal(&mut keys, &long);
        let received = sealed.chunks(30_000).flat_map(|part| read(&mut peer, part));
        assert_eq!(received.collect::<Vec<u8>>(), long);

        // The peer changes its keys and requests an answer.
        peer.refresh_traffic_keys().unwrap();
        let (_, others) = open(&mut keys, &mut written(&mut peer));
        assert_eq!(others, ["KeyUpdate { answer: true }"]);
        let mut out = Vec::new();
        keys.seal_key_update(false, &mut out);
        read(&mut peer, &out);

        // This end changes its keys and requests an answer.
        let mut out = Vec::new();
        keys.seal_key_update(true, &mut out);
        read(&mut peer, &out);
        // rustls sends the answer with what it writes next.
        peer.writer().write_all(b"next").unwrap();
        let (next, others) = open(&mut keys, &mut written(&mut peer));
        assert_eq!(
            (&next[..], &others[..]),
            (&b"next"[..], &["KeyUpdate { answer: false }".to_owned()][..])
        );
    }
    let mut out = Vec::new();
    keys.seal_alert(AlertDescription::CloseNotify, &mut out);
    read(&mut peer, &out);
    assert_eq!(peer.reader().read(&mut [0; 1]).unwrap(), 0);
    peer.send_close_notify();
    assert_eq!(open(&mut keys, &mut written(&mut peer)).1, ["Closed"]);
}

#[test]
fn a_rustls_client_talks_to_extracted_keys() {
    for (suite, provider) in suites() {
        let (mut server, mut client, secrets) = established(&provider);
        let tickets = written(&mut server);
        read(&mut client, &tickets);
        let extracted = server.dangerous_extract_secrets().unwrap();
        converse(record_keys(suite, &extracted, &secrets, false), client);
    }
}

#[test]
fn a_rustls_server_talks_to_extracted_keys() {
    for (suite, provider) in suites() {
        let (mut server, client, secrets) = established(&provider);
        let tickets = written(&mut server);
        let extracted = client.dangerous_extract_secrets().unwrap();
        let mut keys = record_keys(suite, &extracted, &secrets, true);
        let (data, others) = open(&mut keys, &mut tickets.clone());
        assert!(data.is_empty() && others.iter().all(|other| other == "Nothing"));
        assert!(!others.is_empty(), "rustls sends tickets");
        converse(keys, server);
    }
}

#[test]
fn a_rustls_client_understands_a_fatal_alert() {
    let (suite, provider) = suites().into_iter().next().unwrap();
    let (mut server, mut client, secrets) = established(&provider);
    read(&mut client, &written(&mut server));
    let extracted = server.dangerous_extract_secrets().unwrap();
    let mut keys = record_keys(suite, &extracted, &secrets, false);
    let mut out = Vec::new();
    keys.seal_alert(AlertDescription::RecordOverflow, &mut out);
    client.read_tls(&mut &out[..]).unwrap();
    let error = client.process_new_packets().unwrap_err();
    let alert = rustls::AlertDescription::RecordOverflow;
    assert_eq!(error, rustls::Error::AlertReceived(alert));
}

#[test]
fn secrets_of_before_a_key_update_are_refused() {
    let (suite, provider) = suites().into_iter().next().unwrap();
    let (mut server, mut client, secrets) = established(&provider);
    read(&mut client, &written(&mut server));
    client.refresh_traffic_keys().unwrap();
    read(&mut server, &written(&mut client));
    written(&mut server);
    let extracted = server.dangerous_extract_secrets().unwrap();
    let (key, iv) = parts(&extracted.rx.1);
    let secret = secrets.get("CLIENT_TRAFFIC_SECRET_0");
    let (send_key, send_iv) = parts(&extracted.tx.1);
    let send_secret = secrets.get("SERVER_TRAFFIC_SECRET_0");
    let send = TrafficKeys { secret: &send_secret, key: &send_key, iv: send_iv, sequence: 0 };
    let receive = TrafficKeys { secret: &secret, key: &key, iv, sequence: 0 };
    assert!(RecordKeys::new(suite, &send, &receive).is_err());
}
