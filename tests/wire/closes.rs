//! Every close code of the protocol, and its cause.

use std::time::{Duration, Instant};

use crate::common::{Client, Server, UNI_WEBSOCKET, WEBSOCKET, client_frame};

fn bad_request() -> (u16, String) {
    (3501, "bad request".to_owned())
}

#[test]
fn a_command_before_connect_is_a_bad_request() {
    let server = Server::start(&[]);
    for text in [
        r#"{"id":1,"subscribe":{"channel":"a"}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":1}}"#,
        r#"{"id":1,"ping":{}}"#,
        r#"{"id":1}"#,
        r#"{"connect":{}}"#,
        "{}",
        "",
        "\n",
        "[1]",
        r#"{"id":1,"connect":{}"#,
        "nonsense",
        r#"{"id":-1,"connect":{}}"#,
    ] {
        let mut client = Client::open(&server, WEBSOCKET);
        client.send(text);
        assert_eq!(client.closed(), bad_request(), "{text:?}");
    }
}

#[test]
fn invalid_commands_close_a_connected_client() {
    let server = Server::start(&[]);
    for text in [
        r#"{"id":2,"connect":{}}"#,
        "",
        " \n ",
        r#"{"id":2,"#,
        r#"{"id":2}"#,
        r#"{"id":2,"ping":{}}"#,
        "{}",
        r#"{"id":2,"subscribe":{}}"#,
        r#"{"id":2,"subscribe":{"channel":""}}"#,
        r#"{"id":2,"unsubscribe":{}}"#,
        r#"{"id":2,"publish":{"data":1}}"#,
        r#"{"id":2,"presence":{}}"#,
        r#"{"id":2,"presence_stats":{}}"#,
        r#"{"id":2,"history":{}}"#,
        r#"{"id":2,"sub_refresh":{}}"#,
    ] {
        let mut client = Client::connected(&server);
        client.send(text);
        assert_eq!(client.closed(), bad_request(), "{text:?}");
    }
    server.wait_metric("drumline_clients", |clients| clients == 0);
}

