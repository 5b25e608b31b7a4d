//! Lifetime of tokens: expired tokens grant nothing, a refreshed token must name the channels of
//! the connection, and insecure mode refuses invalid tokens.

use serde_json::{Value, json};

use crate::common::tokens::{SECRET, now, signed};
use crate::common::{API_KEY, Client, Server, UNI_WEBSOCKET, WEBSOCKET};

const OPEN: &str = "--channel.without_namespace.allow_subscribe_for_client";
const EXPIRED: &str = r#"{"code":110,"message":"expired"}"#;

/// A token of the user `ann`, with more claims.
fn token(more: Value) -> String {
    let mut claims = json!({"sub": "ann"});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    signed(&claims, SECRET)
}

fn server(flags: &[&str]) -> Server {
    let mut all = vec!["--shards", "2", "--engine.slots_per_shard", "500"];
    all.extend(["--client.token.hmac_secret_key", SECRET, "--http_api.key", API_KEY]);
    all.extend(flags);
    Server::with(&all)
}

fn connect(token: &str) -> String {
    json!({"id": 1, "connect": {"token": token}}).to_string()
}

fn subscribe(channel: &str, token: &str) -> String {
    json!({"id": 2, "subscribe": {"channel": channel, "token": token}}).to_string()
}

fn refresh(token: &str) -> String {
    json!({"id": 3, "refresh": {"token": token}}).to_string()
}

fn sub_refresh(channel: &str, token: &str) -> String {
    json!({"id": 4, "sub_refresh": {"channel": channel, "token": token}}).to_string()
}

