//! The generator: publishes the prices of the market to RabbitMQ, with publisher confirms.
//!
//! Owns the connection to the broker. The invariants: at most [`IN_FLIGHT`] prices wait for their
//! confirmation; prices that could not be sent in time are left out, because old prices are worth
//! nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use lapin::{ExchangeKind, PublisherConfirm};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::clock;
use crate::counters::Published;
use crate::market::{Market, SYMBOLS, Update};

/// The exchange, which `drumline.toml` binds the queue to.
const EXCHANGE: &str = "stocks";
/// Time between two groups of updates.
const TICK: Duration = Duration::from_millis(5);
/// Maximum number of prices without a confirmation.
const IN_FLIGHT: usize = 1000;
/// Pause before another connect.
const PAUSE: Duration = Duration::from_secs(1);

/// Publishes as long as the process lives; connects again after an error.
pub async fn run(broker: &str, mut market: Market, rate: f64, published: Arc<Published>) {
    loop {
        let Err(error) = session(broker, &mut market, rate, &published).await;
        eprintln!("prices are not published: {error:#}; connecting again");
        sleep(PAUSE).await;
    }
}

/// Publishes until the connection fails.
async fn session(
    broker: &str,
    market: &mut Market,
    rate: f64,
    published: &Published,
) -> Result<Infallible> {
    let properties = ConnectionProperties::default().with_connection_name("stock ticker".into());
    let connection = Connection::connect(broker, properties).await;
    // The URL may have a password.
    let address = broker.rsplit('@').next().unwrap_or_default();
    let connection =
        connection.with_context(|| format!("cannot connect to RabbitMQ at {address}"))?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, FieldTable::default())
        .await
        .with_context(|| format!("cannot declare the exchange {EXCHANGE}"))?;
    let (confirms, unconfirmed) = mpsc::channel(IN_FLIGHT);
    tokio::select! {
        ended = publish(&channel, market, rate, &confirms) => ended,
        ended = count(unconfirmed, published) => ended,
    }
}

/// Publishes `rate` prices per second.
async fn publish(
    channel: &Channel,
    market: &mut Market,
    rate: f64,
    confirms: &mpsc::Sender<PublisherConfirm>,
) -> Result<Infallible> {
    let properties: Vec<BasicProperties> = (0..SYMBOLS.len()).map(properties).collect();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut began, mut sent) = (Instant::now(), 0.0);
    loop {
        ticks.tick().await;
        let due = began.elapsed().as_secs_f64() * rate;
        if due - sent > rate {
            // A second behind, because the broker or this process stood still.
            (began, sent) = (Instant::now(), 0.0);
            continue;
        }
        while sent + 1.0 <= due {
            let update = market.next_update();
            let confirm = send(channel, &update, properties[update.symbol].clone()).await?;
            confirms.send(confirm).await.context("the confirmations ended")?;
            sent += 1.0;
        }
    }
}

async fn send(
    channel: &Channel,
    update: &Update,
    properties: BasicProperties,
) -> Result<PublisherConfirm> {
    let key = format!("price.{}", SYMBOLS[update.symbol].name);
    let data = update.data(clock::unix_micros());
    let options = BasicPublishOptions::default();
    let sent = channel
        .basic_publish(EXCHANGE.into(), key.as_str().into(), options, data.as_bytes(), properties)
        .await;
    sent.context("the broker does not take a price")
}

/// The properties of the prices of a symbol: the header names the channels that Drumline publishes
/// to. The prices are not persistent, because a price from before a restart is worth nothing.
fn properties(symbol: usize) -> BasicProperties {
    let name = SYMBOLS[symbol].name;
    let channels = format!("live:{name},last:{name}");
    let mut headers = FieldTable::default();
    headers.insert("centrifugo-channels".into(), AMQPValue::LongString(channels.into()));
    BasicProperties::default().with_headers(headers).with_content_type("application/json".into())
}

/// Counts the confirmations in their order.
async fn count(
    mut unconfirmed: mpsc::Receiver<PublisherConfirm>,
    published: &Published,
) -> Result<Infallible> {
    while let Some(confirm) = unconfirmed.recv().await {
        let confirmed = confirm.await.context("the broker does not confirm a price")?;
        let counter = match confirmed {
            Confirmation::Ack(_) => &published.confirmed,
            _ => &published.refused,
        };
        counter.fetch_add(1, Relaxed);
    }
    bail!("the publisher ended")
}