#[test]
fn commands_before_an_invalid_one_still_run() {
    let server = Server::start(&[]);
    let mut client = Client::connected(&server);
    client.send(concat!(
        r#"{"id":2,"subscribe":{"channel":"a"}}"#,
        "\n",
        r#"{"id":3,"subscribe":{}}"#
    ));
    let mut texts = Vec::new();
    let close = loop {
        match client.frame().expect("a close frame") {
            (0x81, payload) => texts.push(String::from_utf8(payload).unwrap()),
            (_, payload) => break payload,
        }
    };
    // The reply comes too late if the home of the channel is on another shard.
    assert!(texts.is_empty() || texts == [r#"{"id":2,"subscribe":{}}"#], "{texts:?}");
    assert_eq!(close, [&3501u16.to_be_bytes()[..], b"bad request"].concat());
}

#[test]
fn send_commands_are_not_available() {
    let server = Server::start(&[]);
    for text in [r#"{"send":{"data":1}}"#, r#"{"id":0,"send":{}}"#] {
        let mut client = Client::connected(&server);
        client.send(text);
        assert_eq!(client.closed(), (3508, "not available".into()), "{text}");
    }
}

#[test]
fn a_client_that_never_connects_is_closed_as_stale() {
    let server = Server::start(&["--client.stale_close_delay", "1s"]);
    let start = Instant::now();
    let mut silent = Client::open(&server, WEBSOCKET);
    let mut uni = Client::open(&server, UNI_WEBSOCKET);
    assert_eq!(silent.closed(), (3502, "stale".into()));
    assert_eq!(uni.closed(), (3502, "stale".into()));
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
}

#[test]
fn a_client_that_sends_no_pong_is_closed() {
    // Long enough that this client answers in time on a busy machine.
    let server = Server::start(&["--client.ping_interval", "4s", "--client.pong_timeout", "3s"]);
    let mut answering = Client::connected(&server);
    let mut silent = Client::connected(&server);
    for _ in 0..2 {
        assert_eq!(answering.frame(), Some((0x81, b"{}".to_vec())));
        answering.send("{}");
    }
    assert_eq!(silent.frame(), Some((0x81, b"{}".to_vec())));
    assert_eq!(silent.closed(), (3012, "no pong".into()));
    assert!(answering.is_alive());
    answering.send("{}");
    assert_eq!(answering.closed(), bad_request(), "one pong a ping");
}

#[test]
fn pongs_are_not_required_when_they_are_disabled() {
    let server = Server::start(&[
        "--client.ping_interval",
        "2s",
        "--client.pong_timeout",
        "1s",
        "--engine.pong=false",
    ]);
    let mut client = Client::open(&server, WEBSOCKET);
    let reply = client.ask(r#"{"id":1,"connect":{}}"#);
    assert!(reply.ends_with(r#","ping":2}}"#), "{reply}");
    for _ in 0..3 {
        assert_eq!(client.frame(), Some((0x81, b"{}".to_vec())));
    }
    client.send("{}");
    assert_eq!(client.closed(), bad_request());
}

#[test]
fn frames_that_break_the_protocol_close_with_their_code() {
    let server = Server::start(&["--websocket.message_size_limit", "1000"]);
    let check = |what: &str, bytes: &[u8], expected: u16| {
        let mut client = Client::connected(&server);
        client.send_raw(bytes);
        assert_eq!(client.closed().0, expected, "{what}");
    };
    check("unmasked", b"\x81\x02{}", 1002);
    check("reserved bit", &client_frame(0xc1, b"{}"), 1002);
    check("reserved opcode", &client_frame(0x83, b"{}"), 1002);
    check("continuation of nothing", &client_frame(0x80, b"{}"), 1002);
    check("fragmented ping", &client_frame(0x09, b"{}"), 1002);
    check("long ping", &client_frame(0x89, &[0; 126]), 1002);
    check("bad UTF-8", &client_frame(0x81, b"\xff\xfe"), 1007);
    let halves = [client_frame(0x01, b"a\xc3"), client_frame(0x80, b"a")].concat();
    check("bad UTF-8 across fragments", &halves, 1007);
    check("oversize", &client_frame(0x81, &[b'a'; 1001]), 1009);
    check("only the header of an oversize frame", &client_frame(0x81, &[b'a'; 1001])[..8], 1009);
    check("length beyond all bounds", b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009);
    let pieces = [client_frame(0x01, &[b'a'; 600]), client_frame(0x80, &[b'a'; 600])].concat();
    check("oversize in pieces", &pieces, 1009);
    check("a close without a reason", &client_frame(0x88, b"\x03\xe8"), 1000);
    server.wait_metric("drumline_clients", |clients| clients == 0);
}

#[test]
fn a_fragmented_message_may_contain_a_ping() {
    let server = Server::start(&[]);
    let mut client = Client::connected(&server);
    client.send_raw(&client_frame(0x01, br#"{"id":2,"subscribe":"#));
    client.send_raw(&client_frame(0x89, b"now"));
    assert_eq!(client.frame(), Some((0x8a, b"now".to_vec())));
    client.send_raw(&client_frame(0x00, br#"{"channel":"#));
    client.send_raw(&client_frame(0x80, br#""a"}}"#));
    assert_eq!(client.text(), r#"{"id":2,"subscribe":{}}"#);
}

#[test]
fn the_shutdown_closes_clients_over_the_configured_time_and_exits_with_0() {
    let mut server = Server::start(&["--shutdown.spread", "4s"]);
    let clients: Vec<_> = (0..40).map(|_| Client::connected(&server)).collect();
    let open = Client::open(&server, WEBSOCKET);
    let start = Instant::now();
    server.signal_stop();
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                assert_eq!(client.closed(), (3001, "shutdown".into()));
                start.elapsed()
            })
        })
        .collect();
    let mut times: Vec<Duration> =
        readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    times.sort();
    let (first, median, last) = (times[0], times[20], times[39]);
    // Lower bounds only: a busy machine closes later.
    assert!(median > Duration::from_millis(800), "{times:?}");
    assert!(last > Duration::from_millis(2400), "{times:?}");
    assert!(last - first > Duration::from_millis(1200), "{times:?}");
    drop(open);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_shutdown_does_not_wait_for_silent_clients() {
    let mut server = Server::start(&["--shutdown.spread", "0s"]);
    let _connected = Client::connected(&server);
    let _open = Client::open(&server, WEBSOCKET);
    let _silent = Client::dial(&server);
    server.signal_stop();
    assert_eq!(server.wait().code(), Some(0));
}
