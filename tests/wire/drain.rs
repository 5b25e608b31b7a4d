//! The drain: not ready, served as before for a time, then 503 for newcomers and one close each.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Client, Server, WEBSOCKET, api_request, request, upgrade_request, wait_for};
use crate::common::{client_frame, free_port};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: test\r\n\r\n";
const READY: &str = "GET /health/ready HTTP/1.1\r\nHost: test\r\n\r\n";

fn alive() -> (u16, String) {
    (200, "{}".to_owned())
}

fn unready() -> (u16, String) {
    (503, r#"{"error":"the server shuts down"}"#.to_owned())
}

/// Sends a request on a connection that must be refused.
fn refused(mut client: Client, request: &str, what: &str) {
    client.send_raw(request.as_bytes());
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 503 "), "{what}: {head}");
    assert!(head.contains("\r\nRetry-After: "), "{what}: {head}");
    let body = client.read_body(&head);
    assert_eq!(body, "the server shuts down: try again\n", "{what}");
}

/// Waits for the close of a client that got a publication before. The client connects again: it is
/// refused, and not closed once more. Returns the time of the close.
fn closed_once(client: &mut Client, server: &Server, start: Instant) -> Duration {
    assert_eq!(client.push(), r#"{"push":{"channel":"a","pub":{"data":1}}}"#);
    assert_eq!(client.closed(), (3001, "shutdown".into()));
    let closed = start.elapsed();
    refused(Client::dial(server), &upgrade_request(WEBSOCKET), "a client that was closed");
    closed
}

#[test]
fn newcomers_are_served_until_the_delay_is_over_and_then_get_503() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.sock");
    let proxied = free_port();
    let listeners = format!(
        r#"[{{"name":"proxied","address":"127.0.0.1","port":{proxied},"proxy_protocol":true}},
            {{"name":"local","unix_socket":"{}"}}]"#,
        path.display()
    );
    let flags = ["--shutdown.delay", "2s", "--shutdown.spread", "4s"];
    let mut server =
        Server::start(&[&flags[..], &["--http_server.listeners", &listeners]].concat());
    let ready = |request| Client::dial(server.internal_address()).exchange(request);
    let unix = || Client::over(TcpStream::from(OwnedFd::from(UnixStream::connect(&path).unwrap())));
    let behind_proxy = || {
        let mut client = Client::dial(SocketAddr::from(([127, 0, 0, 1], proxied)));
        client.send_raw(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n");
        client
    };
    assert_eq!((ready(HEALTH), ready(READY)), (alive(), alive()));
    let mut clients: Vec<Client> = (0..20).map(|_| Client::subscribed(&server, "a")).collect();
    let silent: Vec<Client> = (0..8).map(|_| Client::dial(&server)).collect();
    let start = Instant::now();
    server.signal_stop();
    wait_for("the node to be unready", || (ready(READY) == unready()).then_some(()));
    assert!(clients.iter_mut().all(Client::is_alive), "ready no more, and nobody is closed");
    assert_eq!(ready(HEALTH), alive());
    while start.elapsed() < Duration::from_millis(1500) {
        clients.push(Client::subscribed(&server, "a"));
        std::thread::sleep(Duration::from_millis(100));
    }
    server.publish("a", "1");
    assert!(start.elapsed() < Duration::from_secs(2), "this machine is too slow for the test");
    let over = AtomicBool::new(false);
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let readers: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let (over, server) = (&over, &server);
                scope.spawn(move || {
                    let closed = closed_once(&mut client, server, start);
                    over.store(true, Ordering::Release);
                    closed
                })
            })
            .collect();
        wait_for("the first close", || over.load(Ordering::Acquire).then_some(()));
        let page = request("GET", "/", "Host: test\r\n", "");
        let stream = request("POST", "/connection/uni_http_stream", "Host: test\r\n", "{}");
        for client in silent {
            refused(client, &upgrade_request(WEBSOCKET), "a connection without a request");
        }
        for request in [&upgrade_request(WEBSOCKET), &page, &stream] {
            refused(Client::dial(&server), request, request);
            refused(unix(), request, "the Unix socket");
            refused(behind_proxy(), request, "behind a proxy");
        }
        assert_eq!((ready(HEALTH), ready(READY)), (alive(), unready()));
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*first >= Duration::from_secs(2), "closed before the delay was over: {times:?}");
    // Lower bounds only: a busy machine closes later.
    assert!(*last - *first > Duration::from_secs(2), "not spread: {times:?}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn shards_answer_readiness_and_refuse_newcomers_but_not_health() {
    let mut server = Server::on_one_port(&["--shutdown.spread", "4s"]);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connected(&server)).collect();
    let mut kept: Vec<Client> = (0..8).map(|_| Client::dial(&server)).collect();
    for client in &mut kept {
        assert_eq!((client.exchange(HEALTH), client.exchange(READY)), (alive(), alive()));
    }
    server.signal_stop();
    // The first in its shard is closed at once, the last one after most of the time.
    wait_for("the first close", || {
        clients.iter_mut().any(|client| !client.is_alive()).then_some(())
    });
    assert_eq!(Client::dial(&server).exchange(HEALTH), alive());
    assert_eq!(Client::dial(&server).exchange(READY), unready());
    let head = READY.replace("GET", "HEAD");
    let mut client = Client::dial(&server);
    client.send_raw(head.as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 503 "));
    let publish = api_request("publish", "", r#"{"channel":"a","data":1}"#);
    let info = api_request("info", "", "{}");
    for request in [&publish, &info, &request("GET", "/metrics", "Host: test\r\n", "")] {
        refused(Client::dial(&server), request, request);
    }
    // A kept connection goes on with calls, and begins no transport.
    let mut called = 0;
    for (nth, mut client) in kept.into_iter().enumerate() {
        let request = if nth % 2 == 0 { &publish } else { &upgrade_request(WEBSOCKET) };
        if std::io::Write::write_all(&mut client.stream, request.as_bytes()).is_err() {
            continue;
        }
        let answer = String::from_utf8(client.rest()).unwrap();
        // The node may have closed the connection already.
        let expected = if nth % 2 == 0 { "HTTP/1.1 200 " } else { "HTTP/1.1 503 " };
        assert!(answer.is_empty() || answer.starts_with(expected), "{nth}: {answer}");
        assert!(answer.is_empty() || answer.contains("Connection: close"), "{nth}: {answer}");
        called += usize::from(!answer.is_empty());
    }
    assert!(called > 0);
    drop(clients);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn pings_go_on_until_a_client_is_closed() {
    let flags = ["--client.ping_interval", "2s", "--client.pong_timeout", "1s"];
    let mut server = Server::start(&[&flags[..], &["--shutdown.spread", "8s"]].concat());
    let clients: Vec<Client> = (0..12).map(|_| Client::connected(&server)).collect();
    server.signal_stop();
    let readers = clients.into_iter().map(|mut client| {
        std::thread::spawn(move || {
            let mut pings = 0;
            loop {
                match client.frame().expect("a close frame") {
                    (0x88, payload) => {
                        assert_eq!(payload[..2], 3001u16.to_be_bytes());
                        client.send_raw(&client_frame(0x88, &payload[..2]));
                        return pings;
                    }
                    _ => {
                        pings += 1;
                        client.send("{}");
                    }
                }
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let pings: Vec<usize> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert!(pings.iter().max() >= Some(&2), "{pings:?}");
    assert_eq!(server.wait().code(), Some(0));
}
