//! The order of messages.

use std::collections::HashMap;

use serde_json::json;

use super::options;
use crate::broker::Broker;
use crate::node::{Answer, Node};

pub async fn messages_of_a_channel_stay_in_order_while_the_node_is_overloaded(broker: &mut Broker) {
    let bound = json!({"exchange": "ordered", "bindings": ["#"]});
    let mut node = Node::start(options(broker, "ordered", bound)).await;
    // Each publication fails the first time it comes, and every third one also the second time.
    let mut attempts: HashMap<(String, String), u32> = HashMap::new();
    node.decide(move |channel, data| {
        let seen = attempts.entry((channel.to_owned(), data.to_owned())).or_default();
        *seen += 1;
        let wanted = 1 + u32::from(data.ends_with(['3', '6', '9']));
        if *seen <= wanted { Answer::Busy } else { Answer::Publish }
    });
    let client = broker.client().await;
    for number in 0..50 {
        for channel in ["a", "b", "c"] {
            client.publish("ordered", channel, "", &number.to_string()).await;
        }
    }
    node.until("all messages", |node| node.count() == 150).await;
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    for channel in ["a", "b", "c"] {
        assert_eq!(node.published(channel), expected, "{channel}");
    }
    assert!(node.state.counters.retried.get() >= 150, "{:?}", node.state);
    node.stop().await;
}

pub async fn a_command_runs_after_the_messages_before_it(broker: &mut Broker) {
    let commands = json!({"publication_data_mode": {"enabled": false, "channel_template": ""}});
    let mut node = Node::start(options(broker, "barrier", commands)).await;
    node.decide(|_, _| Answer::Busy);
    let client = broker.client().await;
    let publish = r#"{"method":"publish","payload":{"channel":"a","data":1}}"#;
    let command = r#"{"method":"disconnect","payload":{"user":"u"}}"#;
    let after = r#"{"method":"publish","payload":{"channel":"b","data":2}}"#;
    for body in [publish, command, after] {
        client.publish("", "barrier", "", body).await;
    }
    node.until("the first message", |node| node.ledger().requests > 1).await;
    assert_eq!(node.state.counters.processed.get(), 0);
    assert_eq!(node.count(), 0, "the message after the command waits");
    node.decide(|_, _| Answer::Publish);
    node.until("all messages", |node| node.state.counters.processed.get() == 3).await;
    let channels: Vec<String> =
        node.ledger().published.iter().map(|(channel, _)| channel.clone()).collect();
    assert_eq!(channels, ["a", "b"]);
    node.stop().await;
}
