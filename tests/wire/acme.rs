//! Certificates from pebble, the ACME server for tests, which checks hosts over real sockets.
//!
//! The step `acme` of scripts/test.sh installs pebble and runs this file.

use std::net::TcpStream;

use rustls::ClientConfig;

use crate::common::certificates::{Authority, connect};
use crate::common::pebble::{Pebble, PebbleFolder};
use crate::common::{Server, free_port, wait_for};

/// Lifetime of the certificates in seconds. The server renews after two thirds of it.
const LIFETIME: u32 = 15;

/// The certificate of the public port for localhost, if it is from this authority.
fn served(server: &Server, config: &std::sync::Arc<ClientConfig>) -> Option<Vec<u8>> {
    let stream = connect(server.address(), "localhost", config).ok()?;
    Some(stream.conn.peer_certificates()?.first()?.to_vec())
}

#[test]
#[ignore = "needs pebble: scripts/test.sh acme"]
fn certificates_are_issued_by_both_challenges_kept_and_renewed_after_failures() {
    let own = Authority::new();
    let folder = PebbleFolder::new(&own, LIFETIME);
    let pebble = Pebble::start(&folder);
    let trust = folder.trusting(&own);
    let start = |cache: &str, port: u16, more: &[&str]| {
        let flags = folder.flags(cache);
        // The metrics stay readable when the certificate has expired.
        let more = [&["--http_server.tls_external", "--client.insecure"], more].concat();
        let flags: Vec<&str> =
            flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let server = Server::launch_on(&flags, port, free_port(), |_| {});
        wait_for("the server", || TcpStream::connect(server.internal_address()).ok());
        server
    };
    let by_tls = start("tls", folder.tls, &[]);
    let address = format!("--http_server.tls_autocert.http_addr=127.0.0.1:{}", folder.http);
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
    let _pebble = Pebble::start(&folder);
    let trust = folder.trusting(&own);
    let renewed = wait_for("a renewed certificate", || served(&by_tls, &trust));
    assert_ne!(renewed, first);
    assert!(by_tls.metric("drumline_acme_issued_total") >= 2);
}
