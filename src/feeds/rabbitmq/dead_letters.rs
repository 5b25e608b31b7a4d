//! Messages that were set aside: published to the configured exchange, with a confirm.
//!
//! Owns a connection of its own, because the broker may block connections that publish. The
//! invariant: a message counts as set aside only after the broker has confirmed that a queue has
//! it.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tracing::Level;

use super::connect::{Broker, BrokerLink};
use super::faults::{self, Step};
use super::topology::short;
use crate::base::backoff::Backoff;
use crate::feeds::feed::FeedState;
use crate::feeds::message::Fault;

/// Pauses between two attempts to publish a dead letter.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// Publishes dead letters.
pub struct DeadLetters {
    broker: Arc<Broker>,
    exchange: String,
    routing_key: String,
    state: Arc<FeedState>,
    channel: Mutex<Option<(BrokerLink, Channel)>>,
}

/// A dead letter.
pub struct DeadLetter {
    /// Routing key of the message.
    pub routing_key: String,
    /// Its properties, with the cause.
    pub properties: BasicProperties,
    /// Its body.
    pub body: Vec<u8>,
}

impl DeadLetters {
    /// Publishes to this exchange, with this routing key or the message's own.
    pub fn new(
        broker: &Arc<Broker>,
        exchange: &str,
        routing_key: &str,
        state: Arc<FeedState>,
    ) -> Self {
        DeadLetters {
            broker: broker.clone(),
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            state,
            channel: Mutex::default(),
        }
    }

    /// Publishes a dead letter, and repeats it until the broker has confirmed it.
    pub async fn publish(&self, letter: &DeadLetter) {
        let mut pauses = PAUSES;
        while let Err(fault) = self.attempt(letter).await {
            let what = "a message that cannot be published keeps its place in the queue";
            self.state.log(Level::WARN, format_args!("{what}: {fault}"));
            sleep(pauses.pause()).await;
        }
    }

    async fn attempt(&self, letter: &DeadLetter) -> Result<(), Fault> {
        let mut channel = self.channel.lock().await;
        let limit = self.broker.connect_timeout;
        let published = timeout(limit, self.once(&mut channel, letter)).await;
        let published = published
            .unwrap_or_else(|_| Err(faults::timed_out(&self.broker.url, limit, "dead letter")));
        if published.is_err() {
            *channel = None;
        }
        published
    }

    async fn once(
        &self,
        open: &mut Option<(BrokerLink, Channel)>,
        letter: &DeadLetter,
    ) -> Result<(), Fault> {
        let step = Step::DeadLetter(self.exchange.clone());
        let failed = |error| faults::of(&self.broker.url, &step, &error);
        if open.is_none() {
            let link = self.broker.connect().await?;
            let channel = link.connection.create_channel().await.map_err(failed)?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
            *open = Some((link, channel));
        }
        let Some((_, channel)) = open else { return Ok(()) };
        let key = if self.routing_key.is_empty() { &letter.routing_key } else { &self.routing_key };
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = channel
            .basic_publish(
                short(&self.exchange),
                short(key),
                mandatory,
                &letter.body,
                letter.properties.clone(),
            )
            .await;
        let exchange = &self.exchange;
        match confirm.map_err(failed)?.await.map_err(failed)? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(Fault::passing(
                format!("the exchange {exchange:?} has no queue for dead letters with key {key:?}"),
                "bind a queue to it, or correct dead_letter",
            )),
            _ => Err(Fault::passing(
                format!("the broker did not take the dead letter for the exchange {exchange:?}"),
                "see the log of the broker",
            )),
        }
    }
}
