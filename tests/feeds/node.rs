//! A node of the tests: feeds of the real configuration over a bus whose shards the test controls.
//!
//! Owns the shards. They note each publication, know idempotency keys as homes do, and answer as
//! the test says.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use drumline::base::current::Current;
use drumline::base::failure::Failure;
use drumline::base::memory::{MemoryBudgets, MemoryLimits};
use drumline::base::metrics::Metrics;
use drumline::base::sys::Clock;
use drumline::config::{Config, Sources, load};
use drumline::control::api::{NodeState, feed_commands};
use drumline::engine::bus::Bus;
use drumline::feeds::feed::{Destination, DestinationOptions, FeedState};
use drumline::feeds::start::{Feeds, PreparedFeeds};
use drumline::link::Link;
use drumline::model::message::{Message, Post, Publish, Published, RANKS, Rank};
use drumline::model::names::Names;
use drumline::wire::protocol::{Epoch, Error, Position};
use tokio::sync::Notify;

/// How a shard answers a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It publishes it.
    Publish,
    /// It is overloaded: error 100.
    Busy,
    /// It refuses it: error 107.
    Refuse,
}

/// Tags, version and the request for a delta.
pub type Extra = (Vec<(String, String)>, u64, bool);

/// What the shards saw.
#[derive(Default)]
pub struct Ledger {
    /// Channel and data of each publication that was published, in order.
    pub published: Vec<(String, String)>,
    /// Requests, with those that were not published.
    pub requests: usize,
    keys: HashSet<(String, String)>,
    /// Tags and versions of publications, in the order of `published`.
    pub extras: Vec<Extra>,
}

type Decide = Box<dyn FnMut(&str, &str) -> Answer + Send>;

struct Shards {
    ledger: Mutex<Ledger>,
    decide: Mutex<Decide>,
}

/// A node with feeds.
pub struct Node {
    shards: Arc<Shards>,
    link: Arc<Link>,
    config: Arc<Config>,
    feeds: Option<Feeds>,
    pub state: Arc<FeedState>,
}

/// The configuration of one consumer of RabbitMQ named `test`, from its options as JSON.
pub fn config(options: &serde_json::Value) -> Result<Config, drumline::config::Error> {
    let consumers = serde_json::json!([
        {"name": "test", "enabled": true, "type": "rabbitmq", "rabbitmq": options}
    ]);
    let flags = vec![("consumers".to_owned(), consumers.to_string())];
    let sources = Sources { file: Some(PathBuf::from("/dev/null")), flags, ..Sources::default() };
    load(&sources).map(|loaded| loaded.config)
}

