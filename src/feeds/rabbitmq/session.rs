//! A session with a broker: deliveries of one channel and their acknowledgements.
//!
//! Owns connection, channel and ledger. Never publishes to the node. The invariants: an
//! acknowledgement goes only to the channel that delivered the message, and a broker that is silent
//! for two heartbeat intervals ends the session.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicRejectOptions};
use lapin::{BasicProperties, Channel, Consumer};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::connect::{Broker, BrokerLink};
use super::dead_letters::{DeadLetter, DeadLetters};
use super::faults::{self, Step};
use super::headers;
use super::ledger::Ledger;
use crate::feeds::feed::FeedState;
use crate::feeds::message::{Fault, Message};
use crate::feeds::session::{Session, Verdict};

/// Longest time between two looks at the silence of the broker.
const TICK_MAX: Duration = Duration::from_millis(500);

/// What happens to a message that cannot be published.
#[derive(Clone)]
pub enum SetAside {
    /// It is acknowledged; the log has its cause.
    Log,
    /// It is rejected: the policy of its queue applies.
    Reject,
    /// It is published to an exchange.
    Publish(Arc<DeadLetters>),
}

/// A session.
pub struct RabbitSession {
    /// The connection is closed after the channel.
    channel: Channel,
    consumer: Consumer,
    link: BrokerLink,
    broker: Arc<Broker>,
    queue: String,
    state: Arc<FeedState>,
    set_aside: SetAside,
    ledger: Ledger,
    /// Bytes of the messages that are not settled.
    held: usize,
    rejected: Vec<u64>,
    /// Silence that ends the session.
    silence_max: Duration,
    tick: Interval,
    /// Whether the next flush also acknowledges tags behind an open one.
    flush_all: bool,
    is_first: bool,
}

/// A delivery that is not settled.
pub struct Origin {
    tag: u64,
    /// Memory of the message, in bytes.
    cost: usize,
    properties: BasicProperties,
}

/// Parts of a session that the feed keeps.
#[derive(Clone)]
pub struct SessionOptions {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Name of the queue.
    pub queue: String,
    /// Maximum bytes of messages that are not settled.
    pub bytes_max: usize,
    /// Where the feed logs.
    pub state: Arc<FeedState>,
    /// What happens to messages that cannot be published.
    pub set_aside: SetAside,
}

impl RabbitSession {
    /// A session that consumes.
    pub fn new(
        options: SessionOptions,
        link: BrokerLink,
        channel: Channel,
        consumer: Consumer,
    ) -> RabbitSession {
        let SessionOptions { broker, queue, bytes_max, state, set_aside } = options;
        link.wire.gate.set_limit(bytes_max);
        // The broker may have asked for a shorter interval, and never switches heartbeats off.
        let seconds = link.connection.configuration().heartbeat().max(1);
        let interval_of_heartbeats = Duration::from_secs(seconds.into());
        let period = (interval_of_heartbeats / 8).min(TICK_MAX);
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        RabbitSession {
            channel,
            consumer,
            link,
            broker,
            queue,
            state,
            set_aside,
            ledger: Ledger::default(),
            held: 0,
            rejected: Vec::new(),
            // Noticed within two intervals, whenever the tick comes.
            silence_max: 2 * interval_of_heartbeats - period,
            tick,
            flush_all: false,
            is_first: true,
        }
    }

    fn received(&mut self, delivery: Delivery) -> Result<(Origin, Message), Fault> {
        let mut delivery = delivery;
        if std::mem::take(&mut self.is_first) && headers::is_of_stream(&delivery) {
            return Err(faults::stream(&self.broker.url, &self.queue));
        }
        if delivery.redelivered {
            self.state.counters.redelivered.add(1);
        }
        let message = headers::message(&mut delivery);
        let Delivery { delivery_tag: tag, properties, .. } = delivery;
        let cost = message.cost();
        self.held += cost;
        self.link.wire.gate.set_held(self.held);
        Ok((Origin { tag, cost, properties }, message))
    }

    /// Looks whether the broker is there.
    fn check(&self) -> Result<(), Fault> {
        let silence = self.link.wire.silence();
        if silence >= self.silence_max {
            // lapin may wait for the broker longer than this.
            self.link.wire.hang_up();
            return Err(faults::silent(&self.broker.url, silence));
        }
        if !self.link.connection.status().connected() || !self.channel.status().connected() {
            return Err(faults::lost(&self.broker.url));
        }
        Ok(())
    }
}

impl Session for RabbitSession {
    type Origin = Origin;

    fn stop_receiving(&mut self) {
        let tag = self.consumer.tag();
        // The first poll queues the frame.
        let _ = self.channel.basic_cancel(tag, BasicCancelOptions::default()).now_or_never();
    }

    async fn next(&mut self) -> Result<(Origin, Message), Fault> {
        loop {
            tokio::select! {
                biased;
                delivery = self.consumer.next() => return match delivery {
                    Some(Ok(delivery)) => self.received(delivery),
                    Some(Err(error)) => {
                        let step = Step::Receive(self.queue.clone());
                        Err(faults::of(&self.broker.url, &step, &error))
                    }
                    None => Err(faults::cancelled(&self.broker.url, &self.queue)),
                },
                // Everything that was read has been seen, because the consumer has no more.
                () = self.link.wire.gate.closed() => {
                    if self.link.wire.gate.note_seen() {
                        self.state.counters.pauses.add(1);
                    }
                }
                _ = self.tick.tick() => {
                    self.check()?;
                    self.link.wire.gate.let_sip();
                    self.flush_all = true;
                    self.flush()?;
                }
            }
        }
    }

    fn settle(&mut self, origin: &Origin, verdict: Verdict) {
        self.held = self.held.saturating_sub(origin.cost);
        match verdict {
            Verdict::Acknowledge => self.ledger.settle(origin.tag),
            Verdict::Reject => {
                self.ledger.reject(origin.tag);
                self.rejected.push(origin.tag);
            }
        }
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.link.wire.gate.set_held(self.held);
        let all = std::mem::take(&mut self.flush_all);
        let failed =
            |error| faults::of(&self.broker.url, &Step::Receive(self.queue.clone()), &error);
        for one in self.ledger.take(all) {
            let options = BasicAckOptions { multiple: one.multiple };
            // The first poll queues the frame. What becomes of it shows in the consumer.
            if let Some(sent) = self.channel.basic_ack(one.tag, options).now_or_never() {
                sent.map_err(failed)?;
            }
        }
        for tag in self.rejected.drain(..) {
            let options = BasicRejectOptions { requeue: false };
            if let Some(sent) = self.channel.basic_reject(tag, options).now_or_never() {
                sent.map_err(failed)?;
            }
        }
        Ok(())
    }

    fn set_aside(
        &self,
        origin: &Origin,
        message: &Message,
        cause: &str,
    ) -> impl Future<Output = Verdict> + Send + 'static {
        let set_aside = self.set_aside.clone();
        let letter = matches!(set_aside, SetAside::Publish(_)).then(|| DeadLetter {
            routing_key: message.routing_key.clone(),
            properties: headers::dead_letter(&origin.properties, message, &self.state.name, cause),
            body: message.body.clone(),
        });
        async move {
            match (set_aside, letter) {
                (SetAside::Reject, _) => Verdict::Reject,
                (SetAside::Publish(letters), Some(letter)) => {
                    letters.publish(&letter).await;
                    Verdict::Acknowledge
                }
                _ => Verdict::Acknowledge,
            }
        }
    }

    async fn close(self) {
        let RabbitSession { channel, consumer, link, .. } = self;
        link.close().await;
        drop((consumer, channel));
    }
}
