//! The real server between broker and subscriber.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::options;
use crate::broker::{Broker, properties};
use crate::common::{Client, Server, command, wait_for};
use crate::node::Node;

fn consumers(options: &Value) -> String {
    json!([{"name": "prices", "enabled": true, "type": "rabbitmq", "rabbitmq": options}])
        .to_string()
}

pub async fn a_message_reaches_a_subscriber(broker: &mut Broker) {
    let template = json!({
        "exchange": "stocks",
        "bindings": ["price.#"],
        "publication_data_mode": {"channel_template": "stock:{routing_key.1}"},
    });
    let consumers = consumers(&options(broker, "end-to-end", template));
    let mut server = Server::start(&["--consumers", &consumers, "--channel.namespaces", "stock"]);
    let mut subscriber = Client::subscribed(&server, "stock:ACME");
    let client = broker.client().await;
    for price in 1..=3 {
        client.publish("stocks", "price.ACME", &format!("p{price}"), &price.to_string()).await;
    }
    for price in 1..=3 {
        let push = subscriber.push();
        let expected = format!(r#"{{"push":{{"channel":"stock:ACME","pub":{{"data":{price}}}}}}}"#);
        assert_eq!(push, expected);
    }
    let label = r#"drumline_consumers_messages_processed_total{consumer_name="prices"} 3"#;
    let processed = || server.metrics().contains(label).then_some(());
    wait_for("the messages to be processed", processed);
    assert!(server.metrics().contains(r#"drumline_consumers_up{consumer_name="prices"} 1"#));
    server.signal_stop();
    assert!(server.wait().success());
    assert_eq!(client.waiting("end-to-end").await, 0, "every message was acknowledged");
}

/// Runs the server until it ends.
fn failed_start(options: &Value) -> Output {
    let consumers = consumers(options);
    let flags = ["serve", "--http_server.port", "0", "--shards", "1", "--consumers", &consumers];
    command().args(flags).stdin(Stdio::null()).output().unwrap()
}

pub async fn wrong_credentials_end_the_start_and_show_no_secret(broker: &mut Broker) {
    for own in [
        json!({"url": format!("amqp://guest:hunter2@127.0.0.1:{}", broker.port)}),
        json!({"user": "nobody", "password": "hunter2"}),
    ] {
        let output = failed_start(&options(broker, "q", own));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("consumer \"prices\"") && text.contains("refused"), "{text}");
        assert!(text.contains("password"), "the cure names it: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

pub async fn bad_messages_are_logged_with_consumer_id_and_cause(broker: &mut Broker) {
    let template = json!({
        "url": format!("amqp://guest:guest@127.0.0.1:{}", broker.port),
        "publication_data_mode": {"channel_template": "{header.symbol}"},
    });
    let consumers = consumers(&options(broker, "logged", template));
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let flags = ["--client.insecure", "--shards", "1", "--consumers", &consumers];
    let mut server = Server::launch(&flags, |command| _ = command.stderr(file));
    let client = broker.client().await;
    // The server declares the queue at its start.
    let text = || std::fs::read_to_string(&log).unwrap();
    wait_for("the feed", || text().contains("receives messages").then_some(()));
    client.publish("", "logged", "m-17", "\"private\"").await;
    let headers = [("symbol", "unknown:a")];
    client.publish_with("", "logged", "\"private\"", properties("m-18\n", &headers)).await;
    wait_for("both log lines", || (text().matches("cannot publish").count() == 2).then_some(()));
    let text = text();
    for part in [
        "consumer \"prices\" (rabbitmq): cannot publish message \"m-17\": ",
        "the message has no header symbol, which channel_template needs",
        "cannot publish message \"m-18\\n\": channel \"unknown:a\": error 102 (unknown channel)",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(!text.contains("private") && !text.contains("guest"), "{text}");
    server.signal_stop();
    assert!(server.wait().success());
}

pub async fn a_broker_that_is_not_there_does_not_end_the_start(broker: &mut Broker) {
    broker.stop();
    let mut node = Node::start(options(broker, "absent", json!({}))).await;
    node.until("a second attempt", |node| node.state.counters.reconnects.get() > 0).await;
    assert_eq!(node.state.counters.up.get(), 0);
    broker.start_again().await;
    node.up().await;
    broker.client().await.publish("", "absent", "a1", "1").await;
    node.within(Duration::from_secs(10), "the message", |node| node.count() == 1).await;
    node.stop().await;
}
