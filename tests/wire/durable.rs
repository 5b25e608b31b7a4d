//! Durable channels: what was acknowledged is there after a crash, in order, under the same
//! position.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{API_KEY, Client, Server, api_request, wait_for};

/// A server whose channels without a namespace are durable. Channels of the namespace `memory` are
/// not.
pub fn server(folder: &Path, more: &[&str]) -> Server {
    server_with(folder, ("10", "300s"), more)
}

/// Like [`server`], with this size and lifetime of histories.
fn server_with(folder: &Path, (size, ttl): (&str, &str), more: &[&str]) -> Server {
    let of = |option: &str| format!("--channel.without_namespace.{option}");
    let memory = r#"[{"name":"memory","history_size":10,"history_ttl":"300s",
        "force_recovery":true,"allow_publish_for_client":true}]"#;
    let path = folder.join("store").display().to_string();
    let flags = [
        "--store.path",
        &path,
        &of("history_durable"),
        &of("history_size"),
        size,
        &of("history_ttl"),
        ttl,
        &of("force_recovery"),
        &of("allow_publish_for_client"),
        &of("allow_history_for_client"),
        "--channel.namespaces",
        memory,
    ];
    Server::on_one_port(&[&flags, more].concat())
}

pub fn call(server: &Server, method: &str, body: &Value) -> Value {
    serde_json::from_str(&server.api(method, &body.to_string())).expect("JSON")
}

pub fn publish(server: &Server, channel: &str, data: u64, key: &str) -> Value {
    let body = json!({"channel": channel, "data": data, "idempotency_key": key});
    call(server, "publish", &body)["result"].clone()
}

/// Offsets and data of the history, and the epoch.
pub fn history(server: &Server, channel: &str) -> (Vec<(u64, Value)>, String) {
    let result = call(server, "history", &json!({"channel": channel, "limit": 100}));
    let result = &result["result"];
    let one = |one: &Value| (one["offset"].as_u64().unwrap(), one["data"].clone());
    let publications = result["publications"].as_array().unwrap().iter().map(one).collect();
    (publications, result["epoch"].as_str().unwrap().to_owned())
}

