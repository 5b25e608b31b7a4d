//! Messages that the node refuses.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use tokio::time::sleep;

use super::options;
use crate::broker::{Broker, TestClient, properties};
use crate::node::{Answer, Node};

/// Refuses the data `"poison"`.
fn refuse_poison(_: &str, data: &str) -> Answer {
    if data == "\"poison\"" { Answer::Refuse } else { Answer::Publish }
}

/// A queue bound to an exchange of its own name.
async fn dead_letter_queue(client: &TestClient, name: &str) {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = ExchangeKind::Fanout;
    client
        .channel
        .exchange_declare(name.into(), kind, durable, FieldTable::default())
        .await
        .unwrap();
    bind(client, name).await;
}

async fn bind(client: &TestClient, name: &str) {
    let none = FieldTable::default;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(name.into(), durable, none()).await.unwrap();
    let options = QueueBindOptions::default();
    client.channel.queue_bind(name.into(), name.into(), "".into(), options, none()).await.unwrap();
}

pub async fn a_poison_message_among_good_ones_in_a_quorum_queue_is_set_aside(broker: &mut Broker) {
    let quorum = json!({
        "queue_type": "quorum",
        "queue_arguments": {"x-delivery-limit": "3"},
        "prefetch": 100,
        "dead_letter": {"attempts": 5, "delay": "300ms"},
    });
    let mut node = Node::start(options(broker, "poison", quorum)).await;
    let refusals = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = refusals.clone();
    node.decide(move |channel, data| {
        let answer = refuse_poison(channel, data);
        count
            .fetch_add(usize::from(answer == Answer::Refuse), std::sync::atomic::Ordering::Relaxed);
        answer
    });
    let client = broker.client().await;
    for number in 0..1000 {
        if number == 100 {
            client.publish("", "poison", "poison", "\"poison\"").await;
        }
        client.publish("", "poison", &format!("g{number}"), &number.to_string()).await;
    }
    node.until("the good messages", |node| node.count() == 1000).await;
    let counters = &node.state.counters;
    node.until("the poison message", |node| node.state.counters.set_aside.get() == 1).await;
    assert_eq!(refusals.load(std::sync::atomic::Ordering::Relaxed), 5, "attempts");
    assert_eq!(counters.redelivered.get(), 0, "the broker delivered each message once");
    assert_eq!(counters.received.get(), 1001);
    let expected: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    assert_eq!(node.published("poison"), expected, "in order, past the poison message");
    node.stop().await;
    assert_eq!(client.waiting("poison").await, 0);
}

pub async fn dead_letters_go_to_the_configured_exchange_with_their_cause(broker: &mut Broker) {
    let client = broker.client().await;
    dead_letter_queue(&client, "graves").await;
    let own = json!({"dead_letter": {
        "attempts": 2, "delay": "50ms", "action": "exchange", "exchange": "graves",
    }});
    let mut node = Node::start(options(broker, "mortal", own)).await;
    node.decide(refuse_poison);
    let sent = properties("p1", &[("colour", "red")]);
    client.publish_with("", "mortal", "\"poison\"", sent).await;
    client.publish("", "mortal", "g1", "1").await;
    node.until("both messages", |node| node.state.counters.processed.get() == 2).await;
    let letter = client.take("graves").await.expect("a dead letter");
    assert_eq!(letter.data, b"\"poison\"");
    let properties = &letter.properties;
    assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("p1"));
    let headers = properties.headers().clone().unwrap();
    let text = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!((text("x-drumline-consumer"), text("colour")), ("test".into(), "red".into()));
    assert_eq!(text("x-drumline-routing-key"), "mortal");
    assert!(text("x-drumline-cause").contains("error 107"), "{}", text("x-drumline-cause"));
    assert_eq!(client.waiting("mortal").await, 0);
    node.stop().await;
}

pub async fn dead_letters_that_no_queue_takes_stay_until_one_does(broker: &mut Broker) {
    let own = json!({"dead_letter": {
        "attempts": 1, "action": "exchange", "exchange": "limbo",
    }});
    let mut node = Node::start(options(broker, "undead", own)).await;
    node.decide(refuse_poison);
    let client = broker.client().await;
    client.publish("", "undead", "p", "\"poison\"").await;
    for number in 0..50 {
        client.publish("", "undead", "", &number.to_string()).await;
    }
    node.until("the good messages", |node| node.count() == 50).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(node.state.counters.set_aside.get(), 0, "there is no exchange for it");
    assert_eq!(node.state.counters.up.get(), 1);
    dead_letter_queue(&client, "limbo").await;
    node.until("the dead letter", |node| node.state.counters.set_aside.get() == 1).await;
    assert_eq!(client.waiting("limbo").await, 1);
    node.stop().await;
    assert_eq!(client.waiting("undead").await, 0);
}

pub async fn a_rejected_message_follows_the_policy_of_its_queue(broker: &mut Broker) {
    let client = broker.client().await;
    dead_letter_queue(&client, "policy").await;
    let own = json!({
        "queue_arguments": {"x-dead-letter-exchange": "policy"},
        "dead_letter": {"attempts": 1, "action": "reject"},
    });
    let mut node = Node::start(options(broker, "rejecting", own)).await;
    node.decide(refuse_poison);
    client.publish("", "rejecting", "p", "\"poison\"").await;
    client.publish("", "rejecting", "g", "1").await;
    node.until("both messages", |node| node.state.counters.processed.get() == 2).await;
    let mut letter = None;
    for _ in 0..100 {
        letter = client.take("policy").await;
        if letter.is_some() {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(letter.expect("the broker moved it").data, b"\"poison\"");
    assert_eq!(node.state.counters.redelivered.get(), 0);
    node.stop().await;
}
