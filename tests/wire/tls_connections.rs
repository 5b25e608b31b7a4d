//! TLS of the public port, with rustls as the client.
//!
//! Each entry of field reports about TLS has its test: bytes at the hand-over of a handshake,
//! key updates, handshakes that never end.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore,
    SupportedProtocolVersion,
};

use crate::common::{PATIENCE, Server, WEBSOCKET, client_frame, upgrade_request, wait_for};

const CERTIFICATE: &[u8] = include_bytes!("../../src/wire/tls/testdata/certificate.der");
const KEY: &[u8] = include_bytes!("../../src/wire/tls/testdata/key.der");
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
const NO_PAGE: &str = "GET /no-page HTTP/1.1\r\nHost: localhost\r\n\r\n";
const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}

/// A server with TLS on its public port, and none on the internal one.
fn server(flags: &[&str]) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    std::fs::write(&certificate, pem("CERTIFICATE", CERTIFICATE)).unwrap();
    std::fs::write(&key, pem("PRIVATE KEY", KEY)).unwrap();
    let mut all = vec!["--http_server.tls.enabled", "--http_server.tls_external"];
    all.extend(["--http_server.tls.cert_pem", &certificate, "--http_server.tls.key_pem", &key]);
    all.extend(flags);
    Server::start(&all)
}

