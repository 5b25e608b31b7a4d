//! After a pause of the process, the server reads its input before it applies timeouts.

use std::time::Duration;

use rustix::process::Signal;

use crate::common::{Client, Server, WEBSOCKET, wait_for};

/// A pause longer than every timeout of the server.
const PAUSE: Duration = Duration::from_millis(5500);

fn server() -> Server {
    Server::start(&[
        "--client.ping_interval",
        "5s",
        "--client.pong_timeout",
        "4s",
        "--client.stale_close_delay",
        "4s",
    ])
}

/// Stops the server for longer than its timeouts, and runs `meanwhile` at the start of the pause.
fn pause(server: &Server, meanwhile: impl FnOnce()) {
    server.signal(Signal::STOP);
    meanwhile();
    std::thread::sleep(PAUSE);
    server.signal(Signal::CONT);
}

#[test]
fn pongs_received_while_the_process_was_stopped_count() {
    let server = server();
    let mut clients: Vec<Client> = (0..60).map(|_| Client::connected(&server)).collect();
    // Each client gets a ping and sends no pong yet.
    let mut asked: Vec<usize> = Vec::new();
    wait_for("enough clients that owe a pong", || {
        for (at, client) in clients.iter_mut().enumerate() {
            if !asked.contains(&at) && client.poll_text().as_deref() == Some("{}") {
                asked.push(at);
            }
        }
        (asked.len() >= 30).then_some(())
    });
    pause(&server, || asked.iter().for_each(|at| clients[*at].send("{}")));
    for at in asked {
        clients[at].send(r#"{"id":2,"unsubscribe":{"channel":"a"}}"#);
        let answer = wait_for("an answer", || Some(clients[at].text()).filter(|text| text != "{}"));
        assert_eq!(answer, r#"{"id":2,"unsubscribe":{}}"#, "client {at}");
    }
    assert_eq!(server.metric("drumline_clients"), 60);
}

#[test]
fn a_connect_received_while_the_process_was_stopped_is_answered() {
    let server = server();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::open(&server, WEBSOCKET)).collect();
    pause(&server, || {
        clients.iter_mut().for_each(|client| client.send(r#"{"id":1,"connect":{}}"#));
    });
    for client in &mut clients {
        assert!(client.text().starts_with(r#"{"id":1,"connect":{"client""#));
    }
}
