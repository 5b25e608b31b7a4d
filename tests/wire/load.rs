//! Clients that send too much or read too little do not disturb the others.

use std::time::Instant;

use crate::common::{Client, PATIENCE, Server, without_publisher};

fn publish(id: usize, channel: &str, data: &str) -> String {
    format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{data}}}}}"#)
}

/// Checks that publications pass between two clients, each within the time limit of a client.
fn others_are_well(server: &Server) {
    let mut listener = Client::subscribed(server, "others");
    let mut speaker = Client::connected(server);
    for nth in 0..5 {
        speaker.ask(&publish(nth + 2, "others", "1"));
        assert_eq!(listener.push(), r#"{"push":{"channel":"others","pub":{"data":1}}}"#);
    }
}

/// A client with a small receive buffer that subscribes and then reads nothing.
fn slow_reader(server: &Server) -> Client {
    Client::subscribed_with_buffer(server, "flood", 4096)
}

#[test]
fn a_slow_consumer_is_closed_with_its_code() {
    let server = Server::start(&["--client.queue_max_size", "200000"]);
    let mut slow = slow_reader(&server);
    let mut quick = Client::subscribed(&server, "flood");
    let mut publisher = Client::connected(&server);
    let data = format!(r#""{}""#, "x".repeat(30_000));
    let expected = format!(r#"{{"push":{{"channel":"flood","pub":{{"data":{data}}}}}}}"#);
    let start = Instant::now();
    let mut sent = 0;
    while server.metric("drumline_slow_total") == 0 {
        assert!(start.elapsed() < PATIENCE, "never too slow after {sent} publications");
        publisher.ask(&publish(sent + 2, "flood", &data));
        assert_eq!(quick.push(), expected);
        sent += 1;
    }
    let mut whole = 0;
    let close = loop {
        match slow.frame().expect("a close frame before the end") {
            (0x81, payload) => {
                let text = String::from_utf8(payload).unwrap();
                assert!(without_publisher(&text) == expected, "only whole frames");
                whole += 1;
            }
            (first, payload) => break (first, payload),
        }
    };
    assert_eq!(close, (0x88, [&3008u16.to_be_bytes()[..], b"slow"].concat()));
    assert!(whole < sent, "{whole} of {sent}");
    assert_eq!(server.metric("drumline_slow_total"), 1);
    drop(slow);
    server.wait_metric("drumline_outbox_bytes", |bytes| bytes == 0);
    assert!(quick.is_alive());
}

#[test]
fn a_reader_that_catches_up_gets_every_publication() {
    let server = Server::start(&["--client.queue_max_size", "8000000"]);
    let mut late = slow_reader(&server);
    let mut publisher = Client::connected(&server);
    let filler = "x".repeat(30_000);
    for nth in 0..100 {
        publisher.ask(&publish(nth + 2, "flood", &format!(r#""{nth} {filler}""#)));
    }
    server.wait_metric("drumline_outboxes", |outboxes| outboxes == 1);
    for nth in 0..100 {
        let text = late.push();
        let expected = format!(r#"{{"push":{{"channel":"flood","pub":{{"data":"{nth} x"#);
        assert!(text.starts_with(&expected), "{nth}: {}", &text[..60]);
    }
    assert!(late.is_alive());
    server.wait_metric("drumline_outboxes", |outboxes| outboxes == 0);
}

#[test]
fn deeply_nested_input_does_not_disturb_other_clients() {
    let server = Server::start(&["--websocket.message_size_limit", "1000000"]);
    let deep =
        |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    for text in [
        publish(2, "a", &deep("[", "]")),
        publish(2, "a", &"[".repeat(400_000)),
        format!(r#"{{"id":2,"unknown":{}}}"#, deep(r#"{"a":"#, "}")),
        format!(r#"{{"id":2,"rpc":{{"data":{}}}}}"#, deep("[", "]")),
        deep("[", "]"),
    ] {
        let mut client = Client::connected(&server);
        client.send(&text);
        assert!(client.frame().is_some(), "some answer: a reply, an error or a close");
        others_are_well(&server);
    }
}

#[test]
fn ten_thousand_commands_of_a_frame_are_answered_in_order() {
    let server = Server::start(&[
        "--websocket.message_size_limit",
        "1000000",
        "--client.queue_max_size",
        "8000000",
    ]);
    let commands: Vec<String> =
        (2..10_002).map(|id| format!(r#"{{"id":{id},"unsubscribe":{{"channel":"a"}}}}"#)).collect();
    let mut greedy = Client::connected(&server);
    greedy.send(&commands.join("\n"));
    others_are_well(&server);
    for id in 2..10_002 {
        assert_eq!(greedy.text(), format!(r#"{{"id":{id},"unsubscribe":{{}}}}"#));
    }
    assert!(greedy.is_alive());
}

#[test]
fn a_message_may_be_longer_than_64_kib() {
    let server = Server::start(&["--websocket.message_size_limit", "1000000"]);
    let mut subscriber = Client::subscribed(&server, "big");
    let mut publisher = Client::connected(&server);
    for length in [65_400, 65_536, 70_000, 300_000] {
        let data = format!(r#""{}""#, "y".repeat(length));
        assert_eq!(publisher.ask(&publish(9, "big", &data)), r#"{"id":9,"publish":{}}"#);
        let expected = format!(r#"{{"push":{{"channel":"big","pub":{{"data":{data}}}}}}}"#);
        assert!(subscriber.push() == expected, "{length}");
        others_are_well(&server);
    }
}

#[test]
fn the_echo_server_returns_every_message() {
    let server = Server::start(&["--engine.echo"]);
    let mut client = Client::open(&server, "/echo");
    for payload in [&b""[..], b"text", "caf\u{e9}".as_bytes()] {
        client.send_raw(&crate::common::client_frame(0x81, payload));
        assert_eq!(client.frame(), Some((0x81, payload.to_vec())));
        client.send_raw(&crate::common::client_frame(0x82, payload));
        assert_eq!(client.frame(), Some((0x82, payload.to_vec())));
    }
}
