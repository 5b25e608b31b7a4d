//! The bare consumer: a process that takes messages with lapin, acknowledges them and does nothing
//! else.
//!
//! Owns both ends, the child and the handle of its owner. Never publishes. Invariant: the child
//! consumes as the feed does, with the same prefetch and one acknowledgement for all messages that
//! were ready.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use crate::account::ProcessSample;
use crate::clock::RunClock;
use crate::latency::Recorder;
use crate::subprocess::{QUIT, Subprocess, answer, ready};
use crate::wire::Stamp;

/// The command that starts the child.
const NAME: &str = "bare-consumer";
/// Messages between two acknowledgements at most, as in the feed.
const BATCH: usize = 256;
/// Time without a message after which the missing ones count as lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the child is started.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// URL of the broker.
    #[arg(long)]
    url: String,
    /// Name of the queue, and of the exchange that it is bound to.
    #[arg(long)]
    queue: String,
    /// Type of the queue.
    #[arg(long)]
    queue_type: String,
    /// Messages without an acknowledgement at most.
    #[arg(long)]
    prefetch: u16,
    /// Start of the run, in ns of the monotonic clock.
    #[arg(long)]
    origin: u64,
}

/// What the child received in a phase.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Received {
    delivered: u64,
    /// Time of the last message, in ns since the start of the run.
    last_ns: u64,
    /// Time and latency of each message, in ns.
    latencies: Vec<(u64, u64)>,
}

/// The child, as its owner holds it.
pub(super) struct Bare(Subprocess);

impl Bare {
    /// Starts a consumer of this queue and waits until it consumes.
    pub(super) fn start(
        (url, queue, queue_type): (&str, &str, &str),
        prefetch: u16,
        clock: &RunClock,
    ) -> Result<Self> {
        let origin = monotonic_ns().saturating_sub(clock.now_ns());
        let options = [
            ("--url", url.to_owned()),
            ("--queue", queue.to_owned()),
            ("--queue-type", queue_type.to_owned()),
            ("--prefetch", prefetch.to_string()),
            ("--origin", origin.to_string()),
        ];
        let pairs = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        Ok(Bare(Subprocess::start(NAME, &pairs.collect::<Vec<_>>())?))
    }

    /// Its processor time and memory so far.
    pub(super) fn sample(&self) -> Result<ProcessSample> {
        self.0.sample()
    }

    /// Begins a phase: only messages of this phase count.
    pub(super) fn begin(&mut self, phase: u16) -> Result<()> {
        self.0.order(&format!("begin {phase}"))?;
        self.0.answer().map(drop)
    }

    /// Waits for `expected` messages of the phase. Returns their latencies, and the time of the
    /// last one in ns since the start of the run.
    pub(super) fn finish(&mut self, expected: u64, clock: &RunClock) -> Result<(Recorder, u64)> {
        self.0.order(&format!("await {expected}"))?;
        let line = self.0.answer()?;
        let received: Received = serde_json::from_str(&line).context("the bare consumer")?;
        let mut recorder = Recorder::new(clock.started())?;
        recorder.expect(expected);
        for (at_ns, latency_ns) in received.latencies.into_iter().take(expected as usize) {
            recorder.record(at_ns, latency_ns)?;
        }
        recorder.deliveries.duplicates = received.delivered.saturating_sub(expected);
        Ok((recorder, received.last_ns))
    }

    /// Ends the child.
    pub(super) fn stop(self) -> Result<()> {
        self.0.stop()
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Runs the child: reads orders from standard input, answers on standard output.
pub fn serve(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (sender, orders) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            // The consumer has ended if nobody takes the order.
            let Ok(line) = line else { return };
            let _ = sender.send(line);
        }
    });
    runtime.context("cannot make a runtime")?.block_on(consume(arguments, orders))
}

/// The phase that the child counts.
struct Phase {
    number: u16,
    origin: u64,
    received: Received,
}

impl Phase {
    fn note(&mut self, delivery: &Delivery) {
        let stamp = Stamp::find(&delivery.data);
        let Some(stamp) = stamp.filter(|stamp| stamp.phase == self.number) else { return };
        let now_ns = monotonic_ns().saturating_sub(self.origin);
        self.received.delivered += 1;
        self.received.last_ns = now_ns;
        self.received.latencies.push((now_ns, now_ns.saturating_sub(stamp.due_ns)));
    }
}

async fn consume(arguments: &Arguments, mut orders: UnboundedReceiver<String>) -> Result<()> {
    let connected = Connection::connect(&arguments.url, ConnectionProperties::default()).await;
    let connection = connected.context("cannot connect to the broker")?;
    let channel = connection.create_channel().await.context("cannot open a channel")?;
    let mut consumer = open(arguments, &channel).await.context("cannot consume the queue")?;
    let (origin, received) = (arguments.origin, Received::default());
    let mut phase = Phase { number: 0, origin, received };
    ready()?;
    loop {
        tokio::select! {
            order = orders.recv() => {
                let order = order.context("the owner has ended")?;
                match order.split_once(' ').unwrap_or((&order, "")) {
                    ("begin", number) => {
                        phase.number = number.parse().context("begin needs a phase")?;
                        phase.received = Received::default();
                        answer("begun")?;
                    }
                    ("await", count) => {
                        let count = count.parse().context("await needs a number")?;
                        take_until(count, &channel, &mut consumer, &mut phase).await?;
                        answer(&serde_json::to_string(&phase.received)?)?;
                    }
                    (QUIT, "") => return connection.close(200, "OK".into()).await.context("close"),
                    _ => bail!("`{order}` is no order"),
                }
            }
            taken = take(&channel, &mut consumer, &mut phase) => taken?,
        }
    }
}

/// Takes messages until `count` of the phase are here, or until none comes for [`PATIENCE`].
async fn take_until(
    count: u64,
    channel: &Channel,
    consumer: &mut Consumer,
    phase: &mut Phase,
) -> Result<()> {
    while phase.received.delivered < count {
        match timeout(PATIENCE, take(channel, consumer, phase)).await {
            Ok(taken) => taken?,
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Takes the messages that are ready, at least one, and acknowledges all of them at once. Dropping
/// the future loses no message.
async fn take(channel: &Channel, consumer: &mut Consumer, phase: &mut Phase) -> Result<()> {
    let mut next = consumer.next().await;
    let mut taken = 0;
    let last = loop {
        let delivery = next.context("the broker cancelled the consumer")?;
        let delivery = delivery.context("cannot receive from the broker")?;
        phase.note(&delivery);
        taken += 1;
        let more = if taken < BATCH { consumer.next().now_or_never() } else { None };
        match more {
            Some(more) => next = more,
            None => break delivery.delivery_tag,
        }
    };
    let all = BasicAckOptions { multiple: true };
    // The first poll queues the frame.
    let sent = channel.basic_ack(last, all).now_or_never();
    sent.unwrap_or(Ok(())).context("cannot acknowledge")
}

async fn open(arguments: &Arguments, channel: &Channel) -> lapin::Result<Consumer> {
    let name = ShortString::from(arguments.queue.as_str());
    let fields = FieldTable::default;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.clone(), ExchangeKind::Fanout, durable, fields()).await?;
    let mut kind = fields();
    let queue_type = AMQPValue::LongString(arguments.queue_type.as_bytes().into());
    kind.insert("x-queue-type".into(), queue_type);
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.clone(), durable, kind).await?;
    let (queue, exchange, key) = (name.clone(), name.clone(), ShortString::default());
    channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), fields()).await?;
    channel.basic_qos(arguments.prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    channel.basic_consume(name, ShortString::default(), options, fields()).await
}
