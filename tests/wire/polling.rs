//! Polls: the latest publication of a channel as an HTTP response.

use crate::common::{Client, Server};

/// Polling, and a history of two publications that anonymous clients may read.
const OPEN: [&str; 7] = [
    "--polling.enabled",
    "--client.allow_anonymous_connect_without_token",
    "--channel.without_namespace.allow_history_for_client",
    "--channel.without_namespace.allow_history_for_anonymous",
    "--channel.without_namespace.history_size=2",
    "--channel.without_namespace.history_ttl=60s",
    "--http_api.insecure",
];

fn poll(target: &str, headers: &str) -> String {
    format!("GET /connection/polling{target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

fn publish(server: &Server, channel: &str, data: &str) {
    server.api("publish", &format!(r#"{{"channel":"{channel}","data":{data}}}"#));
}

fn status(server: &Server, request: &str) -> u16 {
    Client::dial(server).exchange(request).0
}

#[test]
fn polls_on_one_connection_get_the_latest_publication() {
    let server = Server::with(&OPEN);
    let mut client = Client::dial(&server);
    // Enough channels for homes on this shard and on others.
    for nth in 0..20 {
        let (channel, request) = (format!("c{nth}"), poll(&format!("?channel=c{nth}"), ""));
        assert_eq!(client.exchange(&request), (204, String::new()));
        for data in [r#"{"n":1}"#, r#"{"n": 2}"#, "[3]"] {
            publish(&server, &channel, data);
            assert_eq!(client.exchange(&request), (200, data.to_owned()));
        }
    }
    server.api("history_remove", r#"{"channel":"c0"}"#);
    assert_eq!(client.exchange(&poll("?channel=c0", "")), (204, String::new()));
    client.send_raw([poll("?channel=c1", ""), poll("?channel=c2", "")].concat().as_bytes());
    assert_eq!(client.answer(), (200, "[3]".to_owned()));
    assert_eq!(client.answer(), (200, "[3]".to_owned()), "the second request of one write");
    let last = client.exchange(&poll("?channel=c1", "Connection: close\r\n"));
    assert_eq!(last, (200, "[3]".to_owned()));
    assert!(client.rest().is_empty(), "closed as requested");
}

#[test]
fn the_answer_to_a_poll_is_not_cached_and_names_the_page_that_may_read_it() {
    let flags = [&OPEN[..], &["--client.allowed_origins", "https://a.com"]].concat();
    let server = Server::with(&flags);
    publish(&server, "c", "1");
    let mut client = Client::dial(&server);
    let mut head = |headers: &str| {
        client.send_raw(poll("?channel=c", headers).as_bytes());
        let head = client.read_head();
        client.read_body(&head);
        head
    };
    let plain = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n\
                 Content-Length: 1\r\n\r\n";
    assert_eq!(head(""), plain);
    let page = head("Origin: https://a.com\r\n");
    assert!(page.contains("\r\nAccess-Control-Allow-Origin: https://a.com\r\n"), "{page}");
    assert_eq!(head(""), plain, "the next poll of the connection");
    let refused = status(&server, &poll("?channel=c", "Origin: https://b.com\r\n"));
    assert_eq!(refused, 403);
}

#[test]
fn a_connection_of_the_control_plane_polls_too() {
    let server = Server::with(&OPEN);
    publish(&server, "c", "1");
    let mut client = Client::dial(&server);
    assert_eq!(client.exchange("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n").0, 404);
    for _ in 0..3 {
        assert_eq!(client.exchange(&poll("?channel=c", "")), (200, "1".to_owned()));
    }
}

#[test]
fn a_poll_reads_only_what_an_anonymous_client_may_read() {
    let request = poll("?channel=c", "");
    let open = Server::with(&OPEN);
    publish(&open, "c", "1");
    assert_eq!(status(&open, &request), 200);
    assert_eq!(status(&open, &poll("?channel=none:c", "")), 403, "no such namespace");
    assert_eq!(status(&open, &poll("", "")), 400);
    // Without each of the flags there is nothing to read: the path is unknown without the first,
    // and a history has a size and a time to live.
    for left_out in 0..OPEN.len() - 2 {
        let kept = OPEN.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, one)| *one);
        let has_size = left_out != 4;
        let flags: Vec<&str> = kept.filter(|one| has_size || !one.contains("ttl")).collect();
        let server = Server::with(&flags);
        publish(&server, "c", "1");
        assert_eq!(status(&server, &request), if left_out == 0 { 404 } else { 403 }, "{flags:?}");
    }
}