fn link(shards: &Arc<Shards>, capacity: usize) -> Arc<Link> {
    let bell = Arc::new(Notify::new());
    let rung = bell.clone();
    let bus = Bus::new(2, 1, [capacity; RANKS], Box::new(move || rung.notify_one())).unwrap();
    for shard in 0..2 {
        let mut line = bus.port(shard);
        let (control, shards) = (bus.control(), Arc::downgrade(shards));
        std::thread::spawn(move || {
            while let Some(shards) = shards.upgrade() {
                for rank in Rank::SERVED {
                    while let Some(message) = line.take(rank) {
                        if let Some(answer) = shards.answer(message) {
                            line.send(control, answer);
                        }
                        line.wake_receivers();
                    }
                }
                drop(shards);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
    }
    let metrics: Arc<[Arc<Metrics>]> = (0..2).map(|_| Arc::default()).collect();
    let budgets = MemoryBudgets::new(&MemoryLimits::all(0), 2);
    let link =
        Arc::new(Link::new(bus, Names::new([7; 16], 2), metrics, budgets, (bell, Clock::new())));
    let dispatched = link.clone();
    tokio::spawn(async move { dispatched.dispatch(|_| {}, |_| {}, |_| {}).await });
    link
}

impl Shards {
    fn answer(&self, message: Message) -> Option<Message> {
        let publish = match message {
            Message::Publish(publish) => publish,
            Message::Order(request) => return Some(Message::Ordered(request.tag)),
            _ => return None,
        };
        let reply_to = publish.reply_to;
        let outcome = self.publish(*publish)?;
        let published = Published { reply_to, outcome, publication: None };
        Some(Message::Published(Box::new(published)))
    }

    fn publish(&self, publish: Publish) -> Option<Result<Option<Position>, Error>> {
        let data = String::from_utf8_lossy(&publish.data).into_owned();
        let channel = publish.channel.to_string();
        let answer = (self.decide.lock().unwrap())(&channel, &data);
        let mut ledger = self.ledger.lock().unwrap();
        ledger.requests += 1;
        match answer {
            Answer::Busy => return Some(Err(Error::INTERNAL)),
            Answer::Refuse => return Some(Err(Error::BAD_REQUEST)),
            Answer::Publish => {}
        }
        let key = publish.guard.map(|guard| guard.key.to_string()).unwrap_or_default();
        if key.is_empty() || ledger.keys.insert((channel.clone(), key)) {
            let extra = publish.extra.as_deref().cloned().unwrap_or_default();
            let own = |(name, value): &(Box<str>, Box<str>)| (name.to_string(), value.to_string());
            let tags = extra.tags.iter().map(own).collect();
            ledger.extras.push((tags, extra.version, publish.delta));
            ledger.published.push((channel, data));
        }
        Some(Ok(Some(Position { offset: 1, epoch: Epoch::parse("abcdefgh") })))
    }
}

impl Node {
    /// A node whose shards publish everything.
    pub async fn start(options: serde_json::Value) -> Node {
        Node::try_start(options).await.expect("the feed starts")
    }

    /// The same, unless the broker contradicts the configuration.
    pub async fn try_start(options: serde_json::Value) -> Result<Node, Failure> {
        let decide: Decide = Box::new(|_, _| Answer::Publish);
        let config = Arc::new(config(&options).expect("a valid configuration"));
        let prepared = PreparedFeeds::new(&config).await?;
        let shards = Arc::new(Shards { ledger: Mutex::default(), decide: Mutex::new(decide) });
        let link = link(&shards, 64);
        Ok(Node::run(shards, link, config, prepared))
    }

    fn run(
        shards: Arc<Shards>,
        link: Arc<Link>,
        config: Arc<Config>,
        prepared: PreparedFeeds,
    ) -> Node {
        let options = DestinationOptions {
            namespaces: config.namespaces(),
            publication_max: config.client.queue_max_size,
            commands: feed_commands(&config, &link, &Arc::new(NodeState::new(&link, &[]))),
        };
        let options = Arc::new(Current::new(options));
        let destination = Destination { link: link.clone(), options };
        let feeds = prepared.start(&destination);
        let state = feeds.states().remove(0);
        Node { shards, link, config, feeds: Some(feeds), state }
    }

    /// Answers publications as `decide` says.
    pub fn decide(&self, decide: impl FnMut(&str, &str) -> Answer + Send + 'static) {
        *self.shards.decide.lock().unwrap() = Box::new(decide);
    }

    /// What the shards saw.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shards.ledger.lock().unwrap()
    }

    /// The data of the publications of a channel, in order.
    pub fn published(&self, channel: &str) -> Vec<String> {
        let ledger = self.ledger();
        let of = ledger.published.iter().filter(|(name, _)| name == channel);
        of.map(|(_, data)| data.clone()).collect()
    }

    /// Number of publications.
    pub fn count(&self) -> usize {
        self.ledger().published.len()
    }

    /// Waits until a condition holds.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&Node) -> bool) {
        self.within(Duration::from_secs(60), what, &mut holds).await;
    }

    /// The same, for this time at most.
    pub async fn within(&self, time: Duration, what: &str, mut holds: impl FnMut(&Node) -> bool) {
        let began = std::time::Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < time, "waited too long for {what}: {:?}", self.state);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the feed receives.
    pub async fn up(&self) {
        self.until("the feed to be up", |node| node.state.counters.up.get() == 1).await;
    }

    /// Waits until the feed has lost its broker.
    pub async fn down(&self) {
        self.until("the feed to be down", |node| node.state.counters.up.get() == 0).await;
    }

    /// Stops the feed, as at a shutdown.
    pub async fn stop(&mut self) {
        if let Some(feeds) = self.feeds.take() {
            feeds.stop().await;
        }
    }

    /// Starts the feed again over the same shards, with the same configuration.
    pub async fn restart(mut self) -> Node {
        self.stop().await;
        let prepared = PreparedFeeds::new(&self.config).await.expect("the feed starts");
        Node::run(self.shards, self.link, self.config, prepared)
    }
}
