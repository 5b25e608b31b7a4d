//! Reload of the configuration: SIGHUP and the command `drumline reload`.

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::access::Started;
use crate::common::backend::Backend;
use crate::common::{Client, PATIENCE, WEBSOCKET, command, request, upgrade_request, wait_for};

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
            loop {
                // One more comes after the last reload.
                let is_last = !goes_on.load(Ordering::Acquire);
                // The key of a moment ago is the previous one at most.
                let key = format!("key-{}", key.load(Ordering::Acquire));
                let body = format!(r#"{{"channel":"load","data":{published}}}"#);
                let (status, answer) = call(&server, &key, "publish", &body);
                assert_eq!(status, 200, "{answer}");
                published += 1;
                if is_last {
                    return published;
                }
                // The watchers read at the end, so the outboxes must have room for everything.
                std::thread::sleep(Duration::from_millis(3));
            }
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
            // Where the test takes long, pings come in between.
            let push = std::iter::repeat_with(|| client.push()).find(|push| push != "{}").unwrap();
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

/// An open configuration with more keys: lines of `client`, and lines of `http_server`.
fn limited(client: &str, http_server: &str) -> String {
    format!(
        "[client]\nallow_anonymous_connect_without_token = true\n{client}\n\
         [http_server]\n{http_server}\n[http_api]\nkey = \"k\"\n"
    )
}

/// Reloads a configuration of which these keys must apply, and no other.
fn apply(server: &Started, text: &str, keys: &[&str]) {
    server.rewrite(FILE, text);
    let (status, told) = server.reload();
    assert_eq!(status, Some(0), "{told}");
    assert!(keys.iter().all(|key| told.contains(key)) && !told.contains("restart"), "{told}");
}

#[test]
fn limits_of_client_addresses_apply_to_new_connections() {
    let server = started(&limited("", ""));
    let upgraded = || {
        let mut client = Client::dial(server.address);
        client.send_raw(upgrade_request(WEBSOCKET).as_bytes());
        let mut bytes = [0; 12];
        std::io::Read::read_exact(&mut client.stream, &mut bytes).ok()?;
        assert_eq!(&bytes, b"HTTP/1.1 101");
        Some(client)
    };
    let mut early: Vec<Client> = (0..4).map(|_| connected(&server)).collect();
    apply(&server, &limited("address_connection_limit = 2", ""), &["address_connection_limit"]);
    // Connections of `drumline reload` and of the first screen have ended, or were not counted.
    let kept = [upgraded().unwrap(), upgraded().unwrap()];
    assert!(upgraded().is_none(), "a third connection of this address");
    assert!(early.iter_mut().all(Client::is_alive), "the established ones stay");
    drop(early);
    assert!(upgraded().is_none(), "the end of a connection without a count gives none back");
    drop(kept);
    wait_for("room for a connection", || upgraded().map(drop));
    apply(&server, &limited("", ""), &["address_connection_limit"]);
    let several: Vec<_> = (0..5).map(|_| upgraded().unwrap()).collect();
    let rate = "address_connection_rate_limit = 1";
    apply(&server, &limited(rate, ""), &["address_connection_rate_limit"]);
    assert!((0..5).any(|_| upgraded().is_none()), "more than one per second");
    drop(several);
}

#[test]
fn limits_of_request_heads_apply_on_shards_and_on_the_control_plane() {
    let server = started(&limited("", ""));
    let long = format!("Host: {}\r\nX-Long: {}\r\n", server.address, "x".repeat(2000));
    let health = request("GET", "/health", &long, "");
    let missing = request("GET", "/nothing-is-here", &long, "");
    let statuses = |kept: &mut Client| {
        let shard = Client::dial(server.address).exchange(&health).0;
        (shard, kept.exchange(&missing).0)
    };
    // The first request takes this connection to the control plane.
    let mut kept = Client::dial(server.address);
    assert_eq!(statuses(&mut kept), (200, 404));
    let mut slow = Client::dial(server.address);
    slow.send_raw(&health.as_bytes()[..20]);
    let limits = "head_size_limit = 1024\nhead_timeout = \"500ms\"";
    apply(&server, &limited("", limits), &["head_size_limit", "head_timeout"]);
    assert_eq!(statuses(&mut kept), (431, 431));
    let mut late = Client::dial(server.address);
    let begun = std::time::Instant::now();
    late.send_raw(b"GET /health HTTP/1.1\r\nHo");
    assert!(late.read_head().starts_with("HTTP/1.1 408 "));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // This one began when the time was longer.
    slow.send_raw(&request("GET", "/health", "Host: a\r\n", "").as_bytes()[20..]);
    assert!(slow.read_head().starts_with("HTTP/1.1 200 "));
}

#[test]
fn clients_keep_the_ping_times_that_they_were_told() {
    let server = started(&limited("", ""));
    let connect = || {
        let mut client = Client::open(server.address, WEBSOCKET);
        let reply = client.ask(r#"{"id":1,"connect":{}}"#);
        (client, reply)
    };
    let (mut early, told) = connect();
    assert!(told.contains(r#""ping":25,"pong":true"#), "{told}");
    let quick = "ping_interval = \"2s\"\npong_timeout = \"1s\"";
    apply(&server, &limited(quick, ""), &["client.ping_interval", "client.pong_timeout"]);
    let (mut answering, told) = connect();
    assert!(told.contains(r#""ping":2,"pong":true"#), "{told}");
    let (mut silent, _) = connect();
    for _ in 0..2 {
        assert_eq!(answering.frame(), Some((0x81, b"{}".to_vec())));
        answering.send("{}");
    }
    assert_eq!(silent.closed(), (3012, "no pong".into()));
    assert!(early.poll_text().is_none(), "the early client was told to expect pings every 25 s");
    assert!(early.is_alive());
}

#[test]
fn calls_of_a_proxy_that_a_reload_adds_are_counted() {
    let backend = Backend::start();
    backend.answer("rpc", r#"{"result":{"data":1}}"#);
    let file = |more: &str| {
        format!(
            "[client]\nallow_anonymous_connect_without_token = true\n[http_api]\ninsecure = true\n\
             [prometheus]\nenabled = true\n{more}"
        )
    };
    let added = format!(
        "[rpc.without_namespace]\nproxy_enabled = true\nproxy_name = \"late\"\n\
         [[proxies]]\nname = \"late\"\nendpoint = \"{}\"\n",
        backend.url("rpc")
    );
    let namespace = "[[channel.namespaces]]\nname = \"news\"\n";
    let server = started(&file(""));
    let mut client = connected(&server);
    // The second reload keeps the counts.
    for (calls, more) in [(1, added.clone()), (2, format!("{added}{namespace}"))] {
        server.rewrite(FILE, &file(&more));
        let (status, told) = server.reload();
        assert_eq!(status, Some(0), "{told}");
        let answer = client.ask(r#"{"id":2,"rpc":{"method":"m","data":{}}}"#);
        assert_eq!(answer, r#"{"id":2,"rpc":{"data":1}}"#);
        let series =
            "proxy_duration_seconds_histogram_count{name=\"late\",protocol=\"http\",type=\"rpc\"}";
        let metrics = server.get("/metrics").1;
        assert!(metrics.contains(&format!("{series} {calls}\n")), "{metrics}");
    }
}

#[test]
fn a_socket_that_another_process_gave_the_name_of_a_server_is_not_asked() {
    let server = started(&nth(0));
    let name = |pid: u32| format!("drumline-reload-{pid}-0");
    let bind = |pid| {
        let address = SocketAddr::from_abstract_name(name(pid)).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                stream.unwrap().write_all(b"+forged\x1b[2J").unwrap();
            }
        });
    };
    bind(server.id());
    let (status, told) = server.reload();
    assert!(status == Some(0) && !told.contains("forged"), "{told}");
    // The process with this ID listens nowhere.
    let other = 1;
    bind(other);
    let done = command().args(["reload", "--pid", &other.to_string()]).output().unwrap();
    let told = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    assert!(!done.status.success() && told.contains("gave no answer"), "{told}");
}
