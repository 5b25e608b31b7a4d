//! Brokers that end, fall silent or take away what the feed consumes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions};
use lapin::{Channel, Confirmation, Connection};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::options;
use crate::broker::{Broker, properties};
use crate::node::{Answer, Node};
use crate::relay::Relay;

pub async fn a_virtual_host_that_does_not_exist_is_waited_for(broker: &mut Broker) {
    let mut node = Node::start(options(broker, "hosted", json!({"vhost": "later"}))).await;
    node.until("a second attempt", |node| node.state.counters.reconnects.get() > 0).await;
    assert_eq!(node.state.counters.up.get(), 0);
    broker.control(&["add_vhost", "later"]);
    broker.control(&["set_permissions", "-p", "later", "guest", ".*", ".*", ".*"]);
    node.up().await;
    node.stop().await;
}

pub async fn a_queue_that_is_deleted_while_it_is_consumed_is_waited_for(broker: &mut Broker) {
    // A queue that does not exist is the same case.
    let mut node = Node::start(options(broker, "fleeting", json!({"declare": false}))).await;
    assert_eq!(node.state.counters.up.get(), 0);
    let client = broker.client().await;
    let declare = async || {
        let options = Default::default();
        client.channel.queue_declare("fleeting".into(), options, Default::default()).await.unwrap();
    };
    declare().await;
    node.up().await;
    client.publish("", "fleeting", "f", "0").await;
    node.until("a message", |node| node.count() == 1).await;
    let none = QueueDeleteOptions::default();
    client.channel.queue_delete("fleeting".into(), none).await.unwrap();
    node.within(Duration::from_secs(2), "the loss", |node| node.state.counters.up.get() == 0).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(node.state.counters.up.get(), 0, "there is no queue");
    let attempts = node.state.counters.reconnects.get();
    assert!(attempts < 20, "{attempts} attempts in 5 s");
    declare().await;
    for number in 0..100 {
        client.publish("", "fleeting", "", &number.to_string()).await;
    }
    node.until("all messages", |node| node.count() == 101).await;
    assert_eq!(node.state.counters.up.get(), 1);
    node.stop().await;
}

pub async fn a_frozen_broker_is_noticed_within_two_heartbeats(broker: &mut Broker) {
    let own = json!({"heartbeat": "2s", "connect_timeout": "1s"});
    let mut node = Node::start(options(broker, "frozen", own)).await;
    let client = broker.client().await;
    client.publish("", "frozen", "f1", "1").await;
    node.until("the message", |node| node.count() == 1).await;
    // An idle feed stays up: the broker offers no heartbeats, and the client asks for them.
    sleep(Duration::from_secs(6)).await;
    let counters = &node.state.counters;
    assert_eq!((counters.up.get(), counters.reconnects.get()), (1, 0));
    let threads = threads();
    broker.freeze();
    let began = Instant::now();
    node.down().await;
    let silence = began.elapsed();
    // Time for the scheduler of a busy machine is added to the two intervals.
    assert!(silence <= Duration::from_millis(4_500), "noticed after {silence:?}");
    node.until("reconnects", |node| node.state.counters.reconnects.get() >= 4).await;
    let more = self::threads().saturating_sub(threads);
    assert!(more <= 2, "{more} threads are left behind by attempts to connect");
    broker.thaw();
    node.up().await;
    let client = broker.client().await;
    client.publish("", "frozen", "f2", "2").await;
    node.until("the next message", |node| node.published("frozen") == ["1", "2"]).await;
    node.stop().await;
}

/// Number of threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

pub async fn dropped_packets_are_noticed_within_two_heartbeats(broker: &mut Broker) {
    let relay = Relay::start(broker.port).await;
    let own = json!({
        "url": format!("amqp://127.0.0.1:{}", relay.port),
        "heartbeat": "1s",
        "connect_timeout": "1s",
    });
    let mut node = Node::start(options(broker, "dropped", own)).await;
    let client = broker.client().await;
    client.publish("", "dropped", "d1", "1").await;
    node.until("the message", |node| node.count() == 1).await;
    relay.cut(true);
    let began = Instant::now();
    // Messages wait in the network, and more come while it is cut.
    for number in 2..=50 {
        client.publish("", "dropped", &format!("d{number}"), &number.to_string()).await;
    }
    node.down().await;
    let silence = began.elapsed();
    assert!(silence <= Duration::from_millis(2_500), "noticed after {silence:?}");
    node.until("reconnects", |node| node.state.counters.reconnects.get() >= 2).await;
    relay.cut(false);
    node.until("all messages", |node| node.count() == 50).await;
    node.up().await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(relay.connections(), 1, "the feed left no connection behind");
    node.stop().await;
}

