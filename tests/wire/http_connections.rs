//! HTTP connections: their maximum number, their idle time, and half-closed clients.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{
    API_KEY, Client, PATIENCE, Server, WEBSOCKET, api_request, upgrade_request, wait_for,
};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: test\r\n\r\n";
/// A request that the control plane answers on every port.
const OTHER: &str = "GET /nothing-is-here HTTP/1.1\r\nHost: test\r\n\r\n";

fn idle(server: &Server, request: &str, status: u16) -> Client {
    let mut client = Client::dial(server);
    assert_eq!(client.exchange(request).0, status);
    client
}

/// Checks that the node still answers health and API requests and serves clients.
fn serves(server: &Server) {
    assert_eq!(Client::dial(server).exchange(HEALTH), (200, "{}".into()));
    let published = r#"{"channel":"a","data":1}"#;
    let done = (200, r#"{"result":{}}"#.to_owned());
    assert_eq!(Client::dial(server).exchange(&api_request("publish", "", published)), done);
    let info = Client::dial(server).exchange(&api_request("info", "", "{}"));
    assert!(info.0 == 200 && info.1.contains(r#""nodes""#), "{info:?}");
    assert!(Client::connected(server).is_alive());
}

#[test]
fn the_longest_idle_http_connection_is_closed_for_a_new_one() {
    let server = Server::on_one_port(&["--http_server.connections_max", "32"]);
    let mut idlers: Vec<Client> = (0..200).map(|_| idle(&server, OTHER, 404)).collect();
    serves(&server);
    // The server has closed the oldest connections and kept the newest.
    assert!(idlers[0].rest().is_empty());
    let last = idlers.last_mut().unwrap();
    assert_eq!(last.exchange(OTHER).0, 404);
    server.wait_metric("process_open_fds", |open| open < 100);
}

#[test]
fn idle_connections_do_not_use_up_descriptors() {
    let flags = ["--http_api.key", API_KEY, "--client.insecure", "--shards", "1"];
    let more = ["--engine.slots_per_shard", "400"];
    let server = Server::launch(&[&flags[..], &more].concat(), limit);
    wait_for("the server to listen", || TcpStream::connect(server.address()).ok());
    wait_for("the server to listen", || TcpStream::connect(server.internal_address()).ok());
    // Each port gets more connections than the process has descriptors.
    let _public: Vec<_> = (0..600).map(|_| idle(&server, OTHER, 404)).collect();
    let internal = server.internal_address();
    let _internal: Vec<_> = (0..600)
        .map(|_| {
            let mut client = Client::dial(internal);
            assert_eq!(client.exchange(OTHER).0, 404);
            client
        })
        .collect();
    assert!(Client::connected(&server).is_alive());
    assert_eq!(Client::dial(internal).exchange(HEALTH).0, 200);
    assert_eq!(server.api("publish", r#"{"channel":"a","data":1}"#), r#"{"result":{}}"#);
    assert!(server.metric("process_open_fds") < 512);
}

/// Limits a server to 512 descriptors.
fn limit(command: &mut Command) {
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    *command = Command::new("sh");
    command.args(["-c", r#"ulimit -n 512; exec "$0" "$@""#]).arg(program).args(arguments);
}

#[test]
fn a_node_without_free_http_connections_answers_503_and_health() {
    let server = Server::on_one_port(&["--http_server.connections_max", "4"]);
    // The control plane waits for the bodies of these requests.
    let begun = api_request("info", "Expect: 100-continue\r\n", "{}");
    let (head, body) = begun.split_at(begun.len() - 2);
    let begin = |_| {
        let mut client = Client::dial(&server);
        client.send_raw(head.as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 100 "));
        client
    };
    let mut busy: Vec<Client> = (0..4).map(begin).collect();
    let mut newcomer = Client::dial(&server);
    newcomer.send_raw(OTHER.as_bytes());
    let refusal = newcomer.read_head();
    assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
    assert!(refusal.contains("\r\nRetry-After: "), "{refusal}");
    assert_eq!(Client::dial(&server).exchange(HEALTH).0, 200);
    assert!(Client::connected(&server).is_alive());
    for client in &mut busy {
        client.send_raw(body.as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(Client::dial(&server).exchange(OTHER).0, 404);
}

#[test]
fn a_full_node_still_answers_health_and_the_api() {
    let flags = ["--shards", "1", "--engine.slots_per_shard", "40"];
    let server = Server::on_one_port(&flags);
    let mut clients = Vec::new();
    let is_full = |client: &mut Client| {
        client.send_raw(upgrade_request(WEBSOCKET).as_bytes());
        client.read_head().starts_with("HTTP/1.1 503 ")
    };
    loop {
        let mut client = Client::dial(&server);
        if is_full(&mut client) {
            break;
        }
        client.send(r#"{"id":1,"connect":{}}"#);
        client.text();
        clients.push(client);
        assert!(clients.len() < 40, "more clients than slots");
    }
    let published = r#"{"channel":"a","data":1}"#;
    for _ in 0..30 {
        let mut client = Client::dial(&server);
        client.send_raw(HEALTH.as_bytes());
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("\r\nConnection: close\r\n"));
        assert_eq!(client.read_body(&head), "{}");
        for (method, body) in [("info", "{}"), ("publish", published)] {
            let status = Client::dial(&server).exchange(&api_request(method, "", body)).0;
            assert_eq!(status, 200, "{method}");
        }
        assert!(is_full(&mut Client::dial(&server)));
    }
    assert!(clients.iter_mut().all(Client::is_alive));
}

#[test]
fn idle_connections_leave_slots_for_clients() {
    let flags = ["--shards", "1", "--engine.slots_per_shard", "64"];
    let server = Server::on_one_port(&flags);
    let _idlers: Vec<Client> = (0..200).map(|_| idle(&server, HEALTH, 200)).collect();
    let mut clients = [(); 2].map(|()| Client::connected(&server));
    assert!(clients.iter_mut().all(Client::is_alive));
}

#[test]
fn http_connections_close_after_their_idle_timeout() {
    let flags =
        ["--http_server.anonymous_idle_timeout", "300ms", "--http_server.idle_timeout", "1h"];
    let server = Server::on_one_port(&flags);
    let published = api_request("publish", "", r#"{"channel":"a","data":1}"#);
    let mut known =
        [published, api_request("info", "", "{}")].map(|call| idle(&server, &call, 200));
    let wrong = api_request("info", "", "{}").replace(API_KEY, "other");
    for (request, status) in [(OTHER, 404), (HEALTH, 200), (&wrong, 401)] {
        assert!(idle(&server, request, status).rest().is_empty(), "{request}");
    }
    for client in &mut known {
        assert_eq!(client.exchange(HEALTH).0, 200);
    }
}

#[test]
fn a_client_that_has_ended_its_side_gets_its_answer() {
    let server = Server::on_one_port(&[
        "--channel.without_namespace.history_size",
        "10",
        "--channel.without_namespace.history_ttl",
        "60s",
    ]);
    let body = r#"{"channel":"a","data":1}"#;
    let chunked = format!(
        "POST /api/publish HTTP/1.1\r\nHost: test\r\nX-API-Key: {API_KEY}\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let table = [
        (api_request("publish", "", body), 200),
        (api_request("publish", "Connection: close\r\n", body), 200),
        (api_request("history", "", r#"{"channel":"a","limit":1}"#), 200),
        (chunked, 200),
        (OTHER.to_owned(), 404),
        (HEALTH.to_owned(), 200),
        ("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 200),
        ("GET /emulation HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 405),
        ("NONSENSE\r\n\r\n".to_owned(), 400),
    ];
    for (request, status) in table {
        for cut in [0, 12, request.len() / 2, request.len() - 1] {
            let mut client = Client::dial(&server);
            let (first, second) = request.as_bytes().split_at(cut);
            client.send_raw(first);
            client.send_raw(second);
            client.stream.shutdown(Shutdown::Write).unwrap();
            let answer = String::from_utf8(client.rest()).unwrap();
            let found = answer.split(' ').nth(1).and_then(|found| found.parse().ok());
            assert_eq!(found, Some(status), "{request}: {answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let lengths = head.lines().filter_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            });
            assert_eq!(lengths.collect::<Vec<usize>>(), [body.len()], "{answer}");
        }
    }
}

#[test]
fn a_stream_handed_over_by_the_control_plane_ends_with_its_client() {
    let server = Server::on_one_port(&[]);
    let connect = r#"{"id":1,"connect":{}}"#;
    let request = format!(
        "POST /connection/http_stream HTTP/1.1\r\nHost: test\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{connect}\r\n0\r\n\r\n",
        connect.len()
    );
    for half in [true, false] {
        let mut client = Client::dial(&server);
        client.send_raw(request.as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 200 "));
        server.wait_metric("drumline_clients", |clients| clients == 1);
        if half {
            client.stream.shutdown(Shutdown::Write).unwrap();
        } else {
            drop(client);
        }
        server.wait_metric("drumline_clients", |clients| clients == 0);
    }
}

#[test]
fn mute_connections_to_the_internal_port_delay_and_shut_out_nobody() {
    let server = Server::start(&["--http_server.internal_connections_max", "50"]);
    let address = server.internal_address();
    let mut mute: Vec<TcpStream> = Vec::new();
    for round in 0..3 {
        // More than have a place, and than wait for one.
        mute.extend((0..300).map(|_| TcpStream::connect(address).unwrap()));
        let begun = Instant::now();
        let answer = wait_for("an answer", || {
            let mut stream = TcpStream::connect(address).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
                .write_all(b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                .ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            text.starts_with("HTTP/1.1 200").then_some(begun.elapsed())
        });
        assert!(answer < Duration::from_secs(6), "round {round}: {answer:?}");
    }
}
