//! Memory that clients use: it grows with the bytes they send, and has budgets.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use crate::client_addresses::dial_from;
use crate::common::{Client, PATIENCE, Server, WEBSOCKET, client_frame, request};

/// The header of a masked binary frame of a given length, with mask 0.
fn frame_header(first: u8, bytes: u16) -> Vec<u8> {
    let length = bytes.to_be_bytes();
    vec![first, 0xfe, length[0], length[1], 0, 0, 0, 0]
}

/// The maximum message size is 65,536 bytes.
const LARGE: u16 = 65_535;

fn anonymous_memory(server: &Server) -> u64 {
    server.metric("drumline_anonymous_memory_bytes")
}

#[test]
fn sixty_shards_without_connections_take_little_memory() {
    let server = Server::on_one_port(&["--shards", "60", "--engine.slots_per_shard", "260"]);
    let used = anonymous_memory(&server);
    assert!(used <= 16 << 20, "{used} bytes");
}

#[test]
fn logins_from_many_addresses_take_the_memory_of_two_hashes() {
    // 16 MiB. No password has this hash.
    const HASH: &str = "$argon2id$v=19$m=16384,t=2,p=1$c29tZXNhbHQ$\
        CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    let server = Server::start(&[
        "--admin.enabled",
        "--admin.handler_prefix=/ops",
        "--admin.password",
        HASH,
    ]);
    let address = server.internal_address();
    let login = |host: u32| {
        let mut client = dial_from(&format!("127.1.0.{host}"), address);
        let headers = format!(
            "Host: {address}\r\nOrigin: http://{address}\r\nContent-Type: application/json\r\n"
        );
        client.exchange(&request("POST", "/ops/admin/login", &headers, r#"{"password":"a"}"#)).0
    };
    assert_eq!(login(1), 403);
    let before = anonymous_memory(&server);
    // The runtime of the control plane starts threads for checks that come at once.
    std::thread::scope(|scope| {
        for from in 0..8 {
            scope.spawn(move || (1..9).for_each(|nth| assert_eq!(login(10 + from * 8 + nth), 403)));
        }
    });
    let grown = anonymous_memory(&server).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes");
}

#[test]
fn incomplete_fragments_use_about_the_memory_of_their_bytes() {
    const CLIENTS: u64 = 400;
    let server = Server::start(&["--engine.slots_per_shard", "1000"]);
    let before = anonymous_memory(&server);
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::open(&server, WEBSOCKET);
            client.send_raw(&[frame_header(0x01, LARGE), vec![b' '; LARGE.into()]].concat());
            client
        })
        .collect();
    let sent = CLIENTS * u64::from(LARGE);
    let counted = server.wait_metric("drumline_unread_bytes", |bytes| bytes >= sent);
    assert!(counted < sent * 115 / 100, "{counted} bytes are counted for {sent}");
    let used = server.metric("drumline_memory_used_bytes");
    assert!(used >= counted, "{used} of the node's budgets are used, {counted} by unread input");
    let grown = anonymous_memory(&server).saturating_sub(before);
    assert!(grown < sent * 13 / 10, "{grown} bytes for {sent}");
    drop(clients);
    server.wait_metric("drumline_unread_bytes", |bytes| bytes == 0);
}

