//! Hostile input: the server refuses or bounds it, and serves the other clients of the shard.

use std::io::Write;

use crate::common::{Client, Server, api_request, client_frame};

/// Maximum processor time of a pass under hostile input, in us: twice the bound of a release build,
/// and far more for a debug build. `DRUMLINE` names a release build. Wall time would depend on the
/// other work of the machine.
fn pass_max() -> u64 {
    if std::env::var_os("DRUMLINE").is_some() { 10_000 } else { 200_000 }
}

/// A server with one shard, which has both the hostile client and its neighbour.
fn one_shard(flags: &[&str]) -> Server {
    let mut all = vec!["--shards", "1"];
    all.extend(flags);
    Server::on_one_port(&all)
}

/// Checks that a neighbour gets an answer after each call of `misbehave`, and that no pass is long.
fn neighbour_suffers_little(server: &Server, mut misbehave: impl FnMut(usize)) {
    let mut neighbour = Client::connected(server);
    for nth in 0..40 {
        misbehave(nth);
        assert!(neighbour.is_alive());
    }
    let longest = server.metric("drumline_longest_pass_cpu_micros");
    assert!((1..pass_max()).contains(&longest), "the longest pass: {longest} us");
    println!("the longest pass: {longest} us");
}

fn nested(open: &str, close: &str, levels: usize) -> String {
    format!("{}1{}", open.repeat(levels), close.repeat(levels))
}

/// Calls a method of the API over a connection. Returns status and body of the answer.
fn post(client: &mut Client, method: &str, body: &str) -> (u16, String) {
    client.exchange(&api_request(method, "", body))
}

