//! API calls on the public port, answered by a shard or by the control plane.

use crate::common::{
    API_KEY, Client, Server, WEBSOCKET, api_request, client_frame, upgrade_request, wait_for,
};

const HISTORY: [&str; 5] = [
    "--channel.without_namespace.history_size",
    "20000",
    "--channel.without_namespace.history_ttl",
    "600s",
    "--channel.without_namespace.force_recovery",
];

fn call(channel: &str, data: &str) -> String {
    api_request("publish", "", &format!(r#"{{"channel":"{channel}","data":{data}}}"#))
}

/// Reads the head and the body of an answer.
fn answer(client: &mut Client) -> (String, String) {
    let head = client.read_head();
    let body = client.read_body(&head);
    (head, body)
}

#[test]
fn an_api_publish_is_answered_and_delivered() {
    let server = Server::on_one_port(&[]);
    let mut subscriber = Client::subscribed(&server, "news");
    let mut backend = Client::dial(&server);
    for n in 0..3 {
        backend.send_raw(call("news", &format!(r#"{{"n":{n}}}"#)).as_bytes());
        let (head, body) = answer(&mut backend);
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
            Content-Length: 13\r\n\r\n";
        assert_eq!((&*head, &*body), (expected, r#"{"result":{}}"#));
        let heard = format!(r#"{{"push":{{"channel":"news","pub":{{"data":{{"n":{n}}}}}}}}}"#);
        assert_eq!(subscriber.text(), heard);
    }
    assert_eq!(server.metric("drumline_calls_total"), 3);
    let lost = server.metric("drumline_lost_total");
    drop(backend);
    server.settle();
    assert_eq!(server.metric("drumline_lost_total"), lost, "an idle backend may go");
}

#[test]
fn pipelined_publishes_are_answered_in_order_with_their_offsets() {
    let server = Server::on_one_port(&HISTORY);
    for channel in ["a", "b", "c", "d"] {
        let mut subscriber = Client::connected(&server);
        subscriber.ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        let mut backend = Client::dial(&server);
        let packet: String = (1..=200).map(|n| call(channel, &n.to_string())).collect();
        backend.send_raw(packet.as_bytes());
        for n in 1..=200 {
            let (status, body) = backend.answer();
            assert_eq!(status, 200);
            let start = format!(r#"{{"result":{{"offset":{n},"epoch":""#);
            assert!(body.starts_with(&start), "{body}");
            let heard = subscriber.text();
            let publication = format!(r#""data":{n},"offset":{n}"#);
            let (_, rest) = heard.split_once(&publication).expect(&heard);
            // The first publication also carries the epoch.
            assert!(rest.starts_with(if n == 1 { r#","epoch":""# } else { "}" }), "{heard}");
        }
    }
    assert_eq!(server.metric("drumline_calls_total"), 800);
}

#[test]
fn a_call_may_come_byte_by_byte() {
    let server = Server::on_one_port(&[]);
    let mut backend = Client::dial(&server);
    for _ in 0..2 {
        for byte in call("news", "[1,2]").as_bytes() {
            backend.send_raw(std::slice::from_ref(byte));
        }
        assert_eq!(backend.answer(), (200, r#"{"result":{}}"#.into()));
    }
    assert_eq!(server.metric("drumline_calls_total"), 2);
}

#[test]
fn the_control_plane_answers_requests_that_a_shard_does_not() {
    let server = Server::on_one_port(&[]);
    let good = call("news", "1");
    let wrong_key = good.replace(API_KEY, "wrong!");
    let large = call("news", &format!(r#""{}""#, "x".repeat(200_000)));
    let bad = r#"{"error":{"code":107,"message":"bad request"}}"#;
    for (request, status, expected) in [
        (&*wrong_key, 401, "X-API-Key is missing or wrong"),
        (&*large, 200, r#"{"result":{}}"#),
        (&*call("", "1"), 200, bad),
        (&*call("news", "{"), 400, "invalid request body"),
        (
            &*good.replace(r#"{"channel":"news","data":1}"#, r#"["news",                 1]"#),
            400,
            "invalid request body for this method: an object",
        ),
        (&*call("a:b", "1"), 200, r#"{"error":{"code":102"#),
        (&*good.replace(r#""data":1"#, r#""b64=":1"#), 200, bad),
        (
            &*good.replace("Host: test", "Host: test\r\nAuthorization: apikey secret"),
            200,
            r#"{"result":{}}"#,
        ),
    ] {
        let mut backend = Client::dial(&server);
        backend.send_raw(good.as_bytes());
        assert_eq!(backend.answer().0, 200);
        // Both in one packet: the first moves the connection to the control plane, which answers
        // the second too.
        backend.send_raw(format!("{request}{good}").as_bytes());
        let (found, body) = backend.answer();
        assert!(found == status && body.starts_with(expected), "{found} {body}");
        assert_eq!(backend.answer(), (200, r#"{"result":{}}"#.into()));
    }
    assert_eq!(server.metric("drumline_calls_total"), 8);
}

#[test]
fn the_api_accepts_a_valid_key_from_every_place() {
    let server = Server::on_one_port(&[]);
    let basic = "Authorization: Basic dXNlcjpwYXNz\r\n";
    let own = format!("X-API-Key: {API_KEY}\r\n");
    let right = format!("?api_key={API_KEY}");
    let (right, own) = (right.as_str(), own.as_str());
    for (query, headers, expected) in [
        ("", own, 200),
        ("", &format!("{basic}{own}"), 200),
        (right, "", 200),
        (right, basic, 200),
        (right, "X-API-Key: wrong\r\n", 200),
        (right, "X-API-Key:\r\n", 200),
        ("?api_key=wrong", own, 200),
        ("", &format!("Authorization: apikey\t{API_KEY}\r\n"), 200),
        ("", &format!("X-API-Key: wrong\r\nAuthorization: apikey {API_KEY}\r\n"), 200),
        ("", basic, 401),
        ("", "X-API-Key:\r\n", 401),
        ("?api_key=", "X-API-Key: wrong\r\n", 401),
    ] {
        let mut backend = Client::dial(&server);
        let body = r#"{"channel":"news","data":1}"#;
        let request = format!(
            "POST /api/publish{query} HTTP/1.1\r\nHost: test\r\n{headers}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        backend.send_raw(request.as_bytes());
        assert_eq!(backend.answer().0, expected, "{request}");
    }
}

#[test]
fn an_api_connection_can_upgrade_to_websocket() {
    let server = Server::on_one_port(&HISTORY);
    let mut client = Client::dial(&server);
    let mut bytes = call("news", "1").into_bytes();
    bytes.extend(upgrade_request(WEBSOCKET).into_bytes());
    bytes.extend(client_frame(0x81, br#"{"id":1,"connect":{}}"#));
    client.send_raw(&bytes);
    assert_eq!(client.answer().0, 200);
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(client.text().starts_with(r#"{"id":1,"connect":{"#));
}

#[test]
fn a_caller_that_reads_late_gets_all_its_answers() {
    let server = Server::on_one_port(&HISTORY);
    let mut backend = Client::dial(&server);
    let mut writer = backend.stream.try_clone().unwrap();
    const CALLS: usize = 20_000;
    let packet = call("news", "1").repeat(100);
    let sent = std::thread::spawn(move || {
        for _ in 0..CALLS / 100 {
            std::io::Write::write_all(&mut writer, packet.as_bytes()).unwrap();
        }
    });
    let mut last = 0;
    wait_for("the server to stop reading calls", || {
        let now = server.metric("drumline_calls_total");
        std::thread::sleep(std::time::Duration::from_millis(100));
        (now > 0 && std::mem::replace(&mut last, now) == now).then_some(())
    });
    for n in 1..=CALLS {
        let (status, body) = backend.answer();
        assert!(status == 200 && body.contains(&format!(r#""offset":{n},"#)), "{body}");
    }
    sent.join().unwrap();
}

#[test]
fn a_caller_that_ended_its_side_gets_its_answer() {
    let server = Server::on_one_port(&HISTORY);
    let mut backend = Client::dial(&server);
    backend.send_raw(call("news", "1").repeat(3).as_bytes());
    backend.stream.shutdown(std::net::Shutdown::Write).unwrap();
    for _ in 0..3 {
        assert_eq!(backend.answer().0, 200);
    }
    assert_eq!(backend.rest(), b"");
}

#[test]
fn a_request_whose_body_does_not_arrive_times_out() {
    let server = Server::on_one_port(&[]);
    let mut backend = Client::dial(&server);
    let request = call("news", "1");
    backend.send_raw(&request.as_bytes()[..request.len() - 1]);
    let rest = String::from_utf8(backend.rest()).unwrap();
    assert!(rest.starts_with("HTTP/1.1 408 "), "{rest}");
}

#[test]
fn a_call_with_an_unfinished_body_to_a_full_node_gets_503() {
    let server = Server::on_one_port(&["--shards", "1", "--engine.slots_per_shard", "40"]);
    let mut held = Vec::new();
    let refused = wait_for("a refusal", || {
        let mut backend = Client::dial(&server);
        let request = call("news", "1");
        backend.send_raw(&request.as_bytes()[..request.len() - 1]);
        held.push(backend);
        let last = held.len() - 1;
        (held.len() > 40).then(|| String::from_utf8(held[last].rest()).unwrap())
    });
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
}

#[test]
fn calls_that_arrive_during_the_shutdown_are_answered() {
    for flags in [&HISTORY[..], &[]] {
        let mut flags = flags.to_vec();
        flags.extend(["--shutdown.spread", "2s"]);
        let mut server = Server::on_one_port(&flags);
        // The server closes this connection early in its shutdown, which shows that it has begun.
        let mut witness = Client::connected(&server);
        let mut subscribers: Vec<Client> = (0..8).map(|_| Client::connected(&server)).collect();
        let mut backends: Vec<Client> = (0..24).map(|_| Client::dial(&server)).collect();
        for backend in &mut backends {
            backend.send_raw(call("before", "1").as_bytes());
            assert_eq!(backend.answer().0, 200);
        }
        for (n, subscriber) in subscribers.iter_mut().enumerate() {
            subscriber.ask(&format!(r#"{{"id":2,"subscribe":{{"channel":"c{n}"}}}}"#));
        }
        server.signal_stop();
        assert_eq!(witness.closed().0, 3001);
        let mut answered = 0;
        for (n, backend) in backends.iter_mut().enumerate() {
            // The server has closed some connections already; it answers and closes the others.
            let request = call(&format!("c{}", n % 8), "1");
            let _ = std::io::Write::write_all(&mut backend.stream, request.as_bytes());
            let rest = String::from_utf8(backend.rest()).unwrap();
            assert!(rest.is_empty() || rest.contains("Connection: close"), "{rest}");
            answered += usize::from(!rest.is_empty());
        }
        assert!(answered > 0, "{answered} were answered");
        drop(subscribers);
        assert!(server.wait().success());
    }
}

#[test]
fn the_shutdown_closes_idle_api_connections_without_an_answer() {
    let mut server = Server::on_one_port(&["--shutdown.timeout", "1s"]);
    let mut backend = Client::dial(&server);
    backend.send_raw(call("news", "1").as_bytes());
    assert_eq!(backend.answer().0, 200);
    server.signal_stop();
    assert_eq!(backend.rest(), b"");
    assert!(server.wait().success());
}