pub fn subscribe(client: &mut Client, channel: &str, since: Option<(u64, &str)>) -> Value {
    let since = since.map_or(String::new(), |(offset, epoch)| {
        format!(r#","recover":true,"offset":{offset},"epoch":"{epoch}""#)
    });
    let text = client.ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"{since}}}}}"#));
    serde_json::from_str::<Value>(&text).expect("JSON")["subscribe"].clone()
}

pub fn kill(mut server: Server) {
    server.signal(Signal::KILL);
    server.wait();
}

#[test]
fn after_kill_9_clients_recover_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let first = server(folder.path(), &[]);
    let mut client = Client::connected(&first);
    let begun = subscribe(&mut client, "a", None);
    let epoch = begun["epoch"].as_str().unwrap().to_owned();
    // By the socket of a client, by the shard's own call, and by the control plane.
    let reply = client.ask(r#"{"id":3,"publish":{"channel":"a","data":1}}"#);
    let reply = if reply.contains("push") { client.text() } else { reply };
    assert_eq!(reply, r#"{"id":3,"publish":{}}"#);
    let mut caller = Client::dial(&first);
    let body = r#"{"channel":"a","data":2}"#;
    let (status, text) = caller.exchange(&api_request("publish", "", body));
    assert_eq!((status, text.contains(r#""offset":2"#)), (200, true), "{text}");
    assert_eq!(publish(&first, "a", 3, "k")["offset"], 3);
    kill(first);

    let second = server(folder.path(), &["--shards", "3"]);
    let mut client = Client::connected(&second);
    let again = subscribe(&mut client, "a", Some((1, &epoch)));
    assert_eq!((&again["recovered"], &again["epoch"]), (&json!(true), &json!(epoch)), "{again}");
    let offsets: Vec<_> = again["publications"].as_array().unwrap().iter().collect();
    assert_eq!(
        (offsets.len(), &offsets[0]["data"], &offsets[1]["data"]),
        (2, &json!(2), &json!(3))
    );
    assert_eq!(publish(&second, "a", 3, "k"), json!({"offset": 3, "epoch": epoch}), "the same key");
    assert_eq!(publish(&second, "a", 4, "")["offset"], 4);
    let (kept, _) = history(&second, "a");
    assert_eq!(kept, [(1, json!(1)), (2, json!(2)), (3, json!(3)), (4, json!(4))]);
    assert!(second.metric("drumline_store_publications_total") == 1);
}

#[test]
fn a_subscriber_of_an_unpublished_channel_recovers_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let first = server(folder.path(), &[]);
    let epoch = subscribe(&mut Client::connected(&first), "quiet", None);
    let epoch = epoch["epoch"].as_str().unwrap().to_owned();
    kill(first);
    let second = server(folder.path(), &[]);
    publish(&second, "quiet", 1, "");
    let again = subscribe(&mut Client::connected(&second), "quiet", Some((0, &epoch)));
    assert_eq!((&again["recovered"], &again["publications"][0]["data"]), (&json!(true), &json!(1)));
}

#[test]
fn what_was_removed_stays_removed_and_the_offset_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let first = server(folder.path(), &[]);
    for nth in 1..=30 {
        publish(&first, "a", nth, "");
    }
    assert_eq!(history(&first, "a").0.len(), 10, "by size");
    publish(&first, "b", 1, "");
    let removed = call(&first, "history_remove", &json!({"channel": "b"}));
    assert_eq!(removed["result"], json!({}), "{removed}");
    let epochs = ["a", "b"].map(|channel| history(&first, channel).1);
    kill(first);
    let second = server(folder.path(), &[]);
    let (kept, epoch) = history(&second, "a");
    assert_eq!((kept.first().unwrap().0, kept.last().unwrap().0), (21, 30));
    assert_eq!(epoch, epochs[0]);
    assert_eq!(history(&second, "b"), (vec![], epochs[1].clone()));
    assert_eq!(publish(&second, "b", 2, "")["offset"], 2);
}

#[test]
fn publications_that_expired_do_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let first = server_with(folder.path(), ("10", "2s"), &[]);
    publish(&first, "a", 1, "");
    let epoch = history(&first, "a").1;
    wait_for("the publication to expire", || history(&first, "a").0.is_empty().then_some(()));
    kill(first);
    let second = server_with(folder.path(), ("10", "2s"), &[]);
    assert_eq!(history(&second, "a"), (vec![], epoch));
    assert_eq!(publish(&second, "a", 2, "")["offset"], 2);
}

#[test]
fn a_clean_stop_and_a_history_larger_than_memory_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // A publication of 2 KB, and memory for about 50 of 300.
    let more = ["--engine.history_bytes", "100000"];
    let mut first = server_with(folder.path(), ("300", "300s"), &more);
    let data = "x".repeat(2_000);
    for nth in 0..300 {
        let body = json!({"channel": "a", "data": {"nth": nth, "text": data}});
        assert_eq!(call(&first, "publish", &body)["result"]["offset"], nth + 1);
    }
    let epoch = history(&first, "a").1;
    first.signal(Signal::TERM);
    assert!(first.wait().success());
    let second = server_with(folder.path(), ("300", "300s"), &more);
    let request = |body: Value| call(&second, "history", &body)["result"]["publications"].clone();
    let nth = |list: &Value| -> Vec<u64> {
        list.as_array().unwrap().iter().map(|one| one["data"]["nth"].as_u64().unwrap()).collect()
    };
    assert_eq!(nth(&request(json!({"channel": "a", "limit": 300}))), (0..300).collect::<Vec<_>>());
    let since = json!({"offset": 100, "epoch": epoch});
    let forward = json!({"channel": "a", "limit": 20, "since": since});
    assert_eq!(nth(&request(forward)), (100..120).collect::<Vec<_>>());
    let backward = json!({"channel": "a", "limit": 20, "since": since, "reverse": true});
    assert_eq!(nth(&request(backward)), (79..99).rev().collect::<Vec<_>>());
    let mut client = Client::connected(&second);
    let recovered = subscribe(&mut client, "a", Some((200, &epoch)));
    assert_eq!(recovered["recovered"], true);
    assert_eq!(nth(&recovered["publications"]), (200..300).collect::<Vec<_>>());
}

#[test]
fn channels_that_are_not_durable_need_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let first = server(folder.path(), &[]);
    publish(&first, "memory:a", 1, "");
    assert_eq!(history(&first, "memory:a").0.len(), 1);
    assert_eq!(first.metric("drumline_store_writes_total"), 0);
    let path = folder.path().join("store").display().to_string();
    let second = Command::new(crate::common::binary())
        .args(["serve", "--http_server.port", "0", "--store.path", &path])
        .args(["--http_api.key", API_KEY])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && text.contains("store"), "{text}");
}

