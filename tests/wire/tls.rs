//! TLS of the internal port and of backends, with certificates that are replaced.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use drumline::tls::provider::provider;

use crate::common::certificates::{Authority, Pair, connect, get};
use crate::common::{Client, Server, WEBSOCKET, wait_for};

/// Writes a pair as `NAME.crt` and `NAME.key`.
fn write(folder: &Path, name: &str, pair: &Pair) -> [String; 2] {
    let write = |ending: &str, text: &str| {
        let path = folder.join(format!("{name}.{ending}"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    [write("crt", &pair.certificate), write("key", &pair.key)]
}

/// The value of a metric.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("{name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_internal_port_requires_client_certificates_and_serves_replaced_ones() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = write(folder.path(), "server", &authority.issue("old.test"));
    let ca = folder.path().join("ca.crt").display().to_string();
    std::fs::write(&ca, &authority.pem).unwrap();
    let flags = [
        ("cert_pem", certificate.as_str()),
        ("key_pem", &key),
        ("client_ca_pem", &ca),
        ("enabled", "true"),
    ]
    .map(|(name, value)| format!("--http_server.internal_tls.{name}={value}"));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Server::launch(&[&flags[..], &["--client.insecure"]].concat(), |_| {});
    let address = server.internal_address();
    let own = authority.issue("operator.test");
    let with_certificate = authority.client(Some(&own));
    let open = |host| connect(address, host, &with_certificate).ok();
    let mut old = wait_for("the server", || open("old.test"));
    let (head, text) = get(&mut old, "/metrics").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let series = "drumline_tls_certificate_expiry_timestamp_seconds{";
    assert!(metric(&text, series) > 4e9, "the certificate of the test is valid for long");
    assert_eq!(metric(&text, "drumline_tls_certificate_unusable{"), 0.0);
    let stranger = foreign.issue("operator.test");
    for (config, told) in [
        (authority.client(None), "no certificate"),
        (authority.client(Some(&stranger)), "a certificate of another authority"),
    ] {
        let refused = connect(address, "old.test", &config)
            .and_then(|mut stream| get(&mut stream, "/metrics"));
        assert!(refused.is_err(), "a client with {told} got {refused:?}");
    }
    // One file after the other: in between, the old pair is served.
    let new = authority.issue("new.test");
    std::fs::write(&certificate, &new.certificate).unwrap();
    wait_for("the metric of files that do not fit", || {
        let (_, text) = get(&mut old, "/metrics").unwrap();
        (metric(&text, "drumline_tls_certificate_unusable{") == 1.0).then_some(())
    });
    assert!(open("old.test").is_some() && open("new.test").is_none());
    std::fs::write(&key, &new.key).unwrap();
    wait_for("the new pair", || open("new.test"));
    assert!(open("old.test").is_none());
    let (head, text) = get(&mut old, "/metrics").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "the connection has lived through it: {head}");
    assert_eq!(metric(&text, "drumline_tls_certificate_unusable{"), 0.0);
}

#[test]
fn a_backend_with_a_private_authority_gets_the_client_certificate() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = write(folder.path(), "client", &authority.issue("drumline.test"));
    let own = authority.issue("backend.test");
    let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider());
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(own.chain(), own.private_key())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/rpc", listener.local_addr().unwrap());
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(config.clone()).unwrap();
            // A client that is not trusted ends its own connection alone.
            let _ = answer(StreamOwned::new(connection, socket));
        }
    });
    let ask = |name: &str| {
        let section = [
            ("enabled", "true"),
            ("server_ca_pem", &authority.pem),
            ("cert_pem", &certificate),
            ("key_pem", &key),
            ("server_name", name),
        ];
        let flags = section.map(|(key, value)| format!("--rpc.proxy.http.tls.{key}={value}"));
        let endpoint = format!("--rpc.proxy.endpoint={url}");
        let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
        all.extend(["--client.insecure", "--rpc.without_namespace.proxy_enabled", &endpoint]);
        let server = Server::with(&all);
        let mut client = Client::open(server.address(), WEBSOCKET);
        client.ask(r#"{"id":1,"connect":{}}"#);
        client.ask(r#"{"id":2,"rpc":{"method":"a"}}"#)
    };
    assert_eq!(ask("backend.test"), r#"{"id":2,"rpc":{"data":"done"}}"#);
    assert!(ask("other.test").contains(r#""code":100"#));
}

/// Answers one request.
fn answer(stream: StreamOwned<ServerConnection, std::net::TcpStream>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(given) = line.trim().to_ascii_lowercase().strip_prefix("content-length: ") {
            length = given.parse().unwrap();
        }
        line.clear();
    }
    reader.read_exact(&mut vec![0; length])?;
    let stream = reader.get_mut();
    let body = r#"{"result":{"data":"done"}}"#;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()
}
