//! Positions in channels without publications, and the eviction of streams.

use serde_json::Value;

use crate::common::{API_KEY, Client, Server};

/// A server with one shard that keeps few streams, all recoverable.
fn server() -> Server {
    let of = |option: &str| format!("--channel.without_namespace.{option}");
    Server::start(&[
        "--shards",
        "1",
        &of("history_size"),
        "10",
        &of("history_ttl"),
        "300s",
        &of("force_recovery"),
        "--engine.streams_max",
        "20",
        "--client.channel_limit",
        "3000",
        "--http_api.key",
        API_KEY,
    ])
}

fn publish(server: &Server, channel: &str) -> Value {
    let reply = server.api("publish", &format!(r#"{{"channel":"{channel}","data":1}}"#));
    serde_json::from_str::<Value>(&reply).expect("JSON")["result"].clone()
}

/// Subscribes as an SDK does, from its last position if it has one. Returns the answer.
fn subscribe(client: &mut Client, channel: &str, since: Option<(u64, &str)>) -> Value {
    let since = since.map_or(String::new(), |(offset, epoch)| {
        format!(r#","recover":true,"offset":{offset},"epoch":"{epoch}""#)
    });
    let text = client.ask(&format!(
        r#"{{"id":2,"subscribe":{{"channel":"{channel}","recoverable":true{since}}}}}"#
    ));
    serde_json::from_str::<Value>(&text).expect("JSON")["subscribe"].clone()
}

fn leave(client: &mut Client, channel: &str) {
    let command = format!(r#"{{"id":3,"unsubscribe":{{"channel":"{channel}"}}}}"#);
    assert_eq!(client.ask(&command), r#"{"id":3,"unsubscribe":{}}"#);
}

#[test]
fn subscribers_of_empty_channels_evict_no_stream_and_recover_later_publications() {
    let server = server();
    publish(&server, "real");
    let mut client = Client::connected(&server);
    let real = subscribe(&mut client, "real", None);
    let real = real["epoch"].as_str().expect("an epoch");
    leave(&mut client, "real");
    let quiet = subscribe(&mut client, "quiet", None);
    let quiet = quiet["epoch"].as_str().expect("an epoch").to_owned();
    leave(&mut client, "quiet");

    let mut stranger = Client::connected(&server);
    for nth in 0..2000 {
        let reply = subscribe(&mut stranger, &format!("empty-{nth}"), None);
        assert_eq!(reply["offset"].as_u64().unwrap_or(0), 0, "{reply}");
    }
    for nth in 0..200 {
        server.api("history", &format!(r#"{{"channel":"none-{nth}","limit":1}}"#));
    }
    assert_eq!(server.metric("drumline_streams"), 1);
    assert_eq!(server.metric("drumline_streams_evicted_total"), 0);

    let again = subscribe(&mut client, "real", Some((0, real)));
    assert_eq!(
        (&again["recovered"], &again["publications"][0]["offset"]),
        (&true.into(), &1.into())
    );
    let published = publish(&server, "quiet");
    assert_eq!(
        (published["offset"].as_u64(), published["epoch"].as_str()),
        (Some(1), Some(&*quiet))
    );
    let again = subscribe(&mut client, "quiet", Some((0, &quiet)));
    assert_eq!(again["recovered"], true, "{again}");
    assert_eq!(again["publications"][0]["offset"], 1, "{again}");
}

#[test]
fn a_position_in_an_evicted_stream_is_invalid_in_its_successor() {
    let server = server();
    let mut client = Client::connected(&server);
    let reply = subscribe(&mut client, "a", None);
    let before = reply["epoch"].as_str().expect("an epoch").to_owned();
    leave(&mut client, "a");
    assert_eq!(publish(&server, "a")["epoch"], *before);
    (0..200).for_each(|nth| _ = publish(&server, &format!("other-{nth}")));
    assert!(server.metric("drumline_streams_evicted_total") >= 180);
    for offset in [0, 1] {
        let reply = subscribe(&mut client, "a", Some((offset, &before)));
        assert_eq!(reply["was_recovering"], true, "{reply}");
        assert!(reply["recovered"].is_null() && reply["epoch"] != *before, "{reply}");
        leave(&mut client, "a");
    }
    let next = publish(&server, "a");
    assert!(next["offset"] == 1 && next["epoch"] != *before, "{next}");
    let reply = subscribe(&mut client, "a", Some((0, &before)));
    assert!(reply["recovered"].is_null(), "{reply}");
}

#[test]
fn a_strict_recovery_that_fails_leaves_no_subscription() {
    let of = |option: &str| format!("--channel.without_namespace.{option}");
    for shards in ["1", "3"] {
        let server = Server::start(&[
            "--shards",
            shards,
            &of("history_size"),
            "2",
            &of("history_ttl"),
            "300s",
            &of("force_recovery"),
            &of("presence"),
            &of("join_leave"),
            &of("force_push_join_leave"),
            "--http_api.key",
            API_KEY,
        ]);
        let mut witness = Client::connected(&server);
        let command = r#"{"id":2,"subscribe":{"channel":"a"}}"#;
        let reply: Value = serde_json::from_str(&witness.ask(command)).expect("JSON");
        let epoch = reply["subscribe"]["epoch"].as_str().expect("an epoch").to_owned();
        assert!(witness.text().contains(r#""join""#), "its own");
        (0..5).for_each(|_| _ = publish(&server, "a"));
        (0..5).for_each(|_| assert!(witness.text().contains(r#""pub""#)));

        let mut client = Client::connected(&server);
        let recover = |flag: u64, offset: u64, epoch: &str| {
            format!(
                r#"{{"id":3,"subscribe":{{"channel":"a","recover":true,"flag":{flag},"offset":{offset},"epoch":"{epoch}"}}}}"#
            )
        };
        let refused = r#"{"id":3,"error":{"code":112,"message":"unrecoverable position"}}"#;
        for flag in [2, 3] {
            for (offset, epoch) in [(1, &*epoch), (0, "_"), (5, "_"), (5, "abcdefgh"), (9, &*epoch)]
            {
                assert_eq!(client.ask(&recover(flag, offset, epoch)), refused, "{offset} {epoch}");
            }
        }
        let presence = server.api("presence_stats", r#"{"channel":"a"}"#);
        assert_eq!(presence, r#"{"result":{"num_clients":1,"num_users":1}}"#);
        publish(&server, "a");
        assert!(witness.text().contains(r#""offset":6"#), "no join, no leave");
        // The refused client is not subscribed. Its recovery succeeds, and without the flag a
        // failed recovery is no error.
        let reply = client.ask(&recover(2, 5, &epoch));
        assert!(
            reply.contains(r#""recovered":true"#) && reply.contains(r#""offset":6"#),
            "{reply}"
        );
        leave_among_pushes(&mut client);
        let reply = client.ask(&recover(1, 0, "_"));
        assert!(reply.contains(r#""was_recovering":true"#), "{reply}");
        assert!(!reply.contains(r#""recovered":true"#), "{reply}");
    }
}

fn leave_among_pushes(client: &mut Client) {
    client.send(r#"{"id":4,"unsubscribe":{"channel":"a"}}"#);
    while client.text() != r#"{"id":4,"unsubscribe":{}}"# {}
}

#[test]
fn the_first_publication_after_a_recovery_is_complete() {
    let of = |option: &str| format!("--channel.without_namespace.{option}");
    let server = Server::start(&[
        &of("history_size"),
        "5",
        &of("history_ttl"),
        "300s",
        &of("force_recovery"),
        &of("allowed_delta_types"),
        "fossil",
        &of("delta_publish"),
        "--http_api.key",
        API_KEY,
    ]);
    let subscribe = |client: &mut Client, since: &str| -> Value {
        let text = client
            .ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"a","delta":"fossil"{since}}}}}"#));
        serde_json::from_str::<Value>(&text).expect("JSON")["subscribe"].clone()
    };
    let publish = |nth: u32| {
        let data = format!(r#"{{"n":{nth},"long":"{}"}}"#, "x".repeat(200));
        server.api("publish", &format!(r#"{{"channel":"a","data":{data}}}"#));
    };
    let is_delta = |client: &mut Client| {
        let push: Value = serde_json::from_str(&client.text()).expect("JSON");
        push["push"]["pub"]["delta"].as_bool().unwrap_or(false)
    };
    let mut one = Client::connected(&server);
    let told = subscribe(&mut one, "");
    let epoch = told["epoch"].as_str().expect("an epoch").to_owned();
    publish(1);
    publish(2);
    assert_eq!([is_delta(&mut one), is_delta(&mut one)], [false, true]);
    for (offset, missed) in [(2, 0), (2, 2)] {
        let mut two = Client::connected(&server);
        let since = format!(r#","recover":true,"offset":{offset},"epoch":"{epoch}""#);
        let told = subscribe(&mut two, &since);
        assert_eq!(told["recovered"], true, "{told}");
        assert_eq!(told["publications"].as_array().map_or(0, Vec::len), missed, "{told}");
        publish(3);
        assert!(!is_delta(&mut two), "it need not have what the others have");
        publish(4);
        assert!(is_delta(&mut two));
    }
}

/// A server whose namespaces differ in what a subscriber recovers.
fn server_with_namespaces() -> Server {
    let namespaces = r#"[
        {"name":"cache","history_size":10,"history_ttl":"300s","force_recovery":true,
         "force_recovery_mode":"cache","allow_tags_filter":true},
        {"name":"plain","allow_recovery":true,"allow_positioning":true},
        {"name":"stream","history_size":10,"history_ttl":"300s","allow_recovery":true,
         "allowed_delta_types":["fossil"],"allow_history_for_subscriber":true}]"#;
    let namespaces = format!("--channel.namespaces={namespaces}");
    Server::start(&[&namespaces, "--http_api.key", API_KEY])
}

/// The result of a subscribe with these fields beside the channel.
fn subscribed(client: &mut Client, channel: &str, fields: &str) -> Value {
    let command = format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"{fields}}}}}"#);
    let reply: Value = serde_json::from_str(&client.ask(&command)).expect("JSON");
    reply.get("subscribe").unwrap_or(&reply).clone()
}

/// The field of a publication, which `publish` sends with `fields`.
fn publish_with(server: &Server, channel: &str, fields: &str) {
    let reply = server.api("publish", &format!(r#"{{"channel":"{channel}","data":{{}}{fields}}}"#));
    assert!(reply.contains("result"), "{reply}");
}

#[test]
fn cache_recovery_with_a_filter_brings_the_latest_publication_that_matches() {
    let server = server_with_namespaces();
    for tag in ["a", "b", "a", "b"] {
        publish_with(&server, "cache:x", &format!(r#","tags":{{"k":"{tag}"}}"#));
    }
    let recovered = |tag: &str, offset: u64| {
        let mut client = Client::connected(&server);
        let fields = format!(
            r#","recover":true,"offset":{offset},"tf":{{"key":"k","cmp":"eq","val":"{tag}"}}"#
        );
        let answer = subscribed(&mut client, "cache:x", &fields);
        let offsets = answer["publications"].as_array().map_or(Vec::new(), |publications| {
            publications.iter().filter_map(|one| one["offset"].as_u64()).collect()
        });
        (answer["recovered"] == true, answer["offset"].as_u64().unwrap_or(0), offsets)
    };
    assert_eq!(recovered("b", 1), (true, 1, vec![4]));
    assert_eq!(recovered("a", 1), (true, 1, vec![3]));
    assert_eq!(recovered("a", 4), (true, 4, vec![]), "the client is at the top");
    assert_eq!(recovered("z", 1), (false, 4, vec![]), "no publication matches");
}

#[test]
fn a_channel_without_history_has_a_position() {
    let server = server_with_namespaces();
    let ask = |fields: &str| subscribed(&mut Client::connected(&server), "plain:x", fields);
    let positioned = ask(r#","positioned":true"#);
    assert_eq!(
        (&positioned["positioned"], &positioned["recoverable"]),
        (&true.into(), &Value::Null)
    );
    let epoch = positioned["epoch"].as_str().expect("an epoch");
    let again = ask(&format!(r#","recoverable":true,"recover":true,"epoch":"{epoch}""#));
    assert_eq!((&again["recovered"], &again["was_recovering"]), (&true.into(), &true.into()));
    let other = ask(r#","recoverable":true,"recover":true,"epoch":"zz""#);
    assert_eq!((&other["recovered"], &other["was_recovering"]), (&Value::Null, &true.into()));
    let strict = ask(r#","recoverable":true,"recover":true,"epoch":"zz","flag":2"#);
    assert_eq!(strict["error"]["code"], 112);
    // Recovery is requested and not granted.
    assert_eq!(ask(r#","recover":true"#).to_string(), r#"{"was_recovering":true}"#);
    assert_eq!(ask(r#","recover":true,"epoch":"zz","flag":2"#)["was_recovering"], true);
}

#[test]
fn versions_and_the_epoch_of_the_first_publication_reach_subscribers() {
    let server = server_with_namespaces();
    let mut client = Client::connected(&server);
    let epoch = subscribed(&mut client, "stream:x", r#","recoverable":true"#)["epoch"].clone();
    let mut with_deltas = Client::connected(&server);
    subscribed(&mut with_deltas, "stream:x", r#","delta":"fossil""#);
    for version in [7, 8] {
        publish_with(&server, "stream:x", &format!(r#","version":{version}"#));
    }
    let first = format!(r#"{{"data":{{}},"offset":1,"epoch":{epoch},"version":7}}"#);
    let second = r#"{"data":{},"offset":2,"version":8}"#;
    for object in [&first, second] {
        let push = format!(r#"{{"push":{{"channel":"stream:x","pub":{object}}}}}"#);
        assert_eq!(client.text(), push);
    }
    let history = client.ask(r#"{"id":3,"history":{"channel":"stream:x","limit":9}}"#);
    assert!(history.contains(&format!(r#"[{first},{second}]"#)), "{history}");
    let push = r#"{"push":{"channel":"stream:x","pub":{"data":"{}","offset":1}}}"#;
    assert_eq!(with_deltas.text(), push, "delta subscribers get neither");
    let history = server.api("history", r#"{"channel":"stream:x","limit":9}"#);
    let publications = r#""publications":[{"data":{},"offset":1},{"data":{},"offset":2}]"#;
    assert!(history.contains(publications), "{history}");
}

#[test]
fn a_connect_negotiates_deltas_of_its_subscriptions() {
    let server = server_with_namespaces();
    let connected = |delta: &str, channel: &str| {
        let mut client = Client::open(&server, "/connection/websocket");
        let reply = client.ask(&format!(
            r#"{{"id":1,"connect":{{"subs":{{"{channel}":{{"delta":"{delta}"}}}}}}}}"#
        ));
        let reply: Value = serde_json::from_str(&reply).expect("JSON");
        reply["connect"]["subs"][channel].clone()
    };
    assert_eq!(connected("fossil", "stream:y")["delta"], true);
    assert_eq!(connected("other", "stream:y").to_string(), "{}", "an unknown format is ignored");
    assert_eq!(connected("fossil", "plain:y").to_string(), "{}", "the namespace has no deltas");
}
