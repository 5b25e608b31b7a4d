//! The payload modes over a real broker.

use lapin::types::AMQPValue;
use serde_json::json;

use super::options;
use crate::broker::{Broker, properties};
use crate::node::Node;

pub async fn publications_are_addressed_by_headers_and_template(broker: &mut Broker) {
    let template = json!({
        "exchange": "modes",
        "exchange_type": "direct",
        "bindings": ["a.b", "x"],
        "publication_data_mode": {"channel_template": "by-{header.symbol}-{routing_key.0}"},
    });
    let mut node = Node::start(options(broker, "modes", template)).await;
    let client = broker.client().await;
    let send = async |key: &str, id: &str, headers: &[(&str, &str)], body: &str| {
        client.publish_with("modes", key, body, properties(id, headers)).await;
    };
    send("a.b", "m1", &[("symbol", "ACME")], "1").await;
    send("x", "m2", &[("centrifugo-channels", "one, two,one")], "2").await;
    let all = [
        ("centrifugo-channels", "three"),
        ("centrifugo-version", "7"),
        ("centrifugo-version-epoch", "e"),
        ("centrifugo-delta", "true"),
        ("centrifugo-tag-kind", "bid"),
        ("centrifugo-idempotency-key", "k"),
    ];
    send("x", "m3", &all, "3").await;
    // The key of the header counts, not the message ID.
    send("x", "m4", &all, "4").await;
    let mut numbers = properties("m5", &[("symbol", "N")]);
    let mut headers = numbers.headers().clone().unwrap();
    headers.insert("centrifugo-version".into(), AMQPValue::LongLongInt(9));
    numbers = numbers.with_headers(headers);
    client.publish_with("modes", "x", "5", numbers).await;
    node.until("all messages", |node| node.state.counters.processed.get() == 5).await;
    for (channel, expected) in
        [("by-ACME-a", "1"), ("one", "2"), ("two", "2"), ("three", "3"), ("by-N-x", "5")]
    {
        assert_eq!(node.published(channel), [expected], "{channel}");
    }
    check_extras(&node);
    node.stop().await;
}

/// Checks version, tags and delta of two publications.
fn check_extras(node: &Node) {
    let ledger = node.ledger();
    let extra = |channel: &str| {
        let at = ledger.published.iter().position(|(name, _)| name == channel).unwrap();
        ledger.extras[at].clone()
    };
    assert_eq!(extra("three"), (vec![("kind".to_owned(), "bid".to_owned())], 7, true));
    assert_eq!(extra("by-N-x").1, 9, "numbers are versions too");
}

pub async fn api_commands_are_run(broker: &mut Broker) {
    let commands = json!({"publication_data_mode": {"enabled": false, "channel_template": ""}});
    let mut node = Node::start(options(broker, "commands", commands)).await;
    let client = broker.client().await;
    let publish = json!({"method": "publish", "payload": {"channel": "news", "data": {"a": 1}}});
    client.publish("", "commands", "c1", &publish.to_string()).await;
    client.publish("", "commands", "c1", &publish.to_string()).await;
    // Some sources write the payload as a string.
    let text = json!({"channel": "news", "data": 2}).to_string();
    let text = json!({"method": "publish", "payload": text}).to_string();
    client.publish("", "commands", "", &text).await;
    let broadcast = json!({"channels": ["a", "b"], "data": 3, "idempotency_key": "k"}).to_string();
    let header = properties("c2", &[("centrifugo-method", "broadcast")]);
    client.publish_with("", "commands", &broadcast, header.clone()).await;
    client.publish_with("", "commands", &broadcast, header).await;
    let unsubscribe = json!({"method": "unsubscribe", "payload": {"user": "u", "channel": "a"}});
    client.publish("", "commands", "", &unsubscribe.to_string()).await;
    node.until("all messages", |node| node.state.counters.processed.get() == 6).await;
    assert_eq!(node.published("news"), [r#"{"a":1}"#, "2"]);
    assert_eq!((node.published("a"), node.published("b")), (vec!["3".into()], vec!["3".into()]));
    assert_eq!(node.state.counters.set_aside.get(), 0);
    node.stop().await;
}

pub async fn messages_that_cannot_be_read_are_set_aside_and_the_feed_goes_on(broker: &mut Broker) {
    let template = json!({"publication_data_mode": {"channel_template": "{header.symbol}"}});
    let mut node = Node::start(options(broker, "bad", template)).await;
    let client = broker.client().await;
    let channels = ("centrifugo-channels", "a");
    let bad: [&[(&str, &str)]; 6] = [
        // The template's field is missing.
        &[],
        &[("symbol", "")],
        &[channels, ("centrifugo-version", "x")],
        &[channels, ("centrifugo-version", "-1")],
        &[channels, ("centrifugo-delta", "maybe")],
        // A channel of an unknown namespace is refused by the node, after some attempts.
        &[("centrifugo-channels", "unknown:a")],
    ];
    for headers in bad {
        client.publish_with("", "bad", "1", properties("", headers)).await;
    }
    client.publish_with("", "bad", "not json", properties("j", &[channels])).await;
    client.publish_with("", "bad", "", properties("e", &[channels])).await;
    client.publish_with("", "bad", "\"good\"", properties("g", &[channels])).await;
    node.until("the good message", |node| node.published("a") == ["\"good\""]).await;
    node.until("the others", |node| node.state.counters.set_aside.get() == 8).await;
    assert_eq!(client.waiting("bad").await, 0);
    node.stop().await;

    let commands = json!({"publication_data_mode": {"enabled": false, "channel_template": ""}});
    let mut node = Node::start(options(broker, "bad-commands", commands)).await;
    for body in [
        "",
        "{",
        "[]",
        r#"["publish",{"channel":"a","data":1}]"#,
        r#"{"payload":{}}"#,
        r#"{"method":"bogus","payload":{}}"#,
        r#"{"method":"info","payload":{}}"#,
        r#"{"method":"publish","payload":{"channel":1}}"#,
        r#"{"method":"publish","payload":{"channel":"a"}}"#,
        r#"{"method":"broadcast","payload":{"channels":[],"data":1}}"#,
        r#"{"method":"disconnect","payload":{}}"#,
        r#"{"method":"subscribe","payload":{"user":"u","channel":"a","expire_at":1}}"#,
    ] {
        client.publish("", "bad-commands", "", body).await;
    }
    let good = r#"{"method":"publish","payload":{"channel":"a","data":1}}"#;
    client.publish("", "bad-commands", "", good).await;
    node.until("the good command", |node| node.published("a") == ["1"]).await;
    node.until("the others", |node| node.state.counters.set_aside.get() == 12).await;
    assert_eq!(client.waiting("bad-commands").await, 0);
    node.stop().await;
}
