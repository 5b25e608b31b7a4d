//! Log lines of the real server: formats, files, levels that a reload changes, and the access log.

use std::io::{PipeReader, Read, pipe};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::access::Started;
use crate::common::tokens::signed;
use crate::common::{Client, Server, WEBSOCKET, command, request, upgrade_request, wait_for};

const FILE: &str = "drumline.toml";

fn started(text: &str) -> Started {
    Started::with_file(Some((FILE, &format!("{text}[http_api]\nkey = \"k\"\n"))), &[], &[])
}

/// Waits for a line that contains `what` in a file of the server's folder.
fn wait_for_line(server: &Started, file: &str, what: &str) -> String {
    wait_for(&format!("a line with {what}"), || {
        let text = server.text(file);
        text.lines().find(|line| line.contains(what)).map(str::to_owned)
    })
}

#[test]
fn lines_go_to_the_file_in_json_and_to_a_new_file_after_sighup() {
    let server = started("[log]\nfile = \"node.log\"\nformat = \"json\"\n");
    let (status, told) = server.reload();
    assert_eq!(status, Some(0), "{told}");
    let line: Value =
        serde_json::from_str(&wait_for_line(&server, "node.log", "configuration reloaded"))
            .unwrap();
    assert_eq!((&line["level"], &line["part"]), (&"info".into(), &"reload".into()));
    let time = line["time"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && time.len() == 24, "{time}");
    server.rename("node.log", "node.log.1");
    server.signal(Signal::HUP);
    wait_for_line(&server, "node.log", "configuration reloaded");
    assert_eq!(server.text("node.log.1").lines().count(), 1);
    assert_eq!(server.text("stderr"), "");
}

#[test]
fn a_reload_applies_levels_and_names_them() {
    let server = started("[log]\nlevel = \"error\"\n");
    server.rewrite(FILE, "[log]\nlevel = \"info\"\nrate = 5\n[http_api]\nkey = \"k\"\n");
    let (status, told) = server.reload();
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("changed log.level, log.rate"), "{told}");
    wait_for_line(&server, "stderr", "drumline [info] reload: configuration reloaded");
    server.rewrite(
        FILE,
        "[log]\nfile = \"a.log\"\n[log.levels]\nreload = \"none\"\n[http_api]\nkey = \"k\"\n",
    );
    let (_, told) = server.reload();
    assert!(told.contains("changed log.rate, log.levels"), "{told}");
    assert!(told.contains("restart the server to apply log.file"), "{told}");
    let before = server.text("stderr");
    assert_eq!(server.reload().0, Some(0));
    assert_eq!(server.text("stderr"), before, "the part logs nothing");
    server.rewrite(FILE, "[log.levels]\nhubb = \"info\"\n[http_api]\nkey = \"k\"\n");
    let (status, told) = server.reload();
    assert_eq!(status, Some(2), "{told}");
    assert!(told.contains("there is no part \"hubb\"") && told.contains("acme, admin"), "{told}");
}

#[test]
fn a_log_file_that_cannot_be_opened_ends_the_start() {
    for (value, cause) in [("/missing/a.log", "log.file: cannot open"), ("/", "Is a directory")] {
        let done = command().args(["serve", "--log.file", value]).output().unwrap();
        let told = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{told}");
        assert!(told.contains(cause) && told.contains("cure: "), "{told}");
    }
    let done = command().args(["serve", "--log.level", "loud"]).output().unwrap();
    assert!(String::from_utf8(done.stderr).unwrap().contains("log.level is \"loud\""));
}

#[test]
fn a_full_disk_for_the_log_is_told_once_and_counted_and_the_server_goes_on() {
    let (mut reader, writer) = pipe().unwrap();
    let flags = ["--client.insecure", "--log.file", "/dev/full", "--http_api.key", "k"];
    let mut server = Server::launch(&flags, |command| _ = command.stderr(writer));
    wait_for("the server to listen", || {
        std::net::TcpStream::connect(server.internal_address()).ok()
    });
    for _ in 0..3 {
        server.signal(Signal::HUP);
        let lost = server.metric("drumline_log_lines_dropped_total");
        server.wait_metric("drumline_log_lines_dropped_total", |now| now > lost);
    }
    Client::connected(&server);
    server.signal_stop();
    assert_eq!(server.wait().code(), Some(0));
    let mut told = String::new();
    reader.read_to_string(&mut told).unwrap();
    let line = "drumline [error] log: cannot write to /dev/full: No space left on device";
    assert_eq!(told.matches(line).count(), 1, "{told}");
}

/// A server whose stderr is a pipe.
fn with_pipe(flags: &[&str]) -> (Server, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let mut all = vec!["--client.insecure", "--shards", "1", "--http_api.key", "k"];
    all.extend(flags);
    let server = Server::launch(&all, |command| _ = command.stderr(writer));
    wait_for("the server to listen", || {
        std::net::TcpStream::connect(server.internal_address()).ok()
    });
    (server, reader)
}

