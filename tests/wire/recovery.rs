//! Positions in channels that nothing was published to, and which streams make room for others.

use serde_json::Value;

use crate::common::{API_KEY, Client, Server};

/// One shard that keeps few streams, all of them recoverable.
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
    let reply = server.api("publish", &format!("{{\"channel\":\"{channel}\",\"data\":1}}"));
    serde_json::from_str::<Value>(&reply).expect("JSON")["result"].clone()
}

/// Subscribes as an SDK does: from the position that it knows, if any. Returns the answer.
fn subscribe(client: &mut Client, channel: &str, since: Option<(u64, &str)>) -> Value {
    let since = since.map_or(String::new(), |(offset, epoch)| {
        format!(",\"recover\":true,\"offset\":{offset},\"epoch\":\"{epoch}\"")
    });
    let text = client.ask(&format!(
        "{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\",\"recoverable\":true{since}}}}}"
    ));
    serde_json::from_str::<Value>(&text).expect("JSON")["subscribe"].clone()
}

fn leave(client: &mut Client, channel: &str) {
    let command = format!("{{\"id\":3,\"unsubscribe\":{{\"channel\":\"{channel}\"}}}}");
    assert_eq!(client.ask(&command), "{\"id\":3,\"unsubscribe\":{}}");
}

#[test]
fn subscribers_of_empty_channels_evict_no_stream_and_recover_what_comes_later() {
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
        server.api("history", &format!("{{\"channel\":\"none-{nth}\",\"limit\":1}}"));
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
fn a_position_in_an_evicted_stream_is_not_taken_for_one_in_the_next() {
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