#[test]
fn an_incomplete_frame_uses_about_the_memory_of_its_bytes_and_is_read_when_complete() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, WEBSOCKET);
    let connect = format!(r#"{{"id":1,"connect":{{"name":"{}"}}}}"#, "x".repeat(65_000));
    let frame = client_frame(0x81, connect.as_bytes());
    client.send_raw(&frame[..100]);
    let early = server.wait_metric("drumline_unread_bytes", |bytes| bytes > 0);
    assert!(early < 1000, "{early} bytes for 100 of a frame of {}", frame.len());
    client.send_raw(&frame[100..frame.len() - 1]);
    let sent = frame.len() as u64 - 1;
    let late = server.wait_metric("drumline_unread_bytes", |bytes| bytes >= sent);
    assert!(late < sent * 115 / 100, "{late} bytes for {sent}");
    client.send_raw(&frame[frame.len() - 1..]);
    assert!(client.text().starts_with(r#"{"id":1,"connect":{"#));
    server.wait_metric("drumline_unread_bytes", |bytes| bytes == 0);
}

#[test]
fn the_connection_with_most_unread_input_is_closed_over_the_budget() {
    let server = Server::start(&["--engine.unread_budget", "600000"]);
    let mut modest: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = Client::connected(&server);
            client.send_raw(&[frame_header(0x01, 4000), vec![b' '; 4000]].concat());
            client
        })
        .collect();
    let mut greedy: Vec<Client> = (0..30).map(|_| Client::open(&server, WEBSOCKET)).collect();
    for client in &mut greedy {
        // The server may close the connection in the middle of the message.
        let part = [frame_header(0x01, LARGE), vec![b' '; LARGE.into()]].concat();
        if let Err(error) = client.stream.write_all(&part) {
            assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
        }
    }
    server.wait_metric("drumline_unread_closed_total", |closed| closed >= 20);
    server.wait_metric("drumline_unread_bytes", |bytes| bytes <= 600_000);
    assert!(server.metric("drumline_unread_bytes") > 400_000, "no more than needed is closed");
    let mut first = greedy.remove(0);
    let mut others = greedy.into_iter();
    let closed = std::iter::once(&mut first).chain(others.as_mut_slice()).find_map(|client| {
        client.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut byte = [0; 1];
        let told = matches!(client.stream.peek(&mut byte), Ok(1));
        client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        told.then(|| client.closed())
    });
    assert_eq!(closed, Some((3008, "slow".into())));
    for client in &mut modest {
        let rest = br#"{"id":2,"unsubscribe":{"channel":"a"}}"#;
        client.send_raw(&[frame_header(0x80, rest.len() as u16), rest.to_vec()].concat());
        assert_eq!(client.text(), r#"{"id":2,"unsubscribe":{}}"#, "it had little unread");
    }
}

#[test]
fn filters_of_all_clients_share_a_budget() {
    let server = Server::start(&[
        "--channel.without_namespace.allow_tags_filter",
        "--engine.filter_budget",
        "100000",
    ]);
    let subscribe = |client: &mut Client, channel: &str, value: &str| {
        let filter = format!(r#"{{"key":"k","cmp":"eq","val":"{value}"}}"#);
        client.ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}","tf":{filter}}}}}"#))
    };
    let filter = |nth: usize| format!("{nth}{}", "x".repeat(15_000));
    let mut hoarder = Client::connected(&server);
    for nth in 0..6 {
        let reply = subscribe(&mut hoarder, &format!("c{nth}"), &filter(nth));
        assert_eq!(reply, r#"{"id":2,"subscribe":{}}"#);
    }
    let mut another = Client::connected(&server);
    let refused = subscribe(&mut another, "d", &filter(7));
    assert!(refused.contains(r#""code":106"#), "{refused}");
    assert_eq!(
        another.ask(r#"{"id":2,"subscribe":{"channel":"d"}}"#),
        r#"{"id":2,"subscribe":{}}"#
    );
    assert_eq!(subscribe(&mut hoarder, "e", &filter(0)), r#"{"id":2,"subscribe":{}}"#);
    drop(hoarder);
    server.wait_metric("drumline_clients", |clients| clients == 1);
    server.wait_metric("drumline_channels", |channels| channels == 1);
    assert_eq!(subscribe(&mut another, "f", &filter(7)), r#"{"id":2,"subscribe":{}}"#);
}

#[test]
fn metrics_show_the_memory_budgets() {
    let server = Server::start(&["--engine.unread_budget", "600000"]);
    let each = server.metric("drumline_memory_limit_bytes");
    assert_eq!(server.metric("drumline_memory_budget_bytes"), each);
    assert_eq!(each, (256 + 512 + 2 * 32 + 4 * 64) * (1 << 20) + 600_000);
}