fn connected(server: &Server, claims: Value) -> Client {
    let mut client = Client::open(server, WEBSOCKET);
    let reply = client.ask(&connect(&token(claims)));
    assert!(reply.starts_with(r#"{"id":1,"connect":{"#), "{reply}");
    client
}

fn ends(server: &Server, command: &str) -> (u16, String) {
    let mut client = Client::open(server, WEBSOCKET);
    client.send(command);
    client.closed()
}

#[test]
fn a_past_expiry_grants_nothing() {
    let server = server(&[OPEN, "--uni_websocket.enabled"]);
    for end in [1, now() - 100, now()] {
        let old = token(json!({"expire_at": end}));
        let mut refused = Client::open(&server, WEBSOCKET);
        assert_eq!(refused.ask(&connect(&old)), format!(r#"{{"id":1,"error":{EXPIRED}}}"#));
        let mut uni = Client::open(&server, UNI_WEBSOCKET);
        uni.send(&json!({"token": old}).to_string());
        assert_eq!(uni.closed(), (3005, "connection expired".into()));
        let mut client = connected(&server, json!({}));
        let old_sub = token(json!({"channel": "news", "expire_at": end}));
        let reply = client.ask(&subscribe("news", &old_sub));
        assert_eq!(reply, format!(r#"{{"id":2,"error":{EXPIRED}}}"#));
        assert_eq!(client.ask(&subscribe("news", "")), r#"{"id":2,"subscribe":{}}"#);
        let reply = client.ask(&sub_refresh("news", &old_sub));
        assert_eq!(reply, format!(r#"{{"id":4,"error":{EXPIRED}}}"#));
        assert_eq!(client.ask(&refresh(&old)), format!(r#"{{"id":3,"error":{EXPIRED}}}"#));
        let order = json!({"user": "ann", "channel": "other", "expire_at": end}).to_string();
        let refused = r#"{"error":{"code":100,"message":"internal server error"}}"#;
        assert_eq!(server.api("subscribe", &order), refused);
        // The connection stays open, and the refused call has not subscribed it to `other`.
        let reply = client.ask(r#"{"id":5,"unsubscribe":{"channel":"other"}}"#);
        assert_eq!(reply, r#"{"id":5,"unsubscribe":{}}"#);
        let order = json!({"user": "ann", "expire_at": end}).to_string();
        assert_eq!(server.api("refresh", &order), r#"{"result":{}}"#);
        assert_eq!(client.closed(), (3005, "connection expired".into()));
    }
    assert_eq!(server.metric("drumline_clients"), 0);
    // An `expire_at` of 0 or less means no expiry.
    let mut client = connected(&server, json!({"expire_at": -5, "exp": now() + 100}));
    let order = json!({"user": "ann", "channel": "other", "expire_at": -5}).to_string();
    assert_eq!(server.api("subscribe", &order), r#"{"result":{}}"#);
    assert_eq!(client.text(), r#"{"push":{"channel":"other","subscribe":{}}}"#);
}

#[test]
fn a_refreshed_token_with_other_channels_closes_the_connection() {
    let server = server(&[OPEN]);
    let insufficient = (3010, "insufficient state".to_owned());
    for (before, after) in [
        (json!({"channels": ["a", "b"]}), json!({"channels": ["a"]})),
        (json!({"channels": ["a", "b"]}), json!({})),
        (json!({"channels": ["a"]}), json!({"channels": ["a", "b"]})),
        (json!({}), json!({"channels": ["a"]})),
        (json!({"subs": {"a": {}, "b": {}}}), json!({"subs": {"b": {}}})),
        (json!({"channels": ["a"]}), json!({"expire_at": 5})),
    ] {
        let mut client = connected(&server, before.clone());
        client.send(&refresh(&token(after.clone())));
        assert_eq!(client.closed(), insufficient, "{before} {after}");
    }
    let refreshed = r#"{"id":3,"refresh":{}}"#;
    for (before, after) in [
        (json!({"channels": ["a", "b"]}), json!({"channels": ["b", "a"]})),
        (json!({"channels": ["a"]}), json!({"subs": {"a": {"info": 1}}})),
        (json!({}), json!({})),
    ] {
        let mut client = connected(&server, before);
        assert_eq!(client.ask(&refresh(&token(after.clone()))), refreshed, "{after}");
    }
    // Subscriptions by the client or the API stay, whether the token names them or not.
    let mut client = connected(&server, json!({"channels": ["a"]}));
    assert_eq!(client.ask(&subscribe("own", "")), r#"{"id":2,"subscribe":{}}"#);
    server.api("subscribe", r#"{"user":"ann","channel":"api"}"#);
    assert_eq!(client.text(), r#"{"push":{"channel":"api","subscribe":{}}}"#);
    assert_eq!(client.ask(&refresh(&token(json!({"channels": ["a"]})))), refreshed);
    let all = json!({"channels": ["a", "api", "own"]});
    assert_eq!(client.ask(&refresh(&token(all))), refreshed);
    let reply = client.ask(&refresh(&token(json!({"channels": ["a", "none:x"]}))));
    let unknown = r#"{"id":3,"error":{"code":102,"message":"unknown channel"}}"#;
    assert_eq!(reply, unknown);
    server.api("unsubscribe", r#"{"user":"ann","channel":"a"}"#);
    client.send(&refresh(&token(json!({"channels": ["a"]}))));
    assert_eq!(client.closed(), insufficient);
}

#[test]
fn an_expired_or_invalid_token_in_sub_refresh_closes_the_connection() {
    let server = server(&[OPEN]);
    let expired = (3006, "subscription expired".to_owned());
    let invalid = (3500, "invalid token".to_owned());
    let good = token(json!({"channel": "news", "exp": now() + 600}));
    for (given, expected) in [
        (token(json!({"channel": "news", "exp": now() - 100})), &expired),
        (token(json!({"channel": "news", "nbf": now() + 100})), &expired),
        ("nonsense".to_owned(), &invalid),
        (signed(&json!({"sub": "ann", "channel": "news"}), "another"), &invalid),
        (token(json!({"channel": "other"})), &invalid),
        (signed(&json!({"sub": "bob", "channel": "news"}), SECRET), &invalid),
    ] {
        for first in [&*good, ""] {
            let mut client = connected(&server, json!({}));
            let reply = client.ask(&subscribe("news", first));
            assert!(reply.starts_with(r#"{"id":2,"subscribe":{"#), "{reply}");
            client.send(&sub_refresh("news", &given));
            assert_eq!(client.closed(), *expected, "{given}");
        }
    }
    // A client cannot refresh a server-side subscription.
    let mut client = connected(&server, json!({"channels": ["news"]}));
    client.send(&sub_refresh("news", &good));
    assert_eq!(client.closed(), (3501, "bad request".into()));
    let mut client = connected(&server, json!({}));
    client.ask(&subscribe("news", &good));
    let missing = r#"{"id":4,"error":{"code":107,"message":"bad request"}}"#;
    assert_eq!(client.ask(&sub_refresh("news", "")), missing);
    let reply = client.ask(&sub_refresh("news", &good));
    assert!(reply.starts_with(r#"{"id":4,"sub_refresh":{"expires":true,"ttl":"#), "{reply}");
}

#[test]
fn insecure_mode_allows_missing_tokens_and_refuses_invalid_ones() {
    let server = server(&["--client.insecure"]);
    let invalid = (3500, "invalid token".to_owned());
    assert_eq!(ends(&server, &connect("nonsense")), invalid);
    assert_eq!(ends(&server, &connect(&signed(&json!({"sub": "ann"}), "another"))), invalid);
    let old = token(json!({"exp": now() - 100}));
    let refused = Client::open(&server, WEBSOCKET).ask(&connect(&old));
    assert_eq!(refused, r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#);
    // The server ignores the expiry of a connection token.
    for claims in [json!({"exp": now() + 100}), json!({"expire_at": 5})] {
        let reply = Client::open(&server, WEBSOCKET).ask(&connect(&token(claims)));
        assert!(!reply.contains("expires") && !reply.contains("error"), "{reply}");
    }
    let mut client = connected(&server, json!({}));
    let denied = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
    let forged = signed(&json!({"sub": "ann", "channel": "x"}), "another");
    for (channel, given) in [("x", "nonsense"), ("x", &*forged), ("$x", "")] {
        assert_eq!(client.ask(&subscribe(channel, given)), denied, "{channel}");
    }
    assert_eq!(client.ask(&subscribe("x", "")), r#"{"id":2,"subscribe":{}}"#);
    client.send(&sub_refresh("x", &forged));
    assert_eq!(client.closed(), invalid);
    // The `subs` of a connect request are subject to the same checks.
    let own = r#"{"id":1,"connect":{"subs":{"$x":{},"y":{}}}}"#;
    let reply = Client::open(&server, WEBSOCKET).ask(own);
    assert!(reply.contains(r#""subs":{"y":{}}"#), "{reply}");
}

#[test]
fn a_revoked_token_is_refused_in_insecure_mode_too() {
    let server = server(&["--client.insecure"]);
    let given = token(json!({"jti": "one"}));
    let mut client = Client::open(&server, WEBSOCKET);
    client.ask(&connect(&given));
    server.api("revoke_token", r#"{"uid":"one"}"#);
    assert_eq!(client.closed(), (3500, "invalid token".into()));
    assert_eq!(ends(&server, &connect(&given)), (3500, "invalid token".into()));
}

#[test]
fn a_refresh_replaces_the_claims_that_the_new_token_has() {
    let server = server(&[OPEN, "--channel.without_namespace.presence"]);
    let mut client = connected(&server, json!({"info": {"n": 1}}));
    client.ask(&subscribe("one", ""));
    client.ask(&refresh(&token(json!({"exp": now() + 100}))));
    client.ask(&subscribe("two", ""));
    let presence = server.api("presence", r#"{"channel":"two"}"#);
    assert!(presence.contains(r#""conn_info":{"n":1}"#), "{presence}");
    client.ask(&refresh(&token(json!({"info": 2}))));
    client.ask(&subscribe("three", ""));
    let presence = server.api("presence", r#"{"channel":"three"}"#);
    assert!(presence.contains(r#""conn_info":2"#), "{presence}");
}

#[test]
fn an_anonymous_client_may_refresh_with_an_anonymous_token() {
    let server = server(&["--client.allow_anonymous_connect_without_token"]);
    let mut client = Client::connected(&server);
    let anonymous = signed(&json!({"sub": "", "exp": now() + 600}), SECRET);
    let reply = client.ask(&refresh(&anonymous));
    assert!(reply.starts_with(r#"{"id":3,"refresh":{"expires":true,"ttl":"#), "{reply}");
    client.send(&refresh(&token(json!({}))));
    assert_eq!(client.closed(), (3500, "invalid token".into()));
}
