//! Acknowledgements, repeated messages and back pressure.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::options;
use crate::broker::Broker;
use crate::node::{Answer, Node};

pub async fn a_repeated_message_is_published_once(broker: &mut Broker) {
    let mut node = Node::start(options(broker, "repeated", json!({}))).await;
    let client = broker.client().await;
    for _ in 0..3 {
        client.publish("", "repeated", "same", "1").await;
    }
    client.publish("", "repeated", "", "2").await;
    client.publish("", "repeated", "", "2").await;
    node.until("all messages", |node| node.state.counters.processed.get() == 5).await;
    // Messages without an ID are not known to be the same.
    assert_eq!(node.published("repeated"), ["1", "2", "2"]);
    node.stop().await;
}

pub async fn an_overloaded_node_stops_the_broker_and_loses_nothing(broker: &mut Broker) {
    let few = json!({"prefetch": 20});
    let mut node = Node::start(options(broker, "pressure", few)).await;
    node.decide(|_, _| Answer::Busy);
    let client = broker.client().await;
    for number in 0..200 {
        client.publish("", "pressure", &format!("b{number}"), &number.to_string()).await;
    }
    node.until("the broker to stop", |node| node.state.counters.received.get() == 20).await;
    sleep(Duration::from_secs(2)).await;
    let counters = &node.state.counters;
    assert_eq!((counters.received.get(), counters.in_flight.get()), (20, 20));
    assert_eq!((counters.up.get(), counters.processed.get()), (1, 0));
    assert_eq!(client.waiting("pressure").await, 180);
    node.decide(|_, _| Answer::Publish);
    node.until("all messages", |node| node.state.counters.processed.get() == 200).await;
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(node.published("pressure"), expected);
    assert_eq!(node.state.counters.redelivered.get(), 0);
    node.stop().await;
}

pub async fn a_stopped_feed_leaves_nothing_unacknowledged(broker: &mut Broker) {
    let mut node = Node::start(options(broker, "stopped", json!({}))).await;
    let client = broker.client().await;
    let mut sent = 0;
    for _ in 0..3 {
        // The feed is stopped while messages arrive. Without IDs a repeated one would be seen.
        for _ in 0..100 {
            client.publish("", "stopped", "", &sent.to_string()).await;
            sent += 1;
        }
        node = node.restart().await;
        // A stopped feed finishes what the broker has sent, so no delivery count rises.
        assert_eq!(node.state.counters.redelivered.get(), 0);
    }
    node.until("all messages", |node| node.count() >= sent).await;
    node.stop().await;
    let expected: Vec<String> = (0..sent).map(|number| number.to_string()).collect();
    let mut seen = node.published("stopped");
    seen.sort_by_key(|number| number.parse::<usize>().unwrap());
    assert_eq!(seen, expected);
    assert_eq!(node.state.counters.redelivered.get(), 0);
    assert_eq!(client.waiting("stopped").await, 0);
}
