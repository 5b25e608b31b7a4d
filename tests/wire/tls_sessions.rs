//! TLS across the life of a server and behind a proxy: sessions that are resumed after a reload and
//! a restart, handshakes behind PROXY headers, attempts that fail, and a key set over https.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use serde_json::{Value, json};

use drumline::tls::provider::provider;

use crate::common::backend::Backend;
use crate::common::certificates::{Authority, TlsStream, connect, converse, get};
use crate::common::{PATIENCE, Server, WEBSOCKET, client_frame, free_port};
use crate::common::{upgrade_request, wait_for};

/// A server's folder with a certificate for localhost, and the flags that name it.
struct Files {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Files {
        let files = Files { folder: tempfile::tempdir().unwrap(), authority: Authority::new() };
        files.issue();
        files
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes a new certificate.
    fn issue(&self) {
        let pair = self.authority.issue("localhost");
        std::fs::write(self.path("server.crt"), &pair.certificate).unwrap();
        std::fs::write(self.path("server.key"), &pair.key).unwrap();
    }

    fn flags(&self, more: &[&str]) -> Vec<String> {
        let tls = [("cert_pem", "server.crt"), ("key_pem", "server.key")];
        let tls = tls.map(|(key, name)| format!("--http_server.tls.{key}={}", self.path(name)));
        let own = ["--http_server.tls.enabled", "--http_server.tls_external", "--client.insecure"];
        let small = ["--shards=2", "--engine.slots_per_shard=500"];
        let all = own.iter().chain(&small).chain(more);
        tls.into_iter().chain(all.map(|flag| (*flag).to_owned())).collect()
    }