#[test]
fn the_access_log_has_a_line_for_each_connect_and_disconnect() {
    let flags = ["--log.access", "--log.format", "json", "--log.level", "none"];
    let trusts = ["--http_server.trusted_proxies", "127.0.0.0/8", "--uni_sse.enabled"];
    let (mut server, mut reader) = with_pipe(&[&flags[..], &trusts].concat());
    let client = Client::connected(&server);
    client.vanish();
    server.wait_metric("drumline_lost_total", |lost| lost == 1);
    let forged = "X-Forwarded-For: 192.0.2.7\r\n";
    let upgrade = upgrade_request(WEBSOCKET).replacen("\r\n", &format!("\r\n{forged}"), 1);
    let mut client = Client::dial(&server);
    client.send_raw(upgrade.as_bytes());
    client.read_head();
    client.send(r#"{"id":1,"connect":{"token":"no token"}}"#);
    assert_eq!(client.closed().0, 3500);
    // The control plane has the connection first, and hands it back with the client's address.
    let mut client = Client::dial(&server);
    assert_eq!(client.exchange(&request("GET", "/", "Host: test\r\n", "")).0, 404);
    client.send_raw(upgrade.replace("192.0.2.7", "192.0.2.9").as_bytes());
    client.read_head();
    client.send(r#"{"id":1,"connect":{"token":"no token"}}"#);
    assert_eq!(client.closed().0, 3500);
    // A stream behind a request to the control plane, from the peer itself.
    let mut client = Client::dial(&server);
    assert_eq!(client.exchange(&request("GET", "/", "Host: test\r\n", "")).0, 404);
    let query = "cf_connect=%7B%22token%22%3A%22no%20token%22%7D";
    let path = format!("/connection/uni_sse?{query}");
    client.exchange(&request("GET", &path, "Host: test\r\n", ""));
    server.signal_stop();
    assert_eq!(server.wait().code(), Some(0));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5, "{text}");
    for (line, nth) in lines.iter().zip(0..) {
        assert_eq!(line["part"], "access");
        let transport = if nth < 4 { "websocket" } else { "uni_sse" };
        assert_eq!((&line["transport"], &line["protocol"]), (&transport.into(), &"json".into()));
        assert!(line["client"].as_str().unwrap().len() >= 32, "{text}");
    }
    let [connect, lost, refused, handed_back, stream] = &lines[..] else { unreachable!() };
    assert_eq!(connect["message"], "connect");
    assert_eq!((&connect["user"], &connect["address"]), (&"".into(), &"127.0.0.1".into()));
    assert_eq!((&lost["message"], &lost["client"]), (&"disconnect".into(), &connect["client"]));
    assert_eq!((&lost["code"], &lost["reason"]), (&3000.into(), &"connection closed".into()));
    assert!(lost["duration_ms"].as_u64().unwrap() < 60_000);
    assert_eq!((&refused["code"], &refused["address"]), (&3500.into(), &"192.0.2.7".into()));
    assert_eq!(handed_back["address"], "192.0.2.9");
    assert_eq!(stream["address"], "127.0.0.1");
    assert!(refused.get("duration_ms").is_none(), "{text}");
    assert!(!text.contains("no token"));
}

#[test]
fn an_access_log_that_nobody_reads_delays_no_client_and_its_losses_are_counted() {
    let (server, _reader) = with_pipe(&["--log.access"]);
    for _ in 0..1500 {
        Client::connected(&server).vanish();
    }
    server.wait_metric("drumline_log_lines_dropped_total", |lost| lost > 100);
    let mut client = Client::connected(&server);
    assert!(client.is_alive());
}

#[test]
fn a_reload_enables_the_access_log_and_user_ids_cannot_forge_lines() {
    let text =
        |access| format!("[log]\naccess = {access}\n[client.token]\nhmac_secret_key = \"s\"\n");
    let server = started(&text(false));
    let user = "a\n2026 drumline [info] access: connect\u{1b}[2J";
    let connect = || {
        let token = signed(&json!({ "sub": user }), "s");
        let mut client = Client::open(server.address, WEBSOCKET);
        let told = client.ask(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        assert!(told.contains("\"connect\":{"), "{told}");
        client
    };
    let before = connect();
    server.rewrite(FILE, &format!("{}[http_api]\nkey = \"k\"\n", text(true)));
    assert!(server.reload().1.contains("changed log.access"));
    drop(connect());
    before.vanish();
    let expected = r#"user="a\n2026 drumline [info] access: connect\u{1b}[2J" transport"#;
    let text = wait_for("three lines", || {
        let text = server.text("stderr");
        (text.matches("Z drumline [info] access: ").count() == 3).then_some(text)
    });
    assert_eq!(text.matches(expected).count(), 3, "{text}");
    // It connected before the log was enabled.
    let without = text.lines().filter(|line| line.contains("disconnect"));
    assert_eq!(without.filter(|line| !line.contains("duration_ms=")).count(), 1, "{text}");
}