#[test]
fn a_durable_namespace_without_a_store_or_history_is_refused() {
    for (flags, wanted) in [
        (&["--channel.without_namespace.history_durable"][..], "there is no store"),
        (
            &["--channel.without_namespace.history_durable", "--store.path", "/tmp/x"][..],
            "history_durable requires history",
        ),
    ] {
        let output = Command::new(crate::common::binary())
            .arg("serve")
            .args(flags)
            .args(["--http_server.port", "0"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(wanted), "{text}");
    }
}

#[test]
fn past_the_maximum_of_bytes_the_oldest_publications_of_every_channel_go() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--store.max_bytes", "20000"];
    let server = server_with(folder.path(), ("100", "300s"), &flags);
    let text = "x".repeat(300);
    for nth in 1..=60 {
        for channel in ["a", "b"] {
            let body = json!({"channel": channel, "data": {"n": nth, "text": text}});
            assert_eq!(call(&server, "publish", &body)["result"]["offset"], nth);
        }
    }
    let kept = |channel: &str| -> Vec<u64> {
        history(&server, channel).0.into_iter().map(|(offset, _)| offset).collect()
    };
    wait_for("shorter histories", || (kept("a").len() < 40 && kept("b").len() < 40).then_some(()));
    for channel in ["a", "b"] {
        let offsets = kept(channel);
        assert!(offsets.len() > 10, "{offsets:?}");
        assert!(offsets.is_sorted() && offsets.last() == Some(&60), "{offsets:?}");
    }
    let before = (kept("a"), kept("b"));
    kill(server);
    let server = server_with(folder.path(), ("100", "300s"), &flags);
    for (channel, before) in [("a", before.0), ("b", before.1)] {
        let offsets: Vec<u64> = history(&server, channel).0.iter().map(|one| one.0).collect();
        assert!(before.ends_with(&offsets), "what went stays away: {offsets:?} {before:?}");
    }
}

#[test]
fn a_large_publication_does_not_make_other_channels_lose_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let server = server_with(folder.path(), ("1000", "300s"), &["--store.max_bytes", "200000"]);
    let stored = "drumline_store_stored_bytes";
    for nth in 1..=50 {
        assert_eq!(publish(&server, "small", nth, "")["offset"], nth);
        (0..6).for_each(|_| drop(publish(&server, "mixed", nth, "")));
    }
    server.wait_metric(stored, |bytes| (5_000..100_000).contains(&bytes));
    let text = "x".repeat(50_000);
    call(&server, "publish", &json!({"channel": "mixed", "data": text}));
    // Below the maximum, unless the other 300 counted as much.
    server.wait_metric(stored, |bytes| (50_000..150_000).contains(&bytes));
    // A large history behind one small publication counts.
    for _ in 0..6 {
        call(&server, "publish", &json!({"channel": "large", "data": text}));
    }
    publish(&server, "large", 1, "");
    server.wait_metric(stored, |bytes| bytes > 200_000);
    server.wait_metric(stored, |bytes| bytes < 200_000);
    assert!(history(&server, "small").0.len() >= 10, "it loses its share alone");
}
