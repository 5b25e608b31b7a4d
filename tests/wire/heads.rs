//! Request heads: the switch to WebSocket, what is refused, and a connection that changes planes.

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
fn the_switch_is_exactly_these_bytes() {
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
fn a_head_may_come_byte_by_byte_and_with_the_first_frame_behind_it() {
    let server = Server::start(&[]);
    let mut client = Client::dial(&server);
    for byte in upgrade_request(WEBSOCKET).as_bytes() {
        client.send_raw(std::slice::from_ref(byte));
    }
    assert_eq!(client.read_head(), SWITCHING);

    let mut client = Client::dial(&server);
    let mut bytes = upgrade_request(WEBSOCKET).into_bytes();
    bytes.extend(crate::common::client_frame(0x81, b"{\"id\":7,\"connect\":{}}"));
    client.send_raw(&bytes);
    assert_eq!(client.read_head(), SWITCHING);
    assert!(client.text().starts_with("{\"id\":7,\"connect\":{"));
}

#[test]
fn broken_heads_are_answered() {
    let server = Server::start(&[]);
    let good = upgrade_request(WEBSOCKET);
    let check = |request: &str, expected: &str| {
        assert_eq!(status_after(&server, request), expected, "{request}");
    };
    check("NONSENSE\r\n\r\n", "400");
    check("GET /connection/websocket HTTQ/1.1\r\n\r\n", "400");
    check(&good.replace("GET ", "POST "), "400");
    check(&good.replace(crate::common::KEY, "short"), "400");
    check(&good.replace("Version: 13", "Version: 8"), "426");
    check(&good.replace("Host:", &"X: y\r\n".repeat(70)), "431");
    let upgrade_required = head_after(&server, good.replace("13", "8").as_bytes());
    assert!(upgrade_required.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{upgrade_required}");
}

#[test]
fn a_head_that_never_ends_is_refused() {
    let server = Server::start(&[]);
    let mut client = Client::dial(&server);
    client.send_raw(b"GET /connection/websocket HTTP/1.1\r\nX: ");
    wait_for("431", || {
        // The server stops reading at its bound; what comes behind may meet a closed socket.
        match client.stream.write(&[b'a'; 1000]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Some(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Some(()),
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
        (server.metric("drumline_received_bytes_total") > 16 * 1024).then_some(())
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

/// A request that both ports answer, whichever plane has the API.
const OTHER: &str = "GET /nothing-is-here HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn a_connection_goes_to_the_control_plane_and_back() {
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
    let reply = client.ask("{\"id\":1,\"connect\":{}}");
    assert!(reply.starts_with("{\"id\":1,\"connect\":{"), "{reply}");
    assert_eq!(
        client.ask("{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}"),
        "{\"id\":2,\"subscribe\":{}}"
    );
    server.wait_metric("drumline_clients", |clients| clients == 1);
    drop(client);
    server.wait_metric("drumline_clients", |clients| clients == 0);
}

#[test]
fn requests_in_one_packet_change_planes_too() {
    let server = Server::start(&[]);
    let mut client = Client::dial(&server);
    let mut bytes = format!("{OTHER}{}", upgrade_request(WEBSOCKET)).into_bytes();
    bytes.extend(crate::common::client_frame(0x81, b"{\"id\":1,\"connect\":{}}"));
    client.send_raw(&bytes);
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    client.read_body(&head);
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(client.text().starts_with("{\"id\":1,\"connect\":{"));
}
