//! HTTP streams, and the emulation requests of their clients.

use std::time::{Duration, Instant};

use crate::common::{Client, Server};

const HISTORY: [&str; 5] = [
    "--channel.without_namespace.history_size",
    "10",
    "--channel.without_namespace.history_ttl",
    "60s",
    "--channel.without_namespace.force_recovery",
];

fn post(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").into_bytes()
}

/// Opens a stream and reads the head of its response.
fn stream(server: &Server, request: &[u8]) -> Client {
    let mut client = Client::dial(server);
    client.send_raw(request);
    let head = client.read_head();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Connection: close"),
        "{head}"
    );
    client
}

fn http_stream(server: &Server, commands: &str) -> Client {
    stream(server, &post("/connection/http_stream", "application/json", commands.as_bytes()))
}

fn status(server: &Server, request: &[u8]) -> String {
    let mut client = Client::dial(server);
    client.send_raw(request);
    client.read_head().split(' ').nth(1).unwrap_or_default().to_owned()
}

/// A text field of a connect reply.
fn field(text: &str, name: &str) -> String {
    let start = text.find(&format!(r#""{name}":""#)).expect("the field is there") + name.len() + 4;
    text[start..].split('"').next().unwrap_or_default().to_owned()
}

fn emulation(connect: &str, frame: &str) -> Vec<u8> {
    let (session, node) = (field(connect, "session"), field(connect, "node"));
    let frame = frame.replace('"', r#"\""#).replace('\n', "\\n");
    let body = format!(r#"{{"session":"{session}","node":"{node}","data":"{frame}"}}"#);
    post("/emulation", "application/json", body.as_bytes())
}

#[test]
fn emulation_requests_reach_a_stream_on_every_shard() {
    let server = Server::start(&[]);
    let connect =
        concat!(r#"{"id":1,"connect":{}}"#, "\n", r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    let mut streams: Vec<Client> = (0..4).map(|_| http_stream(&server, connect)).collect();
    let mut kept = Client::dial(&server);
    for (nth, stream) in streams.iter_mut().enumerate() {
        let connected = stream.line();
        assert_eq!(stream.line(), r#"{"id":2,"subscribe":{}}"#);
        // Each request has its own connection, so that requests reach every shard.
        for id in 3..13 {
            let frame = format!(r#"{{"id":{id},"subscribe":{{"channel":"{nth}-{id}"}}}}"#);
            assert_eq!(status(&server, &emulation(&connected, &frame)), "204");
            assert_eq!(stream.line(), format!(r#"{{"id":{id},"subscribe":{{}}}}"#));
        }
        // One connection carries many requests, two of them at once.
        let ask = |id: u32| format!(r#"{{"id":{id},"unsubscribe":{{"channel":"{nth}-3"}}}}"#);
        let frames = [ask(13), format!("{}\n{}", ask(14), ask(15))];
        kept.send_raw(&frames.map(|frame| emulation(&connected, &frame)).concat());
        for _ in 0..2 {
            assert!(kept.read_head().starts_with("HTTP/1.1 204 No Content\r\n"));
        }
        for id in 13..16 {
            assert_eq!(stream.line(), format!(r#"{{"id":{id},"unsubscribe":{{}}}}"#));
        }
    }
    server.publish("a", r#"{"n":1}"#);
    for stream in &mut streams {
        let push = r#"{"push":{"channel":"a","pub":{"data":{"n":1}}}}"#;
        assert_eq!(crate::common::without_publisher(&stream.line()), push);
    }
}

#[test]
fn forged_and_ended_sessions_are_ignored() {
    let server = Server::start(&[]);
    let mut victim = http_stream(&server, r#"{"id":1,"connect":{}}"#);
    let connected = victim.line();
    let mut attacker = http_stream(&server, r#"{"id":1,"connect":{}}"#);
    let other = attacker.line();
    let order = r#"{"id":2,"subscribe":{"channel":"x"}}"#;
    let session = field(&connected, "session");
    // Forged sessions: the victim's slot with the attacker's seal, a short one, none, and nonsense.
    let sealed = format!("{}{}", &session[..18], &field(&other, "session")[18..]);
    for forged in [sealed.as_str(), &session[..49], "", "zz"] {
        let forged = connected.replace(&session, forged);
        assert_eq!(status(&server, &emulation(&forged, order)), "204");
    }
    drop(attacker);
    server.wait_metric("drumline_clients", |clients| clients == 1);
    assert_eq!(status(&server, &emulation(&other, order)), "204", "its stream is over");
    assert_eq!(
        status(&server, &emulation(&connected, r#"{"id":9,"subscribe":{"channel":"y"}}"#)),
        "204"
    );
    assert_eq!(victim.line(), r#"{"id":9,"subscribe":{}}"#, "the first thing it hears");
}

#[test]
fn invalid_stream_requests_get_an_error_status() {
    let server = Server::start(&["--client.allowed_origins", "https://good"]);
    let check = |request: &[u8], expected: &str| {
        let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        assert_eq!(status(&server, request), expected, "{shown}");
    };
    let connect = "%7B%22id%22:1,%22connect%22:%7B%7D%7D";
    let call = "%7B%22id%22:2,%22rpc%22:%7B%22data%22:1%7D%7D";
    let sse = |commands: &str| format!("/connection/sse?cf_connect={commands}");
    check(&get(&sse(connect), ""), "200");
    check(&get(&sse(&format!("{connect}%0A{call}")), ""), "400");
    check(&get(&sse(call), ""), "400");
    for path in [&*sse(connect), "/connection/uni_sse", "/connection/long_polling"] {
        check(&get(path, "Sec-Fetch-Mode: navigate\r\n"), "403");
    }
    check(&get(&sse(connect), "Origin:\r\n"), "200");
    check(&get(&sse(connect), "Origin: https://TEST\r\n"), "200");
    check(&get(&sse(connect), "Origin: https://good\r\nOrigin: https://good\r\n"), "403");
    let mut unreadable = get(&sse(connect), "Origin: https://good~\r\n");
    unreadable.iter_mut().filter(|byte| **byte == b'~').for_each(|byte| *byte = 0xff);
    check(&unreadable, "403");
    check(b"GET /health HTTP/1.1\r\n\r\n", "400");
    check(b"GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400");
    let mut kept = Client::dial(&server);
    kept.send_raw(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /health HTTP/1.1\r\n\r\n");
    for expected in ["HTTP/1.1 404 ", "HTTP/1.1 400 "] {
        let head = kept.read_head();
        assert!(head.starts_with(expected), "{head}");
        kept.read_body(&head);
    }
    let large = vec![b' '; 65_537];
    for path in ["/connection/http_stream", "/connection/sse", "/connection/uni_sse", "/emulation"]
    {
        check(&post(path, "application/json", &large), "413");
        check(&post(path, "application/json", b"{}").replacing("POST", "PUT"), "405");
        let foreign = format!("OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: https://bad\r\n\r\n");
        check(foreign.as_bytes(), "403");
        check(foreign.replace("bad", "good").as_bytes(), "204");
    }
    check(&get("/connection/sse", ""), "400");
    check(&get("/connection/http_stream", ""), "405");
    check(&get("/connection/uni_sse", "Origin: https://bad\r\n"), "403");
    check(&post("/emulation", "application/json", b"no json"), "400");
    check(&post("/emulation", "application/octet-stream", b"\xff"), "400");
    let elsewhere = br#"{"session":"s","node":"another","data":"{}"}"#;
    check(&post("/emulation", "application/json", elsewhere), "404");
}

trait Replacing {
    fn replacing(&self, from: &str, to: &str) -> Vec<u8>;
}

impl Replacing for Vec<u8> {
    fn replacing(&self, from: &str, to: &str) -> Vec<u8> {
        String::from_utf8_lossy(self).replacen(from, to, 1).into_bytes()
    }
}

#[test]
fn a_stream_ends_with_its_disconnect_message() {
    let mut server = Server::start(&["--shutdown.spread", "0s"]);
    let end = |code: u16, reason: &str| {
        format!("{{\"push\":{{\"disconnect\":{{\"code\":{code},\"reason\":\"{reason}\"}}}}}}\n")
    };
    for opening in ["", "\n", "no json", r#"{"id":1,"subscribe":{"channel":"a"}}"#] {
        let ended = http_stream(&server, opening).rest();
        assert_eq!(String::from_utf8_lossy(&ended), end(3501, "bad request"), "{opening}");
    }
    let mut stream = http_stream(&server, r#"{"id":1,"connect":{}}"#);
    let connected = stream.line();
    assert_eq!(status(&server, &emulation(&connected, "nonsense")), "204");
    assert_eq!(String::from_utf8_lossy(&stream.rest()), end(3501, "bad request"));

    let request = get("/connection/sse?cf_connect=%7B%22id%22:1,%22connect%22:%7B%7D%7D", "");
    let mut events = self::stream(&server, &request);
    assert!(events.line().starts_with(r#"data: {"id":1,"connect":{"#));
    server.signal_stop();
    let ended = String::from_utf8(events.rest()).unwrap();
    assert_eq!(ended, format!("\ndata: {}\n", end(3001, "shutdown")));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn streams_get_pings_and_close_without_pongs() {
    let flags = ["--client.ping_interval", "2s", "--client.pong_timeout", "1s"];
    let server = Server::start(&flags);
    let mut stream = http_stream(&server, r#"{"id":1,"connect":{}}"#);
    let connected = stream.line();
    assert_eq!(stream.line(), "{}");
    assert_eq!(status(&server, &emulation(&connected, "{}")), "204");
    assert_eq!(stream.line(), "{}", "the pong has come");
    let silent = String::from_utf8(stream.rest()).unwrap();
    assert_eq!(
        silent,
        concat!(r#"{"push":{"disconnect":{"code":3012,"reason":"no pong"}}}"#, "\n")
    );

    let body = b"\x04\x08\x01\x22\x00";
    let mut protobuf =
        self::stream(&server, &post("/connection/http_stream", "application/octet-stream", body));
    let bytes = protobuf.rest();
    assert_eq!(bytes[1], 1, "the reply is 128 to 255 bytes long");
    let reply = 2 + 128 + usize::from(bytes[0] & 0x7f);
    assert_eq!(bytes[reply], 0, "a ping is a message without length");
    assert!(bytes[reply + 1..].windows(7).any(|part| part == b"no pong"));

    let mut events = self::stream(&server, &get("/connection/uni_sse", ""));
    let lines: Vec<String> = (0..4).map(|_| events.line()).collect();
    assert_eq!((&*lines[1], &*lines[2], &*lines[3]), ("", "data: {}", ""), "{lines:?}");
}

#[test]
fn an_event_stream_resumes_after_its_last_event_id() {
    let server = Server::start(&HISTORY);
    let path = "/connection/uni_sse?cf_connect=%7B%22subs%22:%7B%22news%22:%7B%7D%7D%7D";
    let mut first = stream(&server, &get(path, ""));
    assert!(first.line().starts_with(r#"data: {"connect":"#));
    assert!(first.line().starts_with("id: 0:"), "where it stands before anything was said");
    assert_eq!(first.line(), "");
    server.publish("news", "1");
    assert!(first.line().starts_with(r#"data: {"channel":"news","pub":{"data":1,"#));
    let id = first.line();
    let id = id.strip_prefix("id: ").unwrap();
    drop(first);
    server.publish("news", "2");
    server.publish("news", "3");
    let mut again = stream(&server, &get(path, &format!("Last-Event-ID: {id}\r\n")));
    let connected = again.line();
    assert_eq!(again.line().split(':').nth(1), Some(" 3"), "behind what is recovered");
    assert!(connected.contains(r#""recovered":true"#) && connected.contains(r#""data":2"#));
    assert!(connected.contains(r#""data":3"#) && !connected.contains(r#""data":1"#), "{connected}");
    // The server ignores an id that it did not make.
    let mut strange = stream(&server, &get(path, "Last-Event-ID: nonsense\r\n"));
    assert!(!strange.line().contains("was_recovering"));
}

#[test]
fn a_long_poll_ends_with_the_first_or_the_missed_publications() {
    let server = Server::start(&HISTORY);
    let ask = |subs: &str| {
        let body = format!(r#"{{"subs":{{"news":{{{subs}}}}}}}"#);
        stream(&server, &post("/connection/long_polling", "application/json", body.as_bytes()))
    };
    let mut poll = ask("");
    let connected = poll.line();
    server.publish("news", "1");
    let told = String::from_utf8(poll.rest()).unwrap();
    assert!(told.starts_with(r#"{"channel":"news","pub":{"data":1,"#), "{told}");
    server.publish("news", "2");
    let since = format!(r#""recover":true,"epoch":"{}","offset":1"#, field(&connected, "epoch"));
    let told = String::from_utf8(ask(&since).rest()).unwrap();
    assert!(told.contains(r#""recovered":true"#) && told.contains(r#""data":2"#), "{told}");
    let mut poll = ask(&since.replace(r#""offset":1"#, r#""offset":2"#));
    assert!(poll.line().contains(r#""recovered":true"#));
    server.publish("news", "3");
    let told = String::from_utf8(poll.rest()).unwrap();
    assert!(told.starts_with(r#"{"channel":"news","pub":{"data":3,"#), "{told}");
    let quick = Server::start(&["--client.ping_interval", "2s", "--client.pong_timeout", "1s"]);
    let mut poll = stream(&quick, &post("/connection/long_polling", "application/json", b"{}"));
    poll.line();
    assert_eq!(poll.rest(), b"{}\n", "nothing has come for as long as a ping's interval");
}

#[test]
fn a_slow_stream_ends_with_a_complete_message() {
    let flags = ["--client.queue_max_size", "100000", "--engine.send_buffer", "8192"];
    let server = Server::start(&flags);
    let connect =
        concat!(r#"{"id":1,"connect":{}}"#, "\n", r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    let mut slow = http_stream(&server, connect);
    slow.line();
    slow.line();
    let mut publisher = Client::connected(&server);
    let data = "x".repeat(30_000);
    server.wait_metric("drumline_slow_total", |slow| {
        if slow == 0 {
            let publish = format!(r#"{{"id":2,"publish":{{"channel":"a","data":"{data}"}}}}"#);
            assert_eq!(publisher.ask(&publish), r#"{"id":2,"publish":{}}"#);
        }
        slow == 1
    });
    let rest = String::from_utf8(slow.rest()).unwrap();
    let lines: Vec<&str> = rest.lines().collect();
    let (last, pushes) = lines.split_last().unwrap();
    assert_eq!(*last, r#"{"push":{"disconnect":{"code":3008,"reason":"slow"}}}"#);
    assert!(pushes.iter().all(|push| push.starts_with(r#"{"push":"#) && push.ends_with("}}}")));
}

#[test]
fn stream_requests_through_the_control_plane_are_served() {
    let server = Server::on_one_port(&[]);
    let mut client = Client::dial(&server);
    client.send_raw(b"GET /nothing-is-here HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.read_head();
    client.read_body(&head);
    let body = br#"{"id":1,"connect":{}}"#;
    client.send_raw(&post("/connection/http_stream", "application/json", body));
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("chunked"), "{head}");
    assert!(!client.line().is_empty(), "a chunk's length");
    let connected = client.line();
    assert!(connected.starts_with(r#"{"id":1,"connect":{"#), "{connected}");

    // A shard passes a target with scheme and host to the control plane, which returns it as a
    // path.
    let absolute =
        get("http://test/connection/sse?cf_connect=%7B%22id%22:1,%22connect%22:%7B%7D%7D", "");
    let mut whole = Client::dial(&server);
    whole.send_raw(&absolute);
    assert!(whole.read_head().starts_with("HTTP/1.1 200 OK\r\n"));
    drop(whole);
    assert_eq!(status(&server, &get("http://test/connection/sse", "")), "400");

    let chunked = "POST /emulation HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let frame = emulation(&connected, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    let body = &frame[frame.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4..];
    let length = format!("{:x}\r\n", body.len());
    let request = [chunked.as_bytes(), length.as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
    assert_eq!(status(&server, &request), "204");
    client.line();
    assert!(!client.line().is_empty(), "a chunk's length");
    assert_eq!(client.line(), r#"{"id":2,"subscribe":{}}"#);
    server.wait_metric("drumline_clients", |clients| clients == 1);
    drop(client);
    server.wait_metric("drumline_clients", |clients| clients == 0);
}

#[test]
fn commands_of_an_emulation_client_wait_for_their_rate_up_to_a_bound() {
    let server = Server::start(&["--client.command_rate_limit=5", "--client.command_rate_burst=1"]);
    let mut stream = http_stream(&server, r#"{"id":1,"connect":{}}"#);
    let connected = stream.line();
    let begun = Instant::now();
    for id in 2..6 {
        let frame = format!(r#"{{"id":{id},"unsubscribe":{{"channel":"a"}}}}"#);
        assert_eq!(status(&server, &emulation(&connected, &frame)), "204");
    }
    for id in 2..6 {
        assert_eq!(stream.line(), format!(r#"{{"id":{id},"unsubscribe":{{}}}}"#));
    }
    assert!(begun.elapsed() >= Duration::from_millis(590), "{:?}", begun.elapsed());
    let large = format!(r#"{{"id":9,"rpc":{{"data":"{}"}}}}"#, "x".repeat(60_000));
    for _ in 0..8 {
        assert_eq!(status(&server, &emulation(&connected, &large)), "204");
    }
    let push = r#"{"push":{"disconnect":{"code":3013,"reason":"too many requests"}}}"#;
    assert!(String::from_utf8(stream.rest()).unwrap().contains(push));
}
