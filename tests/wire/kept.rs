//! Revocations and hook events over a crash and over a clean stop.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::backend::Backend;
use crate::common::disks::{SmallDisk, fill};
use crate::common::tokens::{SECRET, now, signed};
use crate::common::{Client, Server, WEBSOCKET, wait_for};

fn flags(folder: &Path) -> Vec<String> {
    let store = folder.join("store").display().to_string();
    let log = folder.join("log").display().to_string();
    let own = ["--store.path", &store, "--log.file", &log];
    own.map(str::to_owned).into()
}

fn server(folder: &Path, more: &[&str]) -> Server {
    let flags = flags(folder);
    let all: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Server::on_one_port(&all)
}

fn kill(mut server: Server) {
    server.signal(Signal::KILL);
    server.wait();
}

fn stop(mut server: Server) {
    server.signal_stop();
    assert!(server.wait().success());
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap()
}

const TOKENS: [&str; 2] = ["--client.token.hmac_secret_key", SECRET];

/// Whether a token with these claims is refused.
fn is_refused(server: &Server, claims: &Value) -> bool {
    let mut client = Client::open(server, WEBSOCKET);
    client.send(&json!({"id": 1, "connect": {"token": signed(claims, SECRET)}}).to_string());
    match client.frame() {
        Some((0x88, _)) => true,
        Some(_) => false,
        None => panic!("no answer"),
    }
}

#[test]
fn revoked_tokens_stay_revoked_after_kill_9_and_after_a_clean_stop() {
    let folder = tempfile::tempdir().unwrap();
    let refused = [json!({"sub": "ann", "jti": "one"}), json!({"sub": "bob", "iat": now() - 10})];
    let valid = [json!({"sub": "ann", "jti": "two"}), json!({"sub": "bob", "iat": now() + 1000})];
    let ended = json!({"sub": "eve", "jti": "three"});
    let check = |server: &Server| {
        assert!(refused.iter().all(|claims| is_refused(server, claims)));
        assert!(!valid.iter().any(|claims| is_refused(server, claims)));
    };
    let first = server(folder.path(), &TOKENS);
    assert_eq!(first.api("revoke_token", r#"{"uid":"one"}"#), r#"{"result":{}}"#);
    first.api("invalidate_user_tokens", r#"{"user":"bob"}"#);
    first.api("revoke_token", &json!({"uid": "three", "expire_at": now() + 1}).to_string());
    check(&first);
    kill(first);
    let second = server(folder.path(), &TOKENS);
    check(&second);
    wait_for("a revocation to end", || (!is_refused(&second, &ended)).then_some(()));
    stop(second);
    let third = server(folder.path(), &[&TOKENS[..], &["--shards", "3"]].concat());
    check(&third);
    assert!(log(folder.path()).contains("took over 2 revocations and 0 hook events"));
    assert_eq!(third.metric("drumline_revocations_not_kept_total"), 0);
    stop(third);
    // A file that cannot be read is kept aside, and the server starts.
    let path = folder.path().join("store/revocations.log");
    fs::write(&path, "drumline revocations.log format 9\n").unwrap();
    let fourth = server(folder.path(), &TOKENS);
    assert!(!is_refused(&fourth, &refused[0]));
    assert!(log(folder.path()).contains("revocations.log is ignored"), "{}", log(folder.path()));
}

#[test]
fn hook_events_that_were_not_delivered_are_delivered_after_kill_9_and_after_a_clean_stop() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::start();
    let endpoint = format!("--client.hook.disconnect.endpoint={}", backend.url("hook"));
    let flags = ["--client.hook.disconnect.enabled", &endpoint, "--shutdown.timeout", "2s"];
    let more = ["--store.snapshot_timeout", "1s"];
    let flags = [&flags[..], &more].concat();
    let delivered = |server: &Server, number| {
        server.wait_metric("drumline_hooks_delivered_total", |found| found == number);
    };
    let log = folder.path().join("store/hook_events.log");
    let length = || fs::metadata(&log).map_or(0, |found| found.len());
    for is_killed in [true, false] {
        backend.status("hook", "503 Service Unavailable");
        let first = server(folder.path(), &flags);
        let empty = length();
        drop(Client::connected(&first));
        first.wait_metric("drumline_hooks_retried_total", |retried| retried > 0);
        // A thread of its own writes the event.
        wait_for("the event on disk", || (length() > empty).then_some(()));
        if is_killed {
            kill(first)
        } else {
            stop(first)
        };
        backend.status("hook", "200 OK");
        let before = backend.asked("hook").len();
        let second = server(folder.path(), &flags);
        delivered(&second, 1);
        assert_eq!(backend.asked("hook").len(), before + 1);
        drop(Client::connected(&second));
        delivered(&second, 2);
        stop(second);
        let third = server(folder.path(), &flags);
        assert_eq!(third.metric("drumline_hooks_waiting"), 0, "each is delivered once");
        assert_eq!(third.metric("drumline_hooks_not_kept_total"), 0);
        stop(third);
        assert_eq!(backend.asked("hook").len(), before + 2);
    }
}

#[test]
#[ignore = "mounts file systems: scripts/test.sh disk"]
fn disk_full_revocations_are_in_force_and_answered_with_error_100_until_they_are_kept() {
    let disk = SmallDisk::mount("-t tmpfs -o size=96m tmpfs").expect("mounting is permitted");
    let mut flags = flags(disk.path());
    let log = tempfile::tempdir().unwrap();
    flags[3] = log.path().join("log").display().to_string();
    flags.extend(TOKENS.map(str::to_owned));
    let start = || {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Server::with_mounts_of(disk.process(), &flags)
    };
    let claims = json!({"sub": "ann", "jti": "one"});
    let first = start();
    let filler = fill(&disk.here());
    let answer = first.api("revoke_token", r#"{"uid":"one"}"#);
    assert!(answer.contains(r#""code":100"#), "{answer}");
    assert!(is_refused(&first, &claims));
    assert_eq!(first.metric("drumline_revocations_not_kept_total"), 1);
    fs::remove_file(filler).unwrap();
    assert_eq!(first.api("revoke_token", r#"{"uid":"one"}"#), r#"{"result":{}}"#);
    kill(first);
    let filler = fill(&disk.here());
    let second = start();
    assert!(is_refused(&second, &claims), "a start on a full disk takes revocations over");
    fs::remove_file(filler).unwrap();
}
