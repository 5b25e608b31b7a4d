//! Fuzzing client for every transport, with valid, partly valid and invalid input. The server must
//! keep running, bound the length of its passes and free all memory of ended clients.
//!
//! DRUMLINE_FUZZ_SECONDS sets the duration (default: 5). DRUMLINE_FUZZ_SEED repeats a run: the seed
//! determines what each worker sends, but not how the workers interleave.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../common/mod.rs"]
mod common;
mod random;
mod speak;
mod words;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{API_KEY, Client, Server};
use random::Random;

/// Number of concurrent sessions, and how many of them subscribe to many channels.
const WORKERS: u64 = 16;
const AUDIENCE: u64 = 5;
/// A pass takes at most so much processor time, in us: twice the bound of a quiet machine's.
const PASS_MICROS: u64 = 10_000;
/// What the second half of a run may leave behind of memory, in bytes.
const GROWTH_MAX: u64 = 16 << 20;
/// Kinds of memory that end with what they serve.
const FREED: [&str; 5] = ["outboxes", "unread", "backlog", "filters", "questions"];
/// Gauges that may end higher than they began: what is kept for a time, and settings.
const KEPT: [&str; 9] =
    ["streams", "history", "longest", "budget", "uptime", "sockets", "memory", "capacity", "info"];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

/// Configuration with all features enabled and low limits.
fn config(backend: u16) -> String {
    let proxy = |path: &str| {
        format!(r#"{{"endpoint":"http://127.0.0.1:{backend}/{path}","timeout":"300ms"}}"#)
    };
    let open = concat!(
        r#""allow_subscribe_for_client":true,"allow_subscribe_for_anonymous":true,"#,
        r#""allow_publish_for_client":true,"allow_publish_for_anonymous":true,"#,
        r#""allow_presence_for_client":true,"allow_presence_for_anonymous":true,"#,
        r#""allow_history_for_client":true,"allow_history_for_anonymous":true"#
    );
    let kept = r#""history_size":20,"history_ttl":"5s","allow_recovery":true"#;
    let rpc = proxy("rpc").replacen('{', r#"{"name":"backend","#, 1);
    format!(
        r#"{{
        "client": {{ "token": {{ "hmac_secret_key": "{secret}" }},
            "allow_anonymous_connect_without_token": true, "allowed_origins": ["*"],
            "ping_interval": "2s", "pong_timeout": "1s", "stale_close_delay": "2s",
            "expired_close_delay": "1s", "expired_sub_close_delay": "1s",
            "queue_max_size": 200000, "channel_limit": 20 }},
        "channel": {{
            "history_meta_ttl": "10s",
            "proxy": {{ "subscribe": {subscribe}, "publish": {publish} }},
            "without_namespace": {{ "presence": true, "join_leave": true, "allow_tags_filter": true,
                "allow_user_limited_channels": true, {open} }},
            "namespaces": [
                {{ "name": "log", "force_recovery": true, "force_positioning": true, {kept}, {open} }},
                {{ "name": "last", "force_recovery": true, "force_recovery_mode": "cache",
                    "history_size": 1, "history_ttl": "5s", {open} }},
                {{ "name": "delta", "allowed_delta_types": ["fossil"], "delta_publish": true,
                    "allow_channel_compaction": true, {kept}, {open} }},
                {{ "name": "chat", "presence": true, "join_leave": true,
                    "force_push_join_leave": true, {kept}, {open} }},
                {{ "name": "bytes", "publication_data_format": "binary", {open} }},
                {{ "name": "paced", "batch_max_delay": "20ms", "batch_max_size": 5, {open} }},
                {{ "name": "asked", "subscribe_proxy_enabled": true,
                    "publish_proxy_enabled": true }} ] }},
        "rpc": {{ "without_namespace": {{ "proxy_enabled": true, "proxy_name": "backend" }} }},
        "proxies": [{rpc}],
        "websocket": {{ "compression": true }},
        "uni_websocket": {{ "enabled": true }}, "uni_sse": {{ "enabled": true }},
        "uni_http_stream": {{ "enabled": true }}, "long_polling": {{ "enabled": true }},
        "prometheus": {{ "enabled": true }},
        "http_api": {{ "key": "{API_KEY}" }},
        "shutdown": {{ "spread": "0s" }},
        "shards": 3,
        "engine": {{ "slots_per_shard": 200, "inbox": 16, "outbox_budget": 1000000,
            "unread_budget": 300000, "filter_budget": 20000, "idempotency_budget": 20000,
            "question_budget": 50000,
            "backlog": 200000, "streams_max": 40, "history_bytes": 1000000,
            "ring_submissions": 8, "ring_completions": 16, "ring_buffers": 4 }}
    }}"#,
        secret = words::SECRET,
        subscribe = proxy("subscribe"),
        publish = proxy("publish"),
    )
}

