//! Slots of connections: each becomes free again, and a full node refuses with an answer.

use std::net::{Shutdown, SocketAddr};

use drumline::base::listeners::ListenAddress;
use drumline::base::metrics::Metrics;
use drumline::config::Config;
use drumline::engine::node::{Node, NodeSettings};
use drumline::model::message::{Message, Post, RANKS, Rank};
use drumline::model::snapshot::NodeSecrets;

use crate::common::{Client, Server, UNI_WEBSOCKET, WEBSOCKET};
use crate::common::{free_port, upgrade_request, wait_for};

#[test]
fn a_closed_connection_frees_its_slot() {
    let server = Server::start(&[]);
    let before = server.settle();
    for round in 0..3 {
        let mut clients = Vec::new();
        for nth in 0..60 {
            clients.push(match nth % 6 {
                0 => Client::dial(&server),
                1 => {
                    let mut client = Client::dial(&server);
                    client.send_raw(&upgrade_request(WEBSOCKET).as_bytes()[..40]);
                    client
                }
                2 => Client::open(&server, WEBSOCKET),
                3 => Client::connected(&server),
                4 => {
                    let mut client = Client::subscribed(&server, "a");
                    client.send_raw(b"\x81\xfe");
                    client
                }
                _ => Client::open(&server, UNI_WEBSOCKET),
            });
        }
        server.wait_metric("drumline_sockets", |sockets| sockets >= before + 60);
        server.wait_metric("drumline_clients", |count| count == 20);
        let mut halves = Vec::new();
        for (nth, client) in clients.into_iter().enumerate() {
            match (nth + round) % 3 {
                0 => client.vanish(),
                1 => {
                    client.stream.shutdown(Shutdown::Write).unwrap();
                    halves.push(client);
                }
                _ => drop(client),
            }
        }
        server.wait_metric("drumline_clients", |clients| clients == 0);
        server.wait_metric("drumline_sockets", |sockets| sockets <= before);
        server.wait_metric("drumline_subscriptions", |count| count == 0);
        server.wait_metric("drumline_channels", |count| count == 0);
    }
}

#[test]
fn a_full_node_refuses_new_clients_and_keeps_the_others() {
    let server = Server::start(&["--shards", "1", "--engine.slots_per_shard", "40"]);
    let mut clients = Vec::new();
    let refusal = loop {
        assert!(clients.len() < 40, "more clients than slots");
        let mut client = Client::dial(&server);
        client.send_raw(upgrade_request(WEBSOCKET).as_bytes());
        let head = client.read_head();
        if !head.starts_with("HTTP/1.1 101 ") {
            break head;
        }
        client.send(concat!(
            r#"{"id":1,"connect":{}}"#,
            "\n",
            r#"{"id":2,"subscribe":{"channel":"a"}}"#
        ));
        client.text();
        assert_eq!(client.text(), r#"{"id":2,"subscribe":{}}"#);
        clients.push(client);
    };
    assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
    assert!(clients.len() >= 24, "only {} clients in 40 slots", clients.len());
    for _ in 0..20 {
        let mut client = Client::dial(&server);
        client.send_raw(upgrade_request(WEBSOCKET).as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 503 "));
    }
    assert!(server.metric("drumline_refused_total") >= 21);
    clients[0].send(r#"{"id":3,"publish":{"channel":"a","data":1}}"#);
    for client in &mut clients[1..] {
        assert_eq!(client.push(), r#"{"push":{"channel":"a","pub":{"data":1}}}"#);
    }
    let full = clients.len() as u64;
    clients.pop();
    server.wait_metric("drumline_clients", |clients| clients == full - 1);
    server.settle();
    clients.push(Client::connected(&server));
    assert!(clients.iter_mut().all(Client::is_alive));
}

/// Limits can make shards of unequal size. No flag sets their sizes, so the test starts
/// a node itself.
#[test]
fn a_full_shard_hands_new_sockets_to_another_shard() {
    drumline::base::sys::raise_open_files().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut config = Config::default();
    config.client.insecure = true;
    let plan = NodeSettings {
        has_store: false,
        secrets: NodeSecrets { names: [1; 16], epochs: 1 },
        listeners: vec![ListenAddress::Tcp(address)],
        slots: vec![100, 1000],
        listener: config.listener_options(),
        inboxes: [config.engine.inbox; RANKS],
        rings: config.ring_sizes(),
        hub: config.hub_settings(0),
    };
    let mut node = Node::start(plan, Box::new(|| {})).unwrap();
    node.open(Vec::new());
    let sum = |get: fn(&Metrics) -> u64| node.metrics.iter().map(|shard| get(shard)).sum::<u64>();
    let mut clients: Vec<_> = (0..900).map(|_| Client::connected(address)).collect();
    assert_eq!(sum(|shard| shard.refused.get()), 0);
    assert!(sum(|shard| shard.relayed.get()) > 200);
    wait_for("900 clients", || (sum(|shard| shard.clients.get()) == 900).then_some(()));
    assert!(clients.iter_mut().all(Client::is_alive));
    drop(clients);
    wait_for("no client", || (sum(|shard| shard.clients.get()) == 0).then_some(()));
    let mut line = node.bus.port(node.bus.control());
    for shard in 0..2 {
        for message in [Message::Drain(0), Message::Stop] {
            assert!(line.reserve(shard, Rank::Ingress));
            line.send(shard, message);
        }
    }
    line.wake_receivers();
    node.join();
}
