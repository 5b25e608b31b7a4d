//! Large answers: each fits the outbox of its client, or the client gets an error.

use crate::common::{Client, Server};

const KEPT: &str = r#"[{"name":"kept","history_size":100,"history_ttl":"300s","force_recovery":true,
    "presence":true}]"#;

/// A server with outboxes of 200,000 bytes and 100,000 bytes of history in `kept:a`.
fn server() -> Server {
    let flags = ["--client.queue_max_size", "200000", "--channel.namespaces", KEPT];
    let server = Server::on_one_port(&flags);
    let data = "x".repeat(10_000);
    for _ in 0..10 {
        server.api("publish", &format!(r#"{{"channel":"kept:a","data":"{data}"}}"#));
    }
    server
}

fn history(id: usize) -> String {
    format!(r#"{{"id":{id},"history":{{"channel":"kept:a","limit":10}}}}"#)
}

#[test]
fn large_answers_do_not_close_clients_that_read_late() {
    let server = server();
    let mut client = Client::connected(&server);
    let commands: Vec<String> = (2..102).map(history).collect();
    client.send(&commands.join("\n"));
    server.wait_metric("drumline_outboxes", |outboxes| outboxes == 1);
    let (mut told, mut refused) = (0, 0);
    for id in 2..102 {
        let text = client.text();
        let start = format!(r#"{{"id":{id},"#);
        assert!(text.starts_with(&start), "in their order: {id} {}", &text[..40]);
        match text.contains(r#""error":{"code":106,"#) {
            true => refused += 1,
            false => told += usize::from(text.len() > 100_000),
        }
    }
    assert_eq!(told + refused, 100, "{told} {refused}");
    assert!(told > 1, "{told}");
    assert!(client.is_alive());
    assert_eq!(server.metric("drumline_slow_total"), 0);
}

#[test]
fn a_recovery_that_does_not_fit_the_outbox_is_not_recovered() {
    let server = server();
    let data = "x".repeat(10_000);
    for channel in ["b", "c"] {
        for _ in 0..10 {
            let body = format!(r#"{{"channel":"kept:{channel}","data":"{data}"}}"#);
            server.api("publish", &body);
        }
    }
    let mut client = Client::open(&server, crate::common::UNI_WEBSOCKET);
    let sub = |name: &str| format!(r#""kept:{name}":{{"recover":true,"offset":0}}"#);
    client.send(&format!(r#"{{"subs":{{{},{},{}}}}}"#, sub("a"), sub("b"), sub("c")));
    let text = client.text();
    assert!(text.len() < 200_000, "{}", text.len());
    assert_eq!(text.matches(r#""recovered":true"#).count(), 1, "one of three fits");
    assert_eq!(
        text.matches(r#""offset":10,"#).count() + text.matches(r#""offset":10}"#).count(),
        3
    );
    assert!(client.is_alive());
}

#[test]
fn presence_is_answered_to_clients_and_the_api() {
    let server = server();
    let users: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = Client::connected(&server);
            client.ask(r#"{"id":2,"subscribe":{"channel":"kept:a"}}"#);
            client
        })
        .collect();
    let mut asker = Client::connected(&server);
    let presence = asker.ask(r#"{"id":2,"presence":{"channel":"kept:a"}}"#);
    assert_eq!(presence.matches(r#""client":"#).count(), 8, "{presence}");
    drop(users);
    server.wait_metric("drumline_clients", |clients| clients == 1);
    let none = r#"{"id":3,"presence":{"presence":{}}}"#;
    let ask = || asker.ask(r#"{"id":3,"presence":{"channel":"kept:a"}}"#);
    crate::common::wait_for("everybody to be gone", {
        let mut ask = ask;
        move || (ask() == none).then_some(())
    });
    let told = server.api("presence", r#"{"channel":"kept:a"}"#);
    assert_eq!(told, r#"{"result":{"presence":{}}}"#);
}
