//! Limits of connections per client address, and the proxies that are believed about it.

use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::common::{API_KEY, Client, Server, WEBSOCKET, free_port, request, upgrade_request};
use crate::common::{api_request, client_frame, wait_for};

/// A connection from an address of this machine that has sent nothing.
pub fn dial_from(address: &str, server: SocketAddr) -> Client {
    let from: IpAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    Client::over(TcpStream::from(socket))
}

/// Status of the answer to an upgrade request with this header; `None`: the server has closed.
fn upgraded(client: &mut Client, header: &str) -> Option<u16> {
    use std::io::{Read, Write};
    let text = upgrade_request(WEBSOCKET).replacen("\r\n", &format!("\r\n{header}"), 1);
    client.stream.write_all(text.as_bytes()).ok()?;
    let mut head = [0; 12];
    client.stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head[9..]).unwrap().parse().ok()
}

#[test]
fn an_ipv4_client_of_a_dual_stack_listener_has_a_limit_of_its_own() {
    let port = free_port();
    let listeners = format!(r#"[{{"name":"both","address":"::","port":{port}}}]"#);
    let server = Server::start(&[
        "--http_server.listeners",
        &listeners,
        "--client.address_connection_limit",
        "2",
    ]);
    let both = SocketAddr::from(([127, 0, 0, 1], port));
    let mut kept = Vec::new();
    for address in ["127.0.0.1", "127.0.0.2"] {
        for nth in 0..5 {
            let mut client = dial_from(address, both);
            let expected = (nth < 2).then_some(101);
            assert_eq!(upgraded(&mut client, ""), expected, "{address} {nth}");
            kept.extend(expected.map(|_| client));
        }
    }
    let six: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| dial_from("::1", six)).collect();
    let count = clients.iter_mut().filter_map(|client| upgraded(client, "")).count();
    assert_eq!(count, 2);
    assert_eq!(server.metric("drumline_accepts_refused_by_address_total"), 8);
    // The other listener counts the same addresses.
    assert_eq!(upgraded(&mut dial_from("127.0.0.1", server.address()), ""), None);
    kept.clear();
    wait_for("the count to fall", || {
        upgraded(&mut dial_from("127.0.0.1", both), "").filter(|status| *status == 101)
    });
}

/// Every way for an attempt to end gives its count back.
#[test]
fn attempts_that_fail_do_not_use_up_the_limit_of_their_address() {
    let server = Server::on_one_port(&[
        "--client.address_connection_limit",
        "30",
        "--client.allowed_origins",
        "http://good",
        "--engine.slots_per_shard",
        "100",
    ]);
    let rounds = 200;
    for round in 0..rounds {
        let mut client = Client::dial(&server);
        let mut send = |bytes: &[u8]| {
            use std::io::Write;
            // The server may have closed the connection already: then it was refused.
            let _ = client.stream.write_all(bytes);
        };
        match round % 10 {
            0 => send(request("GET", "/health", "Host: test\r\n", "").as_bytes()),
            1 => {
                let origin =
                    upgrade_request(WEBSOCKET).replacen("\r\n", "\r\nOrigin: http://b\r\n", 1);
                send(origin.as_bytes());
            }
            2 => send(b"\x16\x03\x01 not HTTP\r\n\r\n"),
            3 => send(&upgrade_request(WEBSOCKET).as_bytes()[..30]),
            4 => send(request("GET", "/nothing", "Host: test\r\n", "").as_bytes()),
            5 => send(api_request("publish", "", r#"{"channel":"a","data":1}"#).as_bytes()),
            6 => {
                send(upgrade_request(WEBSOCKET).as_bytes());
                send(&client_frame(0x81, br#"{"id":1,"connect":{"token":"bad"}}"#));
            }
            7 => {
                let body = "{}";
                let headers = format!("Host: test\r\nX-API-Key: {API_KEY}\r\n");
                send(request("POST", "/api/info", &headers, body).as_bytes());
            }
            8 => {
                let _ = socket2::SockRef::from(&client.stream)
                    .set_linger(Some(std::time::Duration::ZERO));
            }
            _ => {}
        }
        if round % 20 < 10 {
            let _ = client.stream.set_read_timeout(Some(std::time::Duration::from_millis(5)));
            let _ = std::io::Read::read(&mut client.stream, &mut [0; 512]);
        }
    }
    // Idle connections of the control plane were closed by their peers.
    let mut clients = Vec::new();
    wait_for("30 clients of the address", || {
        clients.clear();
        for _ in 0..30 {
            let mut client = Client::dial(&server);
            if upgraded(&mut client, "Origin: http://good\r\n") != Some(101) {
                std::thread::sleep(std::time::Duration::from_millis(50));
                return None;
            }
            clients.push(client);
        }
        Some(())
    });
    assert_eq!(upgraded(&mut Client::dial(&server), "Origin: http://good\r\n"), None);
}

#[test]
fn a_trusted_proxy_is_not_counted_and_names_the_client_that_is() {
    let flags = [
        "--client.address_connection_limit",
        "2",
        "--http_server.trusted_proxies",
        "127.0.0.2 10.0.0.0/8",
    ];
    let server = Server::start(&flags);
    let mut kept = Vec::new();
    for (at, (chain, expected)) in [
        ("9.9.9.9, 1.2.3.4:5678", Some(101)),
        ("9.9.9.8, 1.2.3.4, 10.0.0.7", Some(101)),
        ("9.9.9.7, 1.2.3.4", Some(429)),
        ("9.9.9.9, [2001:db8::1]:443", Some(101)),
        ("9.9.9.9, 2001:db8::2", Some(101)),
        ("2001:db8:0:0:5::1", Some(429)),
        // A request without a client that can be believed is not counted.
        ("nonsense", Some(101)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = dial_from("127.0.0.2", server.address());
        if at % 2 == 0 {
            // The connection of a proxy is used again, after the control plane had it.
            let (status, _) = client.exchange(&request("GET", "/", "Host: test\r\n", ""));
            assert_eq!(status, 404);
        }
        let header = format!("X-Forwarded-For: {chain}\r\n");
        assert_eq!(upgraded(&mut client, &header), expected, "{chain}");
        kept.push(client);
    }
    // Another peer cannot choose its address.
    for expected in [Some(101), Some(101), None] {
        let mut client = dial_from("127.0.0.3", server.address());
        assert_eq!(upgraded(&mut client, "X-Forwarded-For: 5.5.5.5\r\n"), expected);
        kept.push(client);
    }
    drop(kept);
    wait_for("the count to fall", || {
        let mut client = dial_from("127.0.0.2", server.address());
        let status = upgraded(&mut client, "X-Forwarded-For: 1.2.3.4\r\n");
        (status == Some(101)).then_some(())
    });
}

#[test]
fn a_shard_that_is_full_moves_a_socket_together_with_its_count() {
    let server = Server::start(&[
        "--client.address_connection_limit",
        "75",
        "--engine.slots_per_shard",
        "60",
    ]);
    for _ in 0..3 {
        let mut clients = Vec::new();
        for nth in 0..75 {
            let mut client = Client::dial(&server);
            assert_eq!(upgraded(&mut client, ""), Some(101), "{nth}");
            clients.push(client);
        }
        assert_eq!(upgraded(&mut Client::dial(&server), ""), None);
        drop(clients);
        server.wait_metric("drumline_sockets", |sockets| sockets < 40);
        server.settle();
    }
}
