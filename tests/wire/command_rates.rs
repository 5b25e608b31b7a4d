//! The limit of commands per client and second: commands beyond it wait, and TCP slows the client.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use crate::access::Started;
use crate::common::{Client, Server, WEBSOCKET, client_frame};

fn unsubscribe(id: usize) -> String {
    format!(r#"{{"id":{id},"unsubscribe":{{"channel":"a"}}}}"#)
}

fn unsubscribed(id: usize) -> String {
    format!(r#"{{"id":{id},"unsubscribe":{{}}}}"#)
}

fn server(more: &[&str]) -> Server {
    let mut flags = vec!["--client.command_rate_limit=20", "--client.command_rate_burst=5"];
    flags.extend(more);
    Server::start(&flags)
}

#[test]
fn commands_beyond_the_rate_wait_and_are_answered_in_order() {
    let server = server(&[]);
    let mut client = Client::open(&server, WEBSOCKET);
    let begun = Instant::now();
    let commands: Vec<String> = (2..16).map(unsubscribe).collect();
    // One frame has many commands, and further frames follow it.
    client.send(&format!("{{\"id\":1,\"connect\":{{}}}}\n{}", commands.join("\n")));
    (16..36).for_each(|id| client.send(&unsubscribe(id)));
    assert!(client.text().starts_with(r#"{"id":1,"connect":{"#));
    // Others are not slowed down.
    for id in 2..36 {
        assert_eq!(client.text(), unsubscribed(id));
        if id == 12 {
            assert!(begun.elapsed() > Duration::from_millis(300), "{:?}", begun.elapsed());
            let asked = Instant::now();
            let mut other = Client::connected(&server);
            assert_eq!(other.ask(&unsubscribe(2)), unsubscribed(2));
            assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        }
    }
    // 5 of 35 commands came at once, and 20 per second after them.
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_millis(1490), "{taken:?}");
    assert!(taken < Duration::from_secs(6), "{taken:?}");
    assert!(server.metric("drumline_rate_pauses_total") >= 10);
    // The gauge follows at the end of the turn that sent the last answer.
    server.wait_metric("drumline_unread", |unread| unread == 0);
}

#[test]
fn a_client_that_floods_is_slowed_by_tcp_and_keeps_its_connection() {
    let server = server(&["--engine.receive_buffer=65536"]);
    let mut client = Client::connected(&server);
    client.stream.set_nonblocking(true).unwrap();
    let data = "x".repeat(1000);
    let command = format!(r#"{{"id":2,"publish":{{"channel":"a","data":"{data}"}}}}"#);
    let frame = client_frame(0x81, command.as_bytes());
    let (mut sent, mut last) = (0, Instant::now());
    while last.elapsed() < Duration::from_millis(400) {
        match client.stream.write(&frame[sent % frame.len()..]) {
            Ok(count) => (sent, last) = (sent + count, Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 16 << 20, "the server reads everything");
    }
    assert!(server.metric("drumline_unread_bytes") < 256 * 1024);
    assert_eq!(server.metric("drumline_clients"), 1);
}

#[test]
fn a_pong_that_waits_behind_the_rate_keeps_the_client() {
    let server = server(&["--client.ping_interval=2s", "--client.pong_timeout=1s"]);
    let mut client = Client::connected(&server);
    // 100 commands wait for 5 seconds, and pongs behind them.
    (2..102).for_each(|id| client.send(&unsubscribe(id)));
    let (mut next, mut pings) = (2, 0);
    while next < 102 {
        match client.text().as_str() {
            "{}" => {
                client.send("{}");
                pings += 1;
            }
            reply => {
                assert_eq!(reply, unsubscribed(next));
                next += 1;
            }
        }
    }
    assert!(pings >= 1, "the server has sent pings meanwhile");
    assert!(client.is_alive());
}

#[test]
fn a_reload_sets_and_removes_the_limit_for_connected_clients() {
    let file = |limit: &str| {
        let text = format!(
            "[http_api]\ninsecure = true\n[client]\nallow_anonymous_connect_without_token = true\n{limit}"
        );
        text
    };
    let name = "drumline.toml";
    let server = Started::with_file(Some((name, &file(""))), &[], &[]);
    let mut client = Client::connected(server.address);
    let time = |client: &mut Client| {
        let begun = Instant::now();
        (0..21).for_each(|id| client.send(&unsubscribe(id + 1)));
        (0..21).for_each(|id| assert_eq!(client.text(), unsubscribed(id + 1)));
        begun.elapsed()
    };
    assert!(time(&mut client) < Duration::from_millis(900));
    server.rewrite(name, &file("command_rate_limit = 20\ncommand_rate_burst = 1\n"));
    let (status, told) = server.reload();
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("client.command_rate_limit"), "{told}");
    assert!(time(&mut client) >= Duration::from_millis(990));
    server.rewrite(name, &file(""));
    assert_eq!(server.reload().0, Some(0));
    assert!(time(&mut client) < Duration::from_millis(900));
}
