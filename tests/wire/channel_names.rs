//! Names of channels: limits bind the names that clients choose, a backend may use others.

use serde_json::json;

use crate::common::tokens::{SECRET, now, signed};
use crate::common::{Client, Server, WEBSOCKET};

const TOKENS: [&str; 4] = [
    "--client.token.hmac_secret_key",
    SECRET,
    "--channel.without_namespace.allow_subscribe_for_client",
    "--channel.without_namespace.allow_subscribe_for_anonymous",
];

fn server(flags: &[&str]) -> Server {
    Server::with(
        &[&["--shards", "2", "--engine.slots_per_shard", "100"], &TOKENS[..], flags].concat(),
    )
}

fn connect_with(server: &Server, claims: serde_json::Value) -> String {
    let token = signed(&claims, SECRET);
    let mut client = Client::open(server, WEBSOCKET);
    client.ask(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#))
}

#[test]
fn tokens_may_name_channels_that_clients_may_not() {
    let server = server(&["--client.subscribe_to_user_personal_channel.enabled"]);
    let (long, user) = ("l".repeat(300), "u".repeat(260));
    let claims = json!({
        "sub": user, "exp": now() + 100, "channels": ["", "n\u{e9}ws", long],
    });
    let reply = connect_with(&server, claims);
    for name in ["n\u{e9}ws", &long, &format!("#{user}")] {
        assert!(reply.contains(&format!("\"{name}\":{{")), "{name} in {reply}");
    }
    assert!(!reply.contains("\"\":{"), "an empty name is dropped: {reply}");
    let over = connect_with(&server, json!({"sub": "u", "channels": ["l".repeat(4097)]}));
    let error = "bad request: the channel name is longer than 4096 bytes";
    assert_eq!(over, format!(r#"{{"id":1,"error":{{"code":107,"message":"{error}"}}}}"#));
}

#[test]
fn a_name_over_the_limit_in_a_connect_request_is_an_error() {
    let server = server(&["--client.allow_anonymous_connect_without_token"]);
    let connect = |name: &str| {
        let mut client = Client::open(&server, WEBSOCKET);
        client.ask(&format!(r#"{{"id":1,"connect":{{"subs":{{"{name}":{{}}}}}}}}"#))
    };
    assert!(connect(&"l".repeat(255)).contains(r#""subs":{"lll"#));
    let refused = r#"{"id":1,"error":{"code":107,"message":"bad request"}}"#;
    assert_eq!(connect(&"l".repeat(256)), refused);
    // The client may not subscribe to it, so it is ignored like every other such channel.
    assert!(!connect(&format!("${}", "l".repeat(256))).contains("subs"));
}

#[test]
fn the_user_boundary_is_an_ordinary_character_without_user_limited_channels() {
    let namespaces = r#"[{"name":"limited","allow_user_limited_channels":true}]"#;
    let server = server(&[
        "--client.allow_anonymous_connect_without_token",
        "--channel.namespaces",
        namespaces,
    ]);
    let mut client = Client::connected(&server);
    let subscribed = client.ask(r#"{"id":2,"subscribe":{"channel":"issue#42"}}"#);
    assert_eq!(subscribed, r#"{"id":2,"subscribe":{}}"#);
    let empty = client.ask(r#"{"id":3,"subscribe":{"channel":":no-namespace"}}"#);
    assert_eq!(empty, r#"{"id":3,"subscribe":{}}"#);
    let denied = client.ask(r#"{"id":4,"subscribe":{"channel":"limited:issue#42"}}"#);
    assert_eq!(denied, r#"{"id":4,"error":{"code":103,"message":"permission denied"}}"#);
}

#[test]
fn rights_of_subscribers_need_a_user_or_the_anonymous_option() {
    let subscriber = "--channel.without_namespace.allow_publish_for_subscriber";
    let anonymous = "--channel.without_namespace.allow_publish_for_anonymous";
    let connect = "--client.allow_anonymous_connect_without_token";
    for (flags, expected) in [
        (
            vec![connect, subscriber],
            r#"{"id":3,"error":{"code":103,"message":"permission denied"}}"#,
        ),
        (vec![connect, subscriber, anonymous], r#"{"id":3,"publish":{}}"#),
    ] {
        let server = server(&flags);
        let mut client = Client::connected(&server);
        client.ask(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
        client.send(r#"{"id":3,"publish":{"channel":"a","data":1}}"#);
        let answers = [client.text(), if flags.len() > 2 { client.text() } else { String::new() }];
        assert!(answers.iter().any(|answer| answer == expected), "{answers:?}");
    }
}

#[test]
fn map_and_poll_types_are_refused_with_their_codes() {
    let server = Server::start(&[]);
    let mut client = Client::connected(&server);
    for (command, code) in [
        (r#"{"id":2,"subscribe":{"channel":"a","type":4}}"#, 108),
        (r#"{"id":2,"subscribe":{"channel":"a","type":1}}"#, 103),
        (r#"{"id":2,"publish":{"channel":"a","data":1,"type":1}}"#, 103),
    ] {
        let reply = client.ask(command);
        assert!(reply.starts_with(&format!(r#"{{"id":2,"error":{{"code":{code},"#)), "{reply}");
    }
}
