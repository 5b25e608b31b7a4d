//! Configurations that the broker contradicts: they end the start.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::options;
use crate::broker::{Broker, TestClient};
use crate::node::{Node, config};

/// The failure of a start with these options.
async fn failure(options: Value) -> String {
    let failed = Node::try_start(options).await.err().expect("the start fails").to_string();
    assert!(failed.starts_with("consumer \"test\" (rabbitmq): "), "{failed}");
    failed
}

async fn declare(client: &TestClient, name: &str, arguments: &[(&str, &str)]) {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = LongString::from(value.as_bytes().to_vec());
        table.insert((*name).into(), AMQPValue::LongString(value));
    }
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(name.into(), durable, table).await.unwrap();
}

pub async fn a_queue_with_other_arguments_ends_the_start(broker: &mut Broker) {
    let client = broker.client().await;
    declare(&client, "taken", &[("x-overflow", "reject-publish")]).await;
    for own in [
        json!({}),
        json!({"queue_type": "quorum"}),
        json!({"durable": false, "queue_arguments": {"x-overflow": "reject-publish"}}),
    ] {
        let failed = failure(options(broker, "taken", own.clone())).await;
        assert!(failed.contains("\"taken\"") && failed.contains("inequivalent"), "{failed}");
        assert!(failed.contains("queue_arguments"), "{own}: {failed}");
    }
    // The same queue as it is, by its arguments or without a declaration.
    for own in
        [json!({"queue_arguments": {"x-overflow": "reject-publish"}}), json!({"declare": false})]
    {
        Node::start(options(broker, "taken", own)).await.stop().await;
    }
}

pub async fn an_exchange_of_another_type_ends_the_start(broker: &mut Broker) {
    let client = broker.client().await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = ExchangeKind::Fanout;
    let name = "fan".into();
    client.channel.exchange_declare(name, kind, durable, FieldTable::default()).await.unwrap();
    let own = json!({"exchange": "fan", "bindings": ["#"]});
    let failed = failure(options(broker, "fan-queue", own)).await;
    assert!(failed.contains("\"fan\"") && failed.contains("exchange_type"), "{failed}");
    let unknown = json!({"exchange": "fan", "exchange_type": "x-unknown", "bindings": ["#"]});
    let refused = config(&options(broker, "fan-queue", unknown)).unwrap_err();
    assert!(refused.cause.contains("\"x-unknown\" is unknown"), "{refused}");
}

pub async fn a_stream_ends_the_start(broker: &mut Broker) {
    let client = broker.client().await;
    declare(&client, "stream", &[("x-queue-type", "stream")]).await;
    client.publish("", "stream", "s1", "1").await;
    for own in [json!({"declare": false}), json!({"queue_type": "classic"}), json!({})] {
        let failed = failure(options(broker, "stream", own.clone())).await;
        assert!(failed.contains("\"stream\" is a stream"), "{own}: {failed}");
        assert!(failed.contains("position"), "the reason: {failed}");
    }
}

/// A server that answers the first bytes of a client with these bytes.
async fn answering(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 8];
                let _ = client.read_exact(&mut head).await;
                let _ = client.write_all(bytes).await;
                let _ = client.shutdown().await;
                let _ = client.read(&mut head).await;
            });
        }
    });
    port
}

pub async fn a_broker_that_speaks_another_version_ends_the_start(broker: &mut Broker) {
    let port = answering(b"AMQP\x00\x01\x00\x00").await;
    let url = json!({"url": format!("amqp://127.0.0.1:{port}")});
    let failed = failure(options(broker, "q", url)).await;
    assert!(failed.contains("0-9-1"), "{failed}");
    // Another server is not AMQP at all: the operator may correct the network too.
    let port = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let url = json!({"url": format!("amqp://127.0.0.1:{port}")});
    let mut node = Node::start(options(broker, "q", url)).await;
    node.until("a second attempt", |node| node.state.counters.reconnects.get() > 0).await;
    assert_eq!(node.state.counters.up.get(), 0);
    node.stop().await;
}

pub async fn certificates_that_nobody_trusts_end_the_start(broker: &mut Broker) {
    let url = format!("amqps://localhost:{}", broker.tls_port);
    let authority = broker.authority().display().to_string();
    let failed = failure(options(broker, "secret", json!({"url": url}))).await;
    assert!(failed.contains("server_ca_pem"), "{failed}");
    let other = format!("amqps://127.0.0.1:{}", broker.tls_port);
    let own = json!({"url": other, "tls": {"server_ca_pem": authority}});
    let failed = failure(options(broker, "secret", own)).await;
    assert!(failed.contains("server_name"), "{failed}");
    let absent = json!({"url": url, "tls": {"server_ca_pem": "/absent.pem"}});
    let failed = failure(options(broker, "secret", absent)).await;
    assert!(failed.contains("tls.server_ca_pem"), "{failed}");
    let text = std::fs::read_to_string(&authority).unwrap();
    for own in [
        json!({"url": url, "tls": {"server_ca_pem": authority}}),
        json!({"url": other, "tls": {"server_ca_pem": text, "server_name": "localhost"}}),
        // Neither the authority nor the name is right.
        json!({"url": other, "tls": {"insecure_skip_verify": true}}),
    ] {
        let mut node = Node::start(options(broker, "secret", own)).await;
        broker.client().await.publish("", "secret", "", "1").await;
        node.until("the message", |node| node.count() == 1).await;
        node.stop().await;
    }
}
