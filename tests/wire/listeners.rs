//! Several listeners of the public port: TCP on both families, Unix sockets, and their errors.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use crate::common::wait_for;
use crate::common::{Client, Server, WEBSOCKET, command, free_port, request, upgrade_request};

/// A connection to a Unix socket that has sent nothing.
fn dial_unix(path: &Path) -> Client {
    Client::over(TcpStream::from(OwnedFd::from(UnixStream::connect(path).unwrap())))
}

#[test]
fn every_listener_serves_streams_requests_and_large_messages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.sock");
    let port = free_port();
    let listeners = format!(
        r#"[{{"name":"both","address":"::","port":{port}}},
            {{"name":"local","unix_socket":"{}","unix_socket_mode":"0600"}}]"#,
        path.display()
    );
    let mut server = Server::start(&["--http_server.listeners", &listeners]);
    let tcp =
        |address: &str| Client::dial(format!("{address}:{port}").parse::<SocketAddr>().unwrap());
    let large = "x".repeat(20_000);
    let clients =
        [Client::dial(&server), tcp("127.0.0.1"), tcp("[::1]"), dial_unix(&path), dial_unix(&path)];
    for (at, mut client) in clients.into_iter().enumerate() {
        // First a request for the control plane, then a stream on the same connection.
        let (status, _) = client.exchange(&request("GET", "/", "Host: test\r\n", ""));
        assert!(status == 200 || status == 404, "{status}");
        client.send_raw(upgrade_request(WEBSOCKET).as_bytes());
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{at}: {head}");
        client.send(r#"{"id":1,"connect":{}}"#);
        assert!(client.text().starts_with(r#"{"id":1,"connect""#));
        assert_eq!(
            client.ask(r#"{"id":2,"subscribe":{"channel":"a"}}"#),
            r#"{"id":2,"subscribe":{}}"#
        );
        client.send(&format!(r#"{{"id":3,"publish":{{"channel":"a","data":"{large}"}}}}"#));
        let texts = [client.text(), client.text()].concat();
        assert!(texts.contains(&large) && texts.contains(r#"{"id":3,"publish":{}}"#), "{at}");
    }
    server.signal_stop();
    assert!(server.wait().success());
    assert!(!path.exists(), "the file of the Unix socket is removed");
}

#[test]
fn a_shard_that_is_full_moves_sockets_of_every_listener() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.sock");
    let listeners = format!(r#"[{{"name":"local","unix_socket":"{}"}}]"#, path.display());
    let server =
        Server::start(&["--engine.slots_per_shard", "60", "--http_server.listeners", &listeners]);
    let mut clients: Vec<Client> = Vec::new();
    for nth in 0..80 {
        let mut client = if nth % 4 == 0 { Client::dial(&server) } else { dial_unix(&path) };
        client.send_raw(upgrade_request(WEBSOCKET).as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "), "{nth}");
        clients.push(client);
    }
    let refused = (0..60).filter(|_| {
        let mut client = dial_unix(&path);
        client.send_raw(upgrade_request(WEBSOCKET).as_bytes());
        let head = client.read_head();
        clients.push(client);
        head.starts_with("HTTP/1.1 503 ")
    });
    assert!(refused.count() > 0, "a full node answers 503");
    assert!(server.metric("drumline_accepts_shed_total") > 0);
    drop(clients);
    wait_for("free slots", || {
        let mut client = dial_unix(&path);
        client.send_raw(upgrade_request(WEBSOCKET).as_bytes());
        client.read_head().starts_with("HTTP/1.1 101 ").then_some(())
    });
}

/// What a server that must not start writes to stderr.
fn refusal(flags: &[&str]) -> String {
    let port = free_port().to_string();
    let own = ["--http_server.port", &port];
    let is_given = flags.contains(&own[0]);
    let output = command()
        .args(["serve", "--shards", "1"])
        .args(own.iter().filter(|_| !is_given))
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_listener_of_another_process_is_a_clear_error_and_stays_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.sock");
    let listeners = format!(
        r#"[{{"name":"tcp","address":"127.0.0.1","port":{}}},
            {{"name":"local","unix_socket":"{}"}}]"#,
        free_port(),
        path.display()
    );
    let server = Server::start(&["--http_server.listeners", &listeners]);
    let both: serde_json::Value = serde_json::from_str(&listeners).unwrap();
    for (one, cause) in [(0, "address in use"), (1, "another process listens there")] {
        let text = refusal(&["--http_server.listeners", &format!("[{}]", both[one])]);
        assert!(text.contains(cause), "{text}");
    }
    let port = server.port.to_string();
    let text = refusal(&["--http_server.port", &port]);
    assert!(text.contains("address in use") && text.contains("ss -ltnp"), "{text}");
    let mut client = dial_unix(&path);
    client.send_raw(upgrade_request(WEBSOCKET).as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_faulty_listener_is_named_with_its_cure() {
    for (listener, cause) in [
        (r#"{"name":"one"}"#, "port is 0"),
        (r#"{"name":"one","port":80,"unix_socket":"/x"}"#, "both unix_socket and"),
        (r#"{"name":"one","unix_socket":"/x","unix_socket_mode":"rw"}"#, "unix_socket_mode"),
        (r#"{"name":"one","port":80,"address":"here"}"#, "`here` is not an IP address"),
        (r#"{"name":"one","port":80},{"name":"two","port":80}"#, "is listened on twice"),
        (r#"{"name":"one","port":80},{"name":"one","port":81}"#, "http_server.listeners"),
    ] {
        let text = refusal(&["--http_server.listeners", &format!("[{listener}]")]);
        assert!(text.contains(cause), "{listener}: {text}");
    }
}
