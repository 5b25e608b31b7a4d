//! Reload of the configuration: SIGHUP and the command `drumline reload`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::access::Started;
use crate::common::{Client, PATIENCE, WEBSOCKET, request, wait_for};

const FILE: &str = "drumline.toml";

fn started(text: &str) -> Started {
    Started::with_file(Some((FILE, text)), &[], &[])
}

fn connected(server: &Started) -> Client {
    let mut client = Client::open(server.address, WEBSOCKET);
    client.ask(r#"{"id":1,"connect":{}}"#);
    client
}

fn subscribe(client: &mut Client, channel: &str) -> String {
    client.ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#))
}

/// Calls a method of the API with a key; returns status and body.
fn call(server: &Started, key: &str, method: &str, body: &str) -> (u16, String) {
    let headers = format!("Host: {}\r\nX-API-Key: {key}\r\n", server.address);
    let call = request("POST", &format!("/api/{method}"), &headers, body);
    Client::dial(server.address).exchange(&call)
}

/// A configuration whose values follow from `nth`. The previous API key is still valid.
fn nth(nth: usize) -> String {
    let before = nth.saturating_sub(1);
    format!(
        "[client]\nallow_anonymous_connect_without_token = true\nallowed_origins = [\"http://o{nth}\"]\n\
         [http_api]\nkey = \"key-{nth}\"\nprevious_key = \"key-{before}\"\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\n\
         allow_subscribe_for_anonymous = true\nhistory_size = {}\nhistory_ttl = \"300s\"\n\
         [[channel.namespaces]]\nname = \"ns{nth}\"\nallow_subscribe_for_client = true\n\
         allow_subscribe_for_anonymous = true\n",
        nth + 1
    )
}

#[test]
fn a_hundred_reloads_under_load_change_values_and_disconnect_nobody() {
    let server = started(&nth(0));
    let mut watchers: Vec<Client> = (0..20).map(|_| connected(&server)).collect();
    for client in &mut watchers {
        assert!(subscribe(client, "load").contains("\"subscribe\":{"));
    }
    let (goes_on, key) = (AtomicBool::new(true), AtomicU64::new(0));
    let published = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut published = 0;
            while goes_on.load(Ordering::Acquire) {
                // The key of a moment ago is the previous one at most.
                let key = format!("key-{}", key.load(Ordering::Acquire));
                let body = format!(r#"{{"channel":"load","data":{published}}}"#);
                let (status, answer) = call(&server, &key, "publish", &body);
                assert_eq!(status, 200, "{answer}");
                published += 1;
                // The watchers read at the end, so the outboxes must have room for everything.
                std::thread::sleep(Duration::from_millis(3));
            }
            published
        });
        for round in 1..=100 {
            server.rewrite(FILE, &nth(round));
            let (status, told) = server.reload();
            assert_eq!(status, Some(0), "{told}");
            assert!(told.contains("http_api.key") && told.contains("channel.namespaces"), "{told}");
            key.store(round as u64, Ordering::Release);
            let info = |key: String| call(&server, &key, "info", "{}").0;
            let former = round.checked_sub(2).map(|former| info(format!("key-{former}")));
            assert!(former.is_none_or(|status| status == 401), "round {round}: {former:?}");
            assert_eq!(
                (info(format!("key-{round}")), info(format!("key-{}", round - 1))),
                (200, 200)
            );
            let mut client = connected(&server);
            let known = subscribe(&mut client, &format!("ns{round}:a"));
            assert!(known.contains("\"subscribe\":{"), "round {round}: {known}");
            let unknown = subscribe(&mut client, &format!("ns{}:a", round - 1));
            assert!(unknown.contains("\"code\":102"), "round {round}: {unknown}");
        }
        goes_on.store(false, Ordering::Release);
        load.join().unwrap()
    });
    assert!(published > 0);
    for client in &mut watchers {
        for number in 0..published {
            let push = client.push();
            assert!(push.contains(&format!("\"data\":{number},")), "{number}: {push}");
        }
        assert!(client.is_alive());
    }
    // History has the bound of the last reload.
    let body = r#"{"channel":"load","limit":1000}"#;
    let (_, history) = call(&server, "key-100", "history", body);
    assert_eq!(history.matches("\"data\"").count(), published.min(101), "{history}");
}

