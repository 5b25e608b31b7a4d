//! Clients without a user: the API selects them by client ID or session, tokens refresh them.

use serde_json::{Value, json};

use crate::common::tokens::{SECRET, now, signed};
use crate::common::{Client, Server, WEBSOCKET, wait_for};

fn server() -> Server {
    Server::start(&["--client.token.hmac_secret_key", SECRET, "--http_api.key", "secret"])
}

/// A connected client without a user, and its client ID.
fn anonymous(server: &Server) -> (Client, String) {
    let mut client = Client::open(server, WEBSOCKET);
    let reply: Value = serde_json::from_str(&client.ask(r#"{"id":1,"connect":{}}"#)).unwrap();
    let id = reply["connect"]["client"].as_str().unwrap().to_owned();
    (client, id)
}

#[test]
fn the_api_reaches_a_client_without_a_user_by_its_id() {
    let server = server();
    let (mut client, id) = anonymous(&server);
    let (mut other, _) = anonymous(&server);
    let done = r#"{"result":{}}"#;
    let api = |method: &str, more: &str| {
        server.api(method, &format!(r#"{{"user":"","client":"{id}"{more}}}"#))
    };
    assert_eq!(api("subscribe", r#","channel":"news""#), done);
    assert_eq!(client.text(), r#"{"push":{"channel":"news","subscribe":{}}}"#);
    assert_eq!(api("unsubscribe", r#","channel":"news""#), done);
    let ended =
        r#"{"push":{"channel":"news","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;
    assert_eq!(client.text(), ended);
    assert_eq!(api("refresh", &format!(r#","expire_at":{}"#, now() + 1000)), done);
    let refreshed: Value = serde_json::from_str(&client.text()).unwrap();
    let ttl = refreshed["push"]["refresh"]["ttl"].as_u64().unwrap();
    assert!((900..=1000).contains(&ttl), "{refreshed}");
    assert_eq!(refreshed["push"]["refresh"]["expires"], true);
    assert_eq!(api("refresh", ""), done);
    assert_eq!(client.text(), r#"{"push":{"refresh":{}}}"#);
    // Without a user in the request, as with an empty one.
    assert_eq!(server.api("disconnect", &format!(r#"{{"client":"{id}"}}"#)), done);
    assert_eq!(client.closed(), (3503, "force disconnect".to_owned()));
    assert!(other.is_alive(), "no other client without a user was selected");
}

#[test]
fn the_api_does_not_select_all_clients_without_a_user() {
    let server = server();
    let (mut client, _) = anonymous(&server);
    for body in [r#"{"user":""}"#, "{}", r#"{"user":"","client":"","session":""}"#] {
        let answer = server.api("disconnect", body);
        assert!(answer.starts_with(r#"{"error":{"code":107,"#), "{answer}");
    }
    let done = r#"{"result":{}}"#;
    assert_eq!(server.api("disconnect", r#"{"client":"unknown"}"#), done);
    assert!(client.is_alive());
}

#[test]
fn a_client_id_selects_only_with_the_user_of_the_client() {
    let server = server();
    let token = signed(&json!({"sub": "u", "exp": now() + 100}), SECRET);
    let mut client = Client::open(&server, WEBSOCKET);
    let reply = client.ask(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let id = reply["connect"]["client"].as_str().unwrap();
    server.api("disconnect", &format!(r#"{{"client":"{id}"}}"#));
    server.api("disconnect", &format!(r#"{{"user":"v","client":"{id}"}}"#));
    assert!(client.is_alive());
    server.api("disconnect", &format!(r#"{{"user":"u","client":"{id}"}}"#));
    assert_eq!(client.closed(), (3503, "force disconnect".to_owned()));
}

#[test]
fn a_token_without_a_user_refreshes_a_client_without_a_user() {
    let server = server();
    let (mut client, _) = anonymous(&server);
    for claims in [json!({"sub": "", "exp": now() + 100}), json!({"exp": now() + 100})] {
        let token = signed(&claims, SECRET);
        let reply = client.ask(&format!(r#"{{"id":2,"refresh":{{"token":"{token}"}}}}"#));
        assert!(reply.starts_with(r#"{"id":2,"refresh":{"expires":true,"ttl":"#), "{reply}");
    }
}

#[test]
fn new_information_of_a_client_reaches_presence() {
    let presence = "--channel.without_namespace.presence";
    let key = ["--http_api.key", "secret", "--client.token.hmac_secret_key", SECRET];
    let server = Server::start(&[&[presence], &key[..]].concat());
    let token = |claims: Value| signed(&claims, SECRET);
    let mut client = Client::open(&server, WEBSOCKET);
    let first = token(json!({"sub": "u", "exp": now() + 100, "info": 1}));
    client.ask(&format!(r#"{{"id":1,"connect":{{"token":"{first}"}}}}"#));
    let subscription = |channel: &str, info: u32| {
        token(json!({"sub": "u", "channel": channel, "exp": now() + 100, "info": info}))
    };
    // The homes of the channels are on both shards.
    let channels = ["a", "b", "c", "d", "e", "f"];
    for channel in channels {
        let token = subscription(channel, 2);
        client
            .ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}","token":"{token}"}}}}"#));
    }
    let mut observer = Client::connected(&server);
    let mut wait_for_presence = |channel: &str, expected: &str| {
        wait_for(expected, || {
            let query = format!(r#"{{"id":2,"presence":{{"channel":"{channel}"}}}}"#);
            observer.ask(&query).contains(expected).then_some(())
        });
    };
    wait_for_presence("a", r#""conn_info":1,"chan_info":2"#);
    let second = token(json!({"sub": "u", "exp": now() + 100, "info": 3}));
    client.ask(&format!(r#"{{"id":3,"refresh":{{"token":"{second}"}}}}"#));
    for channel in channels {
        wait_for_presence(channel, r#""conn_info":3,"chan_info":2"#);
        let token = subscription(channel, 4);
        client.ask(&format!(
            r#"{{"id":4,"sub_refresh":{{"channel":"{channel}","token":"{token}"}}}}"#
        ));
        wait_for_presence(channel, r#""conn_info":3,"chan_info":4"#);
    }
    server.api("refresh", &format!(r#"{{"user":"u","info":5,"expire_at":{}}}"#, now() + 50));
    channels
        .iter()
        .for_each(|channel| wait_for_presence(channel, r#""conn_info":5,"chan_info":4"#));
}

#[test]
fn answers_of_a_frame_that_also_ends_the_connection_come_before_the_close() {
    let server = Server::start(&[
        "--channel.without_namespace.presence",
        "--channel.without_namespace.history_size",
        "10",
        "--channel.without_namespace.history_ttl",
        "60s",
    ]);
    // The homes of the channels are on both shards.
    for channel in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let mut client = Client::connected(&server);
        client.send(&format!(
            "{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}\n\
             {{\"id\":3,\"presence_stats\":{{\"channel\":\"{channel}\"}}}}\n\
             {{\"id\":4,\"history\":{{\"channel\":\"{channel}\"}}}}\n{{\"id\":5,\"zz\":{{}}}}"
        ));
        assert!(client.text().starts_with(r#"{"id":2,"subscribe":{"#));
        assert!(client.text().starts_with(r#"{"id":3,"presence_stats":{"#));
        assert!(client.text().starts_with(r#"{"id":4,"history":{"#));
        assert_eq!(client.closed(), (3501, "bad request".to_owned()));
    }
}