#[test]
fn a_frame_over_the_size_limit_is_refused_before_it_is_read() {
    let server = one_shard(&[]);
    let document = format!(r#"{{"id":2,"rpc":{{"data":{}}}}}"#, nested("[", "]", 500_000));
    let frame = client_frame(0x81, document.as_bytes());
    neighbour_suffers_little(&server, |_| {
        let mut client = Client::connected(&server);
        // The server may close the connection in the middle of the message.
        let _ = client.stream.write_all(&frame);
        assert_eq!(client.closed().0, 1009);
    });
    let before = server.metric("drumline_received_bytes_total");
    assert!(before < 40 * 200_000, "{before} bytes were read of what was refused by its length");
}

#[test]
fn ten_thousand_commands_of_a_frame_leave_room_for_others() {
    let flags =
        ["--websocket.message_size_limit", "1000000", "--client.queue_max_size", "64000000"];
    let server = one_shard(&flags);
    let commands: Vec<String> = (2..10_002)
        .map(|id| format!(r#"{{"id":{id},"publish":{{"channel":"c{id}","data":1}}}}"#))
        .collect();
    let frame = client_frame(0x81, commands.join("\n").as_bytes());
    let mut greedy = Client::connected(&server);
    neighbour_suffers_little(&server, |nth| {
        if nth % 20 == 0 {
            greedy.send_raw(&frame);
        }
    });
    for id in (2..10_002).chain(2..10_002) {
        assert_eq!(greedy.text(), format!(r#"{{"id":{id},"publish":{{}}}}"#));
    }
}

#[test]
fn input_nested_too_deeply_is_refused() {
    let server = one_shard(&["--channel.without_namespace.allow_tags_filter"]);
    let mut listener = Client::subscribed(&server, "a");
    let mut api = Client::dial(&server);
    let mut client = Client::connected(&server);
    let bad = |id: u32| format!(r#"{{"id":{id},"error":{{"code":107,"message":"bad request"}}}}"#);
    let publish =
        |id: u32, data: &str| format!(r#"{{"id":{id},"publish":{{"channel":"a","data":{data}}}}}"#);
    let filter = |levels| {
        let filter = nested(r#"{"op":"not","nodes":["#, "]}", levels).replace('1', "{}");
        format!(r#"{{"id":9,"subscribe":{{"channel":"b","tf":{filter}}}}}"#)
    };
    let deep = nested("[", "]", 30_000);
    neighbour_suffers_little(&server, |_| {
        assert_eq!(client.ask(&publish(2, &deep)), bad(2));
        let body = format!(r#"{{"channel":"a","data":{deep}}}"#);
        let answer = post(&mut api, "publish", &body);
        let expected = r#"{"error":{"code":107,"message":"bad request"}}"#.to_owned();
        assert_eq!(answer, (200, expected));
        assert_eq!(post(&mut api, "history", &deep).0, 400);
        let unknown = nested(r#"{"unknown":"#, "}", 30_000);
        assert_eq!(post(&mut api, "history", &unknown), answer);
        assert_eq!(client.ask(&filter(40)), bad(9));
        // The server refuses a command nested this deeply as malformed.
        let mut other = Client::connected(&server);
        other.send(&filter(2000));
        assert_eq!(other.closed().0, 3501);
    });
    assert_eq!(client.ask(&publish(3, &nested("[", "]", 500))), r#"{"id":3,"publish":{}}"#);
    let (_, body) = post(&mut api, "publish", r#"{"channel":"a","data":2}"#);
    assert_eq!(body, r#"{"result":{}}"#);
    assert!(listener.push().contains("[[["), "what is nested less comes first: nothing before it");
    assert!(listener.push().contains(r#""data":2"#));
}

#[test]
fn a_hundred_thousand_unknown_channels_leave_nothing_behind() {
    const CHANNELS: usize = 100_000;
    // This client sends no pongs, and a slow machine needs longer than a ping interval.
    let server = one_shard(&["--websocket.message_size_limit", "1000000", "--engine.pong=false"]);
    let mut client = Client::connected(&server);
    let ask = |client: &mut Client, command: &dyn Fn(usize) -> String, expected: &str| {
        for from in (0..CHANNELS).step_by(1000) {
            let commands: Vec<String> = (from..from + 1000).map(command).collect();
            client.send(&commands.join("\n"));
            for _ in 0..1000 {
                // Skips pings.
                let reply = std::iter::repeat_with(|| client.text()).find(|text| text != "{}");
                assert!(reply.is_some_and(|reply| reply.contains(expected)));
            }
        }
    };
    let unknown = |nth| format!(r#"{{"id":2,"subscribe":{{"channel":"no{nth}:x"}}}}"#);
    ask(&mut client, &unknown, r#""code":102"#);
    let before = server.metric("process_resident_memory_bytes");
    ask(&mut client, &unknown, r#""code":102"#);
    let passing = |nth: usize| {
        let end = format!(r#"{{"id":3,"unsubscribe":{{"channel":"c{}"}}}}"#, nth - nth % 2);
        let begin = format!(r#"{{"id":2,"subscribe":{{"channel":"c{nth}"}}}}"#);
        if nth.is_multiple_of(2) { begin } else { end }
    };
    ask(&mut client, &passing, r#""id":"#);
    server.wait_metric("drumline_channels", |channels| channels == 0);
    assert_eq!(server.metric("drumline_subscriptions"), 0);
    let grown = server.metric("process_resident_memory_bytes").saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}

#[test]
fn new_channels_with_history_evict_old_ones_within_the_budget() {
    let server = one_shard(&[
        "--channel.without_namespace.history_size=10",
        "--channel.without_namespace.history_ttl=720h",
        "--engine.streams_max=2000",
        "--engine.history_bytes=4000000",
    ]);
    let mut api = Client::dial(&server);
    let data = "x".repeat(10_000);
    for batch in 0..100 {
        let channels: Vec<String> = (0..100).map(|nth| format!(r#""c{batch}-{nth}""#)).collect();
        let body = format!(r#"{{"channels":[{}],"data":"{data}"}}"#, channels.join(","));
        assert_eq!(post(&mut api, "broadcast", &body).0, 200);
        let kept = server.metric("drumline_history_bytes");
        assert!(kept <= 4_000_000, "{kept} bytes after {batch}");
    }
    assert_eq!(server.metric("drumline_streams"), 2000);
    assert_eq!(server.metric("drumline_streams_evicted_total"), 8000);
    assert!(server.metric("drumline_history_bytes") > 3_900_000);
    let shed = server.metric("drumline_history_shed_total");
    assert!(shed > 1600, "{shed}");
    let (_, newest) = post(&mut api, "history", r#"{"channel":"c99-99","limit":10}"#);
    assert!(newest.contains(&data) && newest.ends_with(r#""offset":1}}"#), "{}", newest.len());
    let (_, first) = post(&mut api, "history", r#"{"channel":"c0-0","limit":10}"#);
    assert!(first.contains(r#""publications":[]"#) && first.contains(r#""offset":0"#), "{first}");
    neighbour_suffers_little(&server, |nth| {
        let body = format!(r#"{{"channel":"d{nth}","data":"{data}"}}"#);
        assert!(post(&mut api, "publish", &body).1.contains(r#""offset":1"#));
    });
}
