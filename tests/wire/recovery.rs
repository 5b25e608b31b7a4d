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
