//! Overrides of channel options for one subscription: presence, joins and leaves.

use drumline::base::sys;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::common::{API_KEY, Client, Server, WEBSOCKET};

const SECRET: &str = "a-secret-for-tests";

fn token(claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// How a client is subscribed.
#[derive(Clone, Copy, Debug)]
enum Way {
    SubscriptionToken,
    SubsClaim,
    Api,
}

const WAYS: [Way; 3] = [Way::SubscriptionToken, Way::SubsClaim, Way::Api];

fn server() -> Server {
    Server::with(&[
        "--shards",
        "2",
        "--engine.slots_per_shard",
        "200",
        "--client.token.hmac_secret_key",
        SECRET,
        "--http_api.key",
        API_KEY,
        concat!(
            r#"--channel.namespaces=[{"name":"plain"},"#,
            r#"{"name":"seen","presence":true,"join_leave":true,"#,
            r#""force_push_join_leave":true}]"#
        ),
    ])
}

/// A client of `user` subscribed to `channel` with these overrides.
fn join(server: &Server, way: Way, user: &str, channel: &str, overrides: &Value) -> Client {
    let values = overrides.as_object().unwrap().iter();
    let values = values.map(|(name, value)| (name.clone(), json!({"value": value})));
    let overrides: Value = values.collect::<serde_json::Map<_, _>>().into();
    let mut claims = json!({"sub": user, "exp": sys::unix_millis() / 1000 + 600});
    if let Way::SubsClaim = way {
        claims["subs"] = json!({ channel: {"override": overrides} });
    }
    let mut client = Client::open(server, WEBSOCKET);
    let connect = json!({"id": 1, "connect": {"token": token(&claims)}}).to_string();
    assert!(client.ask(&connect).starts_with(r#"{"id":1,"connect":{"#));
    match way {
        Way::SubsClaim => {}
        Way::SubscriptionToken => {
            let claims = json!({"sub": user, "channel": channel, "override": overrides});
            let subscribe = json!({"channel": channel, "token": token(&claims)});
            let reply = client.ask(&json!({"id": 2, "subscribe": subscribe}).to_string());
            assert_eq!(reply, r#"{"id":2,"subscribe":{}}"#);
        }
        Way::Api => {
            let order = json!({"user": user, "channel": channel, "override": overrides});
            server.api("subscribe", &order.to_string());
            let push = json!({"push": {"channel": channel, "subscribe": {}}}).to_string();
            assert_eq!(client.text(), push);
        }
    }
    client
}

/// The kind of the next push and the user that it names.
fn news(client: &mut Client) -> (String, String) {
    let text: Value = serde_json::from_str(&client.text()).unwrap();
    let push = text["push"].as_object().unwrap();
    let kind = push.keys().find(|key| *key != "channel").unwrap();
    (kind.clone(), push[kind]["info"]["user"].as_str().unwrap().to_owned())
}

fn said(kind: &str, user: &str) -> (String, String) {
    (kind.to_owned(), user.to_owned())
}

#[test]
fn join_leave_overrides_work_in_a_namespace_without_it() {
    let server = server();
    let all = json!({"join_leave": true, "force_push_join_leave": true});
    for (nth, way) in WAYS.into_iter().enumerate() {
        let channel = format!("plain:{nth}");
        let mut watcher = join(&server, way, "watcher", &channel, &all);
        assert_eq!(news(&mut watcher), said("join", "watcher"), "{way:?}");
        // Others learn of `quiet`, which gets no pushes. `told` gets pushes and stays unannounced.
        let mut quiet = join(&server, way, "quiet", &channel, &json!({"join_leave": true}));
        assert_eq!(news(&mut watcher), said("join", "quiet"), "{way:?}");
        let told = json!({"force_push_join_leave": true});
        let mut told = join(&server, way, "told", &channel, &told);
        let ann = join(&server, way, "ann", &channel, &all);
        assert_eq!(news(&mut watcher), said("join", "ann"), "{way:?}");
        assert_eq!(news(&mut told), said("join", "ann"), "{way:?}");
        drop(ann);
        assert_eq!(news(&mut watcher), said("leave", "ann"), "{way:?}");
        assert_eq!(news(&mut told), said("leave", "ann"), "{way:?}");
        drop(told);
        server.api("publish", &json!({"channel": channel, "data": 1}).to_string());
        for client in [&mut watcher, &mut quiet] {
            let push = json!({"push": {"channel": channel, "pub": {"data": 1}}}).to_string();
            assert_eq!(client.text(), push, "the first since then");
        }
    }
}

#[test]
fn presence_and_join_leave_overrides_are_independent() {
    let server = server();
    for (nth, way) in WAYS.into_iter().enumerate() {
        let channel = format!("seen:{nth}");
        let ask = json!({"channel": channel}).to_string();
        let mut watcher = join(&server, way, "watcher", &channel, &json!({}));
        assert_eq!(news(&mut watcher), said("join", "watcher"));
        let unlisted = join(&server, way, "unlisted", &channel, &json!({"presence": false}));
        assert_eq!(news(&mut watcher), said("join", "unlisted"), "{way:?}");
        let presence = server.api("presence", &ask);
        assert!(presence.contains("watcher") && !presence.contains("unlisted"), "{presence}");
        let stats = server.api("presence_stats", &ask);
        assert_eq!(stats, r#"{"result":{"num_clients":1,"num_users":1}}"#);
        let silent = join(&server, way, "silent", &channel, &json!({"join_leave": false}));
        let presence = server.api("presence", &ask);
        assert!(presence.contains("silent"), "{presence}");
        drop(silent);
        drop(unlisted);
        assert_eq!(news(&mut watcher), said("leave", "unlisted"), "{way:?}");
        server.api("publish", &json!({"channel": channel, "data": 1}).to_string());
        assert!(watcher.text().contains(r#""pub""#), "nothing was said about who is silent");
        let deaf = json!({"force_push_join_leave": false, "join_leave": false, "presence": false});
        let mut nobody = join(&server, way, "nobody", &channel, &deaf);
        let last = join(&server, way, "last", &channel, &json!({}));
        assert_eq!(news(&mut watcher), said("join", "last"), "{way:?}");
        drop(last);
        assert_eq!(news(&mut watcher), said("leave", "last"), "{way:?}");
        server.api("publish", &json!({"channel": channel, "data": 2}).to_string());
        assert!(nobody.text().contains(r#""pub""#), "{way:?}");
    }
}
