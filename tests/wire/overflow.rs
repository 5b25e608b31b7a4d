//! Rings with a small completion queue: no operation is lost, and late completions close no
//! connection.

use rustix::process::Signal;

use crate::common::{Client, Server, client_frame};

/// Flags for one shard with the smallest rings.
const SMALL: [&str; 10] = [
    "--shards",
    "1",
    "--engine.slots_per_shard",
    "400",
    "--engine.ring_submissions",
    "4",
    "--engine.ring_completions",
    "4",
    "--engine.ring_buffers",
    "4",
];

/// More subscribers than the completion queue has entries for in one turn of fan-out.
const SUBSCRIBERS: usize = 150;

fn subscribed(server: &Server, receive_buffer: usize) -> Client {
    Client::subscribed_with_buffer(server, "a", receive_buffer)
}

fn publish(nth: usize, data: &str) -> String {
    format!(r#"{{"id":{},"publish":{{"channel":"a","data":{data}}}}}"#, nth + 2)
}

#[test]
fn a_publication_to_sockets_that_are_all_broken_does_not_end_the_server() {
    let mut server = Server::start(&SMALL);
    let mut publisher = Client::connected(&server);
    for round in 0..5 {
        let mut clients: Vec<Client> =
            (0..SUBSCRIBERS).map(|_| subscribed(&server, 65_536)).collect();
        // While the server is stopped a publication arrives, then every subscriber sends many pongs
        // and resets its connection: the server sends before it has seen the resets.
        server.signal(Signal::STOP);
        publisher.send(&publish(round, "1"));
        let flood = client_frame(0x8a, b"pong").repeat(100);
        clients.iter_mut().for_each(|client| client.send_raw(&flood));
        clients.into_iter().for_each(Client::vanish);
        server.signal(Signal::CONT);
        assert_eq!(publisher.text(), format!(r#"{{"id":{},"publish":{{}}}}"#, round + 2));
        server.wait_metric("drumline_clients", |clients| clients == 1);
        assert!(server.is_running());
    }
    assert!(server.metric("drumline_completion_overflows_total") > 0, "no queue was full");
    server.wait_metric("drumline_outboxes", |outboxes| outboxes == 0);
    server.wait_metric("drumline_subscriptions", |subscriptions| subscriptions == 0);
    assert!(publisher.is_alive());
}

#[test]
fn subscribers_that_all_fall_behind_at_once_get_every_byte() {
    let flags = [&SMALL[..], &["--client.queue_max_size", "8000000"]].concat();
    let server = Server::start(&flags);
    let mut clients: Vec<Client> = (0..SUBSCRIBERS).map(|_| subscribed(&server, 4096)).collect();
    let mut publisher = Client::connected(&server);
    let filler = "x".repeat(20_000);
    let pong = client_frame(0x8a, b"");
    for nth in 0..12 {
        // While the server is stopped every subscriber sends a pong, which fills the queue.
        server.signal(Signal::STOP);
        clients.iter_mut().for_each(|client| client.send_raw(&pong));
        server.signal(Signal::CONT);
        publisher.ask(&publish(nth, &format!(r#""{nth} {filler}""#)));
    }
    server.wait_metric("drumline_outboxes", |outboxes| outboxes == SUBSCRIBERS as u64);
    assert!(server.metric("drumline_short_sends_total") >= SUBSCRIBERS as u64);
    for client in &mut clients {
        for nth in 0..12 {
            let push = client.push();
            let data = format!(r#""{nth} {filler}""#);
            let whole = format!(r#"{{"push":{{"channel":"a","pub":{{"data":{data}}}}}}}"#);
            assert!(push == whole, "publication {nth}: {}", &push[..push.len().min(60)]);
        }
    }
    assert!(clients.iter_mut().all(Client::is_alive));
    assert!(server.metric("drumline_completion_overflows_total") > 0, "no queue was full");
    assert_eq!(server.metric("drumline_stale_completions_total"), 0);
    drop(clients);
    server.wait_metric("drumline_clients", |clients| clients == 1);
    server.wait_metric("drumline_outbox_bytes", |bytes| bytes == 0);
}

#[test]
fn connections_work_with_the_smallest_rings() {
    let server = Server::start(&SMALL);
    let before = server.settle();
    for _ in 0..3 {
        let mut clients: Vec<Client> = (0..100).map(|_| subscribed(&server, 65_536)).collect();
        server.publish("a", "1");
        for client in &mut clients {
            assert_eq!(client.push(), r#"{"push":{"channel":"a","pub":{"data":1}}}"#);
        }
        for (nth, client) in clients.into_iter().enumerate() {
            if nth % 2 == 0 { client.vanish() } else { drop(client) }
        }
        server.wait_metric("drumline_sockets", |sockets| sockets <= before);
        server.wait_metric("drumline_clients", |clients| clients == 0);
    }
}