/// A backend that answers as the seed says, until the process ends; its port.
fn backend(seed: u64) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut random = Random(seed ^ 0xbac0);
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 16 * 1024];
            let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
            let _ = stream.read(&mut request);
            let body = words::backend_answer(&mut random);
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ";
            let mut answer = format!("{head}{}\r\n\r\n", body.len()).into_bytes();
            answer.extend(body);
            if random.once_in(30) {
                random.spoil(&mut answer);
            }
            let _ = stream.write_all(&answer);
        }
    });
    port
}

/// The workers speak until the time is over.
fn speak(server: &Server, seed: u64, lasts: Duration) -> u64 {
    let (sessions, end) = (AtomicU64::new(0), Instant::now() + lasts);
    let over = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (sessions, over) = (&sessions, over.clone());
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_add(worker << 48));
                while !over.load(Ordering::Relaxed) {
                    // The server may close or reset at any time, and refuse when it is full.
                    let _ = match worker < AUDIENCE {
                        true => speak::audience(&mut random, server.address()),
                        false => speak::session(&mut random, server.address()),
                    };
                    sessions.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut neighbour = None;
        while Instant::now() < end {
            // A neighbour that keeps to the rules is served all the time.
            let one = neighbour.get_or_insert_with(|| Client::open(server, common::WEBSOCKET));
            assert!(one.is_alive(), "a neighbour was closed");
            if sessions.load(Ordering::Relaxed) % 64 < 8 {
                neighbour = None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
    });
    sessions.into_inner()
}

/// Every gauge of the engine by name, and what it may be once all clients are gone: what it is
/// now, summed over the shards.
fn gauges(server: &Server) -> Vec<(String, u64)> {
    let text = server.metrics();
    let of = |line: &str| {
        let name = line.strip_prefix("# TYPE ")?.strip_suffix(" gauge")?;
        let kept = KEPT.iter().any(|kept| name.contains(kept));
        (name.starts_with("drumline_") && !kept).then(|| name.to_owned())
    };
    let gauges = text.lines().filter_map(of).map(|name| (name.clone(), server.metric(&name)));
    // Shards charge the budgets in steps: a twentieth may stay charged.
    let used = FREED.map(|kind| {
        let limit = server.metric(&format!(r#"drumline_memory_limit_bytes{{kind="{kind}"}}"#));
        (format!(r#"drumline_memory_used_bytes{{kind="{kind}"}}"#), limit / 20)
    });
    gauges.chain(used).collect()
}

#[test]
fn a_fuzzing_client_of_every_transport_leaves_the_server_as_it_was() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("DRUMLINE_FUZZ_SEED").unwrap_or(now);
    let seconds = number("DRUMLINE_FUZZ_SECONDS").unwrap_or(5);
    println!("DRUMLINE_FUZZ_SEED={seed} DRUMLINE_FUZZ_SECONDS={seconds}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, config(backend(seed))).unwrap();
    let mut server = Server::on_public_port(&["--config", file.to_str().unwrap()]);
    let (before, sockets) = (gauges(&server), server.settle());
    let mut memory = Vec::new();
    for half in 0..2 {
        let lasts = Duration::from_millis(seconds * 500);
        let sessions = speak(&server, seed.wrapping_add(half), lasts);
        println!("{sessions} sessions");
        for (name, value) in &before {
            server.wait_metric(name, |now| now <= *value);
        }
        server.wait_metric("drumline_sockets", |now| now <= sockets);
        memory.push(server.metric("process_resident_memory_bytes"));
    }
    for name in ["connects_total", "publications_total", "deliveries_total", "errors_total"] {
        let count = server.metric(&format!("drumline_{name}"));
        println!("{name} {count}");
        assert!(count > 20, "{name}: {count}: nothing was tried");
    }
    let grown = memory[1].saturating_sub(memory[0]);
    assert!(grown < GROWTH_MAX, "{grown} bytes more after the second half: {memory:?}");
    let pass = server.largest("drumline_longest_pass_cpu_micros");
    println!("the longest pass took {pass:?} us of processor time; memory: {memory:?}");
    // Named by DRUMLINE it is a release build; one for debugging takes its time.
    if std::env::var_os("DRUMLINE").is_some() {
        assert!(pass.is_none_or(|micros| micros <= PASS_MICROS), "a pass of {pass:?} us");
    }
    server.signal_stop();
    assert_eq!(server.wait().code(), Some(0));
}
