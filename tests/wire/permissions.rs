//! Tokens, permissions and limits, each with the code that refuses a client.

use std::net::SocketAddr;

use drumline::model::token::{TokenSettings, make_connection, make_subscription};

use crate::common::tokens::{SECRET, now};
use crate::common::{Client, Server, UNI_WEBSOCKET, WEBSOCKET, request, upgrade_request};

fn settings(secret: &str) -> TokenSettings {
    TokenSettings { hmac_secret_key: secret.to_owned(), ..TokenSettings::default() }
}

fn user(name: &str) -> String {
    make_connection(&settings(SECRET), name, Some(600), now()).unwrap()
}

fn subscription(user: &str, channel: &str) -> String {
    make_subscription(&settings(SECRET), user, channel, Some(600), now()).unwrap()
}

/// A server that requires tokens, with more flags.
fn server(flags: &[&str]) -> Server {
    let mut all = vec!["--shards", "2", "--client.token.hmac_secret_key", SECRET];
    all.extend(["--channel.without_namespace.allow_subscribe_for_client", "--http_api.insecure"]);
    all.extend(flags);
    Server::with(&all)
}

fn connect(token: &str) -> String {
    format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#)
}

fn connected(server: &Server, name: &str) -> Client {
    let mut client = Client::open(server, WEBSOCKET);
    let reply = client.ask(&connect(&user(name)));
    assert!(reply.starts_with(r#"{"id":1,"connect":{"client":"#), "{reply}");
    client
}

fn error(id: u32, code: u32, message: &str) -> String {
    format!(r#"{{"id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#)
}

fn bad_request() -> (u16, String) {
    (3501, "bad request".into())
}

fn invalid_token() -> (u16, String) {
    (3500, "invalid token".into())
}

#[test]
fn a_connection_needs_a_token_of_this_server() {
    let server = server(&[]);
    let other = make_connection(&settings("another"), "42", None, now()).unwrap();
    for (command, expected) in [
        (r#"{"id":1,"connect":{}}"#.to_owned(), bad_request()),
        (connect("nonsense"), invalid_token()),
        (connect(&other), invalid_token()),
        (connect(&subscription("42", "news")), invalid_token()),
    ] {
        let mut client = Client::open(&server, WEBSOCKET);
        client.send(&command);
        assert_eq!(client.closed(), expected, "{command}");
    }
    let reply = Client::open(&server, WEBSOCKET).ask(&connect(&user("42")));
    assert!(reply.contains(r#""expires":true,"ttl":"#), "{reply}");
}

#[test]
fn an_expired_token_is_error_109_and_ends_the_input() {
    let server = server(&["--client.stale_close_delay", "1s"]);
    let old = make_connection(&settings(SECRET), "42", Some(10), now() - 60).unwrap();
    let mut client = Client::open(&server, WEBSOCKET);
    assert_eq!(client.ask(&connect(&old)), error(1, 109, "token expired"));
    client.send(&connect(&user("42")));
    assert_eq!(client.closed(), bad_request());
    let mut silent = Client::open(&server, WEBSOCKET);
    assert_eq!(silent.ask(&connect(&old)), error(1, 109, "token expired"));
    assert_eq!(silent.closed(), (3502, "stale".into()));
}

#[test]
fn anonymous_connection_tokens_can_be_disallowed() {
    let server = server(&["--client.disallow_anonymous_connection_tokens"]);
    let mut client = Client::open(&server, WEBSOCKET);
    client.send(&connect(&user("")));
    assert_eq!(client.closed(), (3507, "permission denied".into()));
}

#[test]
fn a_refresh_must_be_of_the_same_user() {
    let server = server(&[]);
    let refresh = |token: &str| format!(r#"{{"id":2,"refresh":{{"token":"{token}"}}}}"#);
    let old = make_connection(&settings(SECRET), "42", Some(10), now() - 60).unwrap();
    for (token, expected) in [
        (String::new(), bad_request()),
        (user("43"), invalid_token()),
        ("nonsense".to_owned(), invalid_token()),
        (old, (3005, "connection expired".into())),
    ] {
        let mut client = connected(&server, "42");
        client.send(&refresh(&token));
        assert_eq!(client.closed(), expected, "{token}");
    }
    let reply = connected(&server, "42").ask(&refresh(&user("42")));
    assert!(reply.starts_with(r#"{"id":2,"refresh":{"expires":true,"ttl":"#), "{reply}");
}

#[test]
fn subscription_tokens_open_their_own_channel_to_their_own_user() {
    let server = server(&[]);
    let subscribe = |channel: &str, token: &str| {
        format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}","token":"{token}"}}}}"#)
    };
    let old = make_subscription(&settings(SECRET), "42", "$a", Some(10), now() - 60).unwrap();
    for (token, expected) in [
        ("nonsense".to_owned(), error(2, 103, "permission denied")),
        (user("42"), error(2, 103, "permission denied")),
        (old.clone(), error(2, 109, "token expired")),
    ] {
        assert_eq!(connected(&server, "42").ask(&subscribe("$a", &token)), expected, "{token}");
    }
    for token in [subscription("42", "$b"), subscription("43", "$a")] {
        let mut client = connected(&server, "42");
        client.send(&subscribe("$a", &token));
        assert_eq!(client.closed(), invalid_token(), "{token}");
    }
    let mut client = connected(&server, "42");
    let reply = client.ask(&subscribe("$a", &subscription("42", "$a")));
    assert!(reply.starts_with(r#"{"id":2,"subscribe":{"expires":true,"ttl":"#), "{reply}");
    let refresh = |channel: &str, token: &str| {
        format!(r#"{{"id":3,"sub_refresh":{{"channel":"{channel}","token":"{token}"}}}}"#)
    };
    let reply = client.ask(&refresh("$a", &subscription("42", "$a")));
    assert!(reply.starts_with(r#"{"id":3,"sub_refresh":{"expires":true,"ttl":"#), "{reply}");
    let other = refresh("$b", &subscription("42", "$b"));
    assert_eq!(client.ask(&other), error(3, 103, "permission denied"));
    client.send(&refresh("$a", "nonsense"));
    assert_eq!(client.closed(), invalid_token());
}

#[test]
fn features_that_a_channel_does_not_offer_are_refused() {
    let server = server(&[
        "--channel.without_namespace.history_size",
        "10",
        "--channel.without_namespace.history_ttl",
        "60s",
        "--channel.without_namespace.allow_history_for_client",
    ]);
    let mut client = connected(&server, "42");
    for (command, code, message) in [
        (r#""subscribe":{"channel":"a","type":1}"#, 103, "permission denied"),
        (r#""subscribe":{"channel":"a","tf":{"key":"k","cmp":"ex"}}"#, 107, "bad request"),
        (r#""subscribe":{"channel":"$a"}"#, 103, "permission denied"),
        (r#""presence":{"channel":"a"}"#, 108, "not available"),
        (r#""presence_stats":{"channel":"a"}"#, 108, "not available"),
        (r#""history":{"channel":"a","reverse":true,"since":{"offset":0}}"#, 107, "bad request"),
        (
            r#""history":{"channel":"a","since":{"offset":1,"epoch":"xxxxxxxx"}}"#,
            112,
            "unrecoverable position",
        ),
        (r#""publish":{"channel":"a","data":1}"#, 103, "permission denied"),
        (r#""rpc":{"method":"m"}"#, 108, "not available"),
    ] {
        let command = format!(r#"{{"id":5,{command}}}"#);
        assert_eq!(client.ask(&command), error(5, code, message), "{command}");
    }
    client.send(r#"{"id":6,"subscribe":{"channel":"a","delta":"other"}}"#);
    assert_eq!(client.closed(), bad_request());
}

#[test]
fn an_api_call_with_a_session_reaches_only_that_session() {
    let server = server(&["--uni_websocket.enabled"]);
    let connected = || {
        let mut client = Client::open(&server, UNI_WEBSOCKET);
        client.send(&format!(r#"{{"token":"{}"}}"#, user("42")));
        let text = client.text();
        let (_, session) = text.split_once(r#""session":""#).expect("a session");
        (client, session.split('"').next().unwrap_or_default().to_owned())
    };
    let ((mut one, first), (mut two, second)) = (connected(), connected());
    assert_ne!(first, second);
    for session in [&second[1..], &format!("{first}0"), &first] {
        let body = format!(r#"{{"user":"42","session":"{session}"}}"#);
        let mut api = Client::dial(SocketAddr::from(([127, 0, 0, 1], server.internal)));
        api.send_raw(
            format!(
                "POST /api/disconnect HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
        let head = api.read_head();
        assert_eq!(api.read_body(&head), r#"{"result":{}}"#);
    }
    assert_eq!(one.text(), r#"{"disconnect":{"code":3503,"reason":"force disconnect"}}"#);
    assert_eq!(one.closed(), (3503, "force disconnect".into()));
    assert!(two.is_alive());
}

#[test]
fn an_api_call_is_answered_when_its_subscriptions_have_changed() {
    let server = server(&[]);
    let mut client = connected(&server, "42");
    for n in 0..40 {
        let of_user = format!(r#"{{"user":"42","channel":"c{n}"}}"#);
        let publish = |data| format!(r#"{{"publish":{{"channel":"c{n}","data":{data}}}}}"#);
        let commands = [
            format!(r#"{{"subscribe":{of_user}}}"#),
            publish(1),
            format!(r#"{{"unsubscribe":{of_user}}}"#),
            publish(2),
        ];
        server.api("batch", &format!(r#"{{"commands":[{}]}}"#, commands.join(",")));
        for push in [
            r#""subscribe":{}"#,
            r#""pub":{"data":1}"#,
            r#""unsubscribe":{"code":2000,"reason":"server unsubscribe"}"#,
        ] {
            assert_eq!(client.text(), format!(r#"{{"push":{{"channel":"c{n}",{push}}}}}"#));
        }
    }
}

#[test]
fn code_3000_closes_the_transport_without_a_message() {
    let server = server(&["--uni_sse.enabled"]);
    let disconnect = || {
        let body = r#"{"user":"42","disconnect":{"code":3000,"reason":"told"}}"#;
        assert_eq!(server.api("disconnect", body), r#"{"result":{}}"#);
    };
    let mut client = connected(&server, "42");
    disconnect();
    assert_eq!(client.frame(), None, "no close frame");

    let mut stream = Client::dial(&server);
    let body = format!(r#"{{"token":"{}"}}"#, user("42"));
    stream.send_raw(
        format!(
            "POST /connection/uni_sse HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    stream.read_head();
    assert!(stream.line().starts_with(r#"data: {"connect":"#));
    assert_eq!(stream.line(), "");
    disconnect();
    assert_eq!(stream.rest(), b"", "no push");
    server.wait_metric("drumline_clients", |clients| clients == 0);
}

#[test]
fn the_node_limits_its_connections() {
    let full = server(&[
        "--client.connection_limit",
        "1",
        "--uni_websocket.enabled",
        "--uni_sse.enabled",
        "--uni_http_stream.enabled",
        "--long_polling.enabled",
    ]);
    // The server accepted this connection before the node was full.
    let mut second = Client::open(&full, WEBSOCKET);
    let _first = connected(&full, "42");
    second.send(&connect(&user("43")));
    assert_eq!(second.closed(), (3013, "too many requests".into()));

    let post = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").into_bytes()
    };
    let upgrade = |path: &str| crate::common::upgrade_request(path).into_bytes();
    for request in [
        upgrade(WEBSOCKET),
        upgrade("/connection/uni_websocket"),
        post("/connection/http_stream"),
        post("/connection/sse"),
        post("/connection/uni_sse"),
        post("/connection/uni_http_stream"),
        post("/connection/long_polling"),
    ] {
        let mut first = Client::dial(&full);
        first.send_raw(&request);
        // The same on a connection that has moved to the control plane.
        let mut later = Client::dial(&full);
        later.send_raw(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = later.read_head();
        later.read_body(&head);
        later.send_raw(&request);
        for mut client in [first, later] {
            let head = client.read_head().to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 503 "), "{head}");
            assert!(head.contains("\r\nretry-after: "), "{head}");
        }
    }

    let slow = server(&["--client.connection_rate_limit", "2"]);
    let refused = (0..20).filter(|_| {
        let mut client = Client::dial(&slow);
        client.send_raw(crate::common::upgrade_request(WEBSOCKET).as_bytes());
        client.read_head().starts_with("HTTP/1.1 503")
    });
    assert!(refused.count() >= 10, "two a second are let in");
}

/// A gateway in front of the server names the user in a header of the request.
#[test]
fn a_header_identifies_a_client_that_nothing_else_identifies() {
    let flags = [
        "--client.user_id_http_header",
        "X-User-Id",
        "--client.token.hmac_secret_key",
        SECRET,
        "--uni_sse.enabled",
        "--channel.without_namespace.allow_subscribe_for_client",
        "--channel.without_namespace.presence",
        "--channel.without_namespace.allow_presence_for_subscriber",
        "--client.subscribe_to_user_personal_channel.enabled",
    ];
    let server = Server::with(&flags);
    let open = |header: &str| {
        let mut client = Client::dial(&server);
        let head = upgrade_request(WEBSOCKET).replacen("\r\n", &format!("\r\n{header}"), 1);
        client.send_raw(head.as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        client
    };
    let mut client = open("x-user-id: u7\r\n");
    // As in Centrifugo: without a personal channel and without requested channels.
    let reply = client.ask(r#"{"id":1,"connect":{"subs":{"b":{}}}}"#);
    assert!(reply.contains(r#""connect":{"client""#) && !reply.contains("subs"), "{reply}");
    assert_eq!(client.ask(r#"{"id":2,"subscribe":{"channel":"a"}}"#), r#"{"id":2,"subscribe":{}}"#);
    let presence = client.ask(r#"{"id":3,"presence":{"channel":"a"}}"#);
    assert!(presence.contains(r#""user":"u7""#), "{presence}");
    // A token wins over the header.
    let token = user("u8");
    let mut by_token = open("X-User-Id: u7\r\n");
    let reply = by_token.ask(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    assert!(reply.contains("subs"), "the personal channel: {reply}");
    // Without the header, or with an empty one, nothing identifies the client.
    for header in ["", "X-User-Id: \r\n"] {
        let mut client = open(header);
        client.send(r#"{"id":1,"connect":{}}"#);
        assert_eq!(client.closed().0, 3501, "{header:?}");
    }
    // A stream, also over a connection that the control plane had.
    let mut stream = Client::dial(&server);
    let (status, _) = stream.exchange("GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(status, 404);
    let path = "/connection/uni_sse?cf_connect=%7B%7D";
    stream.send_raw(request("GET", path, "Host: test\r\nX-User-Id: u9\r\n", "").as_bytes());
    assert!(stream.read_head().starts_with("HTTP/1.1 200 "));
}