    fn server(&self, more: &[&str]) -> Server {
        let flags = self.flags(more);
        Server::with(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Clients of both versions. Each keeps its sessions.
    fn clients(&self) -> [Arc<ClientConfig>; 2] {
        [&TLS13, &TLS12].map(|version| {
            let builder = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap();
            let roots = self.authority.roots();
            Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
        })
    }
}

/// How a client's handshake went. It takes the tickets that the server sends behind it.
fn handshake(server: &Server, config: &Arc<ClientConfig>) -> HandshakeKind {
    let mut stream = connect(server.address(), "localhost", config).unwrap();
    let (head, _) = get(&mut stream, "/nothing").unwrap();
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    stream.conn.handshake_kind().unwrap()
}

#[test]
fn sessions_are_resumed_after_a_reload_and_with_a_key_file_after_a_restart() {
    let files = Files::new();
    let keys = format!("--http_server.tls.session_ticket_key_file={}", files.path("tickets"));
    for (flags, after_restart) in
        [(&[&*keys][..], HandshakeKind::Resumed), (&[], HandshakeKind::Full)]
    {
        let server = files.server(flags);
        let clients = files.clients();
        let all = |server: &Server| clients.each_ref().map(|config| handshake(server, config));
        assert_eq!(all(&server), [HandshakeKind::Full; 2]);
        assert_eq!(all(&server), [HandshakeKind::Resumed; 2]);
        let expiry = "drumline_tls_certificate_expiry_timestamp_seconds";
        assert!(server.metric(expiry) > 0);
        files.issue();
        server.signal(Signal::HUP);
        // A client without a session gets the new certificate.
        let new = std::fs::read(files.path("server.crt")).unwrap();
        wait_for("the new certificate", || {
            let fresh = &files.clients()[0];
            let stream = connect(server.address(), "localhost", fresh).unwrap();
            let served = &stream.conn.peer_certificates().unwrap()[0];
            let pem = rustls::pki_types::pem::PemObject::from_pem_slice(&new);
            let written: rustls::pki_types::CertificateDer<'_> = pem.unwrap();
            (*served == written).then_some(())
        });
        assert_eq!(all(&server), [HandshakeKind::Resumed; 2], "after a reload");
        drop(server);
        let server = files.server(flags);
        assert_eq!(all(&server), [after_restart; 2], "after a restart");
    }
}

/// A TLS connection behind these bytes, of which the first `cut` come alone.
fn connect_behind(
    server: &Server,
    config: &Arc<ClientConfig>,
    header: &[u8],
    cut: usize,
) -> std::io::Result<TlsStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(config.clone(), name).unwrap();
    let mut bytes = header.to_vec();
    tls.write_tls(&mut bytes)?;
    let mut socket = TcpStream::connect(server.address())?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (first, rest) = bytes.split_at(cut);
    socket.write_all(first)?;
    if !first.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    socket.write_all(rest)?;
    let mut stream = StreamOwned::new(tls, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// A header of version 2 for a client with this last part of its address.
fn binary_header(last: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([9, 9, 8, last, 1, 1, 1, 1, 0, 80, 1, 187]);
    header
}

fn text_header(last: u8) -> Vec<u8> {
    format!("PROXY TCP4 9.9.9.{last} 1.1.1.1 80 443\r\n").into_bytes()
}

#[test]
fn a_handshake_behind_a_proxy_header_counts_the_client_of_the_header() {
    let files = Files::new();
    let server = files.server(&[
        "--http_server.proxy_protocol",
        "--http_server.trusted_proxies=127.0.0.1",
        "--client.address_connection_limit=2",
    ]);
    let clients = files.clients();
    let idle = server.settle();
    let upgrade = upgrade_request(WEBSOCKET);
    for (at, header) in [text_header, binary_header].into_iter().enumerate() {
        let config = &clients[at];
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut stream = connect_behind(&server, config, &header(1), 0).unwrap();
            converse(&mut stream, upgrade.as_bytes(), "HTTP/1.1 101 ").unwrap();
            kept.push(stream);
        }
        assert!(connect_behind(&server, config, &header(1), 0).is_err(), "a third of one client");
        // Another client, with the header and the ClientHello cut everywhere.
        let length = header(2).len();
        for cut in 1..length + 8 {
            let mut stream = connect_behind(&server, config, &header(2), cut).unwrap();
            converse(&mut stream, upgrade.as_bytes(), "HTTP/1.1 101 ").unwrap();
            drop(stream);
            if cut % 2 == 0 {
                // The counts of two clients are given back.
                server.wait_metric("drumline_sockets", |left| left == idle + 2);
            }
        }
        drop(kept);
        server.wait_metric("drumline_sockets", |left| left == idle);
    }
    // Without a header, no handshake begins.
    assert!(connect_behind(&server, &clients[0], b"", 0).is_err());
    assert_eq!(server.metric("drumline_tls_faults_total"), 0);
}

/// One attempt that fails, in the way of its number.
fn fail(server: &Server, config: &Arc<ClientConfig>, way: usize) -> std::io::Result<()> {
    let dial = || {
        let socket = TcpStream::connect(server.address())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok::<_, std::io::Error>(socket)
    };
    let reset =
        |socket: &TcpStream| socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    let mut hello = Vec::new();
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(config.clone(), name).unwrap().write_tls(&mut hello)?;
    let tls = || connect(server.address(), "localhost", config);
    match way {
        // Not TLS, half a ClientHello and its end, and resets in the handshake.
        0 => dial()?.write_all(b"GET / HTTP/1.1\r\n\r\n")?,
        1 => dial()?.write_all(b"\x16\x03\x01\x00\x05 what")?,
        2 => dial()?.write_all(&hello[..hello.len() / 2])?,
        3 => {
            let mut socket = dial()?;
            socket.write_all(&hello)?;
            socket.read_exact(&mut [0; 5])?;
            reset(&socket)?;
        }
        4 => {
            let mut socket = dial()?;
            socket.write_all(&hello)?;
            socket.shutdown(Shutdown::Write)?;
            while socket.read(&mut [0; 4096])? > 0 {}
        }
        // A client that does not trust the certificate.
        5 => {
            let stranger = Authority::new().client(None);
            assert!(connect(server.address(), "localhost", &stranger).is_err());
        }
        // After the handshake: no request, no upgrade, a wrong origin, a refused token.
        6 => drop(tls()?),
        7 => _ = get(&mut tls()?, "/nothing")?,
        8 => {
            let origin = upgrade_request(WEBSOCKET).replacen("\r\n", "\r\nOrigin: http://b\r\n", 1);
            converse(&mut tls()?, origin.as_bytes(), "HTTP/1.1 403 ")?;
        }
        9 => {
            let mut stream = tls()?;
            converse(&mut stream, upgrade_request(WEBSOCKET).as_bytes(), "HTTP/1.1 101 ")?;
            let connect = client_frame(0x81, br#"{"id":1,"connect":{"token":"bad"}}"#);
            converse(&mut stream, &connect, "invalid token")?;
        }
        10 => reset(&tls()?.sock)?,
        // A record that the keys do not open.
        _ => {
            let mut stream = tls()?;
            stream.sock.write_all(&[23, 3, 3, 0, 40])?;
            stream.sock.write_all(&[7; 40])?;
            assert!(stream.read(&mut [0; 16]).is_err());
        }
    }
    Ok(())
}

#[test]
fn attempts_that_fail_in_a_handshake_or_after_it_leave_no_count() {
    let attempts = if std::env::var("SIZE").as_deref() == Ok("full") { 1000 } else { 120 };
    let files = Files::new();
    let server = files.server(&[
        "--client.address_connection_limit=30",
        "--client.allowed_origins=http://good",
        "--client.token.hmac_secret_key=secret",
        "--client.stale_close_delay=1s",
    ]);
    let idle = server.settle();
    let config = files.authority.client(None);
    for attempt in 0..attempts {
        // An attempt may find 30 connections of earlier ones that are still ending.
        wait_for("an attempt", || fail(&server, &config, attempt % 12).ok());
    }
    for count in ["drumline_connections", "drumline_tls_handshakes_open"] {
        server.wait_metric(count, |left| left == 0);
    }
    server.wait_metric("drumline_sockets", |left| left == idle);
    let dial = || -> std::io::Result<TlsStream> {
        let mut stream = connect(server.address(), "localhost", &config)?;
        converse(&mut stream, upgrade_request(WEBSOCKET).as_bytes(), "HTTP/1.1 101 ")?;
        Ok(stream)
    };
    let clients: Vec<TlsStream> = (0..30).map(|_| dial().unwrap()).collect();
    assert!(dial().is_err(), "the limit holds");
    drop(clients);
    wait_for("the count to fall", || dial().ok());
}

#[test]
fn a_key_set_is_fetched_over_https() {
    let authority = Authority::new();
    let samples: Value =
        serde_json::from_str(include_str!("../../src/model/token/samples.json")).unwrap();
    let backend = Backend::start_with_tls(&authority.issue("localhost"));
    backend.answer("keys", &samples["set"].to_string());
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("ca.pem");
    std::fs::write(&roots, &authority.pem).unwrap();
    let connect = json!({"id": 1, "connect": {"token": samples["tokens"]["ES256"]}}).to_string();
    // The certificate must be for the host of the address.
    for (host, answer) in [("localhost", r#""connect":{"client""#), ("127.0.0.1", r#""code":100"#)]
    {
        let endpoint = format!("https://{host}:{}/keys", backend.port);
        let flag = format!("--client.token.jwks_public_endpoint={endpoint}");
        let server =
            Server::launch_on(&["--shards=1", &flag], free_port(), free_port(), |command| {
                command.env("SSL_CERT_FILE", &roots);
            });
        wait_for("the server", || TcpStream::connect(server.internal_address()).ok());
        let mut client = crate::common::Client::open(server.address(), WEBSOCKET);
        let reply = client.ask(&connect);
        assert!(reply.contains(answer), "{host}: {reply}");
    }
    assert_eq!(backend.asked("keys").len(), 1);
}
