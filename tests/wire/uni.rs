//! Unidirectional clients over WebSocket.

use serde_json::json;

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
    assert_eq!(client.text(), r#"{"disconnect":{"code":3501,"reason":"bad request"}}"#);
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
