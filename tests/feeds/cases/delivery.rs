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

pub async fn large_messages_that_wait_stop_the_reading_and_none_is_lost(broker: &mut Broker) {
    // About five of these messages fill the bound, and lapin may have read as many again.
    let few = json!({"prefetch": 500, "prefetch_bytes": 1 << 20});
    let mut node = Node::start(options(broker, "large", few)).await;
    node.decide(|_, _| Answer::Busy);
    let client = broker.client().await;
    let filling = "x".repeat(100_000);
    for number in 0..200 {
        client.publish("", "large", "", &format!("\"{number} {filling}\"")).await;
    }
    node.until("the feed to pause", |node| node.state.counters.pauses.get() > 0).await;
    // Three heartbeats: the silence of a socket that nobody reads is not the broker's.
    sleep(Duration::from_secs(3)).await;
    let counters = &node.state.counters;
    let received = counters.received.get();
    assert!((5..60).contains(&received), "{received} messages are in memory");
    assert_eq!((counters.up.get(), counters.processed.get()), (1, 0));
    node.decide(|_, _| Answer::Publish);
    node.until("all messages", |node| node.state.counters.processed.get() == 200).await;
    let numbers = node.published("large");
    let numbers: Vec<&str> =
        numbers.iter().filter_map(|data| data[1..].split(' ').next()).collect();
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected);
    let counters = &node.state.counters;
    assert_eq!((counters.redelivered.get(), counters.reconnects.get()), (0, 0));
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
