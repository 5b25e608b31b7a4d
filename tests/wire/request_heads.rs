//! Request heads: the WebSocket upgrade, refusals, and connections that move between shards and
//! the control plane.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use crate::common::{Client, Server, UNI_WEBSOCKET, WEBSOCKET, upgrade_request, wait_for};

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn head_after(server: &Server, request: &[u8]) -> String {
    let mut client = Client::dial(server);
    client.send_raw(request);
    client.read_head()
}

fn status_after(server: &Server, request: &str) -> String {
    head_after(server, request.as_bytes()).split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn the_websocket_upgrade_answer_is_exact() {
    let server = Server::start(&[]);
    for path in [WEBSOCKET, UNI_WEBSOCKET] {
        assert_eq!(head_after(&server, upgrade_request(path).as_bytes()), SWITCHING);
    }
    let with_protocol = upgrade_request(WEBSOCKET)
        .replace("Host:", "Sec-WebSocket-Protocol: other, centrifuge-json\r\nHost:");
    let expected =
        SWITCHING.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: centrifuge-json\r\n\r\n");
    assert_eq!(head_after(&server, with_protocol.as_bytes()), expected);
}

#[test]
fn a_request_head_may_arrive_byte_by_byte_followed_by_a_frame() {
    let server = Server::start(&[]);
    let mut client = Client::dial(&server);
    for byte in upgrade_request(WEBSOCKET).as_bytes() {
        client.send_raw(std::slice::from_ref(byte));
    }
    assert_eq!(client.read_head(), SWITCHING);

    let mut client = Client::dial(&server);
    let mut bytes = upgrade_request(WEBSOCKET).into_bytes();
    bytes.extend(crate::common::client_frame(0x81, br#"{"id":7,"connect":{}}"#));
    client.send_raw(&bytes);
    assert_eq!(client.read_head(), SWITCHING);
    assert!(client.text().starts_with(r#"{"id":7,"connect":{"#));
}

#[test]
fn invalid_request_heads_get_an_error_status() {
    let server = Server::start(&[]);
    let good = upgrade_request(WEBSOCKET);
    let check = |request: &str, expected: &str| {
        assert_eq!(status_after(&server, request), expected, "{request}");
    };
    check("NONSENSE\r\n\r\n", "400");
    check("GET /connection/websocket HTTQ/1.1\r\n\r\n", "400");
    check(&good.replace("GET ", "POST "), "405");
    check(&good.replace(crate::common::KEY, "short"), "400");
    check(&good.replace("Version: 13", "Version: 8"), "426");
    check(&good.replace("Version: 13", "Version: 8, 13"), "101");
    let upgrade_required = head_after(&server, good.replace("13", "8").as_bytes());
    assert!(upgrade_required.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{upgrade_required}");
}

/// Sends a request that ends the connection. Returns head and body of the answer.
fn refusal(server: &Server, request: &str) -> (String, String) {
    let mut client = Client::dial(server);
    client.send_raw(request.as_bytes());
    let head = client.read_head();
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    (head, String::from_utf8(client.rest()).unwrap())
}

#[test]
fn a_head_over_a_limit_is_refused_with_the_name_of_the_limit() {
    let many =
        |count: usize, at: &str| at.replace("Host:", &format!("{}Host:", "X: y\r\n".repeat(count)));
    let large =
        |bytes: usize, at: &str| at.replace("Host:", &format!("X: {}\r\nHost:", "a".repeat(bytes)));
    let health = OTHER.replace("/nothing-is-here", "/health");
    let server = Server::on_one_port(&[]);
    for at in [&upgrade_request(WEBSOCKET), OTHER, &health] {
        let taken = status_after(&server, at);
        assert_eq!(status_after(&server, &many(120, at)), taken);
        assert_eq!(status_after(&server, &large(32_000, at)), taken);
        let (head, cause) = refusal(&server, &many(129, at));
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        assert!(
            cause.contains("more than 128 headers") && cause.contains("headers_limit"),
            "{cause}"
        );
        let (head, cause) = refusal(&server, &large(33_000, at));
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        assert!(cause.contains("over 32768 bytes") && cause.contains("head_size_limit"), "{cause}");
    }
    // The same limits apply to later requests on a connection of the control plane.
    for (request, expected) in
        [(many(120, OTHER), "404"), (many(129, OTHER), "431"), (large(40_000, OTHER), "431")]
    {
        let mut client = Client::dial(&server);
        client.send_raw(OTHER.as_bytes());
        let head = client.read_head();
        client.read_body(&head);
        client.send_raw(request.as_bytes());
        assert_eq!(client.read_head().split(' ').nth(1), Some(expected));
    }
    let flags = ["--http_server.head_size_limit", "65536", "--http_server.headers_limit", "200"];
    let server = Server::on_one_port(&flags);
    for at in [&upgrade_request(WEBSOCKET), OTHER] {
        let taken = status_after(&server, at);
        assert_eq!(status_after(&server, &many(190, at)), taken);
        assert_eq!(status_after(&server, &large(65_000, at)), taken);
        assert_eq!(status_after(&server, &many(201, at)), "431");
        assert_eq!(status_after(&server, &large(66_000, at)), "431");
    }
}

#[test]
fn every_path_lists_its_methods_and_answers_head_without_a_body() {
    let server = Server::on_one_port(&[]);
    let check = |method: &str, path: &str, status: &str, allow: Option<&str>| {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        let (head, body) = refusal(&server, &request);
        assert_eq!(head.split(' ').nth(1), Some(status), "{request}{head}");
        let said = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("allow").then(|| value.replace(", ", ","))
        });
        assert_eq!(said.as_deref(), allow, "{request}{head}");
        assert!(method != "HEAD" || body.is_empty(), "{request}{head}{body}");
    };
    for method in ["PUT", "HEAD", "DELETE"] {
        check(method, WEBSOCKET, "405", Some("GET"));
        check(method, "/connection/http_stream", "405", Some("POST,OPTIONS"));
        check(method, "/connection/uni_http_stream", "405", Some("POST,OPTIONS"));
        check(method, "/connection/sse", "405", Some("GET,POST,OPTIONS"));
        check(method, "/connection/uni_sse", "405", Some("GET,POST,OPTIONS"));
        check(method, "/emulation", "405", Some("POST,OPTIONS"));
        check(method, "/api/publish", "405", Some("POST"));
        check(method, "/api/info", "405", Some("POST"));
    }
    check("GET", "/emulation", "405", Some("POST,OPTIONS"));
    check("PUT", "/health", "405", Some("GET,HEAD"));
    check("HEAD", "/health", "200", None);
    check("HEAD", "/nothing-is-here", "404", None);
    let upgrade = upgrade_request(WEBSOCKET);
    let (head, body) = refusal(&server, &upgrade.replace("GET ", "HEAD "));
    assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("\r\nAllow: GET\r\n"), "{head}");
    assert!(body.is_empty(), "{body}");
}

#[test]
fn refusals_carry_cors_headers_for_permitted_origins() {
    let origin = "https://page.example";
    let server = Server::on_one_port(&["--client.allowed_origins", origin]);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let length = |length: usize| format!("Content-Length: {length}\r\n\r\n");
    let small = format!(r#"{}{{""#, length(2));
    let (large, long_chunk) = (length(70_000), format!("{chunked}11170\r\n{}", "a".repeat(70_000)));
    let unknown_node = r#"{"node":"n","session":"s","data":"{}"}"#;
    let unknown_node = format!("{}{unknown_node}", length(unknown_node.len()));
    let table = [
        ("GET", "/connection/sse", "\r\n", "400"),
        ("POST", "/emulation", &small, "400"),
        ("POST", "/emulation", &unknown_node, "404"),
        ("POST", "/emulation", &large, "413"),
        ("POST", "/emulation", &long_chunk, "413"),
        ("POST", "/connection/http_stream", &large, "413"),
        ("GET", "/emulation", "\r\n", "405"),
        ("PUT", "/connection/sse", &small, "405"),
        ("PUT", "/connection/sse", &format!("{chunked}0\r\n\r\n"), "405"),
        ("GET", "/nothing-is-here", "\r\n", "404"),
        ("GET", "/health", &small, "200"),
    ];
    for (method, path, rest, status) in table {
        for (page, permitted) in [(origin, true), ("https://other.example", false)] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: test\r\nOrigin: {page}\r\n{rest}");
            let (head, _) = refusal(&server, &request);
            let head = head.to_ascii_lowercase();
            let said = head.contains(&format!("\r\naccess-control-allow-origin: {page}\r\n"));
            if permitted {
                assert_eq!(head.split(' ').nth(1), Some(status), "{method} {path}: {head}");
            }
            assert_eq!(said, permitted && status != "200", "{method} {path} {page}: {head}");
            assert!(!said || head.contains("\r\nvary: origin\r\n"), "{head}");
        }
    }
}

#[test]
fn the_503_of_a_full_node_carries_cors_headers() {
    let flags = ["--client.connection_rate_limit", "1", "--client.allowed_origins", "https://a"];
    let server = Server::on_one_port(&flags);
    let request = "GET /connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D \
                   HTTP/1.1\r\nHost: test\r\nOrigin: https://a\r\n\r\n";
    let head = wait_for("a refusal", || {
        let head = head_after(&server, request.as_bytes());
        head.starts_with("HTTP/1.1 503 ").then_some(head)
    });
    assert!(head.contains("\r\nAccess-Control-Allow-Origin: https://a\r\n"), "{head}");
    assert!(head.contains("\r\nRetry-After: "), "{head}");
}

#[test]
fn the_first_known_subprotocol_of_the_client_is_used() {
    let server = Server::start(&[]);
    for (offer, expected) in [
        ("centrifuge-protobuf, centrifuge-json", "centrifuge-protobuf"),
        ("other, centrifuge-json, centrifuge-protobuf", "centrifuge-json"),
    ] {
        let offer = format!("Sec-WebSocket-Protocol: {offer}\r\nHost:");
        let head =
            head_after(&server, upgrade_request(WEBSOCKET).replace("Host:", &offer).as_bytes());
        let answer = format!("\r\nSec-WebSocket-Protocol: {expected}\r\n");
        assert!(head.contains(&answer), "{head}");
    }
}

#[test]
fn a_head_that_never_ends_is_refused() {
    let server = Server::start(&[]);
    let mut client = Client::dial(&server);
    client.send_raw(b"GET /connection/websocket HTTP/1.1\r\nX: ");
    wait_for("431", || {
        // The server stops reading at its bound; a later write may meet a closed socket.
        match client.stream.write(&[b'a'; 1000]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Some(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Some(()),
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
        (server.metric("drumline_received_bytes_total") > 32 * 1024).then_some(())
    });
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

#[test]
fn a_head_that_comes_too_slowly_is_refused() {
    let server = Server::start(&[]);
    let mut client = Client::dial(&server);
    client.send_raw(b"GET /connection/websocket HTTP/1.1\r\n");
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(rest.starts_with("HTTP/1.1 408 ") || rest.is_empty(), "{rest}");
}

#[test]
fn a_foreign_origin_is_refused() {
    let server = Server::start(&[]);
    let with_origin =
        |origin: &str| upgrade_request(WEBSOCKET).replace("Host:", &format!("{origin}Host:"));
    assert_eq!(status_after(&server, &with_origin("Origin: http://evil.example\r\n")), "403");
    assert_eq!(status_after(&server, &with_origin("Origin: http://test\r\n")), "101");
    assert_eq!(status_after(&server, &with_origin("")), "101");
}

/// A request that the control plane answers with 404 on both ports.
const OTHER: &str = "GET /nothing-is-here HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn a_keep_alive_connection_moves_to_the_control_plane_and_back() {
    let server = Server::start(&[]);
    let mut client = Client::dial(&server);
    for _ in 0..3 {
        client.send_raw(OTHER.as_bytes());
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        client.read_body(&head);
    }
    client.send_raw(upgrade_request(WEBSOCKET).as_bytes());
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let reply = client.ask(r#"{"id":1,"connect":{}}"#);
    assert!(reply.starts_with(r#"{"id":1,"connect":{"#), "{reply}");
    assert_eq!(client.ask(r#"{"id":2,"subscribe":{"channel":"a"}}"#), r#"{"id":2,"subscribe":{}}"#);
    server.wait_metric("drumline_clients", |clients| clients == 1);
    drop(client);
    server.wait_metric("drumline_clients", |clients| clients == 0);
}

#[test]
fn pipelined_requests_move_between_the_planes() {
    let server = Server::start(&[]);
    let mut client = Client::dial(&server);
    let mut bytes = format!("{OTHER}{}", upgrade_request(WEBSOCKET)).into_bytes();
    bytes.extend(crate::common::client_frame(0x81, br#"{"id":1,"connect":{}}"#));
    client.send_raw(&bytes);
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    client.read_body(&head);
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(client.text().starts_with(r#"{"id":1,"connect":{"#));
}
