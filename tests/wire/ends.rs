//! Connections and subscriptions that the server ends because of revoked or expired tokens, too
//! many connections of a user, or lost positions.

use serde_json::{Value, json};

use crate::common::tokens::{SECRET, now, signed};
use crate::common::{Client, Server, WEBSOCKET, client_frame, wait_for};

const EMPTY: &str = r#"{"result":{}}"#;

fn token(claims: &Value) -> String {
    signed(claims, SECRET)
}

/// A server that requires tokens, with more flags. The kernel spreads the clients over its shards.
fn server(flags: &[&str]) -> Server {
    let mut all = vec!["--shards", "3", "--client.token.hmac_secret_key", SECRET];
    all.extend(["--channel.without_namespace.allow_subscribe_for_client", "--http_api.insecure"]);
    all.extend(flags);
    Server::with(&all)
}

fn connect(claims: &Value) -> String {
    format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token(claims))
}

fn connected(server: &Server, claims: &Value) -> Client {
    let mut client = Client::open(server, WEBSOCKET);
    let reply = client.ask(&connect(claims));
    assert!(reply.starts_with(r#"{"id":1,"connect":{"client":"#), "{reply}");
    client
}

/// The close code and reason of a connect with these claims.
fn refused(server: &Server, claims: &Value) -> (u16, String) {
    let mut client = Client::open(server, WEBSOCKET);
    client.send(&connect(claims));
    client.closed()
}

fn invalid_token() -> (u16, String) {
    (3500, "invalid token".into())
}

#[test]
fn a_revoked_token_closes_its_connections_and_admits_no_more() {
    let server = server(&[]);
    let leaked = json!({"sub": "42", "jti": "leaked"});
    let fine = json!({"sub": "42", "jti": "fine"});
    let mut others: Vec<Client> = (0..3).map(|_| connected(&server, &fine)).collect();
    let mut ended: Vec<Client> = (0..6).map(|_| connected(&server, &leaked)).collect();
    let mut unnamed = connected(&server, &json!({"sub": "42"}));
    assert_eq!(server.api("revoke_token", r#"{"uid":"leaked","expire_at":99999999999}"#), EMPTY);
    for client in &mut ended {
        assert_eq!(client.closed(), invalid_token());
    }
    assert_eq!(refused(&server, &leaked), invalid_token());
    others[0].send(&format!(r#"{{"id":2,"refresh":{{"token":"{}"}}}}"#, token(&leaked)));
    assert_eq!(others[0].closed(), invalid_token());
    assert!(others[1].is_alive() && others[2].is_alive() && unnamed.is_alive());
    assert!(server.api("revoke_token", "{}").contains(r#""code":107"#));
    // A revocation that has expired has no effect.
    let old = format!(r#"{{"uid":"fine","expire_at":{}}}"#, now() - 1);
    assert_eq!(server.api("revoke_token", &old), EMPTY);
    assert!(connected(&server, &fine).is_alive() && others[1].is_alive());
}

#[test]
fn invalidated_user_tokens_end_by_their_issue_time() {
    let server = server(&[]);
    let made = |user: &str, at: u64| json!({"sub": user, "iat": at});
    let mut old: Vec<Client> = (0..4).map(|_| connected(&server, &made("42", 1_000))).collect();
    old.push(connected(&server, &json!({"sub": "42"})));
    let mut young = connected(&server, &made("42", 2_000));
    let mut other = connected(&server, &made("43", 1_000));
    let order = r#"{"user":"42","issued_before":2000,"expire_at":99999999999}"#;
    assert_eq!(server.api("invalidate_user_tokens", order), EMPTY);
    for client in &mut old {
        assert_eq!(client.closed(), invalid_token());
    }
    assert_eq!(refused(&server, &made("42", 1_999)), invalid_token());
    assert!(young.is_alive() && other.is_alive());
    // Without `issued_before` the call invalidates all tokens issued until now.
    assert_eq!(server.api("invalidate_user_tokens", r#"{"user":"42"}"#), EMPTY);
    assert_eq!(young.closed(), invalid_token());
    assert!(connected(&server, &made("42", now() + 60)).is_alive());
    assert!(server.api("invalidate_user_tokens", "{}").contains(r#""code":107"#));
}

#[test]
fn a_revoked_subscription_token_ends_only_the_subscription() {
    let server = server(&["--engine.revocations_max", "2"]);
    let of = |channel: &str| json!({"sub": "42", "channel": channel, "jti": channel, "iat": 1_000});
    let subscribe = |id: u32, channel: &str| {
        let token = token(&of(channel));
        format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}","token":"{token}"}}}}"#)
    };
    let mut client = connected(&server, &json!({"sub": "42", "iat": 1_000}));
    for (id, channel) in [(2, "$a"), (3, "$b"), (4, "$c")] {
        let reply = client.ask(&subscribe(id, channel));
        assert_eq!(reply, format!(r#"{{"id":{id},"subscribe":{{}}}}"#));
    }
    let ended = |channel: &str| {
        let why = r#""unsubscribe":{"code":2000,"reason":"server unsubscribe"}"#;
        format!(r#"{{"push":{{"channel":"{channel}",{why}}}}}"#)
    };
    assert_eq!(server.api("revoke_token", r#"{"uid":"$a"}"#), EMPTY);
    assert_eq!(client.text(), ended("$a"));
    let order = r#"{"user":"42","channel":"$b"}"#;
    assert_eq!(server.api("invalidate_user_tokens", order), EMPTY);
    assert_eq!(client.text(), ended("$b"));
    let denied = r#"{"id":5,"error":{"code":103,"message":"permission denied"}}"#;
    assert_eq!(client.ask(&subscribe(5, "$a")), denied);
    assert_eq!(client.ask(&subscribe(5, "$b")), denied);
    let full = r#"{"error":{"code":106,"message":"limit exceeded"}}"#;
    assert_eq!(server.api("revoke_token", r#"{"uid":"$c"}"#), full);
    assert!(client.is_alive());
    let refresh = format!(r#""channel":"$c","token":"{}""#, token(&of("$a")));
    client.send(&format!(r#"{{"id":6,"sub_refresh":{{{refresh}}}}}"#));
    assert_eq!(client.closed(), invalid_token());
}

#[test]
fn anonymous_subscription_ends_when_its_token_is_revoked() {
    let server = server(&["--client.allow_anonymous_connect_without_token"]);
    let mut client = Client::open(&server, WEBSOCKET);
    assert!(client.ask(r#"{"id":1,"connect":{}}"#).contains(r#""connect""#));
    let token = token(&json!({"sub": "", "channel": "$a", "jti": "leaked"}));
    let subscribe = format!(r#""subscribe":{{"channel":"$a","token":"{token}"}}"#);
    assert_eq!(client.ask(&format!(r#"{{"id":2,{subscribe}}}"#)), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(server.api("revoke_token", r#"{"uid":"leaked"}"#), EMPTY);
    assert!(client.text().contains(r#""unsubscribe":{"code":2000"#));
}

fn connection_limit() -> (u16, String) {
    (3504, "connection limit".into())
}

#[test]
fn the_connection_limit_of_a_user_counts_over_all_shards() {
    let server = server(&["--client.user_connection_limit", "4"]);
    let (user, other) = (json!({"sub": "42"}), json!({"sub": "43"}));
    let mut clients: Vec<Client> = (0..4).map(|_| connected(&server, &user)).collect();
    for _ in 0..4 {
        assert_eq!(refused(&server, &user), connection_limit());
    }
    assert!(connected(&server, &other).is_alive());
    // The limit does not apply to anonymous users.
    let _nobody: Vec<Client> = (0..6).map(|_| connected(&server, &json!({}))).collect();
    clients.pop().unwrap().vanish();
    wait_for("a place", || {
        let mut client = Client::open(&server, WEBSOCKET);
        client.send(&connect(&user));
        let admitted = matches!(client.frame(), Some((0x81, _)));
        admitted.then(|| clients.push(client))
    });
    assert_eq!(refused(&server, &user), connection_limit());
    assert!(clients.iter_mut().all(Client::is_alive));
}

#[test]
fn a_single_connection_closes_the_users_previous_one() {
    let personal = "--client.subscribe_to_user_personal_channel";
    let (on, single) = (format!("{personal}.enabled"), format!("{personal}.single_connection"));
    let server = server(&[&on, &single]);
    let user = json!({"sub": "42"});
    let mut other = connected(&server, &json!({"sub": "43"}));
    let mut last = connected(&server, &user);
    for _ in 0..8 {
        let next = connected(&server, &user);
        assert_eq!(last.closed(), connection_limit());
        last = next;
    }
    assert!(last.is_alive() && other.is_alive());
}

#[test]
fn grants_of_a_token_expire_in_time_when_pings_are_rare() {
    let server = server(&[
        "--client.expired_close_delay",
        "3s",
        "--client.expired_sub_close_delay",
        "1s",
        "--client.ping_interval",
        "60s",
    ]);
    // The expiries leave a slow machine seconds to connect, subscribe and refresh before them.
    let start = now();
    let mut client = connected(&server, &json!({"sub": "42", "exp": start + 6}));
    let secret = token(&json!({"sub": "42", "channel": "$a", "exp": start + 5}));
    let reply =
        client.ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"$a","token":"{secret}"}}}}"#));
    assert!(reply.contains(r#""expires":true,"ttl":"#), "{reply}");
    let mut lasting = connected(&server, &json!({"sub": "42", "exp": start + 6}));
    let later = token(&json!({"sub": "42", "exp": start + 600}));
    lasting.ask(&format!(r#"{{"id":2,"refresh":{{"token":"{later}"}}}}"#));
    let push = client.text();
    assert!(push.contains(r#""unsubscribe":{"code":2501,"#), "{push}");
    // Each end comes after its delay and long before the next ping.
    assert!((start + 6..start + 30).contains(&now()), "after {} s", now() - start);
    assert_eq!(client.closed(), (3005, "connection expired".into()));
    assert!((start + 9..start + 30).contains(&now()), "after {} s", now() - start);
    // The refresh moved the expiry of this connection; the missing pings did not end it.
    assert!(lasting.is_alive());
}

#[test]
fn clients_that_ask_for_websocket_pings_get_them() {
    let flags = ["--client.ping_interval", "2s", "--client.pong_timeout", "1s"];
    let server = server(&flags);
    let open = || {
        let path = format!("{WEBSOCKET}?cf_ws_frame_ping_pong=true");
        let mut client = Client::open(&server, &path);
        let reply = client.ask(&connect(&json!({"sub": "42"})));
        assert!(reply.contains(r#""client":""#) && !reply.contains(r#""p"#), "{reply}");
        client
    };
    let ping = Some((0x89, Vec::new()));
    let (mut silent, mut polite) = (open(), open());
    for _ in 0..2 {
        assert_eq!(polite.frame(), ping);
        polite.send_raw(&client_frame(0x8a, b""));
    }
    assert!(polite.is_alive());
    assert_eq!(silent.frame(), ping);
    assert_eq!(silent.closed(), (3012, "no pong".into()));
    // A JSON pong does not answer a WebSocket ping.
    let mut rude = open();
    assert_eq!(rude.frame(), ping);
    rude.send("{}");
    assert_eq!(rude.closed(), (3501, "bad request".into()));
}

/// A server whose shards keep one stream each, so each new stream evicts the one before.
fn forgetful(delay: &str) -> Server {
    let of = |option: &str| format!("--channel.without_namespace.{option}");
    server(&[
        &of("history_size"),
        "10",
        &of("history_ttl"),
        "60s",
        &of("force_recovery"),
        "--engine.streams_max",
        "1",
        "--client.channel_position_check_delay",
        delay,
    ])
}

fn publish(server: &Server, channel: &str) {
    let reply = server.api("publish", &format!(r#"{{"channel":"{channel}","data":1}}"#));
    assert!(reply.contains(r#""offset":"#), "{reply}");
}

/// Publishes to other channels, whose streams evict all earlier streams.
fn forget(server: &Server) {
    (0..30).for_each(|nth| publish(server, &format!("other-{nth}")));
}

fn subscribed_to(server: &Server, channel: &str) -> Client {
    let mut client = connected(server, &json!({"sub": "42"}));
    let subscribe = format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#);
    let reply = client.ask(&subscribe);
    assert!(reply.contains(r#""positioned":true"#), "{reply}");
    client
}

const LOST: &str =
    r#"{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#;

#[test]
fn subscribers_of_an_evicted_stream_are_notified_without_a_publication() {
    let server = forgetful("1s");
    let mut clients: Vec<Client> = (0..6).map(|_| subscribed_to(&server, "a")).collect();
    let subs = json!({"sub": "42", "channels": ["a"]});
    let mut served = connected(&server, &subs);
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    publish(&server, "a");
    for client in &mut clients {
        assert!(client.text().contains(r#""offset":1"#), "all were where the stream is");
    }
    forget(&server);
    for client in &mut clients {
        assert_eq!(client.text(), LOST);
    }
    assert_eq!(served.closed(), (3010, "insufficient state".into()));
    // A client that subscribes again with recovery gets a reply and stays connected.
    let again = clients[0].ask(r#"{"id":3,"subscribe":{"channel":"a","recover":true}}"#);
    assert!(again.contains(r#""was_recovering":true"#), "{again}");
}

#[test]
fn a_gap_in_the_offsets_ends_subscriptions() {
    let server = forgetful("60s");
    let mut clients: Vec<Client> = (0..6).map(|_| subscribed_to(&server, "a")).collect();
    (0..3).for_each(|_| publish(&server, "a"));
    forget(&server);
    publish(&server, "a");
    for client in &mut clients {
        let told = (0..5).map(|_| client.text()).find(|text| *text == LOST);
        assert!(told.is_some(), "the offset began again");
    }
}

#[test]
fn binary_info_of_a_token_keeps_json_valid() {
    let of = |option: &str| format!("--channel.without_namespace.{option}");
    let flags = [of("presence"), of("join_leave"), of("force_push_join_leave")];
    let more = [of("allow_presence_for_subscriber"), of("allow_publish_for_subscriber")];
    let flags: Vec<&str> = flags.iter().chain(&more).map(String::as_str).collect();
    let server = server(&flags);
    // Base64 of an invalid byte, and of `}`, which would end the enclosing JSON object.
    for info in ["/w==", "fSw="] {
        let mut client = connected(&server, &json!({"sub": "42", "b64info": info}));
        let secret = json!({"sub": "42", "channel": "$a", "b64info": info, "b64data": info});
        let subscribe = json!({"channel": "$a", "token": token(&secret)});
        client.send(&json!({"id": 2, "subscribe": subscribe}).to_string());
        client.send(r#"{"id":3,"publish":{"channel":"$a","data":1}}"#);
        client.send(r#"{"id":4,"presence":{"channel":"$a"}}"#);
        // Three replies, and the pushes of its own join and publication.
        let said: Vec<Value> =
            (0..5).map(|_| serde_json::from_str(&client.text()).expect("JSON")).collect();
        let joined = said.iter().find(|one| one["push"]["join"].is_object()).expect("a join");
        assert_eq!(joined["push"]["join"]["info"]["conn_info"], Value::Null);
        let there = said.iter().find(|one| one["id"] == 4).expect("an answer");
        assert_eq!(there["presence"]["presence"].as_object().map(|all| all.len()), Some(1));
        client.send_raw(&client_frame(0x88, &1000u16.to_be_bytes()));
        client.rest();
    }
}