fn config(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(CERTIFICATE)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A client that writes and reads records when it is told to.
struct Client {
    socket: TcpStream,
    tls: ClientConnection,
    /// Data that was read and not taken.
    data: Vec<u8>,
}

impl Client {
    /// A connection whose handshake has not begun.
    fn dial(server: &Server, config: &Arc<ClientConfig>) -> Client {
        let socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(config.clone(), name).unwrap();
        tls.set_buffer_limit(None);
        Client { socket, tls, data: Vec::new() }
    }

    /// A connection whose last flight of the handshake, the Finished, is not sent yet.
    fn before_finished(server: &Server, config: &Arc<ClientConfig>) -> Client {
        let mut client = Client::dial(server, config);
        while client.tls.is_handshaking() {
            client.flush();
            client.read_records().unwrap();
        }
        client
    }

    /// A connection whose handshake is complete.
    fn open(server: &Server, config: &Arc<ClientConfig>) -> Client {
        let mut client = Client::dial(server, config);
        while client.tls.is_handshaking() {
            client.tls.complete_io(&mut client.socket).unwrap();
        }
        client.flush();
        client
    }

    /// Connected as a client of the bidirectional protocol.
    fn connected(server: &Server, config: &Arc<ClientConfig>) -> Client {
        let mut client = Client::open(server, config);
        client.write(upgrade_request(WEBSOCKET).as_bytes());
        client.write(&client_frame(0x81, CONNECT.as_bytes()));
        client.flush();
        client.read_until(r#"{"id":1,"connect":{"client":""#);
        client
    }

    /// Adds data to what will be written.
    fn write(&mut self, data: &[u8]) {
        self.tls.writer().write_all(data).unwrap();
    }

    /// The records that wait to be written.
    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    fn flush(&mut self) {
        let records = self.records();
        self.socket.write_all(&records).unwrap();
    }

    /// Reads once from the socket; returns false at its end.
    fn read_records(&mut self) -> Result<bool, Error> {
        let count = match self.tls.read_tls(&mut self.socket) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("no record in time: {error}"),
        };
        let state = self.tls.process_new_packets()?;
        let begin = self.data.len();
        self.data.resize(begin + state.plaintext_bytes_to_read(), 0);
        self.tls.reader().read_exact(&mut self.data[begin..]).unwrap();
        Ok(count > 0)
    }

    /// Reads until the text comes; drops the data up to its end.
    fn read_until(&mut self, text: &str) {
        loop {
            let found = self.data.windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(at) = found {
                self.data.drain(..at + text.len());
                return;
            }
            let more = self.read_records().unwrap();
            let data = String::from_utf8_lossy(&self.data);
            assert!(more, "the connection ended before {text}, after {data}");
        }
    }

    /// Reads until all texts have come, in any order; drops everything.
    fn read_all(&mut self, texts: &[&str]) {
        let has =
            |data: &[u8], text: &str| data.windows(text.len()).any(|at| at == text.as_bytes());
        while !texts.iter().all(|text| has(&self.data, text)) {
            assert!(self.read_records().unwrap(), "the connection ended");
        }
        self.data.clear();
    }

    fn ask(&mut self, command: &str, reply: &str) {
        self.write(&client_frame(0x81, command.as_bytes()));
        self.flush();
        self.read_until(reply);
    }

    /// Sends a request over this connection, and reads the answer.
    fn request(&mut self, request: &str, status: &str, body: &str) {
        self.write(request.as_bytes());
        self.flush();
        self.read_until(&format!("HTTP/1.1 {status}"));
        self.read_until(body);
    }

    /// The error that ends the connection; `None`: it ends by close_notify.
    fn end(&mut self) -> Option<Error> {
        loop {
            match self.read_records() {
                Ok(_) if self.tls.process_new_packets().unwrap().peer_has_closed() => return None,
                Ok(more) => assert!(more, "the connection ended without close_notify"),
                Err(error) => return Some(error),
            }
        }
    }
}

#[test]
fn clients_of_both_versions_connect_publish_and_close() {
    let server = server(&[]);
    for version in VERSIONS {
        let mut client = Client::connected(&server, &config(version));
        client.ask(r#"{"id":2,"subscribe":{"channel":"c"}}"#, r#"{"id":2,"subscribe":{}}"#);
        for bytes in [1, 16_384, 60_000] {
            let data = "x".repeat(bytes);
            let publish = format!(r#"{{"id":3,"publish":{{"channel":"c","data":"{data}"}}}}"#);
            client.write(&client_frame(0x81, publish.as_bytes()));
            client.flush();
            client.read_all(&[&format!(r#""data":"{data}""#), r#"{"id":3,"publish":{}}"#]);
        }
        // A close of the WebSocket is followed by the alert.
        client.write(&client_frame(0x88, &1000u16.to_be_bytes()));
        client.flush();
        assert_eq!(client.end(), None, "{version:?}");
    }
    assert_eq!(server.metric("drumline_tls_handshakes_total"), 2);
    assert_eq!(server.metric("drumline_tls_faults_total"), 0);
    server.wait_metric("drumline_connections", |left| left == 0);
}

#[test]
fn requests_and_a_websocket_share_a_connection() {
    let server = server(&["--http_api.external", "--http_api.insecure"]);
    for version in VERSIONS {
        let mut client = Client::open(&server, &config(version));
        for nth in 0..5 {
            client.request(NO_PAGE, "404", "\r\n\r\n");
            let body = format!(r#"{{"channel":"c","data":"{}"}}"#, "x".repeat(nth * 20_000));
            let publish = format!(
                "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            client.request(&publish, "200", r#"{"result":{}}"#);
        }
        // Requests that arrive together are answered in turn.
        client.request(&NO_PAGE.repeat(2), "404", "HTTP/1.1 404");
        client.write(upgrade_request(WEBSOCKET).as_bytes());
        client.write(&client_frame(0x81, CONNECT.as_bytes()));
        client.flush();
        client.read_until(r#"{"id":1,"connect":{"#);
        client.ask(r#"{"id":2,"subscribe":{"channel":"c"}}"#, r#"{"id":2,"subscribe":{}}"#);
    }
}

#[test]
fn a_session_is_resumed_in_both_versions() {
    let server = server(&[]);
    for version in VERSIONS {
        let config = config(version);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let client = Client::connected(&server, &config);
            assert_eq!(client.tls.handshake_kind(), Some(expected), "{version:?}");
        }
    }
    assert_eq!(server.metric("drumline_tls_resumptions_total"), 4);
}

/// What a client sends at the end of its handshake in one go: Finished, a KeyUpdate that requests
/// an answer, an upgrade, and a command.
fn last_flight(server: &Server, config: &Arc<ClientConfig>) -> (Client, Vec<u8>) {
    let mut client = Client::before_finished(server, config);
    client.tls.refresh_traffic_keys().unwrap();
    client.write(upgrade_request(WEBSOCKET).as_bytes());
    client.write(&client_frame(0x81, CONNECT.as_bytes()));
    let records = client.records();
    (client, records)
}

fn expect_connected(client: &mut Client) {
    // rustls opens what follows the KeyUpdate of the server only by the new keys.
    client.read_until("HTTP/1.1 101 ");
    client.read_until(r#"{"id":1,"connect":{"client":""#);
    client.ask(r#"{"id":2,"publish":{"channel":"c","data":1}}"#, r#"{"id":2,"publish":{}}"#);
}

#[test]
fn no_byte_is_lost_where_the_last_flight_of_a_handshake_is_cut() {
    let server = server(&[]);
    let config = config(&TLS13);
    let (mut client, records) = last_flight(&server, &config);
    for byte in &records {
        client.socket.write_all(&[*byte]).unwrap();
    }
    expect_connected(&mut client);
    for cut in 1..records.len() {
        let (mut client, records) = last_flight(&server, &config);
        let (first, rest) = records.split_at(cut);
        client.socket.write_all(first).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        client.socket.write_all(rest).unwrap();
        expect_connected(&mut client);
    }
    // The client's and the server's.
    let expected = 2 * records.len() as u64;
    assert_eq!(server.metric("drumline_tls_key_updates_total"), expected);
    assert_eq!(server.metric("drumline_tls_faults_total"), 0);
}

/// A request that the control plane answers, in two records with a KeyUpdate between them, an
/// upgrade, and a command.
fn request_and_upgrade(client: &mut Client) -> Vec<u8> {
    let body = r#"{"channel":"c","data":"from the API"}"#;
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.write(head.as_bytes());
    client.tls.refresh_traffic_keys().unwrap();
    client.write(body.as_bytes());
    client.write(upgrade_request(WEBSOCKET).as_bytes());
    client.tls.refresh_traffic_keys().unwrap();
    client.write(&client_frame(0x81, CONNECT.as_bytes()));
    client.records()
}

#[test]
fn no_byte_is_lost_when_a_connection_moves_to_the_control_plane_and_back() {
    let server = server(&["--http_api.external", "--http_api.insecure"]);
    let config = config(&TLS13);
    let expect = |client: &mut Client| {
        client.read_until("HTTP/1.1 200 OK");
        client.read_until(r#"{"result":{}}"#);
        expect_connected(client);
    };
    let mut client = Client::open(&server, &config);
    let records = request_and_upgrade(&mut client);
    for byte in &records {
        client.socket.write_all(&[*byte]).unwrap();
    }
    expect(&mut client);
    for cut in 1..records.len() {
        let mut client = Client::open(&server, &config);
        let records = request_and_upgrade(&mut client);
        let (first, rest) = records.split_at(cut);
        client.socket.write_all(first).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        client.socket.write_all(rest).unwrap();
        expect(&mut client);
    }
    assert_eq!(server.metric("drumline_tls_faults_total"), 0);
}

#[test]
fn a_stopping_server_closes_in_order() {
    let mut server = server(&["--shutdown.spread", "0s"]);
    let mut clients = VERSIONS.map(|version| Client::connected(&server, &config(version)));
    server.signal_stop();
    for client in &mut clients {
        client.read_until("shutdown");
        client.write(&client_frame(0x88, &3001u16.to_be_bytes()));
        client.flush();
        assert_eq!(client.end(), None);
    }
    drop(clients);
    assert!(server.wait().success());
}

#[test]
fn a_draining_server_completes_handshakes_of_newcomers_and_answers_503() {
    let mut server = server(&["--shutdown.spread", "4s"]);
    let open = |version| Client::connected(&server, &config(version));
    let mut clients: Vec<Client> = VERSIONS.into_iter().cycle().take(6).map(open).collect();
    let begun = VERSIONS.map(|version| Client::before_finished(&server, &config(version)));
    server.signal_stop();
    // One client of each shard is closed at once, and shows that the drain has begun.
    std::thread::sleep(Duration::from_millis(500));
    let newcomers = VERSIONS.map(|version| Client::open(&server, &config(version)));
    for mut client in newcomers.into_iter().chain(begun) {
        client.request(&upgrade_request(WEBSOCKET), "503", "Retry-After: 5");
        client.read_until("the server shuts down");
    }
    for client in &mut clients {
        client.read_until("shutdown");
        client.write(&client_frame(0x88, &3001u16.to_be_bytes()));
        client.flush();
        assert_eq!(client.end(), None);
    }
    assert!(server.wait().success());
}

#[test]
fn parts_of_records_are_bounded_and_dropped_with_their_connection() {
    const CONNECTIONS: usize = 200;
    let server = server(&[]);
    let config = config(&TLS13);
    let mut clients: Vec<Client> =
        (0..CONNECTIONS).map(|_| Client::connected(&server, &config)).collect();
    let before = server.metric("drumline_unread_bytes");
    for client in &mut clients {
        client.write(&client_frame(0x81, format!("{:16000}", "{}").as_bytes()));
        let records = client.records();
        client.socket.write_all(&records[..records.len() - 1]).unwrap();
    }
    let kept = server.wait_metric("drumline_unread_bytes", |kept| kept - before > 3_000_000);
    assert!(kept - before < CONNECTIONS as u64 * 20_000, "{kept}");
    drop(clients);
    server.wait_metric("drumline_unread_bytes", |kept| kept <= before);
}

#[test]
fn a_key_update_between_messages_keeps_their_order() {
    let server = server(&[]);
    let mut client = Client::connected(&server, &config(&TLS13));
    for round in 0..100 {
        client.write(&client_frame(0x89, b"before"));
        client.tls.refresh_traffic_keys().unwrap();
        client.write(&client_frame(0x89, b"after"));
        client.flush();
        client.read_until("\u{6}before");
        client.read_until("\u{5}after");
        assert!(client.data.is_empty(), "round {round}");
    }
}

#[test]
fn key_updates_with_data_between_them_keep_a_connection() {
    let server = server(&[]);
    let mut client = Client::connected(&server, &config(&TLS13));
    for _ in 0..400 {
        for _ in 0..25 {
            client.tls.refresh_traffic_keys().unwrap();
            client.write(&client_frame(0x89, b"p"));
        }
        client.flush();
        for _ in 0..25 {
            client.read_until("\u{1}p");
        }
    }
    client.ask(r#"{"id":2,"publish":{"channel":"c","data":1}}"#, r#"{"id":2,"publish":{}}"#);
    assert!(server.metric("drumline_tls_key_updates_total") > 10_000);
}

#[test]
fn key_updates_in_a_row_end_a_connection_with_an_alert() {
    let server = server(&[]);
    let mut client = Client::connected(&server, &config(&TLS13));
    for _ in 0..1000 {
        client.tls.refresh_traffic_keys().unwrap();
    }
    let records = client.records();
    // The server may close before it has read everything.
    let _ = client.socket.write_all(&records);
    let alert = Error::AlertReceived(AlertDescription::UnexpectedMessage);
    assert_eq!(client.end(), Some(alert));
    assert_eq!(server.metric("drumline_tls_faults_total"), 1);
    assert!(server.metric("drumline_tls_key_updates_total") < 100);
    server.wait_metric("drumline_connections", |left| left == 0);
}

#[test]
fn half_a_client_hello_delays_nobody_and_is_dropped_in_time() {
    let most = if std::env::var("SIZE").as_deref() == Ok("full") { 15_000 } else { 300 };
    let slots = (most + 100).to_string();
    let server = server(&["--engine.slots_per_shard", &slots, "--client.stale_close_delay", "3s"]);
    let config = config(&TLS13);
    let before = server.metric("drumline_sockets");
    let halves: Vec<Client> = (0..most)
        .map(|_| {
            let mut client = Client::dial(&server, &config);
            let hello = client.records();
            client.socket.write_all(&hello[..hello.len() / 2]).unwrap();
            client
        })
        .collect();
    let mut established = Client::connected(&server, &config);
    established.ask(r#"{"id":2,"publish":{"channel":"c","data":1}}"#, r#"{"id":2,"publish":{}}"#);
    for mut half in halves {
        // The server closes without a word: no handshake has begun.
        wait_for("the end of a half handshake", || match half.socket.read(&mut [0; 64]) {
            Ok(0) => Some(()),
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(()),
            Err(error) => panic!("{error}"),
        });
    }
    server.wait_metric("drumline_sockets", |left| left <= before + 1);
    assert_eq!(server.metric("drumline_tls_handshakes_open"), 0);
    established.ask(r#"{"id":3,"publish":{"channel":"c","data":1}}"#, r#"{"id":3,"publish":{}}"#);
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let server = server(&["--client.queue_max_size", "8388608"]);
    for version in VERSIONS {
        let config = config(version);
        let mut reader = Client::connected(&server, &config);
        reader.ask(r#"{"id":2,"subscribe":{"channel":"c"}}"#, r#"{"id":2,"subscribe":{}}"#);
        let mut publisher = Client::connected(&server, &config);
        let data = "y".repeat(30_000);
        for id in 3..150 {
            let publish =
                format!(r#"{{"id":{id},"publish":{{"channel":"c","data":"{id}:{data}"}}}}"#);
            publisher.ask(&publish, &format!(r#"{{"id":{id},"publish":{{}}}}"#));
        }
        // The reader changes its keys while the server cannot write.
        if version.version == TLS13.version {
            for _ in 0..40 {
                reader.tls.refresh_traffic_keys().unwrap();
                reader.write(&client_frame(0x8a, b"data between them"));
            }
            reader.flush();
        }
        for id in 3..150 {
            reader.read_until(&format!(r#""data":"{id}:{data}""#));
        }
        reader.ask(r#"{"id":3,"publish":{"channel":"d","data":1}}"#, r#"{"id":3,"publish":{}}"#);
    }
    assert_eq!(server.metric("drumline_tls_faults_total"), 0);
}

#[test]
fn plain_http_on_a_port_with_tls_is_told_so() {
    let server = server(&[]);
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = [0; 64];
    socket.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
}