#[test]
fn a_faulty_file_changes_nothing_and_the_command_says_why() {
    let server = started(&nth(1));
    for (text, cause) in [
        ("[http_api]\nkey = 7 7\n", "line 2"),
        ("[client]\nchannel_limit = \"many\"\n", "client.channel_limit"),
        ("[[channel.namespaces]]\nname = \"a b\"\n", "not a valid name"),
        ("[channel.without_namespace]\nforce_recovery = true\n", "requires history"),
    ] {
        server.rewrite(FILE, text);
        let (status, told) = server.reload();
        assert_eq!(status, Some(2), "{told}");
        assert!(told.contains(cause), "{told}");
        assert_eq!(call(&server, "key-1", "info", "{}").0, 200);
        assert!(server.text("stderr").contains("reload failed: "), "{told}");
    }
    let mut client = connected(&server);
    assert!(subscribe(&mut client, "ns1:a").contains("\"subscribe\":{"));
    let missing = crate::common::command().args(["reload", "--pid", "1"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn keys_that_need_a_restart_are_named_and_the_others_apply() {
    let server = started(&nth(1));
    let text = format!("shards = 1\n{}[engine]\nbacklog = 1000000\n", nth(2));
    server.rewrite(FILE, &text);
    let (status, told) = server.reload();
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("restart the server to apply engine.backlog"), "{told}");
    assert_eq!(call(&server, "key-2", "info", "{}").0, 200);
}

#[test]
fn subscriptions_keep_their_grant_and_new_commands_follow_new_options() {
    let text = |more: &str| {
        format!(
            "[client]\nallow_anonymous_connect_without_token = true\n[http_api]\nkey = \"k\"\n\
             [channel.without_namespace]\n{more}"
        )
    };
    let open = "allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
                presence = true\njoin_leave = true\nforce_push_join_leave = true\n";
    let server = started(&text(open));
    let mut clients = [connected(&server), connected(&server)];
    for client in &mut clients {
        assert!(subscribe(client, "a").contains("\"subscribe\":{"));
    }
    let stats = || call(&server, "k", "presence_stats", r#"{"channel":"a"}"#).1;
    assert!(stats().contains("\"num_clients\":2"), "{}", stats());
    server.rewrite(FILE, &text(""));
    assert_eq!(server.reload().0, Some(0));
    let mut new = connected(&server);
    assert!(subscribe(&mut new, "a").contains("\"code\":103"), "new subscriptions are refused");
    let (status, _) = call(&server, "k", "publish", r#"{"channel":"a","data":1}"#);
    assert_eq!(status, 200);
    for client in &mut clients {
        wait_for("the publication", || client.push().contains("\"data\":1").then_some(()));
    }
    let [one, other] = clients;
    one.vanish();
    server.rewrite(FILE, &text(open));
    assert_eq!(server.reload().0, Some(0));
    // The leave went to the home although the channel had no presence then.
    wait_for("the leave", || stats().contains("\"num_clients\":1").then_some(()));
    drop(other);
}

#[test]
fn the_service_manager_hears_of_every_reload_and_of_its_end() {
    let name = format!("drumline-test-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut bytes = [0; 4096];
        let count = manager.recv(&mut bytes).expect("a notification in time");
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    };
    let until = |wanted: &str| loop {
        let heard = next();
        if heard.lines().any(|line| line == wanted) {
            return heard;
        }
        assert!(!heard.contains("READY=1") && !heard.contains("RELOADING=1"), "{heard}");
    };
    let environment = [("NOTIFY_SOCKET", &*format!("@{name}"))];
    let server = Started::with_file(Some((FILE, &nth(1))), &environment, &[]);
    until("READY=1");
    for text in [nth(2), "[http_api]\nkey = 7 7\n".to_owned(), nth(3)] {
        server.rewrite(FILE, &text);
        server.signal(Signal::HUP);
        let heard = until("RELOADING=1");
        let time = heard.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(time.is_some_and(|time| time.parse::<u64>().is_ok()), "{heard}");
        until("READY=1");
    }
    std::thread::sleep(Duration::from_millis(1));
    server.stop();
    until("STOPPING=1");
}
