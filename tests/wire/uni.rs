//! Unidirectional clients over WebSocket.

use serde_json::{Value, json};

use crate::common::tokens::{SECRET, signed};
use crate::common::{Client, Server, UNI_WEBSOCKET};

fn check_connect(text: &str, subs: &str) {
    let expected = format!(
        r#"","version":"drumline {}"{subs},"ping":25,"session":""#,
        env!("CARGO_PKG_VERSION")
    );
    assert!(text.starts_with(r#"{"connect":{"client":""#), "{text}");
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn a_uni_connect_request_may_be_in_the_query() {
    let server = Server::start(&[]);
    let path = format!("{UNI_WEBSOCKET}?cf_connect=%7B%22subs%22%3A%7B%22news%22%3A%7B%7D%7D%7D");
    let mut client = Client::open(&server, &path);
    check_connect(&client.text(), r#","subs":{"news":{}}"#);
    server.publish("news", r#"{"n":1}"#);
    assert_eq!(client.push(), r#"{"channel":"news","pub":{"data":{"n":1}}}"#);
    client.send("whatever a client says later is ignored");
    server.publish("news", "2");
    assert_eq!(client.push(), r#"{"channel":"news","pub":{"data":2}}"#);
}

#[test]
fn a_uni_connect_request_may_be_the_first_frame() {
    let server = Server::start(&[]);
    let mut plain = Client::open(&server, UNI_WEBSOCKET);
    plain.send("{}");
    check_connect(&plain.text(), "");
    let mut client = Client::open(&server, UNI_WEBSOCKET);
    client.send(r#"{"subs":{"a":{},"b":{}}}"#);
    let text = client.text();
    assert!(text.contains(r#""a":{}"#) && text.contains(r#""b":{}"#), "{text}");
    server.publish("b", "[]");
    assert_eq!(client.push(), r#"{"channel":"b","pub":{"data":[]}}"#);
}

#[test]
fn a_uni_client_gets_the_reason_of_its_disconnect() {
    let mut server = Server::start(&["--shutdown.spread", "0s"]);
    let mut client = Client::open(&server, UNI_WEBSOCKET);
    client.send("no json");
    // Only a client that has sent a connect request gets pushes.
    assert_eq!(client.closed(), (3501, "bad request".into()));

    let mut client = Client::open(&server, UNI_WEBSOCKET);
    client.send("{}");
    check_connect(&client.text(), "");
    server.signal_stop();
    assert_eq!(client.text(), r#"{"disconnect":{"code":3001,"reason":"shutdown"}}"#);
    assert_eq!(client.closed(), (3001, "shutdown".into()));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_uni_client_gets_an_application_ping_and_a_websocket_ping() {
    let server = Server::start(&["--client.ping_interval", "2s", "--client.pong_timeout", "1s"]);
    let mut client = Client::open(&server, UNI_WEBSOCKET);
    client.send("{}");
    client.text();
    for _ in 0..3 {
        assert_eq!(client.frame(), Some((0x81, b"{}".to_vec())));
        assert_eq!(client.frame(), Some((0x89, Vec::new())));
        client.send_raw(&crate::common::client_frame(0x8a, b""));
    }
    assert_eq!(client.frame(), Some((0x81, b"{}".to_vec())), "its pongs keep it");
    assert_eq!(client.frame(), Some((0x89, Vec::new())));
    let end = r#"{"disconnect":{"code":3012,"reason":"no pong"}}"#;
    assert_eq!(client.text(), end, "silence does not");
    assert_eq!(client.closed(), (3012, "no pong".into()));
}

#[test]
fn the_disconnect_push_of_a_uni_websocket_client_can_be_disabled() {
    let key = ["--http_api.key", "secret", "--client.token.hmac_secret_key", SECRET];
    let silent = "--uni_websocket.disable_disconnect_push";
    for flags in [key.to_vec(), [&key[..], &[silent]].concat()] {
        let server = Server::start(&flags);
        let mut client = Client::open(&server, UNI_WEBSOCKET);
        client.send(&format!(r#"{{"token":"{}"}}"#, signed(&json!({"sub": "u"}), SECRET)));
        assert!(client.text().starts_with(r#"{"connect":{"#));
        server.api("disconnect", r#"{"user":"u"}"#);
        if flags.len() == key.len() {
            let push = r#"{"disconnect":{"code":3503,"reason":"force disconnect"}}"#;
            assert_eq!(client.text(), push);
        }
        assert_eq!(client.closed(), (3503, "force disconnect".to_owned()));
    }
}

#[test]
fn pushes_of_a_uni_websocket_client_share_frames_if_enabled() {
    for (flags, expected) in [
        (&["--shards", "1"][..], vec![1; 42]),
        (&["--shards", "1", "--uni_websocket.join_push_messages"], vec![16, 16, 10]),
    ] {
        let server = Server::start(flags);
        let mut uni = Client::open(&server, UNI_WEBSOCKET);
        uni.send(r#"{"subs":{"a":{},"b":{}}}"#);
        assert!(uni.text().starts_with(r#"{"connect":{"#));
        let mut publisher = Client::connected(&server);
        let commands: Vec<String> = (0..42)
            .map(|n| {
                let channel = ["a", "b"][n % 2];
                format!(r#"{{"id":{},"publish":{{"channel":"{channel}","data":{n}}}}}"#, n + 2)
            })
            .collect();
        publisher.send(&commands.join("\n"));
        let (mut counts, mut data) = (Vec::new(), Vec::new());
        while data.len() < 42 {
            let (first, payload) = uni.frame().unwrap();
            assert_eq!(first, 0x81);
            let text = String::from_utf8(payload).unwrap();
            counts.push(text.lines().count());
            data.extend(text.lines().map(|line| {
                let push: Value = serde_json::from_str(line).unwrap();
                let n = push["pub"]["data"].as_u64().unwrap();
                assert_eq!(push["channel"], ["a", "b"][n as usize % 2]);
                n
            }));
        }
        assert_eq!(counts, expected, "{flags:?}");
        for parity in [0, 1] {
            let of_channel = data.iter().copied().filter(|n| n % 2 == parity);
            assert!(of_channel.is_sorted(), "publications of a channel keep their order: {data:?}");
        }
    }
}

#[test]
fn a_refused_connect_is_answered_by_an_http_status_if_enabled() {
    let enabled = ["uni_sse", "uni_http_stream"].map(|transport| {
        let responses = r#"[{"code":3500,"to":{"status_code":401}},
            {"code":109,"to":{"status_code":410,"body":"{\"renew\":true}"}}]"#;
        let key = format!("--{transport}.connect_code_to_http_response");
        [format!("{key}.enabled"), format!("{key}.transforms={responses}")]
    });
    let key =
        ["--client.token.hmac_secret_key", SECRET, "--client.allowed_origins", "https://a.com"];
    let flags = enabled.iter().flatten().map(String::as_str).chain(key);
    let server = Server::start(&flags.collect::<Vec<_>>());
    let ask = |transport: &str, connect: &str| {
        let mut client = Client::dial(&server);
        let head = "Host: test\r\nOrigin: https://a.com\r\nContent-Type: application/json";
        let (path, length) = (format!("/connection/{transport}"), connect.len());
        let request =
            format!("POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{connect}");
        client.send_raw(request.as_bytes());
        let head = client.read_head();
        assert!(head.contains("Access-Control-Allow-Origin: https://a.com\r\n"), "{head}");
        (head.lines().next().unwrap().to_owned(), client)
    };
    let connect = |claims| format!(r#"{{"token":"{}"}}"#, signed(&claims, SECRET));
    let expired = connect(json!({"sub": "u", "exp": 1}));
    for transport in ["uni_sse", "uni_http_stream"] {
        for (connect, status, body) in [
            (r#"{"token":"x"}"#, "HTTP/1.1 401 Unauthorized", "invalid token"),
            (&*expired, "HTTP/1.1 410 Gone", r#"{"renew":true}"#),
            (
                r#"{"subs":{"none:x":{}}}"#,
                "HTTP/1.1 500 Internal Server Error",
                "Internal Server Error",
            ),
        ] {
            let (line, mut client) = ask(transport, connect);
            assert_eq!(line, status, "{transport} {connect}");
            assert_eq!(String::from_utf8(client.rest()).unwrap(), body, "{transport} {connect}");
        }
        let (line, mut client) = ask(transport, r#"{"subs":{"news":{}}}"#);
        assert_eq!(line, "HTTP/1.1 200 OK");
        let line = client.line();
        assert!(line.contains(r#""subs":{"news":{}}"#), "{line}");
        server.publish("news", "1");
        let mut lines = std::iter::from_fn(|| Some(client.line()));
        assert!(lines.any(|line| line.contains(r#""pub":{"data":1,"#)));
    }
    let (line, mut client) = ask("long_polling", r#"{"token":"x"}"#);
    assert_eq!(line, "HTTP/1.1 200 OK", "other transports keep the push");
    assert!(String::from_utf8(client.rest()).unwrap().contains(r#""code":3500"#));
}
