//! Commands and their replies, byte for byte.

use crate::common::{Client, Server};

fn subscribe(id: u32, channel: &str) -> String {
    format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#)
}

fn error(id: u32, code: u32, message: &str) -> String {
    format!(r#"{{"id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#)
}

/// The next two pushes, sorted: the server does not guarantee their order.
fn both(client: &mut Client) -> [String; 2] {
    let mut texts = [client.push(), client.push()];
    texts.sort();
    texts
}

#[test]
fn every_reply_is_exactly_this_text() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, crate::common::WEBSOCKET);
    let connect = client.ask(r#"{"id":1,"connect":{"name":"test","unknown":[1]}}"#);
    let (before, rest) = connect.split_at(r#"{"id":1,"connect":{"client":""#.len());
    let (client_id, after) = rest.split_at(36);
    assert_eq!(before, r#"{"id":1,"connect":{"client":""#);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(r#"","version":"drumline {version}","ping":25,"pong":true}}}}"#);
    assert_eq!(after, expected);
    let shape: String = client_id.chars().map(|c| if c == '-' { '-' } else { 'x' }).collect();
    assert_eq!(shape, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");

    assert_eq!(client.ask(&subscribe(2, "room")), r#"{"id":2,"subscribe":{}}"#);
    client.send(r#"{"id":3,"publish":{"channel":"room","data":{"a": [1, "\n"]}}}"#);
    assert_eq!(
        both(&mut client),
        [
            r#"{"id":3,"publish":{}}"#,
            r#"{"push":{"channel":"room","pub":{"data":{"a": [1, "\n"]}}}}"#,
        ]
    );
    assert_eq!(
        client.ask(r#"{"id":4,"unsubscribe":{"channel":"room"}}"#),
        r#"{"id":4,"unsubscribe":{}}"#
    );
    assert_eq!(
        client.ask(r#"{"id":5,"publish":{"channel":"room","data":null}}"#),
        r#"{"id":5,"publish":{}}"#,
        "and no push behind an unsubscribe"
    );
    assert_eq!(client.ask(&subscribe(6, "room")), r#"{"id":6,"subscribe":{}}"#);
}

#[test]
fn null_in_a_command_counts_as_absent_and_an_array_is_not_an_object() {
    let history = "--channel.without_namespace.history_size=10";
    let server = Server::start(&[history, "--channel.without_namespace.history_ttl=60s"]);
    let open = || Client::open(&server, crate::common::WEBSOCKET);
    for connect in [
        r#"{"token":null}"#,
        r#"{"token":null,"data":null,"subs":null,"name":null,"version":null,"headers":null}"#,
        r#"{"headers":{"a":null}}"#,
    ] {
        let reply = open().ask(&format!(r#"{{"id":1,"connect":{connect},"rpc":null}}"#));
        assert!(reply.starts_with(r#"{"id":1,"connect":{"client":"#), "{connect}: {reply}");
    }
    for subs in [r#"{"x":null}"#, r#"{"x":{"recover":null,"offset":null,"epoch":null}}"#] {
        let reply = open().ask(&format!(r#"{{"id":1,"connect":{{"subs":{subs}}}}}"#));
        assert!(reply.contains(r#""subs":{"x":{"#), "{subs}: {reply}");
    }
    let mut client = Client::connected(&server);
    let reply = client.ask(concat!(
        r#"{"id":2,"subscribe":{"channel":"a","token":null,"recover":null,"epoch":null,"#,
        r#""offset":null,"data":null,"positioned":null,"recoverable":null,"#,
        r#""join_leave":null,"delta":null,"tf":null,"flag":null,"type":null}}"#
    ));
    assert_eq!(reply, r#"{"id":2,"subscribe":{}}"#);
    for (command, reply) in [
        (r#""history":{"channel":"a","limit":null,"since":null,"reverse":null}"#, "history"),
        (r#""history":{"channel":"a","since":{"offset":null,"epoch":null}}"#, "history"),
        (r#""rpc":{"method":null,"data":null}"#, "error"),
        (r#""sub_refresh":{"channel":"b","token":null}"#, "error"),
    ] {
        let text = client.ask(&format!(r#"{{"id":3,{command}}}"#));
        assert!(text.starts_with(&format!(r#"{{"id":3,"{reply}":{{"#)), "{command}: {text}");
    }
    client.send(r#"{"id":4,"publish":{"channel":"a","data":null}}"#);
    let [first, second] = both(&mut client);
    assert_eq!(first, r#"{"id":4,"publish":{}}"#);
    assert!(second.contains(r#""pub":{"data":null,"#), "{second}");
    for connect in ["[]", r#"{"subs":[]}"#, r#"{"subs":{"x":[]}}"#, "5"] {
        let mut client = open();
        client.send(&format!(r#"{{"id":1,"connect":{connect}}}"#));
        assert_eq!(client.closed(), (3501, "bad request".into()), "{connect}");
    }
}

#[test]
fn a_newline_in_a_payload_is_removed() {
    let server = Server::start(&[]);
    let mut client = Client::subscribed(&server, "room");
    client.send(concat!(
        r#"{"id":3,"publish":{"channel":"room","data":{"#,
        "\n",
        r#""a":"#,
        "\n",
        "1}}}"
    ));
    assert_eq!(both(&mut client)[1], r#"{"push":{"channel":"room","pub":{"data":{"a":1}}}}"#);
}

#[test]
fn commands_of_one_frame_run_in_order() {
    let server = Server::start(&[]);
    let mut client = Client::open(&server, crate::common::WEBSOCKET);
    let mut commands = vec![r#"{"id":1,"connect":{}}"#.to_owned()];
    for nth in 0..60 {
        commands.push(subscribe(nth * 2 + 2, &format!("c{nth}")));
        commands.push(format!(r#"{{"id":{},"unsubscribe":{{"channel":"c{nth}"}}}}"#, nth * 2 + 3));
    }
    client.send(&(commands.join("\n") + "\n"));
    assert!(client.text().starts_with(r#"{"id":1,"connect":{"#));
    for nth in 0..60 {
        assert_eq!(client.text(), format!(r#"{{"id":{},"subscribe":{{}}}}"#, nth * 2 + 2));
        assert_eq!(client.text(), format!(r#"{{"id":{},"unsubscribe":{{}}}}"#, nth * 2 + 3));
    }
}

#[test]
fn publications_reach_all_shards_in_order() {
    let server = Server::start(&["--shards", "3"]);
    let mut subscribers: Vec<_> = (0..12).map(|_| Client::subscribed(&server, "news")).collect();
    let mut publisher = Client::connected(&server);
    for nth in 0..200 {
        publisher
            .send(&format!(r#"{{"id":{},"publish":{{"channel":"news","data":{nth}}}}}"#, nth + 2));
    }
    for nth in 0..200 {
        assert_eq!(publisher.text(), format!(r#"{{"id":{},"publish":{{}}}}"#, nth + 2));
    }
    for subscriber in &mut subscribers {
        for nth in 0..200 {
            let expected = format!(r#"{{"push":{{"channel":"news","pub":{{"data":{nth}}}}}}}"#);
            assert_eq!(subscriber.push(), expected);
        }
    }
}

#[test]
fn errors_leave_the_connection_open() {
    let server = Server::start(&[]);
    let mut client = Client::subscribed(&server, "a");
    let mut check = |command: String, id, code, message| {
        assert_eq!(client.ask(&command), error(id, code, message), "{command}");
    };
    check(subscribe(3, "nobody:knows"), 3, 102, "unknown channel");
    check(subscribe(4, "a"), 4, 105, "already subscribed");
    check(subscribe(5, &"n".repeat(256)), 5, 107, "bad request");
    check(subscribe(6, "caf\u{e9}"), 6, 107, "bad request");
    let publish = |id, rest| format!(r#"{{"id":{id},"publish":{{{rest}}}}}"#);
    check(publish(7, r#""channel":"a""#), 7, 107, "bad request");
    check(publish(8, r#""channel":"no:such","data":1"#), 8, 102, "unknown channel");
    for (id, name) in [(9, "presence"), (10, "presence_stats"), (11, "history")] {
        let command = format!(r#"{{"id":{id},"{name}":{{"channel":"a"}}}}"#);
        check(command, id, 108, "not available");
    }
    check(r#"{"id":12,"rpc":{"method":"m","data":{}}}"#.into(), 12, 108, "not available");
    assert_eq!(client.ask(&subscribe(13, &"n".repeat(255))), r#"{"id":13,"subscribe":{}}"#);
    assert_eq!(server.metric("drumline_errors_total"), 10);
}

#[test]
fn the_129th_channel_is_too_many() {
    let server = Server::start(&[]);
    let mut client = Client::connected(&server);
    for nth in 0..128 {
        let id = nth + 2;
        let reply = client.ask(&subscribe(id, &format!("channel-{nth}")));
        assert_eq!(reply, format!(r#"{{"id":{id},"subscribe":{{}}}}"#));
    }
    assert_eq!(client.ask(&subscribe(200, "more")), error(200, 106, "limit exceeded"));
    client.ask(r#"{"id":201,"unsubscribe":{"channel":"channel-5"}}"#);
    assert_eq!(client.ask(&subscribe(202, "more")), r#"{"id":202,"subscribe":{}}"#);
}

#[test]
fn commands_without_permission_are_refused() {
    let anonymous = "--client.allow_anonymous_connect_without_token";
    let server = Server::with(&["--shards", "1", anonymous]);
    let mut client = Client::connected(&server);
    let denied = |id| error(id, 103, "permission denied");
    assert_eq!(client.ask(&subscribe(2, "a")), denied(2));
    let publish = r#"{"id":3,"publish":{"channel":"a","data":1}}"#;
    assert_eq!(client.ask(publish), denied(3));
}

#[test]
fn an_independent_websocket_client_connects_and_subscribes() {
    let server = Server::start(&[]);
    let stream = std::net::TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
    let url = format!("ws://127.0.0.1:{}/connection/websocket", server.port);
    let (mut socket, response) = tungstenite::client(url, stream).unwrap();
    assert_eq!(response.status(), 101);
    socket
        .send(
            concat!(r#"{"id":1,"connect":{}}"#, "\n", r#"{"id":2,"subscribe":{"channel":"t"}}"#)
                .into(),
        )
        .unwrap();
    assert!(socket.read().unwrap().to_text().unwrap().starts_with(r#"{"id":1,"connect":{"#));
    assert_eq!(socket.read().unwrap().to_text().unwrap(), r#"{"id":2,"subscribe":{}}"#);
    let mut publisher = Client::connected(&server);
    publisher.ask(r#"{"id":2,"publish":{"channel":"t","data":"hello"}}"#);
    let push = socket.read().unwrap();
    let start = r#"{"push":{"channel":"t","pub":{"data":"hello","info":{"user":"""#;
    assert!(push.to_text().unwrap().starts_with(start), "{push}");
    socket.close(None).unwrap();
    assert!(matches!(socket.read(), Ok(tungstenite::Message::Close(_))));
    server.wait_metric("drumline_clients", |clients| clients == 1);
}