pub async fn an_acknowledgement_that_takes_too_long_costs_no_message(broker: &mut Broker) {
    broker.control(&["eval", "application:set_env(rabbit, consumer_timeout, 2000)."]);
    let mut node = Node::start(options(broker, "late", json!({}))).await;
    node.decide(|_, _| Answer::Busy);
    let client = broker.client().await;
    for number in 0..10 {
        client.publish("", "late", &format!("l{number}"), &number.to_string()).await;
    }
    node.until("the broker to lose patience twice", |node| {
        node.state.counters.reconnects.get() >= 2
    })
    .await;
    let attempts = node.ledger().requests;
    assert!(attempts < 1_000, "{attempts} attempts");
    assert!(node.state.counters.reconnects.get() < 6, "{:?}", node.state);
    node.decide(|_, _| Answer::Publish);
    node.until("all messages", |node| node.count() == 10).await;
    node.up().await;
    sleep(Duration::from_secs(3)).await;
    let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let mut seen = node.published("late");
    seen.sort_unstable();
    assert_eq!(seen, expected, "each message once");
    node.stop().await;
    assert_eq!(client.waiting("late").await, 0);
    broker.control(&["eval", "application:set_env(rabbit, consumer_timeout, 1800000)."]);
}

/// Maximum time for one answer of a broker.
const PATIENCE: Duration = Duration::from_secs(5);

/// A channel with confirms, once the broker takes connections.
async fn confirming(broker_port: u16) -> Option<(Connection, Channel)> {
    let url = format!("amqp://127.0.0.1:{broker_port}/%2f?heartbeat=10");
    let connection = Connection::connect(&url, Default::default()).await.ok()?;
    let channel = connection.create_channel().await.ok()?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.ok()?;
    Some((connection, channel))
}

/// Publishes numbered messages until told to stop, over as many connections as it takes. Sends the
/// number of each message that the broker confirmed.
async fn publish_on(port: u16, stop: Arc<AtomicBool>, confirmed: mpsc::UnboundedSender<u64>) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        // A connection that is cut while it opens may never end.
        let Ok(Some((_connection, channel))) = timeout(PATIENCE, confirming(port)).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            // A message that no queue takes is confirmed too, but returned first.
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let (data, properties) = (number.to_string(), properties(&format!("k{number}"), &[]));
            let sent = channel.basic_publish(
                "".into(),
                "killed".into(),
                options,
                data.as_bytes(),
                properties,
            );
            let Ok(Ok(confirm)) = timeout(PATIENCE, sent).await else { break };
            match timeout(PATIENCE, confirm).await {
                Ok(Ok(Confirmation::Ack(None))) => _ = confirmed.send(number),
                _ => break,
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

pub async fn killed_brokers_lose_no_confirmed_message(broker: &mut Broker) {
    let kills: u64 = std::env::var("DRUMLINE_FEED_KILLS").map_or(3, |text| text.parse().unwrap());
    let mut node = Node::start(options(broker, "killed", json!({"prefetch": 50}))).await;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn(publish_on(broker.port, stop.clone(), sender));
    for kill in 0..kills {
        let before = node.count();
        node.until("messages between two kills", |node| node.count() > before + 100).await;
        sleep(Duration::from_millis(37 * kill % 400)).await;
        broker.kill();
        node.down().await;
        broker.start_again().await;
        node.up().await;
    }
    // A graceful restart too.
    broker.stop();
    node.down().await;
    broker.start_again().await;
    node.up().await;
    stop.store(true, Ordering::Relaxed);
    publisher.await.unwrap();
    let mut confirmed = BTreeSet::new();
    while let Ok(number) = receiver.try_recv() {
        confirmed.insert(number);
    }
    assert!(confirmed.len() as u64 > 100 * kills, "{} messages", confirmed.len());
    let seen = |node: &Node| -> Vec<u64> {
        node.published("killed").iter().map(|number| number.parse().unwrap()).collect()
    };
    let missing = |node: &Node| -> Vec<u64> {
        confirmed.difference(&seen(node).into_iter().collect()).copied().collect()
    };
    let began = Instant::now();
    while !missing(&node).is_empty() && began.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(missing(&node), [0; 0], "every confirmed message");
    let all = seen(&node);
    let once: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(once.len(), all.len(), "each message once");
    assert!(node.state.counters.reconnects.get() > kills, "{:?}", node.state);
    node.stop().await;
}
