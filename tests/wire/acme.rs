//! Certificates from pebble, the ACME server for tests, which checks hosts over real sockets.
//!
//! The step `acme` of scripts/test.sh installs pebble and runs this file.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use drumline::tls::provider::provider;

use crate::common::certificates::{Authority, connect, get};
use crate::common::{Server, free_port, wait_for};

/// Lifetime of the certificates in seconds. The server renews after two thirds of it.
const LIFETIME: u32 = 15;

/// A running pebble.
struct Pebble(Child);

impl Pebble {
    fn start(folder: &Path) -> Pebble {
        let binary = std::env::var_os("PEBBLE").expect("PEBBLE names the binary");
        let child = Command::new(binary)
            .args(["-config", folder.join("pebble.json").to_str().unwrap()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .stdout(Stdio::null())
            .spawn();
        Pebble(child.expect("pebble starts"))
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The certificate of the public port for localhost, if it is from this authority.
fn served(server: &Server, config: &std::sync::Arc<ClientConfig>) -> Option<Vec<u8>> {
    let stream = connect(server.address(), "localhost", config).ok()?;
    Some(stream.conn.peer_certificates()?.first()?.to_vec())
}

/// A client that trusts the root that this pebble has made for itself.
fn trusting(management: SocketAddr, own: &Authority) -> std::sync::Arc<ClientConfig> {
    let mut stream =
        wait_for("pebble", || connect(management, "localhost", &own.client(None)).ok());
    let (_, pem) = get(&mut stream, "/roots/0").unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    std::sync::Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[test]
#[ignore = "needs pebble: scripts/test.sh acme"]
fn certificates_are_issued_by_both_challenges_kept_and_renewed_after_failures() {
    let own = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let pair = own.issue("localhost");
    std::fs::write(path("pebble.crt"), &pair.certificate).unwrap();
    std::fs::write(path("pebble.key"), &pair.key).unwrap();
    std::fs::write(path("ca.crt"), &own.pem).unwrap();
    let [directory, management, http, tls] = [(); 4].map(|()| free_port());
    let config = serde_json::json!({"pebble": {
        "listenAddress": format!("127.0.0.1:{directory}"),
        "managementListenAddress": format!("127.0.0.1:{management}"),
        "certificate": path("pebble.crt"), "privateKey": path("pebble.key"),
        "httpPort": http, "tlsPort": tls, "keyAlgorithm": "ecdsa",
        "retryAfter": {"authz": 1, "order": 1},
        "profiles": {"default": {"description": "short", "validityPeriod": LIFETIME}},
    }});
    std::fs::write(path("pebble.json"), config.to_string()).unwrap();
    let pebble = Pebble::start(folder.path());
    let management = SocketAddr::from(([127, 0, 0, 1], management));
    let trust = trusting(management, &own);
    let start = |cache: &str, port: u16, more: &[&str]| {
        let options = [
            ("enabled", "true".to_owned()),
            ("host_whitelist", "localhost".to_owned()),
            ("cache_dir", path(cache)),
            ("directory_url", format!("https://localhost:{directory}/dir")),
            ("directory_ca_pem", path("ca.crt")),
        ];
        // The metrics stay readable when the certificate has expired.
        let more = [&["--http_server.tls_external", "--client.insecure"], more].concat();
        let flags = options.map(|(key, value)| format!("--http_server.tls_autocert.{key}={value}"));
        let flags: Vec<&str> =
            flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let server = Server::launch_on(&flags, port, free_port(), |_| {});
        wait_for("the server", || TcpStream::connect(server.internal_address()).ok());
        server
    };
    let by_tls = start("tls", tls, &[]);
    let address = format!("--http_server.tls_autocert.http_addr=127.0.0.1:{http}");
    let by_http = ["--http_server.tls_autocert.http", &address];
    let port = free_port();
    let other = start("http", port, &by_http);
    let first = wait_for("a certificate by tls-alpn-01", || served(&by_tls, &trust));
    let kept = wait_for("a certificate by http-01", || served(&other, &trust));
    // Without the authority, a restarted server serves what it has kept.
    drop(pebble);
    drop(other);
    let other = start("http", port, &by_http);
    assert!(served(&other, &trust).is_some_and(|served| served == kept));
    drop(other);
    by_tls.wait_metric("drumline_acme_failures_total", |count| count > 0);
    assert!(served(&by_tls, &trust).is_none_or(|served| served == first));
    // The new pebble knows no account, and signs with another root.
    let _pebble = Pebble::start(folder.path());
    let trust = trusting(management, &own);
    let renewed = wait_for("a renewed certificate", || served(&by_tls, &trust));
    assert_ne!(renewed, first);
    assert!(by_tls.metric("drumline_acme_issued_total") >= 2);
}
